"""Feedback that waits: parked and queued once more, of another base model, or under other template options."""

import asyncio

import pytest

from claasbot.errors import BadInput, ImpossibleTransition, NotYours
from claasbot.settings import Settings
from claasbot.storage.rows import change, one, rows

from .world import running_world

THINKING = {"enable_thinking": True}
ANOTHER_BASE = "it was answered by another base model"


async def noted(world, said="Shorter.", question="What is rain?") -> str:
    """Ask, and say what was wrong; returns the number of the answer."""
    await world.chat.command("ada", "optin")
    reply = await world.chat.say("ada", question)
    await world.chat.command("ada", "feedback", said, str(reply.completion_id))
    return str(reply.completion_id)


async def parked(world) -> str:
    world.engine.faults.refusal = "its prompt renders to other ids"
    key = await noted(world)
    await world.chat.wait_mark(key, "refused")
    world.engine.faults.refusal = None
    return key


async def states(store) -> list[tuple[str, str]]:
    found = await store.run(rows, "SELECT state, reason FROM experience ORDER BY id")
    return [(row["state"], row["reason"]) for row in found]


async def test_parked_feedback_teaches_when_it_is_queued_again(world):
    key = await parked(world)
    await world.cycle.learning.requeue(1, 1)
    await world.chat.wait_mark(key, "learned")
    assert (await world.chat.say("ada", "And snow?")).version_name == "p1.v2"


async def test_only_parked_feedback_of_that_person_is_queued_again(world):
    await parked(world)
    await world.chat.say("bob", "Hello?")
    with pytest.raises(NotYours):
        await world.cycle.learning.requeue(2, 1)
    assert (await states(world.store))[0][0] == "quarantined"
    await world.cycle.learning.requeue(1, 1)
    await world.cycle.settled()
    with pytest.raises(ImpossibleTransition):
        await world.cycle.learning.requeue(1, 1)


async def test_feedback_that_was_taken_back_is_not_queued_again(world):
    await parked(world)
    await world.store.run(change, "UPDATE feedback_event SET withdrawn_at = 't'")
    with pytest.raises(BadInput, match="taken back"):
        await world.cycle.learning.requeue(1, 1)


async def test_consent_withdrawn_takes_parked_feedback_too(world):
    await parked(world)
    await world.chat.command("ada", "optout")
    assert (await states(world.store))[0][0] == "withdrawn"


async def test_feedback_on_answers_of_another_base_model_is_refused_in_plain_words(tmp_path, settings, store):
    async with running_world(tmp_path, settings, store) as world:
        await world.cycle.steering.set_paused(True, "console:host")
        key = await noted(world)
        await world.cycle.settled()
    async with running_world(tmp_path, settings, store, base_model="another") as world:
        await world.cycle.steering.set_paused(False, "console:host")
        await world.chat.wait_mark(key, "refused")
        assert world.engine.seen.ran == []
        assert await states(store) == [("rejected", ANOTHER_BASE)]
        assert world.chat.said_to("ada", "notice")[-1].text == f"I did not learn from that: {ANOTHER_BASE}."
        assert await store.run(rows, "SELECT * FROM job") == []
        key = await noted(world, question="And snow?")
        await world.chat.wait_mark(key, "learned")


async def test_a_job_that_was_interrupted_by_a_change_of_the_base_model_is_abandoned(tmp_path, settings, store):
    runs, hold = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        runs.set()
        await hold.wait()

    async with running_world(tmp_path, settings, store) as world:
        world.engine.faults.before_step = work
        key = await noted(world)
        await runs.wait()
    async with running_world(tmp_path, settings, store, base_model="another") as world:
        await world.chat.wait_mark(key, "refused")
        assert world.engine.seen.ran == []
        assert await states(store) == [("rejected", ANOTHER_BASE)]
        assert (await store.run(one, "SELECT state FROM job"))["state"] == "abandoned"


async def test_lessons_of_another_base_model_are_not_scored_beside_a_new_one(tmp_path, settings, store):
    async with running_world(tmp_path, settings, store) as world:
        await world.taught()
        await world.chat.command("ada", "undo")
        await store.run(change, "UPDATE experience SET state = 'consumed'")  # still standing, and of the old base
    async with running_world(tmp_path, settings, store, base_model="another") as world:
        await world.chat.wait_mark(await noted(world), "learned")
        assert world.engine.seen.ran[0].earlier == ()


async def test_a_job_holds_only_what_was_sampled_under_the_same_template_options(tmp_path, settings, store):
    async with running_world(tmp_path, settings, store) as world:
        await world.cycle.steering.set_paused(True, "console:host")
        await noted(world)
        await noted(world, said="In verse.")
    thinking = Settings(learning={"debounce_s": 0.0}, chat={"enable_thinking": True})
    async with running_world(tmp_path, thinking, store) as world:
        await noted(world, said="In one word.", question="And snow?")
        await world.cycle.steering.set_paused(False, "console:host")
        await world.cycle.settled()
        jobs = world.engine.seen.ran
    assert [[row.experience_id for row in job.experiences] for job in jobs] == [[1, 2], [3]]
    assert [job.template_options for job in jobs] == [{"enable_thinking": False}, THINKING]
    assert {state for state, _ in await states(store)} == {"consumed"}
