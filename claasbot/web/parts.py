"""What the web needs from the rest of claasbot, as one value: made in `app.py`, or by a test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from claasbot.services.backing_up import Contents
from claasbot.services.clock import Clock
from claasbot.services.comparing import Compared
from claasbot.services.health import Status
from claasbot.storage.accounts import Stranger
from claasbot.storage.store import Store
from claasbot.web.playground import Playground

Webhook = Callable[[Mapping[str, Any], str | None], Awaitable[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebParts:
    """The callables are the services' own methods: the web asks, it does not decide."""

    store: Store
    clock: Clock
    playground: Playground
    """Who signs in by browser."""
    console: Playground
    """Who comes over the Unix socket."""
    status: Callable[[], Awaitable[Status]]
    compare: Callable[[int, str], Awaitable[tuple[Compared, Compared]]]
    """(person id, question) → (before, now)."""
    export: Callable[[int], Awaitable[str]]
    """All that is stored about a person, as JSON text."""
    undo: Callable[[int], Awaitable[str]]
    """Takes back a person's last lesson; returns the name of the version that answers now."""
    set_paused: Callable[[bool], Awaitable[None]]
    train_now: Callable[[], Awaitable[None]]
    """Start what waits without debounce or cooldown."""
    let_in: Callable[[str, str], Awaitable[tuple[Stranger, bool]]]
    """(code, who let them in) → the stranger, and whether they could be told."""
    requeue: Callable[[int, int], Awaitable[None]]
    """(person id, experience id): parked feedback waits for a lesson again."""
    backup: Callable[[Path], Awaitable[Contents]]
    """Copies database and versions into a new folder."""
    session_hours: float
    webhooks: Mapping[str, Webhook] = field(default_factory=dict)
    """Telegram's updates by bot account: (update, secret) → whether it was taken."""
    host_names: tuple[str, ...] = ()
    """Names besides localhost and IP addresses under which a browser may reach us."""


PARTS = web.AppKey("parts", WebParts)
