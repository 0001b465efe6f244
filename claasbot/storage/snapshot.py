"""A consistent copy of the database while it is in use, and the look that says whether a copy is whole."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from sqlite_utils import Database

from claasbot.errors import StoreError
from claasbot.storage.connecting import ERRORS, connect, explain, trouble_of
from claasbot.storage.rows import rows


def copy_to(db: Database, path: Path, key: str) -> list[str]:
    """Copy everything that is committed; returns the version folders that the copy needs, relative to the data folder.

    Runs on the writer thread: nothing changes meanwhile. `key` is that of `db`. Raises StoreError for want of room.
    """
    try:
        with closing(connect(path, key)) as copy:
            db.conn.backup(copy)
            copy.execute("PRAGMA journal_mode=TRUNCATE")
    except ERRORS as error:
        if trouble_of(error) in ("full", "disk"):  # of the copy: the database itself is none the worse
            raise StoreError(explain(error, path)) from error
        raise
    found = rows(
        db, "SELECT folder FROM adapter_version WHERE state IN ('candidate', 'promoted', 'retired') ORDER BY id"
    )
    return [str(row["folder"]) for row in found]


def check(path: Path, key: str = "") -> None:
    """Raises StoreError for a database that is damaged, or does not open with this key."""
    try:
        with closing(connect(path, key, is_read_only=True)) as copy:
            [verdict] = copy.execute("PRAGMA integrity_check").fetchone()
            broken = copy.execute("PRAGMA foreign_key_check").fetchall()
    except ERRORS as error:
        raise StoreError(f"{path} is no database of claasbot ({error}); use another backup") from error
    if verdict != "ok" or broken:
        raise StoreError(f"{path} is damaged ({verdict}, {len(broken)} dangling rows); use another backup")
