"""Settings that admins change while claasbot runs, such as whether it learns."""

from __future__ import annotations

from datetime import datetime

from sqlite_utils import Database

from claasbot.storage.rows import change, one, text_of

LEARNING = "learning"
"""`on` or `paused`."""


def switch(db: Database, name: str) -> str | None:
    """A setting that admins change while claasbot runs, such as `learning`."""
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
