"""Lessons taught, undone and taken back at random, with crashes among them (R-29 and promise 2, with rebuilds)."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from claasbot.domain.adapter import AdapterVersion
from claasbot.settings import Settings
from claasbot.storage import revocations, versions
from claasbot.storage.rows import change, rows
from claasbot.storage.store import Store
from tests.faults.conftest import scaled
from tests.services.unlearning import learned_once, wish_for
from tests.services.world import World, running_world

_ACTIONS = ("teach", "teach", "teach", "teach", "unlearn", "unlearn", "undo", "crash")


@pytest.mark.parametrize("seed", range(scaled(100, 3)))
async def test_every_lesson_that_stands_was_learned_once_and_nothing_else_is_in_the_weights(
    tmp_path: Path, seed: int, totals: Counter[str]
) -> None:
    """24 actions; now and then the next one, or a crash, meets what is still under way.

    What answers at last is bit for bit what the log makes of the base model alone. Prints its counts.
    """
    draw, done, settings = random.Random(seed), Counter[str](), Settings(learning={"debounce_s": 0.0})
    actions = ["teach", "teach", "unlearn", "crash", *draw.choices(_ACTIONS, k=20)]
    store = Store(None)
    await store.open()
    while actions:
        async with running_world(tmp_path, settings, store) as world:
            while actions and (action := actions.pop(0)) != "crash":
                await _act(world, action, draw, len(actions))
                done[action] += 1
                if draw.random() < 0.7:
                    await world.cycle.settled()
                    await _count(world, done)
            done["crash"] += 1
    async with running_world(tmp_path, settings, store) as world:
        await world.cycle.settled()
        await _count(world, done)
        before, after = await _learned_from_nothing(world)
    found = {row["state"]: row["n"] for row in await store.run(rows, _STATES)}
    await store.close()
    totals.update(kills=done["crash"], doubled=done["doubled"], lost=done["lost"])
    print({"seed": seed, "rows in": sum(found.values())} | done | found)
    assert (done["doubled"], done["lost"]) == (0, 0)
    assert found.keys() <= {"consumed", "withdrawn"}
    assert (before and before.weights_sha256) == (after and after.weights_sha256)


_STATES = "SELECT state, count(*) AS n FROM experience GROUP BY state"


async def _act(world: World, action: str, draw: random.Random, number: int) -> None:
    standing = await world.store.run(revocations.standing_lessons, 1) if action == "unlearn" else []
    if standing:
        await world.chat.press("ada", f"unlearn:yes:{draw.choice(standing).lesson_n}:1")
    elif action == "undo":
        await world.chat.command("ada", "undo")
    else:
        await world.chat.command("ada", "optin")
        await wish_for(world, f"Wish {number}.")


async def _count(world: World, done: Counter[str]) -> None:
    doubled, lost = await learned_once(world)
    done.update(doubled=doubled, lost=lost)


async def _learned_from_nothing(world: World) -> tuple[AdapterVersion | None, AdapterVersion | None]:
    """The version that answers, and the one that answers when no file of an older one is left to start from."""
    before = await world.store.run(versions.current, 1)
    await world.store.run(change, "UPDATE adapter_version SET files_removed_at = created_at")
    await world.store.run(change, "INSERT INTO revocation (person_id, asked_at) VALUES (1, '')")
    await world.cycle.settled()
    return before, await world.store.run(versions.current, 1)
