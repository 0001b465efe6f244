"""A consistent copy of the database while it is in use, and the look that says whether a copy is whole."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlite_utils import Database

from claasbot.errors import StoreError
from claasbot.storage.rows import rows


def copy_to(db: Database, path: Path) -> list[str]:
    """Copy everything that is committed; returns the version folders that the copy needs, relative to the data folder.

    Runs on the writer thread: nothing changes meanwhile.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as copy:
        db.conn.backup(copy)
        copy.execute("PRAGMA journal_mode=TRUNCATE")
    found = rows(
        db, "SELECT folder FROM adapter_version WHERE state IN ('candidate', 'promoted', 'retired') ORDER BY id"
    )
    return [str(row["folder"]) for row in found]


def check(path: Path) -> None:
    """Raises StoreError for a database that is damaged."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as copy:
            [verdict] = copy.execute("PRAGMA integrity_check").fetchone()
            broken = copy.execute("PRAGMA foreign_key_check").fetchall()
    except sqlite3.Error as error:
        raise StoreError(f"{path} is no database of claasbot ({error}); use another backup") from error
    if verdict != "ok" or broken:
        raise StoreError(f"{path} is damaged ({verdict}, {len(broken)} dangling rows); use another backup")
