"""Rows as mappings, and times as text. Refuses to know any table."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlite_utils import Database

from claasbot.errors import NotFound

Row = Mapping[str, Any]

LARGEST_ID = 2**63 - 1
"""Every row comes before it."""


def rows(db: Database, sql: str, *params: object) -> list[Row]:
    cursor = db.conn.execute(sql, params)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]


def one(db: Database, sql: str, *params: object) -> Row | None:
    found = rows(db, sql, *params)
    return found[0] if found else None


def the(db: Database, what: str, sql: str, *params: object) -> Row:
    """The one row. Raises NotFound naming `what`."""
    row = one(db, sql, *params)
    if row is None:
        raise NotFound(f"there is no {what}")
    return row


def insert(db: Database, table: str, **values: object) -> int:
    """Insert one row and return its id. Table and column names come from code, never from input."""
    names = ", ".join(values)
    marks = ", ".join("?" * len(values))
    cursor = db.conn.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))  # noqa: S608
    return int(cursor.lastrowid or 0)


def change(db: Database, sql: str, *params: object) -> int:
    """Run an UPDATE or DELETE; returns how many rows it touched."""
    return db.conn.execute(sql, params).rowcount


def text_of(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text)
