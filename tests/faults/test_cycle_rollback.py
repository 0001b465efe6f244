"""R-16: after a rollback the old weights answer at once, and what was rolled back is neither lost nor learned again."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from claasbot.domain.adapter import AdapterVersion
from claasbot.errors import BadInput
from claasbot.storage import versions
from claasbot.storage.rows import rows
from tests.services.world import World


async def three_lessons(world: World) -> dict[str, AdapterVersion]:
    for words in ("Shorter.", "In verse.", "In French."):
        await world.taught(said=words)
    return {version.name: version for version in await world.store.run(versions.of_person, 1)}


async def nothing_is_lost_or_learned_again(world: World, totals: Counter[str], n_withdrawn: int) -> None:
    n_jobs = len(world.engine.seen.ran)
    await world.cycle.learning.train_now()
    await world.cycle.settled()
    found = await world.store.run(rows, "SELECT state, reason FROM experience ORDER BY id")
    totals.update({"rows in": 3, "consumed": 3 - n_withdrawn, "rejected": n_withdrawn})
    totals["lost"] += 3 - len(found)
    assert [row["state"] for row in found] == ["consumed"] * (3 - n_withdrawn) + ["withdrawn"] * n_withdrawn
    assert {row["reason"] for row in found if row["state"] == "withdrawn"} == {"you undid the lesson"}
    assert len(world.engine.seen.ran) == n_jobs


async def test_an_undo_takes_less_than_two_seconds_and_the_next_reply_is_by_the_old_hash(
    world: World, totals: Counter[str]
) -> None:
    made = await three_lessons(world)
    began = time.monotonic()
    await world.cycle.promoting.undo(1)
    reply = await world.chat.say("ada", "And now?")
    assert time.monotonic() - began < 2
    assert reply.version_name == "p1.v2"
    assert world.server.seen.requests[-1].model == made["p1.v2"].server_name
    await nothing_is_lost_or_learned_again(world, totals, 1)


@pytest.mark.parametrize(("to", "name", "n_withdrawn"), [("v1", "p1.v1", 2), ("base", "base", 3)])
async def test_an_admin_goes_back_to_any_earlier_version_by_its_name(
    world: World, totals: Counter[str], to: str, name: str, n_withdrawn: int
) -> None:
    made = await three_lessons(world)
    began = time.monotonic()
    await world.cycle.steering.roll_back(1, 0 if to == "base" else int(to[1:]), "console:host")
    reply = await world.chat.say("ada", "And now?")
    assert time.monotonic() - began < 2
    assert reply.version_name == name
    served = made[name].server_name if name in made else "scripted"
    assert world.server.seen.requests[-1].model == served
    audit = await world.store.run(rows, "SELECT did FROM audit ORDER BY id")
    assert f"rolled p1 back to {name}" in {row["did"] for row in audit}
    await nothing_is_lost_or_learned_again(world, totals, n_withdrawn)


@pytest.mark.parametrize("n", [3, 4, 99])
async def test_a_rollback_to_no_earlier_version_changes_nothing(world: World, n: int) -> None:
    await three_lessons(world)
    with pytest.raises(BadInput, match=f"p1.v{n}"):
        await world.cycle.promoting.roll_back(1, n)
    assert (await world.chat.say("ada", "And now?")).version_name == "p1.v3"


async def test_a_version_that_was_undone_is_none_of_the_earlier_ones(world: World) -> None:
    await three_lessons(world)
    await world.cycle.promoting.undo(1)
    await world.cycle.promoting.undo(1)
    await world.taught(said="In Latin.")
    with pytest.raises(BadInput, match="p1\\.v2"):
        await world.cycle.promoting.roll_back(1, 2)
    assert (await world.chat.say("ada", "And now?")).version_name == "p1.v4"
    await world.cycle.promoting.roll_back(1, 1)
    assert (await world.chat.say("ada", "And now?")).version_name == "p1.v1"
