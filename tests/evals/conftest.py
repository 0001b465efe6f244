"""Fixtures of the cycle without hardware."""

from tests.services.world import settings, store, world

__all__ = ["settings", "store", "world"]
