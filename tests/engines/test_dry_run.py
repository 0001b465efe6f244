"""The dry run does to a job that is discarded what the local engine does."""

import asyncio
from pathlib import Path

import pytest

from claasbot.engines.dry_run import DryRunEngine
from claasbot.errors import EngineDown
from claasbot.inference.scripted import toy_logprobs
from tests.contracts.test_training_engine import TrainingEngineContract


async def test_a_job_that_is_discarded_while_it_runs_makes_no_version(tmp_path: Path) -> None:
    engine, job, hold = DryRunEngine(toy_logprobs), TrainingEngineContract().job(tmp_path), asyncio.Event()
    engine.faults.before_step = hold.wait
    running = asyncio.create_task(engine.run(job))
    await asyncio.sleep(0)
    await engine.discard(job.job_id)
    hold.set()
    with pytest.raises(EngineDown, match="discarded"):
        await running
    assert not (tmp_path / "v1").exists()
    assert (await engine.run(job)).job_id == job.job_id


async def test_all_but_the_open_jobs_can_be_discarded(tmp_path: Path) -> None:
    engine = DryRunEngine(toy_logprobs)
    jobs = [TrainingEngineContract().job(tmp_path, n=n) for n in (1, 2)]
    for job in jobs:
        await engine.run(job)
    await engine.discard_all_but([jobs[1].job_id])
    assert engine.seen.discarded == [jobs[0].job_id]
