"""A stage outlives whatever goes wrong in one step."""

import asyncio
import contextlib

from claasbot.errors import ServerDown
from claasbot.services.stage import keep_doing


async def test_a_step_that_fails_is_logged_and_the_next_one_runs(caplog):
    failures = iter([ServerDown("no answer"), OSError("disk"), None])
    done = asyncio.Event()

    async def step() -> float:
        if (failure := next(failures)) is not None:
            raise failure
        done.set()
        return 60.0

    running = asyncio.create_task(keep_doing("toy", step, asyncio.Event(), after_failure_s=0.0))
    async with asyncio.timeout(5):
        await done.wait()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert "toy: no answer" in caplog.text
