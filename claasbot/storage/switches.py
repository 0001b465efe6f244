"""Facts about the whole bot, by name: what admins switch while it runs, and how far work that returns has come."""

from __future__ import annotations

from datetime import datetime

from sqlite_utils import Database

from claasbot.storage.rows import change, one, text_of

_LEARNING = "learning"


def switch(db: Database, name: str) -> str | None:
    row = one(db, "SELECT value FROM switch WHERE name = ?", name)
    return None if row is None else str(row["value"])


def set_switch(db: Database, name: str, value: str, now: datetime) -> None:
    change(
        db,
        "INSERT INTO switch (name, value, changed_at) VALUES (?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value, changed_at = excluded.changed_at",
        name,
        value,
        text_of(now),
    )


def is_paused(db: Database) -> bool:
    """Lessons, for everybody, by an admin."""
    return switch(db, _LEARNING) == "paused"


def set_paused(db: Database, paused: bool, now: datetime) -> None:
    set_switch(db, _LEARNING, "paused" if paused else "on", now)
