"""Backups that are made by themselves while the bot runs, and end after a while.

Each is whole by itself. The files of a version are copied once: the next backup links to those of the one before.
Refuses to delete what it did not make: only folders named by their time, like 20261120T120000Z, expire.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from claasbot import adapter_files
from claasbot.errors import BadInput, ClaasbotError
from claasbot.services.backing_up import Contents, backup, read_contents
from claasbot.services.clock import Clock
from claasbot.services.stage import keep_doing
from claasbot.storage.rows import time_of
from claasbot.storage.store import Store

log = logging.getLogger(__name__)

_NAME = re.compile(r"\d{8}T\d{6}Z")
_LOOK_S = 3600.0
_AFTER_FAILURE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRules:
    folder: Path = Path("backups")
    """A relative path is in the data folder."""
    every: timedelta = timedelta()
    """Zero: none by itself; old ones still expire."""
    keep: int = 7
    days: int = 30
    """How long a backup may hold people's words. At most 30: who is forgotten is told when the last one goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One whole backup."""

    folder: Path
    contents: Contents

    @property
    def made_at(self) -> datetime:
        return time_of(self.contents.made_at)


def name_at(now: datetime) -> str:
    return f"{now:%Y%m%dT%H%M%SZ}"


def kept_in(folder: Path) -> list[Kept]:
    """Every whole backup there, the newest first."""
    if not folder.is_dir():
        return []
    found = []
    for path in folder.iterdir():
        if _NAME.fullmatch(path.name):
            try:
                found.append(Kept(folder=path, contents=read_contents(path)))
            except BadInput as error:
                log.warning("%s", error)
    return sorted(found, key=lambda one: one.folder.name, reverse=True)


class Snapshots:
    """The stage that makes and removes them."""

    def __init__(self, store: Store, data: Path, rules: BackupRules, clock: Clock) -> None:
        self._store = store
        self._data = data
        self._rules = rules
        self.folder = data / rules.folder
        self._clock = clock
        self._since = clock()
        self.trouble = ""
        """Why the last one was not made; empty while all is well."""

    async def run(self) -> None:
        """Until cancelled."""
        await keep_doing("backups", self.step, asyncio.Event())

    async def step(self) -> float:
        """Make one if it is due, remove what is over; returns the seconds until it wants to look again."""
        kept = await asyncio.to_thread(kept_in, self.folder)
        now = self._clock()
        wait_s = _LOOK_S
        if self._rules.every:
            last = kept[0].made_at if kept else self._since
            wait_s = (last + self._rules.every - now).total_seconds()
            if wait_s <= 0:
                wait_s = await self._try(now)
        await asyncio.to_thread(self._expire)
        return min(_LOOK_S, wait_s)

    async def _try(self, now: datetime) -> float:
        try:
            await self.make(now)
        except (ClaasbotError, OSError) as error:
            log.error("no backup was made: %s", error)
            self.trouble = f"no backup was made ({error}); free space or mend backup.folder"
            return min(_AFTER_FAILURE_S, self._rules.every.total_seconds())
        self.trouble = ""
        return self._rules.every.total_seconds()

    async def make(self, now: datetime) -> Path:
        """One more. Raises what `backup` raises, and OSError."""
        await asyncio.to_thread(_prepare, self.folder)
        earlier = await asyncio.to_thread(kept_in, self.folder)
        to = self.folder / name_at(now)
        before = earlier[0].folder if earlier else None
        contents = await backup(self._store, self._data, to, self._clock, before=before)
        log.info("backup %s: the database and %d versions", to.name, len(contents.folders))
        return to

    def _expire(self) -> None:
        """The oldest beyond `keep`, and whatever is older than `days`."""
        kept = kept_in(self.folder)
        oldest = self._clock() - timedelta(days=self._rules.days)
        for n, one in enumerate(kept):
            if n >= self._rules.keep or one.made_at < oldest:
                adapter_files.remove(one.folder)
                log.info("backup %s is over and removed", one.folder.name)


def _prepare(folder: Path) -> None:
    """Private, and without what a crash left half made."""
    if not folder.is_dir():
        folder.mkdir(parents=True, mode=0o700)
    for left in folder.glob(".*Z.*"):
        shutil.rmtree(left)
