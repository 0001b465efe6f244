"""What every TrainingEngine does. The dry run and the local engine (with a trainer without torch) run here, the real
trainer in tests/real with the same class."""

from __future__ import annotations

import asyncio
import dataclasses
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from claasbot import adapter_files
from claasbot.domain.conversation import Message
from claasbot.domain.job import (
    JobExperience,
    Recipe,
    TrainingJob,
    TrainingResult,
    job_identity,
    lesson_seed,
    result_from_json,
    result_to_json,
)
from claasbot.engines.dry_run import DryRunEngine
from claasbot.errors import AdapterDamaged, EngineDown, JobRefused
from claasbot.inference.scripted import encode, render, toy_logprobs
from claasbot.ports import TrainingEngine
from tests.contracts.other_loop import EngineOnOtherLoop, OtherLoop
from tests.engines.fake_trainer import fake_local


class TrainingEngineContract:
    """Subclasses bring `engine` and say what an experience is made of."""

    base_revision = "b" * 64
    noise_nats = 0.0

    @pytest.fixture
    def engine(self) -> TrainingEngine:
        raise NotImplementedError

    def experience(self, number: int) -> JobExperience:
        """One that the base model sampled."""
        messages = (Message(role="user", content=f"Question {number}?"),)
        prompt_ids, token_ids = render(messages), (*encode(f"Answer {number}."), 2)
        return JobExperience(
            experience_id=number,
            messages=messages,
            teacher_messages=(Message(role="user", content=f"Question {number}? Shorter, please."),),
            prompt_ids=prompt_ids,
            token_ids=token_ids,
            logprobs=toy_logprobs("base", prompt_ids, token_ids),
            version_name="base",
        )

    def job(
        self, home: Path, *, n: int = 1, parent: TrainingJob | None = None, numbers: tuple[int, ...] = (1,)
    ) -> TrainingJob:
        recipe = Recipe(n_steps=2, rank=8, lora_alpha=16)
        name = f"p{zlib.crc32(str(home).encode())}.v{n}"  # the tests of one engine share its job folders
        job_id = job_identity(
            parent="base" if parent is None else parent.version_name,
            version_name=name,
            experience_ids=numbers,
            recipe=recipe,
        )
        experiences = tuple(self.experience(number) for number in numbers)
        return TrainingJob(
            job_id=job_id,
            version_name=name,
            folder=str(home / f"v{n}"),
            parent_folder=None if parent is None else parent.folder,
            base_revision=self.base_revision,
            template_options={},
            recipe=recipe,
            seed=lesson_seed(experiences, recipe),
            experiences=experiences,
            earlier=() if parent is None else parent.experiences,
        )

    async def test_a_job_makes_a_sealed_version(self, engine: TrainingEngine, tmp_path: Path) -> None:
        job = self.job(tmp_path)
        result = await engine.run(job)
        manifest = adapter_files.verify(Path(job.folder))
        assert manifest.version_name == result.version_name == job.version_name
        assert manifest.job_id == result.job_id == job.job_id
        assert manifest.weights_sha256 == result.weights_sha256
        assert manifest.parent == "base"
        assert manifest.base_revision == job.base_revision
        assert {adapter_files.WEIGHTS, adapter_files.ADAPTER_CONFIG, adapter_files.OPTIMIZER} <= manifest.files.keys()

    async def test_the_result_speaks_of_every_token(self, engine: TrainingEngine, tmp_path: Path) -> None:
        job = self.job(tmp_path, numbers=(1, 2))
        result = await engine.run(job)
        expected = [len(row.token_ids) for row in job.experiences]
        assert [len(values) for values in result.new_logprobs] == expected
        assert [len(values) for values in result.parent_logprobs] == expected
        assert [score.experience_id for score in result.learned] == [1, 2]
        assert result.finite
        assert result.delta_norm > 0
        assert 1 <= len(result.steps) <= job.recipe.n_steps
        assert result.new_logprobs != result.parent_logprobs

    async def test_the_parent_agrees_with_what_it_sampled(self, engine: TrainingEngine, tmp_path: Path) -> None:
        result = await engine.run(self.job(tmp_path))
        assert result.mismatch_nats is not None
        assert result.mismatch_nats <= self.noise_nats

    async def test_running_a_job_twice_makes_the_same_version(self, engine: TrainingEngine, tmp_path: Path) -> None:
        job = self.job(tmp_path)
        first = await engine.run(job)
        again = await engine.run(job)
        await engine.discard(job.job_id)
        third = await engine.run(job)
        assert facts(first) == facts(again) == facts(third)

    async def test_a_job_that_lost_its_version_makes_the_same_bytes(
        self, engine: TrainingEngine, tmp_path: Path
    ) -> None:
        job = self.job(tmp_path)
        first = await engine.run(job)
        adapter_files.remove(Path(job.folder))
        await engine.discard(job.job_id)
        assert (await engine.run(job)).weights_sha256 == first.weights_sha256

    async def test_a_child_version_starts_from_its_parent(self, engine: TrainingEngine, tmp_path: Path) -> None:
        parent = self.job(tmp_path, n=1)
        before = await engine.run(parent)
        child = self.job(tmp_path, n=2, parent=parent, numbers=(1,))
        after = await engine.run(child)
        assert adapter_files.verify(Path(child.folder)).parent == parent.version_name
        assert after.weights_sha256 != before.weights_sha256
        gaps = [abs(a - b) for a, b in zip(after.parent_logprobs[0], before.new_logprobs[0], strict=True)]
        assert sum(gaps) / len(gaps) <= self.noise_nats
        assert [score.experience_id for score in after.earlier] == [1]
        assert after.mismatch_nats is None  # the base sampled, not the parent

    async def test_a_result_survives_json(self, engine: TrainingEngine, tmp_path: Path) -> None:
        result = await engine.run(self.job(tmp_path))
        assert result_from_json(result_to_json(result)) == result

    async def test_a_job_without_experiences_is_refused(self, engine: TrainingEngine, tmp_path: Path) -> None:
        with pytest.raises(JobRefused):
            await engine.run(dataclasses.replace(self.job(tmp_path), experiences=()))

    async def test_logprobs_that_do_not_match_the_tokens_are_refused(
        self, engine: TrainingEngine, tmp_path: Path
    ) -> None:
        job = self.job(tmp_path)
        row = job.experiences[0]
        odd = (
            dataclasses.replace(row, logprobs=row.logprobs[:-1]),
            dataclasses.replace(row, token_ids=(), logprobs=()),
        )
        for experience in odd:
            with pytest.raises(JobRefused):
                await engine.run(dataclasses.replace(job, experiences=(experience,)))

    async def test_a_damaged_parent_is_refused(self, engine: TrainingEngine, tmp_path: Path) -> None:
        parent = self.job(tmp_path, n=1)
        await engine.run(parent)
        with (Path(parent.folder) / adapter_files.WEIGHTS).open("ab") as file:
            file.write(b"!")
        with pytest.raises(JobRefused):
            await engine.run(self.job(tmp_path, n=2, parent=parent))

    async def test_a_version_of_another_job_is_never_overwritten(self, engine: TrainingEngine, tmp_path: Path) -> None:
        job = self.job(tmp_path, numbers=(1,))
        await engine.run(job)
        before = adapter_files.verify(Path(job.folder))
        with pytest.raises(JobRefused):
            await engine.run(self.job(tmp_path, numbers=(1, 2)))
        assert adapter_files.verify(Path(job.folder)) == before

    async def test_what_a_crash_left_of_the_same_job_with_other_bytes_is_said_to_be_in_the_way(
        self, engine: TrainingEngine, tmp_path: Path
    ) -> None:
        """The log changed between two attempts (an undo): the job's id is the same, what it makes is not."""
        job = self.job(tmp_path)
        await engine.run(job)
        await engine.discard(job.job_id)
        before = adapter_files.verify(Path(job.folder))
        changed = dataclasses.replace(job, seed=job.seed + 1)
        with pytest.raises(AdapterDamaged):
            await engine.run(changed)
        assert adapter_files.verify(Path(job.folder)) == before
        await engine.discard(job.job_id)
        adapter_files.remove(Path(job.folder))
        assert (await engine.run(changed)).weights_sha256 != before.weights_sha256

    async def test_after_a_refusal_the_next_job_runs(self, engine: TrainingEngine, tmp_path: Path) -> None:
        with pytest.raises(JobRefused):
            await engine.run(dataclasses.replace(self.job(tmp_path), experiences=()))
        assert (await engine.run(self.job(tmp_path))).finite

    async def test_discarding_is_fine_at_any_time(self, engine: TrainingEngine, tmp_path: Path) -> None:
        job = self.job(tmp_path)
        await engine.discard(job.job_id)
        await engine.run(job)
        await engine.discard(job.job_id)
        await engine.discard(job.job_id)

    async def test_a_cancelled_job_can_be_run_again(self, engine: TrainingEngine, tmp_path: Path) -> None:
        """Cancelled at any moment of its beginning, also while its job is being written."""
        job = self.job(tmp_path)
        for n_turns in range(6):
            running = asyncio.create_task(engine.run(job))
            for _ in range(n_turns):
                await asyncio.sleep(0)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert (await engine.run(job)).version_name == job.version_name

    async def test_it_is_ready_until_it_is_closed(self, engine: TrainingEngine, tmp_path: Path) -> None:
        await engine.run(self.job(tmp_path))
        assert engine.is_ready()


def facts(result: TrainingResult) -> dict[str, object]:
    """All of a result but the seconds it took."""
    return {**{name: getattr(result, name) for name in TrainingResult.__slots__}, "seconds": None}


class TestDryRun(TrainingEngineContract):
    @pytest.fixture
    async def engine(self) -> AsyncIterator[DryRunEngine]:  # type: ignore[override]
        engine = DryRunEngine(toy_logprobs)
        yield engine
        await engine.close()
        assert not engine.is_ready()

    async def test_its_faults_are_the_real_ones(self, tmp_path: Path) -> None:
        engine, job = DryRunEngine(toy_logprobs), self.job(tmp_path)
        engine.faults.n_deaths = 1
        with pytest.raises(EngineDown):
            await engine.run(job)
        engine.faults.is_finite = False
        result = await engine.run(job)
        assert not result.finite
        assert result_from_json(result_to_json(result)) == result, "what is not finite can be reported too"
        engine.faults.refusal = "the template moved"
        with pytest.raises(JobRefused, match="the template moved"):
            await engine.run(job)


@pytest.fixture(scope="module")
def local_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineOnOtherLoop]:
    with OtherLoop() as loop:
        engine = fake_local(tmp_path_factory.mktemp("engine"))
        loop.wait(engine.start())
        yield EngineOnOtherLoop(engine, loop)
        loop.wait(engine.close())
        assert not engine.is_ready()


class TestLocalWithAFakeTrainer(TrainingEngineContract):
    @pytest.fixture
    def engine(self, local_engine: EngineOnOtherLoop) -> TrainingEngine:
        return local_engine
