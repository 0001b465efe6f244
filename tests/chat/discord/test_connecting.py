"""A simulated platform over real HTTP and a real gateway: signing in, thrown out, and a bot of its own process."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import discord
import pytest

from claasbot.chat.discord.client import DiscordChat
from claasbot.chat.discord.delivery import insist
from claasbot.chat.discord.pace import Pace
from claasbot.chat.discord.tokens import account_of
from claasbot.domain.conversation import Attachment, ChatAddress, ChatEvent, Reply, Said
from claasbot.errors import ChatError, SettingsError

from .bridge import Bridge
from .conftest import TOKEN, make_chat

ROOT = Path(__file__).parents[3]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 — another process, or discord.py, makes it so
            await asyncio.sleep(0.005)


class Line:
    """The bridge, people behind it, and a client in this process in front of it."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        guild = bridge.env.create_guild()
        self.channel = guild.create_text_channel("general")
        self.alice = guild.add_member(bridge.env.create_user("alice"))
        self.accepted: list[ChatEvent] = []
        self._running: asyncio.Task[None] | None = None

    @property
    def at(self) -> str:
        return f"<@{self.bridge.env.backend.bot_user.id}>"

    @property
    def address(self) -> ChatAddress:
        return ChatAddress(platform="discord", bot_account="4242", chat=str(self.channel.id))

    def texts(self) -> list[str]:
        bot_id = self.bridge.env.backend.bot_user.id
        return [message.content for message in self.channel.history() if message.author.id == bot_id]

    def run(self, **options: object) -> DiscordChat:
        chat = make_chat(api_base=self.bridge.api_base, gateway=self.bridge.gateway, **options)
        self._running = asyncio.create_task(chat.run(self._accept))
        return chat

    async def hang_up(self) -> None:
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running

    async def _accept(self, event: ChatEvent) -> None:
        self.accepted.append(event)


@pytest.fixture
async def line(bridge: Bridge) -> AsyncIterator[Line]:
    line = Line(bridge)
    yield line
    await line.hang_up()


def is_ok(chat: DiscordChat) -> bool:
    return chat.health().state == "ok"


async def test_it_signs_in_hears_and_answers(line: Line):
    """Simulated platform."""
    chat = line.run()
    assert chat.health().state == "down"
    await until(lambda: is_ok(chat))
    assert "1 servers" in chat.health().detail
    await line.alice.send(line.channel, f"{line.at} What is rain?")
    await until(lambda: len(line.accepted) == 1)
    await chat.send(line.address, Reply(text="Water."), line.accepted[0].update_key[1:])
    assert line.texts() == ["Water."]


async def test_a_revoked_token_is_explained_and_never_shown(line: Line, caplog: pytest.LogCaptureFixture):
    """Simulated platform."""
    line.bridge.token = "another"
    with caplog.at_level("DEBUG"):
        chat = line.run()
        await until(lambda: "refuses the token" in chat.health().detail)
    assert chat.health().state == "down"
    assert "CLAASBOT_DISCORD_TOKEN" in chat.health().detail
    assert TOKEN not in caplog.text and TOKEN not in chat.health().detail
    with pytest.raises(ChatError, match="not connected"):
        await chat.send(line.address, Reply(text="Water."))


async def test_a_token_that_is_revoked_while_it_runs_is_explained(line: Line):
    """Simulated platform."""
    chat = line.run()
    await until(lambda: is_ok(chat))
    await line.bridge.hang_up(4004)
    await until(lambda: "refuses the token" in chat.health().detail)
    for _ in range(100):
        await asyncio.sleep(0)
    assert "refuses the token" in chat.health().detail


async def test_without_the_message_content_intent_it_goes_on_with_mentions_and_says_so(line: Line):
    """Simulated platform."""
    line.bridge.message_content_approved = False
    chat = line.run()
    await until(lambda: is_ok(chat))
    assert "message content intent" in chat.health().detail
    await line.alice.send(line.channel, f"{line.at} What is rain?")
    await until(lambda: len(line.accepted) == 1)
    event = line.accepted[0]
    assert isinstance(event, Said)
    assert event.text == "What is rain?"


async def test_a_connection_that_breaks_is_resumed_and_nothing_said_meanwhile_is_lost(line: Line):
    """Simulated platform."""
    chat = line.run()
    await until(lambda: is_ok(chat))
    await line.bridge.hang_up()
    await line.alice.send(line.channel, f"{line.at} What is rain?")
    await until(lambda: len(line.accepted) == 1)
    assert line.bridge.n_identified == 1
    await until(lambda: is_ok(chat))


async def test_an_unreachable_platform_is_told_and_tried_again(line: Line):
    """Simulated platform."""
    line.bridge.env.inject_error("GET", "/oauth2/applications/@me", status=503, times=2)
    chat = line.run()
    await until(lambda: "cannot be reached" in chat.health().detail)
    await until(lambda: is_ok(chat))


async def test_a_short_rate_limit_delays_a_message_and_does_not_double_it(line: Line):
    """Simulated platform."""
    chat = line.run()
    await until(lambda: is_ok(chat))
    line.bridge.env.inject_error("POST", "/channels/*/messages", status=429, times=2)
    await chat.send(line.address, Reply(text="Water."))
    assert line.texts() == ["Water."]


async def test_a_long_rate_limit_ends_the_previews_and_is_told_when_it_lasts(line: Line):
    """Simulated platform."""
    chat = line.run()
    await until(lambda: is_ok(chat))
    line.bridge.retry_after_s = 3600.0
    line.bridge.env.inject_error("POST", "/channels/*/messages", status=429)
    writer = await chat.open_reply(line.address, None)
    await writer.write("Rain is water that falls")
    await until(writer.previews.done)
    await writer.finish(Reply(text="Water."))
    assert line.texts() == ["Water."]


async def test_of_marks_that_come_at_once_the_last_one_stands(line: Line):
    """Simulated platform."""
    chat = line.run()
    await until(lambda: is_ok(chat))
    (key,) = await chat.send(line.address, Reply(text="Water."))
    gate = line.bridge.gates["GET"] = asyncio.Event()
    noted = asyncio.create_task(chat.mark(line.address, key, "noted"))
    await until(lambda: bool(line.channel.last_message.reactions))
    learned = asyncio.create_task(chat.mark(line.address, key, "learned"))
    for _ in range(2):  # long enough for the second one to overtake
        await chat.send(line.address, Reply(text="And snow?"))
    gate.set()
    await asyncio.gather(noted, learned)
    assert [str(one.emoji) for one in line.channel.history()[0].reactions] == ["🎓"]


async def test_a_final_text_waits_as_long_as_discord_says():
    """Simulated platform: what discord.py raises when a rate limit is longer than its patience."""
    tries = []

    async def post() -> str:
        tries.append("try")
        if len(tries) < 3:
            raise discord.RateLimited(0.0)
        return "key"

    assert await insist(post, 0.0) == "key"
    assert len(tries) == 3


async def test_before_it_runs_nothing_can_be_sent_or_read_and_marks_are_no_trouble():
    """No platform."""
    chat = make_chat()
    address = ChatAddress(platform="discord", bot_account=chat.bot_account, chat="7")
    await chat.mark(address, "8", "noted")
    with pytest.raises(ChatError, match="not connected"):
        await chat.open_reply(address, None)
    with pytest.raises(ChatError, match="no file"):
        await chat.read(Attachment(name="rain.txt", reference="elsewhere", n_bytes=3))


def test_the_account_is_the_user_id_in_the_token():
    assert account_of(TOKEN) == "4242"


@pytest.mark.parametrize("token", ["hunter2", "", "é.b", "NDI0Mg", "bm9uZQ.not.real"])
def test_a_token_that_is_none_is_refused_without_showing_it(token: str):
    """Two of them would be one account."""
    with pytest.raises(SettingsError, match="developer portal") as caught:
        make_chat(token=token)
    assert not token or token not in str(caught.value)


async def test_a_notice_does_not_wait_out_a_long_rate_limit_and_says_how_long_it_is(line: Line):
    """Simulated platform."""
    chat = line.run()
    await until(lambda: is_ok(chat))
    line.bridge.retry_after_s = 3600.0
    line.bridge.env.inject_error("POST", "/channels/*/messages", status=429)
    with pytest.raises(ChatError, match="3600 s"):
        async with asyncio.timeout(20):
            await chat.send(line.address, Reply(text="Water."))


async def test_notices_and_marks_that_discord_does_not_answer_give_up(line: Line):
    """Simulated platform."""
    chat = line.run(pace=Pace(preview_s=0.0, retry_s=0.0, notice_s=0.05))
    await until(lambda: is_ok(chat))
    gate = line.bridge.gates["POST"] = line.bridge.gates["PUT"] = asyncio.Event()
    async with asyncio.timeout(20):
        with pytest.raises(ChatError, match="try again"):
            await chat.send(line.address, Reply(text="Water."))
        await chat.mark(line.address, "7", "noted")
    gate.set()


@contextlib.asynccontextmanager
async def echo_bot(bridge: Bridge) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.chat.discord.echo_bot", TOKEN, bridge.api_base, bridge.gateway, cwd=ROOT
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def test_a_bot_of_its_own_process_holds_a_conversation(line: Line):
    """Simulated platform, through real sockets only."""
    async with echo_bot(line.bridge):
        await until(lambda: bool(line.bridge.sessions))
        question = await line.alice.send(line.channel, f"{line.at} What is rain?")
        await until(lambda: line.texts() == ["You said: What is rain?"])
        answer = line.channel.last_message
        assert answer.reference.message_id == question.id
        edits = [one for one in line.bridge.env.http_requests if one.method == "PATCH"]
        assert len(edits) >= 2

        await line.alice.react(answer, "👍")
        await until(lambda: [str(one.emoji) for one in line.channel.last_message.reactions] == ["👍", "👀"])
        await line.alice.unreact(answer, "👍")
        await until(lambda: line.channel.last_message.reactions == [])

        pressed = await line.alice.click(answer, label="Undo")
        await until(lambda: [one.content for one in pressed.followups] == ["did undo:7"])
        commanded = await line.alice.slash(line.channel, "status")
        await until(lambda: commanded.response is not None and commanded.response.content == "did status")
        assert commanded.response.ephemeral
        assert [file.filename for file in commanded.response.attachments] == ["export.json"]

        await line.bridge.hang_up()
        await line.alice.send(line.channel, "And snow?", reply_to=answer)
        await until(lambda: line.texts()[-1] == "You said: And snow?")
