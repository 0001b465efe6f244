"""What a copy is told before it takes the place of the database: what happened since it was made is not in it.

Numbers that stand elsewhere, in folders, job names and buttons, are not given out a second time, and no door that was
shut since opens again. Refuses to bring back what the copy does not hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path

from sqlite_utils import Database

from claasbot.errors import StoreError
from claasbot.storage.connecting import ERRORS, connect, explain
from claasbot.storage.rows import change, insert, one, rows, text_of

_IN_BUTTONS_AND_JOBS = ("adapter_version", "comparison", "completion", "experience")
"""Whose ids a chat or the name of a job still holds. They go on from the seconds since 1970: however often one backup
is put back, each life has numbers of its own, as long as it makes less than one row a second."""


def prepare(copy: Path, key: str, given_out: Mapping[int, int], now: datetime) -> None:
    """`given_out`: the last version number of each person that is known from anywhere else. Raises StoreError."""
    try:
        with closing(connect(copy, key)) as connection:
            db = Database(connection)
            with db.atomic():
                _go_on_from(db, given_out, now)
                _shut(db, now)
    except ERRORS as error:
        raise StoreError(explain(error, copy, key)) from error


def given_out_by(database: Path, key: str, adapters: Path) -> dict[int, int]:
    """Last version numbers by person: of the version folders that are there, and of the database that is to go, where
    it can still be read.
    """
    last: dict[int, int] = {}
    for folder in adapters.glob("p*/v*"):
        if found := re.fullmatch(r"p(\d+)/v(\d+)", folder.relative_to(adapters).as_posix()):
            person_id, n = int(found[1]), int(found[2])
            last[person_id] = max(n, last.get(person_id, 0))
    with suppress(StoreError, *ERRORS), closing(connect(database, key, is_read_only=True)) as connection:
        for row in rows(Database(connection), "SELECT id, next_version_n FROM person"):
            last[row["id"]] = max(row["next_version_n"] - 1, last.get(row["id"], 0))
    return last


def _go_on_from(db: Database, given_out: Mapping[int, int], now: datetime) -> None:
    for person_id, n in given_out.items():
        sql = "UPDATE person SET next_version_n = max(next_version_n, ?) WHERE id = ?"
        change(db, sql, n + 1, person_id)
    _number_after(db, "person", max(given_out, default=0))
    for table in _IN_BUTTONS_AND_JOBS:
        _number_after(db, table, int(now.timestamp()))


def _number_after(db: Database, table: str, last: int) -> None:
    if not _has(db, table):
        return
    if one(db, "SELECT 1 FROM sqlite_sequence WHERE name = ?", table) is None:
        insert(db, "sqlite_sequence", name=table, seq=last)
    else:
        change(db, "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", last, table)


def _shut(db: Database, now: datetime) -> None:
    """Sessions and keys that were ended since would be good again, and nothing here says which."""
    change(db, "DELETE FROM admin_session")
    change(db, "DELETE FROM sign_in_token")
    if _has(db, "api_key"):
        change(db, "UPDATE api_key SET revoked_at = ? WHERE revoked_at IS NULL", text_of(now))


def _has(db: Database, table: str) -> bool:
    return one(db, "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", table) is not None
