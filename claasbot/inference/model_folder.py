"""What a client of the server must be told about the base model, because no server says it."""

from __future__ import annotations

from pathlib import Path

from claasbot.base_model import base_revision, template_hash
from claasbot.inference.vllm import BaseFacts


def base_facts(name: str, folder: Path) -> BaseFacts:
    """What the versions of this base model are bound to. Raises ModelMissing when a file is absent."""
    return BaseFacts(name=name, revision=base_revision(folder), template_hash=template_hash(folder))
