"""Consent withdrawn, everything exported, everybody forgotten. Erasure removes the influence too: the weights go."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from claasbot import adapter_files
from claasbot.errors import ClaasbotError
from claasbot.ports import TrainingEngine
from claasbot.services.clock import Clock
from claasbot.services.serving import Serving
from claasbot.storage import erasure, people
from claasbot.storage.erasure import Erasure
from claasbot.storage.store import Store

log = logging.getLogger(__name__)


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
        """Delete everything of a person; returns the receipt: what went, and how many of each.

        Order: block the person, wait for running answers, unload, drop the worker's copy, delete the
        folder (a server dies if a folder vanishes that it may still read), then the rows.
        """
        await self._store.run(people.person, person_id)
        asked = await self._store.run(erasure.ask, person_id, f"adapters/p{person_id}", self._clock())
        return await self._finish(asked)

    async def resume(self) -> None:
        """Finish what a crash interrupted."""
        for asked in await self._store.run(erasure.unfinished):
            if self._one_at_a_time.locked():
                return  # the person who asked is waiting for this one already
            try:
                await self._finish(asked)
            except ClaasbotError as error:
                log.warning("erasure %d goes on later: %s", asked.erasure_id, error)

    async def _finish(self, asked: Erasure) -> dict[str, int]:
        async with self._one_at_a_time:
            return await self._erase(asked)

    async def _erase(self, asked: Erasure) -> dict[str, int]:
        if asked.server_names and not await self._serving.forget(asked.server_names):
            await self._restart_server()
        for job_id in asked.job_ids:
            await self._engine.discard(job_id)
        folder = self._data / asked.folder
        n_files = len(list(folder.rglob("*.safetensors"))) if folder.exists() else 0
        await asyncio.to_thread(adapter_files.remove, folder)
        counts = await self._store.run(erasure.delete_rows, asked.person_id)
        await self._store.run(erasure.done, asked.erasure_id, self._clock())
        return {**{table: n for table, n in counts.items() if n}, "weight files": n_files}

    async def export(self, person_id: int) -> str:
        """All that is stored about a person, as JSON."""
        facts = await self._store.run(erasure.export, person_id)
        return json.dumps({"person": f"p{person_id}", **facts}, indent=1, ensure_ascii=False)
