"""R-13: a trainer that dies, stops or runs out of memory costs attempts, and nobody's answers.

The trainer is a process that keeps the protocol (`tests/engines/fake_trainer.py`).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claasbot.engines.local import LocalEngine, TrainerLimits
from claasbot.settings import Settings
from claasbot.storage.rows import one, rows
from claasbot.storage.store import Store
from tests.engines.fake_trainer import fake_local
from tests.faults.test_cycle_poison import HastyClock
from tests.services.world import World, running_world

SETTINGS = Settings(learning={"debounce_s": 0.0})
QUICK = TrainerLimits(poll_s=0.005, silence_s=0.5)


@pytest.fixture
async def trainer(tmp_path: Path) -> AsyncIterator[LocalEngine]:
    engine = fake_local(tmp_path, limits=QUICK)
    await engine.start()
    yield engine
    await engine.close()


def test_a_silent_trainer_is_given_up_within_a_minute() -> None:
    limits = TrainerLimits()
    longest_stop_s = 2 * 5.0  # asked to end, then killed
    assert limits.silence_s + limits.poll_s + longest_stop_s <= 60


async def feedback(world: World) -> str:
    await world.chat.command("ada", "optin")
    reply = await world.chat.say("ada", "What is rain?")
    await world.chat.command("ada", "feedback", "Shorter.", str(reply.completion_id))
    return str(reply.completion_id)


@pytest.mark.parametrize("word", ["die", "out of memory", "beyond its memory", "garbage"])
async def test_a_trainer_that_fails_every_time_is_tried_three_times_and_the_feedback_is_parked_with_the_reason(
    tmp_path: Path, store: Store, trainer: LocalEngine, totals: Counter[str], word: str
) -> None:
    (tmp_path / "behaviour").write_text(word)
    async with running_world(tmp_path, SETTINGS, store, engine=trainer, clock=HastyClock()) as world:
        key = await feedback(world)
        answered = [await world.chat.say("ada", f"Meanwhile {n}?") for n in range(3)]
        assert await world.chat.wait_mark(key, "refused", "learned") == "refused"
        row = await store.run(one, "SELECT state, reason FROM experience")
        totals.update({"rows in": 1, "rejected": row["state"] == "quarantined"})
        totals["kills"] += 3 * (word in ("die", "beyond its memory"))
        assert row["state"] == "quarantined"
        assert row["reason"].startswith("given up after 3 attempts: ")
        assert {reply.version_name for reply in answered} == {"base"}
        (tmp_path / "behaviour").write_text("")
        await world.cycle.steering.requeue(1, 1, "console:host")
        assert await world.chat.wait_mark(key, "learned") == "learned"


async def test_a_trainer_that_was_stopped_is_replaced_and_the_lesson_learned(
    tmp_path: Path, store: Store, trainer: LocalEngine, totals: Counter[str]
) -> None:
    (tmp_path / "behaviour").write_text("compute for ever")
    async with running_world(tmp_path, SETTINGS, store, engine=trainer, clock=HastyClock()) as world:
        key = await feedback(world)
        async with asyncio.timeout(30):
            while not (claims := list((tmp_path / "jobs").glob("*/claimed"))):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.005)
        pid = json.loads(claims[0].read_text())["pid"]
        os.kill(pid, signal.SIGSTOP)
        (tmp_path / "behaviour").write_text("")
        began = time.monotonic()
        assert (await world.chat.say("ada", "Meanwhile?")).version_name == "base"
        assert await world.chat.wait_mark(key, "learned", "refused") == "learned"
        given_up_after_s = time.monotonic() - began
        totals["kills"] += 1
        job = await store.run(rows, "SELECT state, attempts FROM job")
        assert [(row["state"], row["attempts"]) for row in job] == [("promoted", 1)]
        assert given_up_after_s < 60
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
