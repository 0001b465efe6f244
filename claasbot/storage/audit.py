"""Who did what to the bot or to other people's versions. Never holds what people said."""

from __future__ import annotations

from datetime import datetime

from sqlite_utils import Database

from claasbot.storage.rows import Row, insert, rows, text_of


def add(db: Database, who: str, did: str, now: datetime, *, whom: str = "") -> None:
    """`who` and `whom` are accounts (`telegram:7`): an erasure finds them there, and nowhere in `did`."""
    insert(db, "audit", at=text_of(now), who=who, did=did, whom=whom)


def latest(db: Database, limit: int = 200) -> list[Row]:
    return rows(db, "SELECT at, who, trim(did || ' ' || whom) AS did FROM audit ORDER BY id DESC LIMIT ?", limit)
