"""Two people who are one: every row of one goes to the other, and the adapter that is left over is erased."""

from __future__ import annotations

from datetime import datetime

from sqlite_utils import Database

from claasbot.storage import erasure, lessons
from claasbot.storage.rows import change, rows, text_of

_FOLLOW = ("account", "consent", "conversation", "completion", "feedback_event", "experience", "outbox", "comparison")

_LEFT_BEHIND = "it was learned under the other account"
"""What people are told of it; the column `is_left_behind` says it."""


def join(db: Database, winner: int, loser: int, now: datetime) -> int:
    """One transaction with the request to erase what is left; returns how many lessons went with the adapter."""
    n_parked = 0
    for row in rows(db, "SELECT id, state FROM experience WHERE person_id = ?", loser):
        if row["state"] == "leased":
            lessons.move(db, row["id"], "queued", "", now)
        elif row["state"] == "consumed":
            _park(db, row["id"], now)
            n_parked += 1
        else:
            change(db, "UPDATE experience SET consumed_by = NULL WHERE id = ?", row["id"])
    # The versions go: what they answered keeps their names only.
    change(db, "UPDATE completion SET version_id = NULL WHERE person_id = ?", loser)
    for table in _FOLLOW:
        change(db, f"UPDATE {table} SET person_id = ? WHERE person_id = ?", winner, loser)  # noqa: S608
    erasure.ask(db, loser, f"adapters/p{loser}", now, joined_into=winner)
    return n_parked


def _park(db: Database, experience_id: int, now: datetime) -> None:
    """The one way back from `consumed`, so past the table: the version that learned it is erased with this commit.

    It is in no ancestry any more, so that learning it again is learning it once (promise 2).
    """
    change(
        db,
        "UPDATE experience SET state = 'quarantined', reason = ?, is_left_behind = 1, consumed_by = NULL,"
        " changed_at = ? WHERE id = ?",
        _LEFT_BEHIND,
        text_of(now),
        experience_id,
    )


def learn_again(db: Database, person_id: int, now: datetime) -> int:
    """Queue what went with the other adapter; returns how many."""
    found = rows(
        db,
        "SELECT id FROM experience WHERE person_id = ? AND state = 'quarantined' AND is_left_behind",
        person_id,
    )
    for row in found:
        lessons.move(db, row["id"], "queued", "", now)
    return len(found)
