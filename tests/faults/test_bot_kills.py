"""kill -9 of the bot while people write: every message that the platform was told is safe is answered once.

Shows R-04. The whole bot runs as a process of its own; the platform is the strict stand-in for Telegram, which delivers
again what was not acknowledged. An answer may come twice only where the kill fell between its sending and the commit
that it was sent: no platform takes a message only once. Of each chat one answer at most is on its way at a time, so a
kill doubles at most one in each chat; how many chats are answered at that moment, the kill decides.
"""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from claasbot.services.backing_up import DATABASE
from tests.chat.telegram.fake_bot_api import FakeBotApi
from tests.chat.telegram.people import Person
from tests.chat.telegram.world import Chat
from tests.faults.conftest import scaled
from tests.faults.dry_bot import DryBot

SEED = 4
_QUESTION = re.compile(r"heard: question (\d+)\.")
N_PEOPLE = 25
PER_S = 20.0
_MOST_PENDING = 200
"""Beyond that people wait for the bot to come up."""
_ON_ITS_WAY = "SELECT chat, text FROM completion WHERE message_key IS NULL"
"""Completed, and not known to be sent."""


@dataclass
class Crowd:
    """People who write all the time, each in a chat of their own."""

    fake: FakeBotApi
    places: list[tuple[Person, Chat]]
    per_s: float = PER_S
    asked: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, fake: FakeBotApi, per_s: float = PER_S) -> Crowd:
        people = [fake.person(f"Person{n}") for n in range(N_PEOPLE)]
        return cls(fake, [(person, fake.private_chat(person)) for person in people], per_s)

    async def write(self) -> None:
        """Until cancelled. By command: several messages in a row may be served by one answer."""
        while True:
            if len(self.fake.bot.updates.pending) < _MOST_PENDING:
                number = len(self.asked)
                person, chat = self.places[number % len(self.places)]
                person.say(chat, f"/ask question {number}.")
                self.asked.append(number)
            await asyncio.sleep(1 / self.per_s)

    def answers(self) -> dict[int, list[float]]:
        """When the answers to each question were sent."""
        found: dict[int, list[float]] = {number: [] for number in self.asked}
        for call in self.fake.calls_of("sendMessage"):
            if call.status == 200 and (match := _QUESTION.search(call["text"])):
                found[int(match[1])].append(call.at)
        return found

    async def all_answered(self, within_s: float) -> None:
        await self.fake.until(lambda: all(self.answers().values()), within_s=within_s)


async def test_the_bot_is_killed_while_people_write_and_everybody_is_answered_once(fake, in_memory, totals):
    """R-04: 200 kills under 20 messages a second."""
    drawn, n_kills, on_its_way = random.Random(SEED), scaled(200, 5), list[dict[int, str]]()
    crowd, bot = Crowd.of(fake), DryBot(in_memory, fake)
    await asyncio.to_thread(bot.start)
    writing = asyncio.create_task(crowd.write())
    for _ in range(n_kills):
        await asyncio.sleep(drawn.uniform(0.1, scaled(2, 1)))
        await asyncio.to_thread(bot.kill)
        on_its_way.append(await asyncio.to_thread(_on_its_way, bot.data))
        await asyncio.to_thread(bot.start)
    writing.cancel()
    await fake.all_read(within_s=120)
    await crowd.all_answered(within_s=600)
    await asyncio.to_thread(bot.stop)
    answers = crowd.answers()
    n_again = {number: len(times) - 1 for number, times in answers.items() if len(times) > 1}
    doubled = [number for number, n in n_again.items() if n > sum(number in there for there in on_its_way)]
    totals["kills"] += n_kills
    totals["unanswered"] += sum(not times for times in answers.values())
    totals["duplicates"] += sum(n_again.values())
    totals["doubled"] += len(doubled)
    print(
        f"seed {SEED}: {n_kills} kills, {len(answers)} messages; on their way at a kill {sum(map(len, on_its_way))}, "
        f"at most {max(map(len, on_its_way))} at once; sent twice {sum(n_again.values())}"
    )
    assert all(answers.values())
    assert doubled == [], "they came twice, and no kill fell between their sending and its commit"
    assert all(len(set(there.values())) == len(there) for there in on_its_way), "one answer of each chat at a time"
    assert bot.rows("SELECT count(*) FROM turn WHERE role = 'user'") == [(len(answers),)]
    assert bot.rows("SELECT count(*) FROM turn WHERE role = 'assistant'") == [(len(answers),)]
    assert bot.rows("SELECT count(*) FROM inbox WHERE handled_at IS NULL") == [(0,)]


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A data folder that no disk slows down: only the process dies here, and on a busy disk commits wait in line."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="claasbot-kills-", dir=memory) as folder:
        yield Path(folder)


def _on_its_way(data: Path) -> dict[int, str]:
    """Question → chat. Read from a copy: what the kill left in the journal is the bot's own to play back."""
    with tempfile.TemporaryDirectory(dir=data) as folder:
        for name in (DATABASE, f"{DATABASE}-journal"):
            with suppress(FileNotFoundError):
                shutil.copy(data / name, folder)
        with closing(sqlite3.connect(Path(folder) / DATABASE)) as copy:
            found = copy.execute(_ON_ITS_WAY).fetchall()
    return {int(match[1]): chat for chat, text in found if (match := _QUESTION.search(text))}
