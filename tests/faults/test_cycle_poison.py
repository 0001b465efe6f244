"""R-14: a row that breaks every step is found by halving, and its neighbours are learned."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from claasbot.errors import EngineDown, JobRefused
from claasbot.settings import Settings
from claasbot.storage.rows import change, rows
from claasbot.storage.store import Store
from tests.services.world import World, running_world

SETTINGS = Settings(learning={"debounce_s": 0.0, "max_experiences": 32})


class HastyClock:
    """A minute passes between two looks: no back-off is waited for."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(minutes=1)
        return self.now


async def teach(world: World, n: int) -> None:
    """`n` pieces of feedback that wait together."""
    await world.cycle.steering.set_paused(True, "console:host")
    await world.chat.command("ada", "optin")
    for number in range(n):
        reply = await world.chat.say("ada", f"Number {number}?")
        await world.chat.command("ada", "feedback", f"Shorter by {number}.", str(reply.completion_id))
    await world.cycle.steering.set_paused(False, "console:host")


def break_on(world: World, poison: set[int], error: Exception) -> Counter[str]:
    """Every step with one of these experiences fails; counts them."""
    seen: Counter[str] = Counter()

    async def before_step() -> None:
        await asyncio.sleep(0)
        is_poisoned = poison & {row.experience_id for row in world.engine.seen.ran[-1].experiences}
        seen["failed" if is_poisoned else "trained"] += 1
        if is_poisoned:
            raise error

    world.engine.faults.before_step = before_step
    return seen


async def states(world: World) -> dict[int, tuple[str, str]]:
    found = await world.store.run(rows, "SELECT id, state, reason FROM experience")
    return {row["id"]: (row["state"], row["reason"]) for row in found}


@pytest.mark.parametrize("error", [EngineDown("it died"), JobRefused("it is odd"), ZeroDivisionError()], ids=repr)
@pytest.mark.parametrize("n", [1, 2, 4, 7, 16])
async def test_a_poison_row_ends_up_alone_and_the_others_are_learned(
    tmp_path: Path, store: Store, totals: Counter[str], n: int, error: Exception
) -> None:
    poison = n // 2 + 1
    async with running_world(tmp_path, SETTINGS, store, clock=HastyClock()) as world:
        attempts = break_on(world, {poison}, error)
        await teach(world, n)
        await world.cycle.settled()
        found = await states(world)
        totals.update(
            {"rows in": n, "consumed": sum(state == "consumed" for state, _ in found.values()), "rejected": 1}
        )
        assert found.pop(poison)[0] == "quarantined"
        assert set(found.values()) <= {("consumed", "")}
        assert len(found) == n - 1
        assert attempts["failed"] <= math.log2(n) + 3
        told = [notice.text for notice in world.chat.said_to("ada", "notice") if "did not learn" in notice.text]
        assert len(told) == 1


async def test_every_one_of_several_poison_rows_is_found(tmp_path: Path, store: Store) -> None:
    async with running_world(tmp_path, SETTINGS, store, clock=HastyClock()) as world:
        break_on(world, {2, 3, 8}, EngineDown("it died"))
        await teach(world, 8)
        await world.cycle.settled()
        found = {number: state for number, (state, _) in (await states(world)).items()}
        assert found == dict.fromkeys(range(1, 9), "consumed") | dict.fromkeys((2, 3, 8), "quarantined")


async def test_a_parked_row_keeps_its_reason_and_an_admin_tries_it_again_alone(tmp_path: Path, store: Store) -> None:
    async with running_world(tmp_path, SETTINGS, store, clock=HastyClock()) as world:
        break_on(world, {1}, EngineDown("it died"))
        await teach(world, 2)
        await world.cycle.settled()
        assert (await states(world))[1] == ("quarantined", "given up after 1 attempt: it died")
        attempts = break_on(world, set(), EngineDown("it died"))
        await world.cycle.steering.set_paused(True, "console:host")
        await world.cycle.steering.requeue(1, 1, "console:host")
        reply = await world.chat.say("ada", "More?")
        await world.chat.command("ada", "feedback", "In verse.", str(reply.completion_id))
        await world.cycle.steering.set_paused(False, "console:host")
        await world.cycle.settled()
        assert {state for state, _ in (await states(world)).values()} == {"consumed"}
        assert attempts == {"trained": 2}, "it trained alone"


async def test_a_row_that_cannot_be_read_keeps_nobody_else_waiting(tmp_path: Path, store: Store) -> None:
    async with running_world(tmp_path, SETTINGS, store, clock=HastyClock()) as world:
        await world.cycle.steering.set_paused(True, "console:host")
        await world.chat.command("ada", "optin")
        for question in ("One?", "Two?"):
            reply = await world.chat.say("ada", question)
            await world.chat.command("ada", "feedback", "In verse.", str(reply.completion_id))
        await world.store.run(change, "UPDATE completion SET logprobs_json = '{' WHERE id = 1")
        await world.cycle.steering.set_paused(False, "console:host")
        assert await world.taught("bob") == "p2.v1"
        await world.cycle.settled()
        found = await states(world)
        assert found.pop(1) == ("rejected", "what I kept of that answer cannot be read any more")
        assert set(found.values()) == {("consumed", "")}


async def test_what_was_found_to_be_harmless_trains_with_everything_else_again(tmp_path: Path, store: Store) -> None:
    """Fresh feedback is not held up in small jobs by somebody's old suspicion."""
    async with running_world(tmp_path, SETTINGS, store, clock=HastyClock()) as world:
        break_on(world, {1}, EngineDown("it died"))
        await teach(world, 4)
        await world.cycle.settled()
        sizes = break_on(world, set(), EngineDown("it died"))
        await teach(world, 4)
        await world.cycle.settled()
        assert sizes == {"trained": 1}
