"""The one connection and its one thread: whole units of work go in, values come out.

A unit is a plain function of the database; it commits as one transaction or leaves no trace. While another program
holds a lock it is tried again and again, and others get their turn in between: what only reads goes on.
Refuses a second thread, nested units, anything that waits inside a unit, and to go on with a database that is damaged.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from sqlite_utils import Database

from claasbot.errors import StoreError
from claasbot.storage import encryption, seal, snapshot
from claasbot.storage.connecting import ERRORS, INTEGRITY, connect, explain, trouble_of
from claasbot.storage.schema import migrations

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
Unit = Callable[Concatenate[Database, P], R]

_LONGEST_PAUSE_S = 0.2


class _Busy(Exception):
    """Another program has a lock: nothing happened, and the unit may be tried again."""


class Store:
    """`await store.run(unit, …)` runs `unit(db, …)` in a transaction on the writer thread."""

    def __init__(self, path: Path | None, *, key: str = "", lock_wait_ms: int = 4_000) -> None:
        """`path` None keeps everything in memory (tests). `key`: 64 hex digits, or empty for a file that is not
        encrypted. `lock_wait_ms`: patience with another program's lock.
        """
        self.path = path
        self._key = key
        self._lock_wait_s = lock_wait_ms / 1_000
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._db: Database | None = None
        self._is_suspect = False
        self._is_damaged = False
        self.trouble = ""
        """Why nothing can be saved, in a line for the host; empty while all is well."""
        self.stages = Stages()
        self.on_unit: Callable[[float], None] = lambda seconds: None
        """Told of each unit how long it took; on the writer thread."""

    async def open(self) -> None:
        """Connect, look whether it is whole, migrate. Raises StoreError for a corrupt database or one from a newer
        claasbot.
        """
        self._db = await asyncio.get_running_loop().run_in_executor(self._thread, self._open)

    async def run(self, unit: Unit[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """One transaction. Raises StoreError when the database is locked, full or damaged."""
        if self._db is None:
            raise StoreError("the store is not open; call open() first")
        until, pause_s = time.monotonic() + self._lock_wait_s, 0.01
        while True:
            try:
                # A unit that has started must finish and be seen to finish, also when its caller is cancelled.
                return await asyncio.shield(
                    asyncio.get_running_loop().run_in_executor(self._thread, self._work, unit, args, kwargs)
                )
            except _Busy as busy:
                left_s = until - time.monotonic()
                if left_s <= 0:
                    self.trouble = str(busy)
                    raise StoreError(self.trouble) from busy.__cause__
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)

    async def copy_to(self, path: Path) -> list[str]:
        """A consistent copy, encrypted as this one is; returns the version folders that it needs."""
        return await self.run(snapshot.copy_to, path, self._key)

    async def close(self) -> None:
        if self._db is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
            self._db = None
        self._thread.shutdown(wait=True)

    # On the writer thread.

    def _work(self, unit: Callable[..., R], args: tuple[object, ...], kwargs: dict[str, object]) -> R:
        if self._is_damaged:
            raise StoreError(self.trouble)
        try:
            db = self._trusted()
            n_changes, began = db.conn.total_changes, time.perf_counter()
            with db.atomic():
                value = unit(db, *args, **kwargs)
            self.on_unit(time.perf_counter() - began)
            if self.trouble and (db.conn.total_changes > n_changes or self._takes_writes(db)):
                self.trouble = ""
            return value
        except INTEGRITY:
            raise
        except ERRORS as error:
            self._note(error)
            raise StoreError(self.trouble) from error

    def _note(self, error: Exception) -> None:
        """What the error means for the units after this one. Raises _Busy for a unit that may be tried again, and the
        error itself where neither lock, disk nor file is to blame: the unit is, and trying again would never end.
        """
        trouble, line = trouble_of(error), explain(error, self.path, self._key)
        if trouble == "busy":
            raise _Busy(line) from error
        if trouble == "other":
            raise error
        self._is_damaged = trouble == "damaged"
        # What a failed write or fsync left in the connection's cache is not what the disk has.
        self._is_suspect = True
        if line != self.trouble:
            log.error("store: %s", line)
        self.trouble = line

    def _takes_writes(self, db: Database) -> bool:
        """Asked by a write that changes nothing, so that the light of an idle bot turns green again too."""
        try:
            db.conn.execute("PRAGMA user_version = 0")
        except ERRORS as error:
            self._is_suspect = trouble_of(error) != "busy"
            return False
        return True

    def _trusted(self) -> Database:
        """The connection; a new one, which reads the disk, after one has failed."""
        assert self._db is not None
        if self._is_suspect and self.path is not None:
            self._db.close()
            self._db = Database(_connection(self.path, self._key))
        self._is_suspect = False
        return self._db

    def _open(self) -> Database:
        path = self.path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            encryption.wipe_leftovers(path)
        try:
            connection = _connection(path, self._key, self._lock_wait_s)
            try:
                return _made_ready(Database(connection), path)
            except BaseException:
                connection.close()
                raise
        except ERRORS as error:
            raise StoreError(explain(error, path, self._key)) from error

    def _close(self) -> None:
        assert self._db is not None
        self._db.close()
        if self.path is not None and not self.trouble:
            seal.close(self.path)


class Stages:
    """One event per hand-off: a commit sets the next stage's; every stage also looks by itself."""

    def __init__(self) -> None:
        self.inbox = asyncio.Event()
        self.experience = asyncio.Event()
        self.candidate = asyncio.Event()
        self.revocation = asyncio.Event()
        self.outbox = asyncio.Event()


def _connection(path: Path | None, key: str, wait_s: float = 0.0) -> sqlite3.Connection:
    connection = connect(path, key)
    connection.row_factory = None
    # TRUNCATE: WAL has a reset race up to SQLite 3.51.2, and DELETE may bring a journal back after power loss.
    for pragma in (
        f"busy_timeout={int(wait_s * 1_000)}",
        "journal_mode=TRUNCATE",
        "synchronous=FULL",
        "secure_delete=ON",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _made_ready(db: Database, path: Path | None) -> Database:
    if path is not None:
        seal.check_and_break(path, db)
    _refuse_newer(db, path)
    migrations.apply(db)
    db.execute("PRAGMA busy_timeout=0")
    return db


def _refuse_newer(db: Database, path: Path | None) -> None:
    known = {migration.name for migration in migrations.pending(Database(memory=True))}
    newer = [row.name for row in migrations.applied(db) if row.name not in known]
    if newer:
        raise StoreError(
            f"{path} holds {newer[0]!r}, which this claasbot does not know; install the newer version again"
        )
