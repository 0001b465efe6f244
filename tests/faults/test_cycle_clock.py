"""R-22: the clock jumps by hours and days, either way: nobody waits longer than a rule says, nothing comes twice."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from claasbot.settings import Settings
from claasbot.storage.rows import rows
from claasbot.storage.store import Store
from tests.services.world import running_world

HERE = Path(__file__).parent
JUMPS_S = (-86_400, -3_600, 3_600, 86_400)


class JumpingClock:
    """Goes on by itself as a clock does, and jumps when it is told to."""

    def __init__(self) -> None:
        self.offset, self._began = timedelta(0), time.monotonic()

    def __call__(self) -> datetime:
        return datetime(2026, 10, 25, tzinfo=UTC) + timedelta(seconds=time.monotonic() - self._began) + self.offset


@pytest.mark.parametrize("jump_s", JUMPS_S)
async def test_a_job_that_waits_for_its_next_attempt_waits_no_longer_when_the_clock_jumps(
    tmp_path: Path, store: Store, totals: Counter[str], jump_s: int
) -> None:
    clock = JumpingClock()
    async with running_world(tmp_path, Settings(), store, clock=clock) as world:
        world.engine.faults.n_deaths = 1
        began = time.monotonic()
        lesson = asyncio.create_task(world.taught())
        async with asyncio.timeout(30):
            while not await store.run(rows, "SELECT id FROM job WHERE attempts = 1"):  # noqa: ASYNC110 - a row is no event
                await asyncio.sleep(0.01)
        clock.offset += timedelta(seconds=jump_s)
        assert await lesson == "p1.v1"
        assert await world.taught(said="In verse.") == "p1.v2"
        waited_s = time.monotonic() - began
        found = await store.run(rows, "SELECT person_id, state, attempts FROM job ORDER BY rowid")
        totals.update({"rows in": 2, "consumed": len(found)})
        assert [(row["state"], row["attempts"]) for row in found] == [("promoted", 1), ("promoted", 0)]
        assert waited_s < 60


@pytest.mark.parametrize("jump_s", JUMPS_S)
async def test_messages_are_in_order_of_their_numbers_whatever_the_clock_says(
    tmp_path: Path, store: Store, jump_s: int
) -> None:
    clock = JumpingClock()
    async with running_world(tmp_path, Settings(), store, clock=clock) as world:
        for number in range(4):
            await world.chat.say("ada", f"Number {number}?")
            clock.offset += timedelta(seconds=jump_s)
        asked = [message.content for message in world.server.seen.requests[-1].messages if message.role == "user"]
        assert asked == [f"Number {number}?" for number in range(4)]


async def test_a_question_from_before_the_clock_went_back_is_over(tmp_path: Path, store: Store) -> None:
    """“What was wrong?” would else take whatever the person says next for the reason, for a day."""
    clock = JumpingClock()
    async with running_world(tmp_path, Settings(), store, clock=clock) as world:
        await world.chat.command("ada", "optin")
        reply = await world.chat.say("ada", "What is rain?")
        await world.chat.react("ada", str(reply.completion_id), "👎")
        await world.cycle.settled()
        clock.offset -= timedelta(hours=1)
        assert (await world.chat.say("ada", "And snow?")).text.endswith("And snow?")
        assert await store.run(rows, "SELECT id FROM experience") == []


def test_a_process_whose_clock_jumps_learns_the_same_in_the_same_time(tmp_path: Path, totals: Counter[str]) -> None:
    """End to end, under the whole Python: every clock_gettime of the process is shifted."""
    shim, offset = tmp_path / "clock.so", tmp_path / "offset"
    subprocess.run(
        ("gcc", "-shared", "-fPIC", "-o", str(shim), str(HERE / "clock_shim.c"), "-ldl"), check=True, timeout=60
    )
    offset.write_text("0")
    words = (sys.executable, "-m", "tests.faults.cycle_process", "--lessons", "5", "--data")
    jumping = os.environ | {"LD_PRELOAD": str(shim), "CLOCK_OFFSET": str(offset)}
    calm = subprocess.run((*words, str(tmp_path / "calm")), capture_output=True, text=True, check=True, timeout=120)
    process = subprocess.Popen((*words, str(tmp_path / "jumping")), stdout=subprocess.PIPE, text=True, env=jumping)
    assert process.stdout is not None
    jumps, done = list(JUMPS_S), None
    with process.stdout as lines:
        for line in lines:
            facts = json.loads(line)
            if "learned" in facts and jumps:
                aside = offset.with_suffix(".aside")
                aside.write_text(str(jumps.pop()))
                aside.replace(offset)
            done = facts.get("done", done)
    assert process.wait(120) == 0
    totals.update({"rows in": 5, "consumed": 5})
    assert not jumps
    assert done == json.loads(calm.stdout.splitlines()[-1])["done"]
