"""Failures of the log → rows, so that an admin finds what a person was told; and what is due once a day.

Rows that are old go, and the head of the audit is written to the log: whoever keeps it can show later that no row of
the audit was replaced since.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import datetime, timedelta

from sqlite_utils import Database

from claasbot.errors import StoreError
from claasbot.logs import Failure, Failures
from claasbot.services.clock import Clock
from claasbot.services.stage import keep_doing
from claasbot.storage import audit, error_rows
from claasbot.storage.store import Store

log = logging.getLogger(__name__)

_LOOK_S = 60.0
_DAY = timedelta(days=1)


class KeepingErrors:
    def __init__(self, store: Store, failures: Failures, clock: Clock) -> None:
        self._store = store
        self._failures = failures
        self._clock = clock
        self._cleared_at: datetime | None = None
        self._waiting: list[Failure] = []
        """Taken, and not stored yet."""

    async def run(self) -> None:
        """Until cancelled."""
        news, loop = asyncio.Event(), asyncio.get_running_loop()

        def tell() -> None:
            loop.call_soon_threadsafe(news.set)

        self._failures.on_failure = tell
        try:
            await keep_doing("keeping errors", self.keep, news, after_failure_s=_LOOK_S)
        finally:
            self._failures.on_failure = lambda: None

    async def finish(self) -> None:
        """What came last. A store in trouble has it in the log only."""
        with suppress(StoreError):
            await self.keep()

    async def keep(self) -> float:
        """Raises StoreError, and forgets nothing."""
        self._waiting += self._failures.take()
        await self._store.run(_add, self._waiting)
        self._waiting = []
        now = self._clock()
        if self._cleared_at is None or not timedelta() <= now - self._cleared_at < _DAY:
            self._cleared_at = now
            chain = await self._store.run(_clear, now)
            log.info("audit: %d rows, head %s", chain.n_rows, chain.head)
            if chain.trouble:
                log.error("the audit was touched: %s", chain.trouble)
        return _LOOK_S


def _add(db: Database, failures: list[Failure]) -> None:
    for one in failures:
        error_rows.add(
            db, one.error_id, one.at, place=one.place, kind=one.kind, trace=one.trace, inbox_id=one.inbox_id,
            is_quoted=one.is_quoted,
        )  # fmt: skip


def _clear(db: Database, now: datetime) -> audit.Chain:
    error_rows.prune(db, now)
    audit.begin(db, now)
    return audit.verify(db)
