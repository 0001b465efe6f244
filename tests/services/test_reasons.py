"""Why there is a thumbs-down, by a button or in words; and lessons taken back, hurried, or no longer wanted."""

import asyncio

import pytest

from claasbot.settings import Settings
from claasbot.storage import lessons, versions
from claasbot.storage.rows import change, rows
from tests.services.world import World, running_world

TOO_LONG = "reason:too_long:1"
WAITS = Settings(learning={"debounce_s": 3600}, access={"mode": "open"})


@pytest.fixture
async def patient(tmp_path, store):
    """A world in which feedback waits."""
    async with running_world(tmp_path, WAITS, store, "chatter") as world:
        yield world


async def judged(world: World, *actions: str) -> list[str]:
    """An answer on which these buttons were pressed, in order; returns what became of the experiences."""
    await world.chat.command("ada", "optin")
    await world.chat.say("ada", "What is rain?")
    for action in actions:
        await world.chat.press("ada", action)
    return await states(world)


async def states(world: World) -> list[str]:
    return [row["state"] for row in await world.store.run(rows, "SELECT state FROM experience ORDER BY id")]


async def test_a_reason_goes_when_the_opposite_thumb_comes(patient):
    assert await judged(patient, "bad:1", TOO_LONG, "good:1") == ["withdrawn"]


async def test_what_was_said_by_a_command_stays_when_the_opposite_thumb_comes(patient):
    await judged(patient, "bad:1")
    await patient.chat.command("ada", "feedback", "Shorter.")
    await patient.chat.press("ada", "good:1")
    assert await states(patient) == ["queued"]


async def test_the_same_reason_twice_is_one_experience(patient):
    assert await judged(patient, "bad:1", TOO_LONG, TOO_LONG) == ["queued"]
    await patient.chat.press("ada", "reason:off_topic:1")
    assert await states(patient) == ["queued", "queued"]


async def test_a_reason_that_was_taken_back_may_be_given_again(patient):
    assert await judged(patient, "bad:1", TOO_LONG, "good:1", "bad:1", TOO_LONG) == ["withdrawn", "queued"]


async def test_a_reason_that_was_refused_may_be_given_again(patient):
    await patient.chat.say("ada", "What is rain?")
    assert "optin" in (await patient.chat.press("ada", TOO_LONG)).text
    await patient.chat.command("ada", "optin")
    assert "learning" in (await patient.chat.press("ada", TOO_LONG)).text
    assert await states(patient) == ["rejected", "queued"]


async def test_learn_now_hurries_whoever_said_it_and_nobody_else(patient):
    for account in ("ada", "bob"):
        await patient.chat.command(account, "optin")
        answer = await patient.chat.say(account, "What is rain?")
        await patient.chat.command(account, "feedback", "Shorter.", str(answer.completion_id))
    assert "I begin now" in (await patient.chat.command("bob", "learn", "now")).text
    await patient.chat.wait_mark("2", "learned")
    assert await states(patient) == ["queued", "consumed"]
    assert len(await patient.store.run(lessons.queued, 1, 10)) == 1


async def test_the_host_hurries_everybody(patient):
    await judged(patient, TOO_LONG)
    await patient.cycle.learning.train_now()
    await patient.chat.wait_mark("1", "learned")


async def test_an_undo_of_more_lessons_than_there_are_says_how_many_it_took_back(world):
    await world.taught()
    told = await world.chat.command("ada", "undo", "3")
    assert told.text == "Undone, 1 lesson, all there was: the base model answers you now."
    assert "nothing to undo" in (await world.chat.command("ada", "undo", "3")).text


async def test_an_undo_of_several_lessons_says_how_many_it_took_back(world):
    for said in ("Shorter.", "In verse.", "In one word."):
        await world.taught(said=said)
    told = await world.chat.command("ada", "undo", "2")
    assert told.text == "Undone, 2 lessons: p1.v1 answers you now."


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("off", "the host has learning switched off on this platform"),
        ("signals_only", "on this platform I keep thumbs and train on nothing"),
        (
            "interactions",
            "on this platform I learn only from /ask and from my own buttons and forms, not from messages",
        ),
    ],
)
async def test_what_waits_teaches_nothing_once_the_host_allows_less_on_that_platform(tmp_path, store, mode, reason):
    before = Settings(learning={"debounce_s": 3600}, access={"mode": "open"}, discord={"learning": "full"})
    async with running_world(tmp_path, before, store, "discord") as world:
        await judged(world, TOO_LONG)
    after = Settings(learning={"debounce_s": 0}, access={"mode": "open"}, discord={"learning": mode})
    async with running_world(tmp_path, after, store, "discord") as world:
        await world.chat.wait_mark("1", "refused")
        assert world.engine.seen.ran == []
        assert await world.store.run(rows, "SELECT state, reason FROM experience") == [
            {"state": "rejected", "reason": reason}
        ]


async def test_feedback_in_a_message_does_not_train_where_only_interactions_may(tmp_path, store):
    """The question came by /ask, the words about its answer did not."""
    before = Settings(learning={"debounce_s": 3600}, access={"mode": "open"}, discord={"learning": "full"})
    async with running_world(tmp_path, before, store, "discord") as world:
        await judged(world, TOO_LONG)
        await store.run(change, "UPDATE turn SET is_interaction = 1")
        await store.run(change, "UPDATE feedback_event SET is_interaction = 0")
    after = Settings(learning={"debounce_s": 0}, access={"mode": "open"}, discord={"learning": "interactions"})
    async with running_world(tmp_path, after, store, "discord") as world:
        await world.chat.wait_mark("1", "refused")
    async with running_world(tmp_path, before, store, "discord") as world:
        await judged(world, TOO_LONG.replace("1", "2"))
        await store.run(change, "UPDATE turn SET is_interaction = 1")
        await store.run(change, "UPDATE feedback_event SET is_interaction = 1")
    async with running_world(tmp_path, after, store, "discord") as world:
        await world.chat.wait_mark("2", "learned")


async def test_a_lesson_that_was_running_is_not_promoted_once_the_host_allows_less(tmp_path, store):
    before = Settings(learning={"debounce_s": 0}, access={"mode": "open"}, discord={"learning": "full"})
    async with running_world(tmp_path, before, store, "discord") as world:
        world.engine.faults.before_step = asyncio.Event().wait
        await judged(world, TOO_LONG)
        await world.chat.wait_mark("1", "queued")
    after = Settings(learning={"debounce_s": 0}, access={"mode": "open"}, discord={"learning": "off"})
    async with running_world(tmp_path, after, store, "discord") as world:
        await world.cycle.settled()
        assert await states(world) == ["rejected"]
        assert await store.run(versions.current, 1) is None
