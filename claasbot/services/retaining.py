"""Once a day: what is older than the host wants to keep goes, from the store, from the disk and from the logs.

In small units, so that no answer waits for it. A pass that is broken off is done again from the start: what went stays
gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, timedelta

from sqlite_utils import Database

from claasbot.domain.retention import RetentionRules
from claasbot.services.clock import Clock
from claasbot.services.stage import keep_doing
from claasbot.storage import audit, retention, switches, versions
from claasbot.storage.retention import Ages, Unit
from claasbot.storage.rows import text_of, time_of
from claasbot.storage.store import Store

log = logging.getLogger(__name__)

FINISHED_AT = "retained"
"""The switch that says when a pass was finished."""
_EVERY = timedelta(days=1)
_LOOK_S = 600.0
_PAGE = 50
_PAUSE_S = 0.01
"""Between two units: whoever waits for the store comes first."""

DropLogs = Callable[[date, int], int]
"""(today, days to keep) → how many files went."""


class Retaining:
    def __init__(self, store: Store, rules: RetentionRules, clock: Clock, drop_logs: DropLogs) -> None:
        self._store = store
        self._rules = rules
        self._clock = clock
        self._drop_logs = drop_logs

    async def run(self) -> None:
        """Until cancelled."""
        await keep_doing("retaining", self.step, asyncio.Event())

    async def step(self) -> float:
        """A pass, if none was finished in the last 24 hours, or if one was in what is the future now."""
        last = await self._store.run(switches.switch, FINISHED_AT)
        now = self._clock()
        if last is None or not timedelta(0) <= now - time_of(last) < _EVERY:
            await self.once()
        return _LOOK_S

    async def once(self) -> dict[str, int]:
        """How much of what went."""
        now, counts = self._clock(), Counter[str]()
        ages = Ages(
            messages_before=_before(now, self._rules.messages_days),
            lessons_before=_before(now, self._rules.lessons_days),
            inbox_before=_before(now, self._rules.inbox_days),
            now=text_of(now),
        )
        for name, unit in retention.UNITS.items():
            counts[name] += await self._all_of(unit, ages)
        if self._rules.versions:
            for person_id in await self._store.run(versions.people_with_earlier):
                counts["versions"] += await self._store.run(versions.let_old_go, person_id, self._rules.versions)
                await asyncio.sleep(_PAUSE_S)
        if self._rules.log_days:
            counts["logs"] += await asyncio.to_thread(self._drop_logs, now.date(), self._rules.log_days)
        await self._store.run(self._write_down, +counts)
        return dict(+counts)

    async def _all_of(self, unit: Unit, ages: Ages) -> int:
        n_gone, key = 0, retention.FOR_EVER
        while True:
            n, after = await self._store.run(unit, ages, key, _PAGE)
            n_gone += n
            if after is None:
                return n_gone
            key = after
            await asyncio.sleep(_PAUSE_S)

    def _write_down(self, db: Database, counts: Counter[str]) -> None:
        """For the host, who may be asked what is kept; a day on which nothing was old leaves no row."""
        if counts:
            gone = ", ".join(f"{what} {n}" for what, n in sorted(counts.items()))
            audit.add(db, "claasbot", f"deleted what was old: {gone}", self._clock())
            log.info("retention: %s", gone)
        switches.set_switch(db, FINISHED_AT, text_of(self._clock()), self._clock())


def _before(now: datetime, days: int) -> str:
    return text_of(now - timedelta(days=days)) if days else retention.FOR_EVER
