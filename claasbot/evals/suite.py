"""Suites: a hidden preference, the questions it is taught on, and the questions that are never rated."""

from __future__ import annotations

import json
from dataclasses import dataclass

from claasbot.errors import NotFound
from claasbot.resources import suites_dir


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    name: str
    preference: str
    neutral: str
    scorer: str
    training: tuple[str, ...]
    held_out: tuple[str, ...]


def load(name: str) -> Suite:
    """Raises NotFound naming the suites that exist."""
    path = suites_dir() / f"{name}.json"
    if not path.is_file():
        there = sorted(entry.stem for entry in suites_dir().glob("*.json"))
        raise NotFound(f"there is no suite {name!r}; there are {there!r}")
    facts = json.loads(path.read_text())
    return Suite(
        name=facts["name"],
        preference=facts["preference"],
        neutral=facts["neutral"],
        scorer=facts["scorer"],
        training=tuple(facts["training"]),
        held_out=tuple(facts["held_out"]),
    )
