"""Adapter versions: immutable states of one person's adapter, and how their state may change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from claasbot.errors import ImpossibleTransition

VersionState = Literal["candidate", "promoted", "retired", "rejected", "quarantined"]

TRANSITIONS: dict[VersionState, frozenset[VersionState]] = {
    "candidate": frozenset({"promoted", "rejected", "quarantined"}),
    "promoted": frozenset({"retired", "quarantined"}),
    # An undo or a rollback makes an earlier version the current one again.
    "retired": frozenset({"promoted", "quarantined"}),
    "rejected": frozenset({"quarantined"}),
    "quarantined": frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterVersion:
    version_id: int
    person_id: int
    n: int
    parent_id: int | None
    job_id: str
    state: VersionState
    folder: str
    """Relative to the data folder, so that the folder can be moved."""
    weights_sha256: str

    @property
    def name(self) -> str:
        return version_name(self.person_id, self.n)

    @property
    def server_name(self) -> str:
        """What the server calls it. A fresh database never meets a stale name on a living server."""
        return f"{self.name}-{self.weights_sha256[:8]}"


def version_name(person_id: int, n: int) -> str:
    return f"p{person_id}.v{n}"


def moved(old: VersionState, new: VersionState) -> VersionState:
    """`new`, if the table allows it. Raises ImpossibleTransition."""
    if new not in TRANSITIONS[old]:
        raise ImpossibleTransition(f"an adapter version cannot go from {old!r} to {new!r}")
    return new
