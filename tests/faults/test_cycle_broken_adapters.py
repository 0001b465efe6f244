"""R-15, S-13: what is no sound adapter is refused before anything loads it, and nobody is told that it was learned."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from claasbot import adapter_files, tensor_check
from claasbot.adapter_checksum import expected_checksum
from claasbot.domain.job import Recipe, TrainingJob, TrainingResult
from claasbot.engines.dry_run import DryRunEngine
from claasbot.errors import AdapterDamaged
from claasbot.inference.scripted import toy_logprobs
from claasbot.settings import Settings
from claasbot.storage import versions
from claasbot.storage.rows import change, rows
from claasbot.storage.store import Store
from tests.contracts.test_training_engine import TrainingEngineContract
from tests.faults.broken_adapters import ALL, IN_ITSELF, Break
from tests.faults.test_cycle_poison import HastyClock
from tests.services.world import World, running_world


class BreakingEngine(DryRunEngine):
    """Makes the version, then breaks it."""

    def __init__(self) -> None:
        super().__init__(toy_logprobs)
        self.breaks: Break | None = None

    async def run(self, job: TrainingJob) -> TrainingResult:
        result = await super().run(job)
        if self.breaks is not None:
            self.breaks(Path(job.folder))
        return result


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    job = replace(TrainingEngineContract().job(tmp_path_factory.mktemp("whole")), recipe=Recipe())
    asyncio.run(DryRunEngine(toy_logprobs).run(job))
    return Path(job.folder)


def test_a_whole_version_passes(whole: Path) -> None:
    adapter_files.verify(whole)
    tensor_check.check(whole)
    expected_checksum(whole, "bfloat16")


@pytest.mark.parametrize("name", IN_ITSELF)
def test_what_is_no_adapter_is_refused_in_one_line_that_names_the_file(whole: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "v1"))
    IN_ITSELF[name](folder)
    with pytest.raises(AdapterDamaged) as refused:
        tensor_check.check(folder)
    line = str(refused.value)
    assert line.isprintable()
    assert len(line) < 500
    assert "roll back" in line


async def ask_and_teach(world: World, clock: HastyClock) -> str:
    """What becomes of feedback on an answer: the mark it gets in the end."""
    reply = await world.chat.say("ada", "What is hail?")
    await world.chat.command("ada", "feedback", "In verse.", str(reply.completion_id))
    return await world.chat.wait_mark(str(reply.completion_id), "learned", "refused")


@pytest.mark.parametrize("name", ALL)
async def test_a_broken_candidate_never_answers_and_nobody_is_told_that_it_was_learned(
    tmp_path: Path, store: Store, totals: Counter[str], name: str
) -> None:
    engine, clock = BreakingEngine(), HastyClock()
    settings = Settings(learning={"debounce_s": 0.0})
    async with running_world(tmp_path, settings, store, engine=engine, clock=clock) as world:
        assert await world.taught() == "p1.v1"
        loads = list(world.server.seen.loads)
        engine.breaks = ALL[name]
        assert await ask_and_teach(world, clock) == "refused"
        assert (await world.chat.say("ada", "And now?")).version_name == "p1.v1"
        assert world.server.seen.loads == loads, "the server never read it"
        assert [version.n for version in await world.store.run(versions.of_person, 1)] == [1]
        told = [notice.text for notice in world.chat.said_to("ada", "notice") if "Learned" in notice.text]
        assert len(told) == 1
        parked = await world.store.run(rows, "SELECT state, reason FROM experience ORDER BY id")
        assert parked[1]["state"] == "quarantined"
        assert "given up after 3 attempts" in parked[1]["reason"]
        engine.breaks = None
        await world.cycle.steering.requeue(1, 2, "console:host")
        await world.cycle.settled()
        found = Counter(row["state"] for row in await world.store.run(rows, "SELECT state FROM experience"))
        totals.update({"rows in": 2, "consumed": found["consumed"], "lost": 2 - found.total()})
        assert found == {"consumed": 2}, "once the trainer works again, it is learned"


@pytest.mark.parametrize("name", IN_ITSELF)
async def test_a_version_that_was_broken_since_is_not_loaded_and_the_base_answers_marked_so(
    tmp_path: Path, store: Store, name: str
) -> None:
    """Also when whoever broke it rewrote the manifest and the row: as after a restore of somebody else's files."""
    settings = Settings(learning={"debounce_s": 0.0})
    async with running_world(tmp_path, settings, store) as world:
        assert await world.taught() == "p1.v1"
        loads = list(world.server.seen.loads)
        world.server.restart()
        folder = tmp_path / "adapters" / "p1" / "v1"
        IN_ITSELF[name](folder)
        weights = adapter_files.read_manifest(folder).weights_sha256
        await world.store.run(change, "UPDATE adapter_version SET weights_sha256 = ?", weights)
        if name.startswith(("optimizer", "an empty optimizer")):
            return  # no server reads that, and the next job finds it
        reply = await world.chat.say("ada", "And now?")
        assert reply.version_name == "base"
        assert reply.data["fell_back"]
        assert world.server.seen.loads == loads


async def test_a_folder_that_holds_another_version_is_not_loaded(tmp_path: Path, store: Store) -> None:
    async with running_world(tmp_path, Settings(learning={"debounce_s": 0.0}), store) as world:
        assert await world.taught() == "p1.v1"
        assert await world.taught(said="In verse.") == "p1.v2"
        world.server.restart()
        adapters = tmp_path / "adapters" / "p1"
        shutil.rmtree(adapters / "v2")
        shutil.copytree(adapters / "v1", adapters / "v2")
        reply = await world.chat.say("ada", "And now?")
        assert reply.version_name == "base"
        assert reply.data["fell_back"]


@pytest.mark.parametrize("name", ["a link to a system file", "weights behind a link"])
def test_verifying_follows_no_link_out_of_the_folder(whole: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "v1"))
    IN_ITSELF[name](folder)
    with pytest.raises(AdapterDamaged, match="not a plain file"):
        adapter_files.verify(folder)
