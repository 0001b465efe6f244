"""What people are told of their lessons: once, as it is now, and nobody waits for somebody else's chat."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from claasbot.chat.console import ConsoleChat
from claasbot.domain.access import AccessRules
from claasbot.services.cycle import Cycle
from claasbot.settings import Settings
from claasbot.storage import outbox
from claasbot.storage.rows import change, one
from tests.services.world import World, running_world

LOCAL = datetime(2026, 11, 20, 12, 30, tzinfo=UTC).astimezone()


class Time:
    """A clock that stands in the quiet hours until it is moved."""

    def __init__(self) -> None:
        self.now = LOCAL.astimezone(UTC)

    def __call__(self) -> datetime:
        return self.now

    def wakes_up(self) -> None:
        self.now += timedelta(hours=2)


class StuckChat(ConsoleChat):
    """A platform that lets one chat wait, as after a 429."""

    def __init__(self, stuck: str) -> None:
        super().__init__("chatter")
        self.stuck = stuck
        self.may_go_on = asyncio.Event()
        self.is_waiting = asyncio.Event()

    async def mark(self, address, message_key, mark):
        if address.chat == self.stuck:
            self.is_waiting.set()
            await self.may_go_on.wait()
        await super().mark(address, message_key, mark)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def quiet_world(tmp_path, store, time):
    settings = Settings(
        learning={"debounce_s": 0.0},
        access={"mode": "open"},
        chat={"quiet_hours": f"{LOCAL.hour}-{(LOCAL.hour + 1) % 24}"},
    )
    async with running_world(tmp_path, settings, store, "chatter", clock=time) as world:
        yield world


def marks(world: World) -> list[tuple[str, str | None]]:
    return [(shown.message_key, shown.mark) for shown in world.chat.shown if shown.kind == "mark"]


def told(world: World) -> list[str]:
    return [shown.text for shown in world.chat.shown if shown.text.startswith("Learned from")]


async def morning(world: World, time: Time) -> None:
    time.wakes_up()
    world.store.stages.outbox.set()
    async with asyncio.timeout(10):
        while await world.store.run(one, "SELECT 1 FROM outbox WHERE told_at IS NULL"):  # noqa: ASYNC110 - rows are the truth
            await asyncio.sleep(0.005)


async def test_a_lesson_of_the_night_is_marked_at_once_and_told_in_the_morning(quiet_world, time):
    await quiet_world.taught()
    assert marks(quiet_world)[-1] == ("1", "learned")
    assert told(quiet_world) == []
    n_marks = len(marks(quiet_world))
    await morning(quiet_world, time)
    assert told(quiet_world) == ["Learned from your note “Shorter, please.”: p1.v1 answers now."]
    assert len(marks(quiet_world)) == n_marks


async def test_a_lesson_that_was_undone_in_the_night_is_not_told_in_the_morning(quiet_world, time):
    await quiet_world.taught()
    await quiet_world.chat.command("ada", "undo")
    await quiet_world.cycle.settled()
    assert marks(quiet_world)[-1] == ("1", None)
    await morning(quiet_world, time)
    assert told(quiet_world) == []
    assert marks(quiet_world)[-1] == ("1", None)


async def test_of_two_lessons_in_the_night_the_one_that_answers_is_told(quiet_world, time):
    await quiet_world.taught()
    await quiet_world.taught(said="In verse.")
    await morning(quiet_world, time)
    assert told(quiet_world) == ["Learned from your note “In verse.”: p1.v2 answers now."]
    assert [mark for _, mark in marks(quiet_world)].count("learned") == 2


async def test_a_chat_that_has_to_wait_holds_up_nobody_else(tmp_path, store):
    chat = StuckChat("ada")
    settings = Settings(learning={"debounce_s": 0.0}, access={"mode": "open"})
    async with running_world(tmp_path, settings, store, client=chat) as world:
        for account in ("ada", "bob"):
            await chat.command(account, "optin")
            answer = await chat.say(account, "What is rain?")
            await chat.command(account, "feedback", "Shorter.", str(answer.completion_id))
            if account == "ada":
                await chat.is_waiting.wait()
        await chat.wait_mark(str(answer.completion_id), "learned")
        assert {shown.address.chat for shown in chat.shown if shown.kind == "mark"} == {"bob"}
        chat.may_go_on.set()
        await chat.wait_mark("1", "learned")
        await world.cycle.settled()
    assert [shown.mark for shown in chat.shown if shown.kind == "mark" and shown.address.chat == "ada"] == [
        "noted",
        "queued",
        "learned",
    ]


async def test_a_mark_that_fails_is_tried_again_after_a_pause(quiet_world, time):
    await quiet_world.taught()
    await quiet_world.store.run(change, "UPDATE outbox SET told_at = NULL, not_before = NULL WHERE id = 1")
    await quiet_world.store.run(outbox.failed, 1, time() + timedelta(seconds=5))
    assert await quiet_world.store.run(outbox.waiting_chats, time()) == []
    assert len(await quiet_world.store.run(outbox.waiting_chats, time() + timedelta(seconds=5))) == 1


async def test_several_accounts_of_a_platform_have_a_light_each(world):
    rules = replace(world.cycle.rules, access=AccessRules())
    for accounts, names in (("1",), ["chatter"]), (("1", "2"), ["chatter 1", "chatter 2"]):
        outside = replace(world.cycle.outside, clients=tuple(ConsoleChat("chatter", account) for account in accounts))
        assert [light.name for light in (await Cycle(outside, rules).status()).lights] == [*names, "store"]
