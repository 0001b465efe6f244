"""The chat for tests and the demo: its helpers wait for the right thing and say what came instead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from claasbot.chat.console import ConsoleChat
from claasbot.domain.conversation import ChatEvent, Commanded, Pressed, Reacted, Reply, Said
from claasbot.services.answering import CONSENT_CARD


@pytest.fixture
async def chat() -> AsyncIterator[ConsoleChat]:
    """Its bot does what Receiving and Telling do, in the order in which it hurts most."""
    chat = ConsoleChat()

    async def handle(event: ChatEvent) -> None:
        await chat.send(event.address, Reply(text="Learned …", notice=True, data={"said": "x", "version": "p1.v1"}))
        match event:
            case Said(text=""):
                await chat.send(event.address, Reply(text="Empty.", notice=True, data={"problem": True}))
            case Said():
                starting = await chat.open_reply(event.address, event.message_key)
                await starting.finish(Reply(text="My model is starting.", notice=True))
                writer = await chat.open_reply(event.address, event.message_key)
                await writer.write("ok")
                await writer.finish(Reply(text=f"ok {event.text}", completion_id=7, version_name="base"))
                await asyncio.sleep(0)
                await chat.send(event.address, CONSENT_CARD)
            case Commanded(command="retry"):
                writer = await chat.open_reply(event.address, None)
                await writer.finish(Reply(text="again", completion_id=8, version_name="base"))
            case Commanded() | Pressed():
                await chat.send(event.address, Reply(text="did it", notice=True, data={"noted": 1}))
            case Reacted():
                await chat.mark(event.address, event.message_key, "noted")

    tasks: set[asyncio.Task[None]] = set()

    async def accept(event: ChatEvent) -> None:
        tasks.add(asyncio.create_task(handle(event)))

    running = asyncio.create_task(chat.run(accept))
    yield chat
    running.cancel()
    await asyncio.gather(running, *tasks, return_exceptions=True)


async def test_saying_returns_the_answer_to_what_was_said(chat):
    replies = await asyncio.gather(chat.say("ada", "one"), chat.say("bob", "two"), chat.say("ada", "three"))
    assert [reply.text for reply in replies] == ["ok one", "ok two", "ok three"]


async def test_saying_what_is_refused_returns_the_refusal(chat):
    assert (await chat.say("ada", "")).text == "Empty."


async def test_a_command_returns_its_own_reply(chat):
    await chat.say("ada", "one")
    assert (await chat.command("ada", "undo")).text == "did it"  # neither the consent card nor what was learned
    assert (await chat.press("ada", "undo")).text == "did it"
    assert (await chat.command("ada", "retry")).text == "again"


async def test_marks_are_waited_for_before_and_after_they_come(chat):
    await chat.react("ada", "7", "👎")
    assert await chat.wait_mark("7", "noted", "learned") == "noted"
    assert await chat.wait_mark("7", "noted") == "noted"


async def test_waiting_in_vain_says_what_came_instead(chat):
    await chat.react("ada", "7", "👎")
    with pytest.raises(TimeoutError, match=r"in vain; shown meanwhile: .*mark '7'"):
        await chat.wait_mark("7", "learned", within_s=0.02)


async def test_everything_is_recorded_per_person(chat):
    await chat.say("ada", "one")
    assert [reply.text for reply in chat.said_to("ada", "reply")] == ["My model is starting.", "ok one"]
    assert chat.said_to("bob", "reply") == []


async def test_nothing_is_said_before_the_bot_runs():
    with pytest.raises(TimeoutError):
        await ConsoleChat().post(
            Said(address=ConsoleChat().chat_of("ada"), account="ada", update_key="k", text="x"), within_s=0.01
        )
