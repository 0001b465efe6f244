"""The local engine when the trainer misbehaves: every failure ends in time, and leaves nothing to stumble over."""

import asyncio
import dataclasses
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from claasbot import adapter_files, keeper
from claasbot.domain.job import TrainingJob
from claasbot.engines.local import LocalEngine, TrainerLimits, trainer_command
from claasbot.errors import EngineDown
from tests.contracts.test_training_engine import TrainingEngineContract
from tests.engines.fake_trainer import fake_local


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., LocalEngine]]:
    made: list[LocalEngine] = []

    def new(word: str = "", **options: Any) -> LocalEngine:
        made.append(fake_local(tmp_path, **options))
        says(tmp_path, word)
        return made[-1]

    yield new
    for engine in made:
        await engine.close()
    assert keeper.descendants(os.getpid()) == set()


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    return TrainingEngineContract().job(tmp_path / "adapters")


def says(home: Path, word: str) -> None:
    (home / "behaviour").write_text(word)


async def appears(path: Path) -> None:
    async with asyncio.timeout(30):
        while not path.exists():  # noqa: ASYNC110, ASYNC240 - another process sets no event of ours
            await asyncio.sleep(0.005)


async def next_beat(heartbeat: Path) -> None:
    before = heartbeat.stat().st_mtime_ns  # noqa: ASYNC240 - a file of this test
    while heartbeat.stat().st_mtime_ns == before:  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("die", "died during job"),
        ("out of memory", "out of memory"),
        ("garbage", "not readable"),
        ("damage", "damaged version"),
    ],
)
async def test_a_trainer_that_fails_is_engine_down_and_the_job_runs_again(
    make: Callable[..., LocalEngine], job: TrainingJob, tmp_path: Path, word: str, what: str
) -> None:
    engine = make(word)
    with pytest.raises(EngineDown, match=what):
        await engine.run(job)
    assert not (tmp_path / "jobs" / job.job_id).exists()
    says(tmp_path, "")

    result = await engine.run(job)

    assert adapter_files.verify(Path(job.folder)).weights_sha256 == result.weights_sha256


@pytest.mark.parametrize(
    ("word", "until", "what"),
    [
        ("hang", "claimed", "was silent for 20 s"),
        ("does not claim", "job.json", "was silent for 20 s"),
        ("compute for ever", "claimed", "took longer than 30 s"),
    ],
)
async def test_a_trainer_that_hangs_is_started_again_and_the_job_runs_again(
    make: Callable[..., LocalEngine], job: TrainingJob, tmp_path: Path, word: str, until: str, what: str
) -> None:
    now, n_looks = [0.0], [0]

    def clock() -> float:
        n_looks[0] += 1
        return now[0]

    engine = make(word, clock=clock, limits=TrainerLimits(poll_s=0.005, silence_s=20.0, deadline_s=30.0))
    running = asyncio.create_task(engine.run(job))
    await appears(tmp_path / "jobs" / job.job_id / until)
    for _ in range(4):
        if word == "compute for ever":
            await next_beat(tmp_path / "jobs" / job.job_id / "heartbeat")
        n_before = n_looks[0]
        while n_looks[0] < n_before + 2 and not running.done():  # noqa: ASYNC110 - the engine looks
            await asyncio.sleep(0.005)
        assert now[0] > 20.0 or not running.done()
        now[0] += 10.0
    with pytest.raises(EngineDown, match=what):
        await running
    says(tmp_path, "")

    assert (await engine.run(job)).job_id == job.job_id
    assert engine.child.generation == 2


async def test_a_job_that_kills_the_trainer_does_not_kill_the_next_one(
    make: Callable[..., LocalEngine], job: TrainingJob, tmp_path: Path
) -> None:
    engine = make("die")
    with pytest.raises(EngineDown):
        await engine.run(job)
    await engine.child.wait_ready(30)
    assert not (tmp_path / "jobs" / job.job_id).exists(), "the new trainer would find it"
    assert engine.child.generation == 2
    assert engine.is_ready()


async def test_a_trainer_that_cannot_start_says_why(make: Callable[..., LocalEngine], job: TrainingJob) -> None:
    engine = make("no model")
    with pytest.raises(EngineDown, match="the base model cannot be read"):
        await engine.run(job)
    assert not engine.is_ready()


async def test_the_job_is_for_our_account_only(
    make: Callable[..., LocalEngine], job: TrainingJob, tmp_path: Path
) -> None:
    engine = make("hang")
    running = asyncio.create_task(engine.run(job))
    folder = tmp_path / "jobs" / job.job_id
    await appears(folder / "claimed")
    assert (tmp_path / "jobs").stat().st_mode & 0o777 == 0o700
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "job.json").stat().st_mode & 0o777 == 0o600
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_cancelling_gives_the_device_back_at_once(
    make: Callable[..., LocalEngine], job: TrainingJob, tmp_path: Path
) -> None:
    engine = make("hang")
    running = asyncio.create_task(engine.run(job))
    await appears(tmp_path / "jobs" / job.job_id / "claimed")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not (tmp_path / "jobs" / job.job_id).exists()
    assert engine.child.state.phase == "restarting"
    says(tmp_path, "")
    assert (await engine.run(job)).job_id == job.job_id


async def test_a_discarded_job_ends(make: Callable[..., LocalEngine], job: TrainingJob, tmp_path: Path) -> None:
    engine = make("compute for ever")
    running = asyncio.create_task(engine.run(job))
    await appears(tmp_path / "jobs" / job.job_id / "claimed")
    await engine.discard(job.job_id)
    with pytest.raises(EngineDown, match="discarded"):
        await running


async def test_nothing_works_on_a_job_any_more_once_it_is_discarded(
    make: Callable[..., LocalEngine], job: TrainingJob, tmp_path: Path
) -> None:
    engine = make("hang")
    running = asyncio.create_task(engine.run(job))
    await appears(tmp_path / "jobs" / job.job_id / "claimed")
    pid = json.loads((tmp_path / "jobs" / job.job_id / "claimed").read_text())["pid"]
    await engine.discard(job.job_id)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    (tmp_path / "go").touch()
    with pytest.raises(EngineDown, match="discarded"):
        await running
    assert not (tmp_path / "jobs" / job.job_id).exists()
    await engine.child.wait_ready(30)
    assert not (tmp_path / "adapters" / "v1").exists()
    assert (await engine.run(job)).job_id == job.job_id


async def test_a_job_that_is_discarded_while_it_waits_for_the_trainer_is_never_written(
    make: Callable[..., LocalEngine], job: TrainingJob, tmp_path: Path
) -> None:
    engine = make()
    running = asyncio.create_task(engine.run(job))
    await asyncio.sleep(0)  # it starts the trainer
    await engine.discard(job.job_id)
    with pytest.raises(EngineDown, match="discarded"):
        await running
    assert not (tmp_path / "jobs" / job.job_id).exists()
    assert not (tmp_path / "adapters" / "v1").exists()


async def test_discarding_a_job_that_is_over_leaves_the_trainer_alone(
    make: Callable[..., LocalEngine], job: TrainingJob
) -> None:
    engine = make()
    await engine.run(job)
    await engine.discard(job.job_id)
    assert engine.is_ready()
    assert engine.child.generation == 1


async def test_results_whose_job_is_over_can_be_discarded_together(
    make: Callable[..., LocalEngine], job: TrainingJob, tmp_path: Path
) -> None:
    engine = make()
    other = TrainingEngineContract().job(tmp_path / "adapters", n=2)
    for done in (job, other):
        await engine.run(done)
    assert (tmp_path / "jobs" / job.job_id / "job.json").exists()
    await engine.discard_all_but([other.job_id])
    assert {path.name for path in (tmp_path / "jobs").iterdir() if path.is_dir()} == {other.job_id}
    assert engine.child.generation == 1


async def test_discarding_all_is_fine_before_there_is_any(make: Callable[..., LocalEngine]) -> None:
    await make().discard_all_but([])


async def test_a_result_from_before_a_crash_is_taken_and_not_made_again(
    make: Callable[..., LocalEngine], job: TrainingJob, tmp_path: Path
) -> None:
    first = make()
    result = await first.run(job)
    await first.close()
    again = make("hang")
    assert await again.run(job) == result


async def test_jobs_that_nobody_waits_for_are_gone_before_the_trainer_starts(
    make: Callable[..., LocalEngine], job: TrainingJob, tmp_path: Path
) -> None:
    leftover = tmp_path / "jobs" / "f00d"
    leftover.mkdir(parents=True)
    (leftover / "job.json").write_text("{}")
    engine = make()
    await engine.start()
    assert not leftover.exists()


async def test_a_job_that_was_half_deleted_is_gone_before_the_trainer_starts(
    make: Callable[..., LocalEngine], tmp_path: Path
) -> None:
    leftover = tmp_path / "jobs" / ".f00d.doomed"
    leftover.mkdir(parents=True)
    for name in ("job.json", "result.json"):
        (leftover / name).write_text("{}")
    engine = make()
    await engine.start()
    assert not leftover.exists()


async def test_a_version_of_another_result_is_not_taken(make: Callable[..., LocalEngine], job: TrainingJob) -> None:
    engine = make()
    await engine.run(job)
    other = dataclasses.replace(job, version_name="p1.v99")
    with pytest.raises(EngineDown, match="its version folder says"):
        await engine.run(other)


def test_the_command_is_a_module_of_ours_with_absolute_folders() -> None:
    words = trainer_command(jobs=Path("jobs"), model=Path("model"), threads=2, device="cpu")
    assert words[1:3] == ("-m", "claasbot.training")
    assert Path(words[words.index("--jobs") + 1]).is_absolute()
    assert words[words.index("--threads") + 1] == "2"
