"""Parts that live longer than one test: an event loop of their own, in a thread. Tests call in from whatever loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Coroutine
from typing import Any, TypeVar

from claasbot.domain.job import TrainingJob, TrainingResult
from claasbot.ports import TrainingEngine

Value = TypeVar("Value")


class OtherLoop:
    """A context manager: the loop runs inside the block."""

    def __enter__(self) -> OtherLoop:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="other loop", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wait(self, work: Coroutine[Any, Any, Value]) -> Value:
        """From a fixture that is not async."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def do(self, work: Coroutine[Any, Any, Value]) -> Value:
        """From a test's own loop; cancelling this cancels the work."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


class EngineOnOtherLoop:
    """A TrainingEngine that every test may use, whatever its loop."""

    def __init__(self, engine: TrainingEngine, loop: OtherLoop) -> None:
        self.engine = engine
        self._loop = loop

    async def run(self, job: TrainingJob) -> TrainingResult:
        return await self._loop.do(self.engine.run(job))

    def is_ready(self) -> bool:
        return self.engine.is_ready()

    async def discard(self, job_id: str) -> None:
        await self._loop.do(self.engine.discard(job_id))

    async def discard_all_but(self, job_ids: Collection[str]) -> None:
        await self._loop.do(self.engine.discard_all_but(job_ids))

    async def close(self) -> None:
        await self._loop.do(self.engine.close())
