"""Lends the device to one job at a time, with a deadline. Wraps `engine.run(job)` and nothing else.

The mode is `beside`: the trainer keeps its own base model and serving goes on, time-sliced.
"""

from __future__ import annotations

import asyncio

from claasbot.domain.job import TrainingJob, TrainingResult
from claasbot.errors import EngineDown
from claasbot.ports import TrainingEngine


class Handover:
    """The device lock."""

    def __init__(self, engine: TrainingEngine, *, deadline_s: float) -> None:
        self._engine = engine
        self._deadline_s = deadline_s
        self._device = asyncio.Lock()

    @property
    def is_lent(self) -> bool:
        return self._device.locked()

    async def run(self, job: TrainingJob) -> TrainingResult:
        """The job's result. Raises EngineDown past the deadline: the job may be tried again."""
        async with self._device:
            try:
                async with asyncio.timeout(self._deadline_s):
                    return await self._engine.run(job)
            except TimeoutError as error:
                raise EngineDown(
                    f"job {job.job_id} took over {self._deadline_s:.0f} s (trainer.job_deadline_s); it is tried again"
                ) from error
