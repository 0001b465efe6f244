"""A simulated platform (simcord) with one server, one channel and two people, and a bot that says what a test wants."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import simcord
from discord.gateway import DiscordWebSocket
from discord.http import Route

from claasbot.chat.discord.client import DiscordChat
from claasbot.chat.discord.pace import Pace
from claasbot.domain.conversation import ChatAddress, ChatEvent
from claasbot.errors import StoreError

from .bridge import Bridge, bridged

TOKEN = base64.urlsafe_b64encode(b"4242").decode().rstrip("=") + ".not.real"
COMMANDS = {
    "start": "what this bot is",
    "status": "which version answers you",
    "feedback": "say what was wrong",
    "ask": "ask me something",
    "retry": "answer again",
}
Answer = Callable[[ChatEvent], Awaitable[None]]


@dataclass
class Bot:
    """Commits into a list; `answer` is what it does about an event."""

    chat: DiscordChat
    accepted: list[ChatEvent] = field(default_factory=list)
    answer: Answer | None = None
    n_failures: int = 0
    """How often the store fails before it works again."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def accept(self, event: ChatEvent) -> None:
        if self.n_failures:
            self.n_failures -= 1
            raise StoreError("the database is locked; try again")
        self.accepted.append(event)
        if self.answer is not None:
            task = asyncio.create_task(self.answer(event))  # type: ignore[arg-type]
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def only(self) -> ChatEvent:
        (event,) = self.accepted
        return event


def make_chat(**options: object) -> DiscordChat:
    options = {
        "token": TOKEN,
        "commands": COMMANDS,
        "with_argument": frozenset({"feedback"}),
        "pace": Pace(preview_s=0.0, retry_s=0.0),
    } | options
    return DiscordChat(**options)  # type: ignore[arg-type]


@dataclass
class World:
    env: simcord.Env
    bot: Bot
    channel: simcord.ChannelHandle
    alice: simcord.MemberActor
    bob: simcord.MemberActor

    @property
    def chat(self) -> DiscordChat:
        return self.bot.chat

    @property
    def at(self) -> str:
        """How people mention the bot."""
        assert self.env.bot.user is not None
        return self.env.bot.user.mention

    @property
    def address(self) -> ChatAddress:
        return self.address_of(self.channel)

    def address_of(self, channel: simcord.ChannelHandle) -> ChatAddress:
        return self.chat_address(str(channel.id))

    def chat_address(self, chat: str) -> ChatAddress:
        return ChatAddress(platform="discord", bot_account="4242", chat=chat)

    def texts(self, channel: simcord.ChannelHandle | None = None) -> list[str]:
        """What the bot has said there."""
        history = (channel or self.channel).history()
        return [message.content for message in history if message.author.id == self.env.bot.user.id]

    def requests(self, method: str, path: str = "") -> list[simcord.HttpLogEntry]:
        return [one for one in self.env.http_requests if one.method == method and path in one.path]

    async def restart(self) -> None:
        await self.env.restart_bot(self.chat.connect(self.bot.accept))


@pytest.fixture
async def bridge(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bridge]:
    """The platform behind real sockets. A client that is pointed at it points the whole process there: put back."""
    monkeypatch.setattr(Route, "BASE", Route.BASE)
    monkeypatch.setattr(DiscordWebSocket, "DEFAULT_GATEWAY", DiscordWebSocket.DEFAULT_GATEWAY)
    async with bridged(TOKEN) as bridge:
        yield bridge


@pytest.fixture
def bot(tmp_path: Path, request: pytest.FixtureRequest) -> Bot:
    return Bot(chat=make_chat(synced_path=tmp_path / "synced", **getattr(request, "param", {})))


@pytest.fixture
def simcord_bot(bot: Bot):
    return bot.chat.connect(bot.accept)


@pytest.fixture
async def world(simcord_env: simcord.Env, bot: Bot) -> World:
    guild = simcord_env.create_guild()
    channel = guild.create_text_channel("general")
    alice, bob = (guild.add_member(simcord_env.create_user(name)) for name in ("alice", "bob"))
    return World(env=simcord_env, bot=bot, channel=channel, alice=alice, bob=bob)
