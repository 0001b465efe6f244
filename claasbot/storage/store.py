"""The one connection and its one thread: whole units of work go in, values come out.

A unit is a plain function of the database; it commits as one transaction or leaves no trace.
Refuses a second thread, nested units and anything that waits inside a unit.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from sqlite_utils import Database

from claasbot.errors import StoreError
from claasbot.storage.schema import migrations

P = ParamSpec("P")
R = TypeVar("R")
Unit = Callable[Concatenate[Database, P], R]


class Store:
    """`await store.run(unit, …)` runs `unit(db, …)` in a transaction on the writer thread."""

    def __init__(self, path: Path | None, *, lock_wait_ms: int = 5_000) -> None:
        """`path` None keeps everything in memory (tests). `lock_wait_ms`: patience with another program's lock."""
        self._path = path
        self._lock_wait_ms = lock_wait_ms
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._db: Database | None = None
        self.stages = Stages()

    async def open(self) -> None:
        """Connect and migrate. Raises StoreError for a corrupt database or one from a newer claasbot."""
        self._db = await asyncio.get_running_loop().run_in_executor(
            self._thread, _connect, self._path, self._lock_wait_ms
        )

    async def run(self, unit: Unit[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """One transaction. Raises StoreError when the database is locked, full or damaged."""
        if self._db is None:
            raise StoreError("the store is not open; call open() first")
        db = self._db

        def work() -> R:
            try:
                with db.atomic():
                    return unit(db, *args, **kwargs)
            except sqlite3.IntegrityError:
                raise
            except sqlite3.Error as error:
                raise StoreError(_explain(error, self._path)) from error

        # A unit that has started must finish and be seen to finish, also when its caller is cancelled.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work))

    async def close(self) -> None:
        if self._db is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
            self._db = None
        self._thread.shutdown(wait=True)


class Stages:
    """One event per hand-off: a commit sets the next stage's; every stage also looks by itself."""

    def __init__(self) -> None:
        self.inbox = asyncio.Event()
        self.experience = asyncio.Event()
        self.candidate = asyncio.Event()
        self.outbox = asyncio.Event()


def _connect(path: Path | None, lock_wait_ms: int) -> Database:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    try:
        connection = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=True)
        connection.row_factory = None
        # TRUNCATE: WAL has a reset race up to SQLite 3.51.2, and DELETE may bring a journal back after power loss.
        for pragma in (
            f"busy_timeout={lock_wait_ms}",
            "journal_mode=TRUNCATE",
            "synchronous=FULL",
            "secure_delete=ON",
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")
        db = Database(connection)
        _refuse_newer(db, path)
        migrations.apply(db)
    except sqlite3.Error as error:
        raise StoreError(_explain(error, path)) from error
    return db


def _refuse_newer(db: Database, path: Path | None) -> None:
    known = {migration.name for migration in migrations.pending(Database(memory=True))}
    newer = [row.name for row in migrations.applied(db) if row.name not in known]
    if newer:
        raise StoreError(
            f"{path} holds {newer[0]!r}, which this claasbot does not know; install the newer version again"
        )


def _explain(error: sqlite3.Error, path: Path | None) -> str:
    code = getattr(error, "sqlite_errorname", "") or ""
    if "BUSY" in code or "LOCKED" in code:
        return f"{path} is locked by another program; close it and try again"
    if "FULL" in code:
        return f"the disk is full: nothing was written to {path}; free space and try again"
    if "CORRUPT" in code or "NOTADB" in code:
        return f"{path} is damaged ({error}); move it aside and restore a backup"
    return f"{path}: {error}"
