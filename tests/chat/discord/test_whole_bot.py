"""The whole bot on a simulated platform over real sockets, without hardware: from a message to a lesson and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import discord
import pytest
import simcord

from claasbot.data_folder import DataFolder
from claasbot.platforms import platforms
from claasbot.settings import Settings
from claasbot.storage.rows import one, rows
from claasbot.storage.store import Store
from tests.services.world import World, running_world

from .bridge import Bridge
from .conftest import TOKEN


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - discord.py makes it so, and signals nobody
            await asyncio.sleep(0.005)


async def feedback(store: Store, *kinds: str) -> None:
    """Return when this feedback, and no other, is kept."""
    found: list[str] = []
    async with asyncio.timeout(20):
        while len(found) < len(kinds):
            found = [row["kind"] for row in await store.run(rows, "SELECT kind FROM feedback_event ORDER BY id")]
            await asyncio.sleep(0.005)
    assert found == list(kinds)


@dataclass
class Server:
    """The platform with one channel, two people, and what the host runs."""

    bridge: Bridge
    data: Path
    store: Store

    def __post_init__(self) -> None:
        self.guild = self.bridge.env.create_guild()
        self.channel = self.guild.create_text_channel("general")
        self.alice, self.bob = (self.guild.add_member(self.bridge.env.create_user(name)) for name in ("alice", "bob"))

    @asynccontextmanager
    async def running(self, **changes: object) -> AsyncIterator[World]:
        settings = Settings(
            learning={"debounce_s": 0.0},
            access={"mode": "open"},
            discord={
                "tokens": [TOKEN],
                "api_base": self.bridge.api_base,
                "gateway": self.bridge.gateway,
                "learning": "full",
            }
            | changes,
        )
        [client] = platforms(settings, DataFolder(root=self.data), self.store).clients
        async with running_world(self.data, settings, self.store, client=client) as world:
            await until(lambda: client.health().state == "ok")
            yield world

    @property
    def bot_id(self) -> int:
        return self.bridge.env.backend.bot_user.id

    def says(self, words: str, channel: simcord.ChannelHandle | None = None) -> list[discord.Message]:
        history = (channel or self.channel).history()
        return [message for message in history if message.author.id == self.bot_id and words in message.content]

    async def see(self, words: str, channel: simcord.ChannelHandle | None = None) -> discord.Message:
        try:
            await until(lambda: self.says(words, channel))
        except TimeoutError:
            texts = [message.content[:200] for message in (channel or self.channel).history()]
            raise AssertionError(f"{words!r} was not said; there is {texts}") from None
        return self.says(words, channel)[-1]

    async def ask(self, text: str) -> discord.Message:
        await self.alice.send(self.channel, f"<@{self.bot_id}> {text}")
        return await self.see(f"heard: {text}")

    async def agree(self) -> None:
        await self.alice.send(self.channel, f"<@{self.bot_id}> /optin")
        await self.see("Thank you")

    def marks(self, message: discord.Message) -> list[str]:
        found = next(one for one in self.channel.history() if one.id == message.id)
        return [str(reaction.emoji) for reaction in found.reactions]


@pytest.fixture
async def server(bridge: Bridge, tmp_path: Path) -> AsyncIterator[Server]:
    store = Store(None)
    await store.open()
    yield Server(bridge, tmp_path, store)
    await store.close()


async def test_from_a_message_to_a_lesson_and_back(server: Server):
    """Simulated platform."""
    async with server.running():
        answer = await server.ask("What is rain?")
        await server.agree()
        await server.alice.react(answer, "👎")
        why = await server.see("What was wrong?")
        await server.alice.click(why, label="Too long")
        await until(lambda: server.marks(answer) == ["👎", "🎓"])
        assert "p1.v1" in (await server.ask("And snow?")).content
        assert not server.says("Learned from")  # a server is told by marks alone, unless it asks
        await server.alice.send(server.channel, f"<@{server.bot_id}> /undo")
        await server.see("the base model answers you now")


async def test_learning_is_off_until_the_host_says_otherwise(server: Server):
    """Simulated platform."""
    async with server.running(learning="off") as world:
        await server.ask("What is rain?")
        await world.cycle.settled()
        assert not server.says("I am an AI")
        await server.agree()
        await server.alice.send(server.channel, f"<@{server.bot_id}> /feedback Shorter.")
        await server.see("switched off on this platform")
        assert world.engine.seen.ran == []


async def test_a_form_is_no_message_content(server: Server):
    """Simulated platform: asked by /ask and corrected by a form, it may train where messages may not."""
    async with server.running(learning="interactions") as world:
        await server.agree()
        await server.alice.slash(server.channel, "ask", text="What is rain?")
        answer = await server.see("heard: What is rain?")
        pending = await server.alice.context_menu(server.channel, "Correct…", answer)
        await until(lambda: pending.modal is not None)
        await server.alice.submit_modal(pending, {"text": "Water."})
        await until(lambda: world.engine.seen.ran)
        await world.cycle.settled()
        assert (await world.store.run(one, "SELECT state FROM experience"))["state"] == "consumed"


async def test_other_people_teach_nobody(server: Server):
    """Simulated platform."""
    async with server.running() as world:
        answer = await server.ask("What is rain?")
        await server.bob.react(answer, "👎")
        await server.bob.send(server.channel, "I think rain is lovely.")
        await server.alice.react(answer, "👍")
        await feedback(world.store, "thumbs_up")
        texts = await world.store.run(rows, "SELECT text FROM turn")
        assert not any("lovely" in row["text"] for row in texts)


async def test_reactions_that_were_missed_are_found_at_the_next_start(server: Server):
    """Simulated platform."""
    async with server.running() as world:
        answer = await server.ask("What is rain?")
        await world.cycle.settled()
    await server.alice.react(answer, "🔥")
    async with server.running() as world:
        await feedback(world.store, "thumbs_up")


async def test_a_button_works_after_a_restart(server: Server):
    """Simulated platform."""
    async with server.running() as world:
        answer = await server.ask("What is rain?")
        await world.cycle.settled()
    async with server.running():
        await server.alice.click(answer, label="👎")
        await feedback(server.store, "thumbs_down")


async def test_an_edited_question_is_answered_again_and_a_deleted_one_forgotten(server: Server):
    """Simulated platform."""
    async with server.running() as world:
        question = await server.alice.send(server.channel, f"<@{server.bot_id}> What is rian?")
        await server.see("heard: What is rian?")
        await server.alice.edit(question, f"<@{server.bot_id}> What is rain?")
        await server.see("heard: What is rain?")
        await server.alice.delete(question)
        await until(lambda: world.cycle.receiving.is_idle())
        await server.ask("And snow?")
        read = [message.content for message in world.server.seen.requests[-1].messages]
        assert read == ["And snow?"]


async def test_nobody_is_pinged_by_an_answer(server: Server):
    """Simulated platform."""
    async with server.running():
        answer = await server.ask("say @everyone")
        assert not answer.mention_everyone
        sent = [one for one in server.bridge.env.http_requests if one.method == "POST" and "messages" in one.path]
        assert sent
