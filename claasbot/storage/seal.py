"""Whether a database file is still what claasbot wrote. `claasbot.db.sha256` seals a file that was closed.

SQLite's own checks see broken pages and rows, not a changed letter in a text; the seal sees every bit. After a crash
there is none, and SQLite's checks must do; the pages of an encrypted file carry an HMAC besides.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from sqlite_utils import Database

from claasbot import adapter_files
from claasbot.errors import StoreError
from claasbot.own_command import own_command

log = logging.getLogger(__name__)

_CHECK_S = 10.0
_STEPS = 100_000
"""Steps of SQLite's machine between two looks at the clock."""


def seal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def close(path: Path) -> None:
    """Seal a database that nobody has open."""
    try:
        adapter_files.write_aside(seal_of(path), adapter_files.sha256_of(path))
    except OSError as error:
        log.warning("the database is closed without a seal, and checked at the next start: %s", error)


def check_and_break(path: Path, db: Database) -> None:
    """Look whether the file is whole, and break the seal before anything is written. Raises StoreError."""
    seal = seal_of(path)
    if not seal.exists():
        _look(path, db)
        return
    if adapter_files.sha256_of(path) != seal.read_text().strip():
        raise StoreError(
            f"{path} is not as claasbot left it: its disk is failing, or another program wrote to it. Restore a backup "
            f"with `{own_command('restore --aside')}`; if you changed the file yourself, delete {seal.name}"
        )
    remove(path)


def remove(path: Path) -> None:
    """On the disk before the first write: a seal that comes back after power loss would call a good file damaged."""
    seal_of(path).unlink(missing_ok=True)
    adapter_files.fsync(path.parent)


def _look(path: Path, db: Database) -> None:
    """SQLite's own check, for as long as a start may take; what is not looked at is noticed when it is read."""
    until = time.monotonic() + _CHECK_S
    db.conn.set_progress_handler(lambda: int(time.monotonic() > until), _STEPS)
    try:
        [verdict] = db.conn.execute("PRAGMA quick_check(1)").fetchone()
        n_dangling = len(db.conn.execute("PRAGMA foreign_key_check").fetchall())
    except Exception as error:
        if getattr(error, "sqlite_errorname", "") != "SQLITE_INTERRUPT":
            raise
        log.warning("%s is too large to be checked whole in %.0f s", path.name, _CHECK_S)
        return
    finally:
        db.conn.set_progress_handler(None, 0)
    if verdict != "ok" or n_dangling:
        raise StoreError(
            f"{path} is damaged ({verdict}, {n_dangling} dangling rows); run `{own_command('restore --aside')}`"
        )
