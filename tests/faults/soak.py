"""Talk and lessons in real time, and whether anything grows: `python -m tests.faults.soak --minutes 30` (R-25).

The whole bot runs as a process of its own on the parts that need no hardware; the stand-in for Telegram sends one
message a second and one remark that teaches every ten. Prints what the bot holds every minute. Exit 1 when tasks or
descriptors grew, memory grew by more than `MOST_MIB` after the first third, or an answer was lost or came twice.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from claasbot.storage.rows import Row
from tests.chat.telegram.fake_bot_api import FakeBotApi
from tests.chat.telegram.people import Person
from tests.chat.telegram.world import Chat
from tests.faults.dry_bot import DryBot

N_PEOPLE = 10
EVERY_S = 1.0
LESSON_EVERY = 10
"""Messages."""
ROUNDS = 10
"""After so many messages a person begins a new conversation."""
HANDFUL = 5
MOST_MIB = 8.0
_FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() else None
_TABLES = ("inbox", "turn", "completion", "experience", "job", "adapter_version", "outbox")


class WatchedBot(DryBot):
    command = (*DryBot.command, "--tell-tasks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the bot's process holds at one moment."""

    minute: float
    rss_mib: float
    n_descriptors: int
    n_threads: int
    n_tasks: int
    database_mib: float
    n_folders: int
    """Of versions, on the disk."""
    rows: Row


def held_by(bot: DryBot, minute: float) -> Held:
    status = Path(f"/proc/{bot.pid}/status").read_text()
    tasks = re.findall(r"^tasks (\d+)$", bot.said(), re.MULTILINE)
    adapters = bot.data / "adapters"
    return Held(
        minute=round(minute, 2),
        rss_mib=int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024,
        n_descriptors=len(os.listdir(f"/proc/{bot.pid}/fd")),  # noqa: PTH208 - a pathlib walk is one descriptor more
        n_threads=int(re.findall(r"Threads:\s+(\d+)", status)[0]),
        n_tasks=int(tasks[-1]) if tasks else 0,
        database_mib=(bot.data / "claasbot.db").stat().st_size / 2**20,
        n_folders=sum(one.is_dir() for one in adapters.glob("*/*")),
        rows={table: bot.rows(f"SELECT count(*) FROM {table}")[0][0] for table in _TABLES},
    )


async def talk(fake: FakeBotApi, places: list[tuple[Person, Chat]], asked: list[int]) -> None:
    """Until cancelled. The first person teaches; the others talk."""
    for number in itertools.count():
        person, chat = places[number % len(places)]
        if number % LESSON_EVERY == LESSON_EVERY - 1:
            teacher, lessons = places[0]
            teacher.say(lessons, f"/feedback Shorter, by {number}.")
        elif number // N_PEOPLE % ROUNDS == ROUNDS - 1:  # or prompts would grow until the window is full
            person.say(chat, "/reset")
        else:
            person.say(chat, f"/ask question {number}.")
            asked.append(number)
        await asyncio.sleep(EVERY_S)


def answers(fake: FakeBotApi) -> dict[int, int]:
    found: dict[int, int] = {}
    for call in fake.calls_of("sendMessage"):
        if call.status == 200 and (match := re.search(r"heard: question (\d+)\.", call["text"])):
            found[int(match[1])] = found.get(int(match[1]), 0) + 1
    return found


async def soak(minutes: float, folder: Path) -> tuple[list[Held], int, int]:
    """What was held each minute; how many answers were lost, and how many came twice."""
    fake, asked, held = FakeBotApi(), list[int](), list[Held]()
    await fake.start()
    people = [fake.person(f"Person{n}") for n in range(N_PEOPLE)]
    places = [(person, fake.private_chat(person)) for person in people]
    # The scripted server says its name: with that of version 100, little of the answer fits the gate's sample.
    bot = WatchedBot(folder, fake, CLAASBOT_GATE__MIN_EXPLANATION_WORDS="0")
    await asyncio.to_thread(bot.start)
    try:
        places[0][0].say(places[0][1], "/optin")
        talking = asyncio.create_task(talk(fake, places, asked))
        began = time.monotonic()
        step_s = min(60.0, minutes * 60 / 10)
        while (so_far_s := time.monotonic() - began) < minutes * 60:
            await asyncio.sleep(min(step_s, minutes * 60 - so_far_s))
            held.append(held_by(bot, (time.monotonic() - began) / 60))
            print(_line(held[-1]), flush=True)
        talking.cancel()
        await fake.all_read(within_s=60)
        await fake.until(lambda: answers(fake).keys() >= set(asked), within_s=120)
    finally:
        await asyncio.to_thread(bot.stop)
        await fake.stop()
    n_of = answers(fake)
    return held, sum(number not in n_of for number in asked), sum(n > 1 for n in n_of.values())


def _line(held: Held) -> str:
    counted = ", ".join(f"{table} {n}" for table, n in held.rows.items())
    return (
        f"minute {held.minute:5.1f}: {held.rss_mib:.1f} MiB, {held.n_descriptors} descriptors, "
        f"{held.n_threads} threads, {held.n_tasks} tasks; database {held.database_mib:.2f} MiB, "
        f"{held.n_folders} version folders; {counted}"
    )


def slope_mib_per_h(held: list[Held]) -> float:
    """Least squares over the samples after the first third."""
    after = held[len(held) // 3 :]
    if len(after) < 2:
        return 0.0
    return float(np.polyfit([one.minute / 60 for one in after], [one.rss_mib for one in after], 1)[0])


def grown(held: list[Held]) -> list[str]:
    first, last = held[len(held) // 3], held[-1]
    found = [
        f"{name} from {getattr(first, name)} to {getattr(last, name)}"
        for name in ("n_tasks", "n_descriptors", "n_threads")
        if getattr(last, name) > getattr(first, name) + HANDFUL
    ]
    if last.rss_mib > first.rss_mib + MOST_MIB:
        found.append(f"memory from {first.rss_mib:.1f} to {last.rss_mib:.1f} MiB")
    return found


def main(argv: list[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default 30)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="claasbot-soak-", dir=_FOLDER) as folder:
        held, n_lost, n_doubled = asyncio.run(soak(options.minutes, Path(folder)))
    what = grown(held)
    print(f"grown: {', '.join(what) or 'nothing'}; answers lost {n_lost}, doubled {n_doubled}")
    print(
        json.dumps(
            {
                "minutes": options.minutes,
                "slope_mib_per_h": round(slope_mib_per_h(held), 2),
                "lost": n_lost,
                "doubled": n_doubled,
                "grown": what,
                "last": asdict(held[-1]),
            }
        )
    )
    return 1 if what or n_lost or n_doubled else 0


if __name__ == "__main__":
    sys.exit(main())
