"""The dry run does to a job that is discarded what the local engine does."""

import asyncio
from dataclasses import replace
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


async def test_who_sampled_an_answer_does_not_change_what_it_teaches(tmp_path: Path) -> None:
    """As in a real step; the words of its prompt do."""
    engine, contract = DryRunEngine(toy_logprobs), TrainingEngineContract()
    job = contract.job(tmp_path)
    [row] = job.experiences
    same = replace(job, folder=str(tmp_path / "v2"), experiences=(replace(row, version_name="p1.v7"),))
    other = replace(job, folder=str(tmp_path / "v3"), experiences=(replace(row, teacher_messages=row.messages),))
    hashes = [(await engine.run(one)).weights_sha256 for one in (job, same, other)]
    assert hashes[0] == hashes[1] != hashes[2]
