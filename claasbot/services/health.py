"""What the lights show: whether each part works and what waits. Values only; the cycle asks the parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlite_utils import Database

from claasbot.storage import inbox, lessons, outbox

LightState = Literal["ok", "busy", "down", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """One part: the server, the trainer, the store, a chat platform."""

    name: str
    state: LightState
    detail: str = ""
    """One line; for `down` it says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queues:
    """Rows that wait at the hand-offs."""

    inbox: int
    lessons: int
    """Experiences and jobs that are not settled."""
    outbox: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    lights: tuple[Light, ...]
    queues: Queues
    is_learning: bool
    """False while an admin has paused it, or the settings have it off."""
    version: str
    """Of claasbot itself."""


def store_light(trouble: str) -> Light:
    return Light(name="store", state="down" if trouble else "ok", detail=trouble or "flushed row by row")


def queues(db: Database) -> Queues:
    return Queues(inbox=inbox.n_waiting(db), lessons=lessons.n_open(db), outbox=outbox.n_waiting(db))
