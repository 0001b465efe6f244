"""Who did what to the bot or to other people's versions. Never holds what people said."""

from __future__ import annotations

from datetime import datetime

from sqlite_utils import Database

from claasbot.storage.rows import Row, insert, rows, text_of


def add(db: Database, who: str, did: str, now: datetime) -> None:
    insert(db, "audit", at=text_of(now), who=who, did=did)


def latest(db: Database, limit: int = 200) -> list[Row]:
    return rows(db, "SELECT at, who, did FROM audit ORDER BY id DESC LIMIT ?", limit)
