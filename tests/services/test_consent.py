"""Nobody teaches before agreeing, in that chat, to the words that stand now; everybody sees what is left (S-22)."""

from __future__ import annotations

import asyncio
import re

import pytest

from claasbot.domain.conversation import ChatAddress, Commanded, Said
from claasbot.domain.person import CONSENT_VERSION
from claasbot.services.answering import CONSENT_CARD
from claasbot.services.clock import utc_now
from claasbot.settings import Settings
from claasbot.storage import lessons, people
from claasbot.storage.rows import change, one, rows
from tests.services.world import running_world

ADA = 1
TEAM = ChatAddress(platform="console", bot_account="console", chat="team")


def cards(world, account: str = "ada") -> int:
    return sum(reply.text == CONSENT_CARD.text for reply in world.chat.said_to(account, "notice"))


async def older_text(world) -> None:
    """As after a release with other words."""
    await world.store.run(change, "UPDATE consent SET text_version = '2025-01'")


async def give_feedback(world, *, account: str = "ada", said: str = "Shorter.") -> int:
    reply = await world.chat.say(account, "What is rain?")
    await world.chat.command(account, "feedback", said, str(reply.completion_id))
    await world.cycle.settled()
    return reply.completion_id


async def test_whoever_agreed_to_other_words_is_asked_anew_and_teaches_nothing_until_then(world):
    await world.taught()
    await older_text(world)
    n_ran = len(world.engine.seen.ran)
    await give_feedback(world)
    assert cards(world) == 1
    assert len(world.engine.seen.ran) == n_ran
    await world.chat.press("ada", "consent:yes")
    completion_id = await give_feedback(world)
    await world.chat.wait_mark(str(completion_id), "learned")
    told = await world.store.run(people.consent_history, ADA)
    assert [(row["state"], row["text_version"]) for row in told] == [
        ("granted", "2025-01"),
        ("asked", CONSENT_VERSION),
        ("granted", CONSENT_VERSION),
    ]


async def test_feedback_that_waited_when_the_words_changed_teaches_nothing(world):
    await world.cycle.steering.set_paused(True, "console:host")
    await world.chat.command("ada", "optin")
    await give_feedback(world)
    await older_text(world)
    await world.cycle.steering.set_paused(False, "console:host")
    await world.cycle.settled()
    assert world.engine.seen.ran == []
    assert (await world.store.run(one, "SELECT state FROM experience"))["state"] == "rejected"


async def test_in_a_group_nothing_is_learned_until_its_own_yes_whatever_was_agreed_in_private(world):
    await world.chat.command("ada", "optin")
    await world.chat.post(
        Said(address=TEAM, account="ada", update_key="1", message_key="1", text="What is rain?", is_group=True)
    )
    answer = await world.chat.wait_for(lambda one: one.kind == "reply" and one.reply_to == "1")
    await world.chat.post(
        Commanded(
            address=TEAM, account="ada", update_key="2", command="feedback", argument="Shorter.", is_group=True,
            message_key=answer.message_key,
        )
    )  # fmt: skip
    await world.cycle.settled()
    assert world.engine.seen.ran == []
    assert not (await world.store.run(people.consent_of, ADA, TEAM)).allows_learning


async def test_optout_ends_a_lesson_within_the_step_that_runs(world):
    """S-22: the step in the engine may end, its version answers nobody, and no other begins."""
    await world.taught()
    runs, hold = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        runs.set()
        await hold.wait()

    world.engine.faults.before_step = work
    reply = await world.chat.say("ada", "What is rain?")
    await world.chat.command("ada", "feedback", "In verse.", str(reply.completion_id))
    await runs.wait()
    n_ran = len(world.engine.seen.ran)
    await world.chat.command("ada", "optout")
    hold.set()
    await world.cycle.settled()
    assert len(world.engine.seen.ran) == n_ran
    assert (await world.chat.say("ada", "And snow?")).version_name == "p1.v1"
    states = await world.store.run(rows, "SELECT state FROM experience ORDER BY id")
    assert [row["state"] for row in states] == ["consumed", "withdrawn"]
    assert await world.store.run(lessons.open_jobs, utc_now()) == []


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({}, ""),
        ({"chat": {"answers_per_day": 5}}, "3 of 5 answers"),
        ({"learning": {"lessons_per_day": 2, "debounce_s": 0.0}}, "1 of 2 lessons"),
        (
            {"chat": {"answers_per_day": 2}, "learning": {"lessons_per_day": 1, "debounce_s": 0.0}},
            "0 of 2 answers and 0 of 1 lessons",
        ),
    ],
)
async def test_status_says_what_is_left(tmp_path, store, limits, left):
    chosen = Settings(**{"learning": {"debounce_s": 0.0}, **limits})
    async with running_world(tmp_path, chosen, store) as world:
        await world.taught()
        told = (await world.chat.command("ada", "status")).text
    assert (f"Left for these 24 hours: {left}." in told) if left else ("Left for" not in told)


async def test_a_stranger_cannot_let_themselves_in_as_the_first(tmp_path, settings, store):
    async with running_world(tmp_path, settings, store, "chatter") as world:
        eve = world.chat.chat_of("eve")
        await world.chat.post(Said(address=eve, account="eve", update_key="1", text="Hi"))
        card = await world.chat.wait_for(lambda shown: "Your code is" in shown.text)
        code = re.search(r"code is (\w{8})", card.text).group(1)
        for number in range(3):
            since = len(world.chat.shown)
            await world.chat.post(
                Commanded(address=eve, account="eve", update_key=f"p{number}", command="pair", argument=code)
            )
            told = await world.chat.wait_for(lambda shown: shown.address == eve, since=since)
            assert code in told.text and "Ask the host" in told.text
        assert await store.run(rows, "SELECT * FROM account") == []
        stranger, _ = await world.cycle.admitting.let_in(code, "console:host")
        assert stranger.is_admin
