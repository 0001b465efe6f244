"""What every ChatClient does. The ones that need no platform run here; others bring a `Surface` of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from claasbot.chat.console import ConsoleChat
from claasbot.domain.conversation import Button, ChatAddress, ChatEvent, Reply, Said
from claasbot.ports import ChatClient
from claasbot.web.playground import Playground

Sight = tuple[str, str]
"""(what kind of thing, its text or mark): as a person sees it, in order."""


_KINDS = {"reply-started": "started", "reply-finished": "reply"}


class Surface:
    """A chat client, one of its chats, and the eyes of the person in it."""

    client: ChatClient
    address: ChatAddress

    async def say(self, text: str, key: str) -> None:
        raise NotImplementedError

    def seen(self) -> list[Sight]:
        raise NotImplementedError


class ConsoleSurface(Surface):
    def __init__(self) -> None:
        self.client = self.console = ConsoleChat()
        self.address = self.console.chat_of("ada")

    async def say(self, text: str, key: str) -> None:
        await self.console.post(
            Said(address=self.address, account="ada", update_key=key, text=text, message_key=key), within_s=5
        )

    def seen(self) -> list[Sight]:
        return [(one.kind, one.mark or one.text) for one in self.console.shown]


class PlaygroundSurface(Surface):
    def __init__(self) -> None:
        self.client = self.playground = Playground("playground", "main")
        self.address = self.playground.address
        self._tab = self.playground.subscribed(self.address)
        self._frames = self._tab.__enter__()

    async def say(self, text: str, key: str) -> None:
        await self.playground.receive(
            Said(address=self.address, account="admin", update_key=key, text=text, message_key=key)
        )

    def seen(self) -> list[Sight]:
        shown = []
        for frame in self._frames.left():
            if frame.kind not in ("hello", "said"):
                facts: dict[str, Any] = frame.data
                kind = _KINDS.get(frame.kind, frame.kind)
                shown.append((kind, facts.get("mark") or facts.get("text", "")))
        return shown


@pytest.fixture(params=[ConsoleSurface, PlaygroundSurface], ids=["console", "playground"])
async def surface(request: pytest.FixtureRequest) -> Surface:
    return request.param()


@asynccontextmanager
async def running(client: ChatClient) -> AsyncIterator[list[ChatEvent]]:
    accepted: list[ChatEvent] = []

    async def accept(event: ChatEvent) -> None:
        accepted.append(event)

    task = asyncio.create_task(client.run(accept))
    await asyncio.sleep(0)
    yield accepted
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_it_names_its_platform_and_its_account_there(surface):
    assert surface.client.platform and surface.client.bot_account
    assert surface.address.platform == surface.client.platform
    assert surface.address.bot_account == surface.client.bot_account


async def test_what_people_say_is_accepted_until_it_is_cancelled(surface):
    async with running(surface.client) as accepted:
        await surface.say("What is rain?", "key-1")
    assert [(event.text, event.update_key, event.message_key) for event in accepted] == [
        ("What is rain?", "key-1", "key-1")
    ]


async def test_an_event_that_cannot_be_committed_is_not_swallowed(surface):
    async def accept(event: ChatEvent) -> None:
        raise RuntimeError("the disk is full")

    task = asyncio.create_task(surface.client.run(accept))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError):
        await surface.say("What is rain?", "key-1")
    task.cancel()


async def test_a_reply_grows_and_is_finished(surface):
    writer = await surface.client.open_reply(surface.address, "key-1")
    await writer.write("Wa")
    await writer.write("ter.")
    await writer.finish(Reply(text="Water.", completion_id=7, version_name="base"))
    assert surface.seen() == [("started", ""), ("delta", "Wa"), ("delta", "ter."), ("reply", "Water.")]


async def test_the_finished_reply_is_whole_whatever_became_of_the_deltas(surface):
    writer = await surface.client.open_reply(surface.address, None)
    await writer.finish(Reply(text="Water.", completion_id=7, version_name="base"))
    assert surface.seen()[-1] == ("reply", "Water.")


async def test_feedback_can_name_a_reply_by_its_key(surface):
    keys = []
    for number in (7, 8):
        writer = await surface.client.open_reply(surface.address, None)
        keys.append(await writer.finish(Reply(text="Water.", completion_id=number, version_name="base")))
    assert len(set(keys)) == 2


async def test_every_notice_has_a_key_of_its_own(surface):
    notice = Reply(text="Noted.", notice=True, buttons=(Button(label="Undo", action="undo"),))
    assert len({await surface.client.send(surface.address, notice) for _ in range(3)}) == 3
    assert surface.seen() == [("notice", "Noted.")] * 3


async def test_a_reply_may_end_as_a_notice(surface):
    writer = await surface.client.open_reply(surface.address, "key-1")
    assert await writer.finish(Reply(text="My model is starting.", notice=True))
    assert surface.seen()[-1] == ("reply", "My model is starting.")


@pytest.mark.parametrize("mark", ["noted", "queued", "learned", "refused"])
async def test_marks_are_shown_on_messages_known_or_not(surface, mark):
    await surface.client.mark(surface.address, "a message from before the restart", mark)
    assert surface.seen() == [("mark", mark)]


async def test_nobody_watching_holds_up_nothing(surface):
    for number in range(3_000):
        await surface.client.send(surface.address, Reply(text=str(number), notice=True))
