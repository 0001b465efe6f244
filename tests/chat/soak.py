"""A day of talk on a simulated platform in fast-forward, and whether anything grows: `python -m tests.chat.soak`.

The whole bot talks HTTP to the stand-in for Telegram; the clocks of both stand still until the command moves them.
Prints what is held after each hour, and judges tasks, descriptors and answers alone: memory is for eyes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from claasbot.chat.telegram.client import TelegramChat
from claasbot.chat.telegram.outgoing import Timing
from claasbot.chat.telegram.receiving import TelegramRules
from claasbot.services.admin_commands import HELP as ADMIN_HELP
from claasbot.services.clock import utc_now
from claasbot.services.commands import HELP
from claasbot.settings import AccessSettings, LearningSettings, Settings
from claasbot.storage import completions
from claasbot.storage.rows import rows
from claasbot.storage.store import Store
from tests.chat.telegram.fake_bot_api import FakeBotApi
from tests.chat.telegram.people import Person
from tests.chat.telegram.running_bot import ManualClock
from tests.chat.telegram.world import Chat, Message
from tests.services.world import World, running_world

HANDFUL = 10
"""A connection that the client keeps for a while is a task and two descriptors here, where both its ends are."""
N_PEOPLE = 8
N_WAVES = 3
"""Times in an hour at which people write, all at once."""
_WAVE_S = 3600 / N_WAVES
_TICK_S = 0.25
_KEPT_MESSAGES = 40
_FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Rows are kept outside of the process, whose memory is looked at, and no disk is waited for."""
_COMMANDS = ("/help", "/status", "/learned", "/usage", "/settings", "/reset", "/retry", "/whoami")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the process holds after an hour, when nothing is left to do."""

    hour: int
    n_tasks: int
    n_descriptors: int
    rss_mib: float
    memories: dict[str, int]
    """Entries of what the client and the receiving stage remember."""


@dataclass(slots=True)
class Tally:
    """What happened altogether."""

    n_updates: int = 0
    n_answers: int = 0
    n_lessons: int = 0
    n_lost: int = 0
    n_doubled: int = 0
    n_429: int = 0
    n_dropped: int = 0


@dataclass(slots=True)
class Clocks:
    """The bot's, the platform's and the services' clock, moved together."""

    bot: ManualClock
    move_platform: Callable[[float], None]
    ahead_s: float = 0.0

    def now(self) -> datetime:
        return utc_now() + timedelta(seconds=self.ahead_s)

    def advance(self, seconds: float) -> None:
        self.ahead_s += seconds
        self.move_platform(seconds)
        self.bot.advance(seconds)


@dataclass(slots=True, kw_only=True)
class Talk:
    """One place in which people talk to the bot."""

    chat: Chat
    people: list[Person]
    thread: int | None = None
    last: Message | None = None
    """The last question, and who asked it."""
    by: Person | None = None

    def say(self, person: Person, text: str) -> Message:
        """In a group the bot is named, or it would not listen."""
        called = text if self.chat.kind == "private" else f"@{self.chat.bots[0].username} {text}"
        self.last, self.by = person.say(self.chat, called, thread=self.thread), person
        return self.last

    def answers(self, words: str) -> list[Message]:
        there = self.chat.messages if self.thread is None else self.chat.in_thread(self.thread)
        return [one for one in there if one.sender.is_bot and words in one.text]


@dataclass(slots=True)
class Day:
    """People, what they do, and what became of it."""

    fake: FakeBotApi
    world: World
    clocks: Clocks
    talks: list[Talk]
    drawn: random.Random = field(default_factory=lambda: random.Random(3))
    tally: Tally = field(default_factory=Tally)
    _n_said: int = 0

    async def hour(self) -> None:
        for wave in range(N_WAVES):
            began_s = self.clocks.ahead_s
            self._trouble(wave)
            asked = [(talk, self._ask(talk)) for talk in self.talks]
            await self.settle()
            self._count(asked)
            self._react()
            await self.settle()
            self._speak_of_it()
            await self.settle()
            self.clocks.advance(began_s + _WAVE_S - self.clocks.ahead_s)
        self._forget()

    async def settle(self) -> None:
        """Let the clocks run until everything that was said is read, answered, learned and told."""
        await asyncio.sleep(0)
        done = asyncio.create_task(self._settled())
        while not done.done():
            await asyncio.sleep(0.004)
            self.clocks.advance(_TICK_S)
        await done

    async def _settled(self) -> None:
        await self.fake.all_read(within_s=20)
        await self.world.cycle.settled(within_s=20)

    def _trouble(self, wave: int) -> None:
        if wave % 2 == 0:
            method = self.drawn.choice(("sendMessage", "sendMessageDraft", "sendChatAction", "editMessageText"))
            self.fake.fail_next(method, 429, retry_after=self.drawn.randint(1, 30))
        else:
            self.fake.drop_next(self.drawn.choice(("sendMessage", "getUpdates", "sendMessageDraft")))

    def _ask(self, talk: Talk) -> str:
        self._n_said += 1
        words = f"Question {self._n_said}?"
        talk.say(self.drawn.choice(talk.people), words)
        return f"heard: {words}"

    def _count(self, asked: list[tuple[Talk, str]]) -> None:
        for talk, words in asked:
            n_answers = len(talk.answers(words))
            self.tally.n_answers += n_answers
            self.tally.n_lost += n_answers == 0
            self.tally.n_doubled += n_answers > 1

    def _react(self) -> None:
        """A reaction or a press on the last answer, and talk among people that is none of the bot's business."""
        for talk in self.talks:
            [*_, answer] = talk.answers("heard: ")
            assert talk.by is not None
            what = self.drawn.choice(("👍", "👎", "press", "nothing"))
            if what == "press":
                talk.by.press(answer, self.drawn.choice(("👍", "👎", "↻")))
            elif what != "nothing":
                talk.by.react(answer, what)
            if talk.chat.kind != "private":
                self.drawn.choice(talk.people).say(talk.chat, "What a day.", thread=talk.thread)

    def _speak_of_it(self) -> None:
        """A reason after a 👎, a remark, an edit, a command, a reaction taken back."""
        for talk in self.talks:
            assert talk.by is not None and talk.last is not None
            for card in talk.answers("What was wrong?"):
                if "Too long" in card.buttons:
                    talk.by.press(card, "Too long")
                    break
            match self.drawn.choice(("edit", "command", "command", "unreact", "nothing")):
                case "edit":
                    talk.by.edit(talk.last, f"{talk.last.text} Please.")
                case "command" if talk.chat.kind == "private":
                    talk.by.say(talk.chat, self.drawn.choice(_COMMANDS))
                case "unreact":
                    talk.by.unreact(talk.answers("heard: ")[-1])

    def _forget(self) -> None:
        """What the simulation keeps for tests to look at would be mistaken for the bot's."""
        fake, tally = self.fake, self.tally
        fake.check()
        tally.n_updates += len(fake.bot.updates.history)
        tally.n_429 += sum(call.status == 429 for call in (*fake.calls, *fake.polls))
        tally.n_dropped += sum(call.status == 0 for call in (*fake.calls, *fake.polls[:-1]))
        for kept in (fake.calls, fake.polls, fake.bot.updates.history, fake.bot.updates.skipped, fake.world.presses):
            kept.clear()
        fake.forget_faults()
        for talk in self.talks:
            talk.chat.previews.clear()
            talk.chat.actions.clear()
            del talk.chat.history[:-_KEPT_MESSAGES]
        self.world.server.seen.requests.clear()
        self.world.engine.seen.ran.clear()


def main(argv: list[str] | None = None) -> int:
    """1 when something grew, or an answer was lost or came twice."""
    options = _parser().parse_args(argv)
    logging.getLogger("claasbot").setLevel(logging.ERROR)  # the trouble is made
    told = " ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"simulated platform; {os.cpu_count()} cores, load average before {told}", flush=True)
    began = time.monotonic()
    held, tally = asyncio.run(_measure(options.hours))
    for one in dict.fromkeys((0, len(held) // 2, len(held) - 1)):
        _print(held[one])
    print(
        f"{tally.n_updates} updates, {tally.n_answers} answers (lost {tally.n_lost}, doubled {tally.n_doubled}), "
        f"{tally.n_lessons} lessons, {tally.n_429} 429s, {tally.n_dropped} connections dropped; "
        f"{time.monotonic() - began:.0f} s"
    )
    grown = _grown(held[0], held[-1])
    print(f"grown: {', '.join(grown) or 'nothing'}")
    if options.json:
        print(json.dumps({"hours": [asdict(one) for one in held], "tally": asdict(tally), "grown": grown}))
    return 1 if grown or tally.n_lost or tally.n_doubled else 0


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m tests.chat.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=int, default=24, help="hours of simulated traffic (default 24)")
    parser.add_argument("--json", action="store_true", help="print every hour as JSON on the last line")
    return parser


def _grown(first: Held, last: Held) -> list[str]:
    found = []
    if last.n_tasks > first.n_tasks + HANDFUL:
        found.append(f"tasks from {first.n_tasks} to {last.n_tasks}")
    if last.n_descriptors > first.n_descriptors + HANDFUL:
        found.append(f"descriptors from {first.n_descriptors} to {last.n_descriptors}")
    return found


def _print(held: Held) -> None:
    print(f"hour {held.hour:2}: {held.n_tasks} tasks, {held.n_descriptors} descriptors, {held.rss_mib:.1f} MiB")
    print(f"  client: {', '.join(f'{name} {n}' for name, n in held.memories.items())}")


async def _measure(n_hours: int) -> tuple[list[Held], Tally]:
    fake = FakeBotApi()
    await fake.start()
    clocks = Clocks(ManualClock(changed=fake.world.changed), fake.advance)
    with tempfile.TemporaryDirectory(prefix="claasbot-soak-", dir=_FOLDER) as folder:
        store = Store(Path(folder) / "claasbot.db")
        await store.open()
        try:
            client = _client(fake, clocks, store)
            settings = Settings(access=AccessSettings(mode="open"), learning=LearningSettings(debounce_s=0.0))
            async with running_world(Path(folder), settings, store, client=client, clock=clocks.now) as world:
                day = Day(fake, world, clocks, _talks(fake))
                await _agree(day)
                held = []
                for hour in range(1, n_hours + 1):
                    await day.hour()
                    held.append(_held(hour, client, clocks.bot, world))
                promoted = await store.run(rows, "SELECT id FROM job WHERE state = 'promoted'")
                day.tally.n_lessons = len(promoted)
        finally:
            await store.close()
            await fake.stop()
    return held, day.tally


def _client(fake: FakeBotApi, clocks: Clocks, store: Store) -> TelegramChat:
    account = fake.bot.token.partition(":")[0]

    async def chat_of_message(chat: str, message_key: str) -> str | None:
        return await store.run(completions.chat_of_message, "telegram", account, chat, message_key)

    return TelegramChat(
        TelegramRules(token=fake.bot.token, base_url=fake.base_url, base_file_url=fake.base_file_url),
        commands=HELP | ADMIN_HELP,
        chat_of_message=chat_of_message,
        timing=Timing(now=clocks.bot.now, sleep=clocks.bot.sleep),
    )


def _talks(fake: FakeBotApi) -> list[Talk]:
    people = [fake.person(f"Person{number}") for number in range(N_PEOPLE)]
    group = fake.group("team", members=people[:4])
    forum = fake.group("forum", forum=True, members=people[2:6])
    return [
        *(Talk(chat=fake.private_chat(person), people=[person]) for person in people),
        Talk(chat=group, people=people[:4]),
        *(Talk(chat=forum, people=people[2:6], thread=forum.topic(name)) for name in ("Rain", "Snow")),
    ]


async def _agree(day: Day) -> None:
    """Two people let the bot learn from them; the others never answer the card."""
    for talk in day.talks[:2]:
        [person] = talk.people
        person.say(talk.chat, "/optin")
    await day.settle()


def _held(hour: int, client: TelegramChat, clock: ManualClock, world: World) -> Held:
    gc.collect()
    memory, receiving = client._memory, world.cycle.receiving
    statm = Path("/proc/self/statm").read_text().split()
    return Held(
        hour=hour,
        n_tasks=len(asyncio.all_tasks()),
        n_descriptors=len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - a pathlib walk is one descriptor more
        rss_mib=int(statm[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20,
        memories={
            "messages": len(memory._written),
            "forums": len(memory._forums),
            "limiter chats": len(client._limiter._chats),
            "turns": len(client._out._turns),
            "client tasks": len(client._tasks),
            "sleepers": len(clock.sleeping),
            "lanes": len(receiving._lanes),
        },
    )


if __name__ == "__main__":
    sys.exit(main())
