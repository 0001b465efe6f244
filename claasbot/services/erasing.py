"""Consent withdrawn, everything exported, everybody forgotten. Erasure removes the influence too: the weights go."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

from claasbot import adapter_files
from claasbot.errors import ClaasbotError, ServerError
from claasbot.ports import TrainingEngine
from claasbot.services.clock import Clock
from claasbot.services.serving import Serving
from claasbot.storage import erasure, people, versions
from claasbot.storage.erasure import Erasure
from claasbot.storage.store import Store

log = logging.getLogger(__name__)

_INBOX_LASTS = timedelta(days=30)
"""Platforms repeat an update for a day at most."""

_WORDS = {
    "turn": ("message", "messages"),
    "completion": ("answer", "answers"),
    "conversation": ("conversation", "conversations"),
    "feedback_event": ("piece of feedback", "pieces of feedback"),
    "job": ("lesson", "lessons"),
    "adapter_version": ("adapter version", "adapter versions"),
    "weights": ("weight file", "weight files"),
    "comparison": ("comparison", "comparisons"),
    "account": ("account", "accounts"),
}
"""What the receipt calls the rows of a table, one and many. Tables that are not here hold nothing that people know."""


class Erasing:
    """The way out, for people and for what was learned from them."""

    def __init__(
        self,
        store: Store,
        serving: Serving,
        engine: TrainingEngine,
        data: Path,
        clock: Clock,
        restart_server: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._serving = serving
        self._engine = engine
        self._data = data
        self._clock = clock
        self._restart_server = restart_server
        self._one_at_a_time = asyncio.Lock()

    async def forget(self, person_id: int) -> dict[str, int]:
        """Delete everything of a person; returns the receipt: what went, in people's words, and how many of each.

        Order: block the person, end their jobs, wait for running answers, unload, drop the worker's copies, delete the
        folder (a server dies if a folder vanishes that it may still read), then the rows.
        """
        await self._store.run(people.person, person_id)
        asked = await self._store.run(erasure.ask, person_id, f"adapters/p{person_id}", self._clock())
        return await self._finish(asked.erasure_id)

    async def resume(self) -> None:
        """Finish what a crash interrupted, or what waited for a restart of the server; each by itself."""
        await self._store.run(erasure.prune_inbox, self._clock() - _INBOX_LASTS)
        for erasure_id in await self._store.run(erasure.unfinished):
            if self._one_at_a_time.locked():
                return  # the person who asked is waiting for this one already
            try:
                await self._finish(erasure_id)
            except ClaasbotError as error:
                log.warning("erasure %d goes on later: %s", erasure_id, error)
            except Exception:  # rows that nobody foresaw, or the disk: somebody else waits behind this one
                log.exception("erasure %d failed and is tried again", erasure_id)

    async def _finish(self, erasure_id: int) -> dict[str, int]:
        async with self._one_at_a_time:
            asked = await self._end_influence(erasure_id)
            if asked is None:
                return {}
            folder = self._data / asked.folder
            n_weights = await asyncio.to_thread(_n_weights, folder)
            await asyncio.to_thread(adapter_files.remove, folder)
            counts = await self._store.run(erasure.finish, asked, self._clock())
            return _receipt(counts, n_weights)

    async def _end_influence(self, erasure_id: int) -> Erasure | None:
        """Return when no engine works for the person and no server holds a copy: until a look finds nothing new."""
        done = None
        while (found := await self._store.run(erasure.collect, erasure_id)) != done:
            if found is None:
                return None
            for job_id in found.job_ids:
                await self._engine.discard(job_id)
            if found.server_names:
                await self._leave_server(found)
            done = found
        return done

    async def _leave_server(self, asked: Erasure) -> None:
        """Return when no copy is left in the worker. Raises when that needs a restart that we cannot make."""
        if asked.restart_witness is None:
            if await self._serving.forget(asked.server_names):
                return
        else:
            await self._serving.let_go(asked.server_names)
            if not await self._serving.lists(asked.restart_witness):
                return
        try:
            await self._restart_server()
        except ServerError:
            if not (await self._serving.info()).forgets_adapters:  # else it was busy, and is asked again
                leaving = await self._store.run(versions.of_person, asked.person_id)
                witness = await self._serving.leave_witness(leaving)
                await self._store.run(erasure.leave_witness, asked.erasure_id, witness)
            raise

    async def export(self, person_id: int) -> str:
        """All that is stored about a person, as JSON."""
        found = await self._store.run(erasure.export, person_id)
        return json.dumps({"person": f"p{person_id}", "rows": found}, indent=1, ensure_ascii=False)


def _receipt(counts: dict[str, int], n_weights: int) -> dict[str, int]:
    n_messages = max(0, counts["turn"] - counts["completion"])  # an answer is a turn too
    found = {**counts, "turn": n_messages, "weights": n_weights}
    return {words[found[table] > 1]: found[table] for table, words in _WORDS.items() if found.get(table)}


def _n_weights(folder: Path) -> int:
    return len(list(folder.rglob(adapter_files.WEIGHTS))) if folder.exists() else 0
