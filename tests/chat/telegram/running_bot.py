"""A TelegramChat at work on the simulated platform, with a clock that only the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from claasbot.chat.telegram.client import TelegramChat
from claasbot.chat.telegram.intake import ChatOfMessage
from claasbot.chat.telegram.limiter import Limiter
from claasbot.chat.telegram.outgoing import Timing
from claasbot.chat.telegram.receiving import TelegramRules
from claasbot.domain.conversation import ChatAddress, ChatEvent
from tests.chat.telegram.fake_bot_api import FakeBotApi
from tests.chat.telegram.world import Chat

MENU = {"help": "what I can do", "retry": "answer again"}
_E = TypeVar("_E")


@dataclass
class ManualClock:
    """Time stands still until `advance`; whoever sleeps is woken when their time has come."""

    changed: Callable[[], None]
    time_s: float = 1_000.0
    sleeping: list[tuple[float, asyncio.Future[None]]] = field(default_factory=list)

    def now(self) -> float:
        return self.time_s

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self.sleeping.append((self.time_s + seconds, future))
        self.changed()
        try:
            await future
        finally:
            self.sleeping = [one for one in self.sleeping if one[1] is not future]

    def advance(self, seconds: float) -> None:
        self.time_s += seconds
        for at, future in self.sleeping:
            if at <= self.time_s + 1e-9 and not future.done():
                future.set_result(None)

    def sleeps_for(self) -> list[float]:
        """How long everybody who sleeps has still to sleep."""
        return sorted(at - self.time_s for at, future in self.sleeping if not future.done())


@dataclass(kw_only=True)
class RunningBot:
    fake: FakeBotApi
    clock: ManualClock
    chat: TelegramChat
    accepted: list[ChatEvent] = field(default_factory=list)
    accept_raises: Exception | None = None
    may_commit: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_commit.set()

    async def accept(self, event: ChatEvent) -> None:
        await self.may_commit.wait()
        if self.accept_raises is not None:
            raise self.accept_raises
        self.accepted.append(event)
        self.fake.world.changed()

    async def next(self, kind: type[_E]) -> _E:
        """The next event, which must be of this kind."""
        event = await self.fake.until(lambda: self.accepted[0])
        assert isinstance(event, kind), event
        del self.accepted[0]
        return event

    def address(self, chat: Chat, thread: int | None = None) -> ChatAddress:
        name = str(chat.id) if thread is None else f"{chat.id}/{thread}"
        return ChatAddress(platform="telegram", bot_account=self.chat.bot_account, chat=name)

    async def is_healthy(self, state: str = "ok") -> str:
        await self.fake.until(lambda: self.chat.health().state == state)
        return self.chat.health().detail


@asynccontextmanager
async def running(
    fake: FakeBotApi,
    *,
    chat_of_message: ChatOfMessage | None = None,
    start: bool = True,
    notice_s: float = 30.0,
    limiter: Limiter | None = None,
    **rules: Any,
) -> AsyncIterator[RunningBot]:
    """`start=False`: the bot sends, but does not receive yet.

    The clock stands still, so a burst of any size may go out at once.
    """
    clock = ManualClock(changed=fake.world.changed)
    chat = TelegramChat(
        TelegramRules(
            **({"token": fake.bot.token, "base_url": fake.base_url, "base_file_url": fake.base_file_url} | rules)
        ),
        commands=MENU,
        chat_of_message=chat_of_message,
        limiter=limiter or Limiter(overall=(1_000, 27.0)),
        timing=Timing(now=clock.now, sleep=clock.sleep, notice_s=notice_s),
    )
    bot = RunningBot(fake=fake, clock=clock, chat=chat)
    task = asyncio.create_task(chat.run(bot.accept))
    task.add_done_callback(lambda _: fake.world.changed())
    if start:
        await fake.until(lambda: fake.polls or task.done())
        assert not task.done(), task.exception()
    try:
        yield bot
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()
