"""SIGTERM at any time: what was begun is ended, the rest waits in rows, and the exit is 0 within 20 seconds.

Shows R-21, with a second signal on top. Nothing may come twice here: only a crash is an excuse for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from claasbot import adapter_files
from tests.chat.telegram.fake_bot_api import FakeBotApi
from tests.faults.conftest import scaled
from tests.faults.dry_bot import DryBot
from tests.faults.test_bot_kills import Crowd

SEED = 21
MOST_S = 20.0


@asynccontextmanager
async def writing(crowd: Crowd) -> AsyncIterator[None]:
    """People write and one of them teaches, as long as the block runs."""
    tasks = [asyncio.create_task(crowd.write()), asyncio.create_task(_teach(crowd.fake))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _teach(fake: FakeBotApi) -> None:
    person = fake.person("Teacher")
    chat = fake.private_chat(person)
    person.say(chat, "/optin")
    for number in itertools.count():
        person.say(chat, f"/ask lesson {number}.")
        await asyncio.sleep(0.4)
        person.say(chat, f"/feedback Shorter, by {number}.")
        await asyncio.sleep(0.6)


async def test_sigterm_at_any_time_loses_nothing_and_doubles_nothing(fake, tmp_path, totals):
    """R-21: 100 times, at random moments of starting, answering and teaching."""
    drawn, n_stops, slowest_s = random.Random(SEED), scaled(100, 3), 0.0
    crowd, bot = Crowd.of(fake, per_s=8.0), DryBot(tmp_path, fake)
    async with writing(crowd):
        for _ in range(n_stops):
            await asyncio.to_thread(bot.start)
            await asyncio.sleep(drawn.uniform(0.0, scaled(2, 1)))
            slowest_s = max(slowest_s, await asyncio.to_thread(_stop, bot, drawn))
            assert bot.process is not None
            assert bot.process.returncode == 0, bot.said()
    await asyncio.to_thread(bot.start)
    await fake.all_read(within_s=120)
    await crowd.all_answered(within_s=300)
    await asyncio.to_thread(bot.wait_for, lambda: bot.rows(_OPEN) == [(0, 0)])
    await asyncio.to_thread(bot.stop)
    answers, versions = crowd.answers(), _verified_versions(bot)
    n_doubled = sum(len(times) > 1 for times in answers.values())
    totals["unanswered"] += sum(not times for times in answers.values())
    totals["duplicates"] += n_doubled
    print(
        f"seed {SEED}: {n_stops} stops, slowest {slowest_s:.1f} s, {len(answers)} messages, "
        f"{n_doubled} answered twice, {versions} versions whole"
    )
    assert slowest_s <= MOST_S
    assert all(answers.values())
    assert n_doubled == 0
    assert versions > 0


_OPEN = """
SELECT (SELECT count(*) FROM inbox WHERE handled_at IS NULL),
       (SELECT count(*) FROM experience WHERE state IN ('received', 'queued', 'leased'))
"""


def _stop(bot: DryBot, drawn: random.Random) -> float:
    """SIGTERM, and sometimes another signal on top; seconds until it is gone."""
    assert bot.process is not None
    began = time.monotonic()
    bot.process.send_signal(signal.SIGTERM)
    if drawn.random() < 0.5:
        time.sleep(drawn.uniform(0.0, 0.4))
        with contextlib.suppress(ProcessLookupError):
            bot.process.send_signal(drawn.choice((signal.SIGTERM, signal.SIGINT)))
    bot.process.wait(timeout=60)
    return time.monotonic() - began


def _verified_versions(bot: DryBot) -> int:
    """How many the database names; each is whole, and none lies half-made beside them."""
    folders = [bot.data / folder for (folder,) in bot.rows("SELECT folder FROM adapter_version")]
    for folder in folders:
        adapter_files.verify(folder)
    return len(folders)


async def test_what_asks_whether_it_is_ready_hears_no_as_soon_as_it_is_to_stop(fake, tmp_path: Path):
    """R-21: an answer that is still being written holds the exit up, and readiness is gone meanwhile."""
    bot = DryBot(tmp_path, fake, CLAASBOT_CHAT__MAX_TOKENS="2000")
    person = fake.person("Ada")
    chat = fake.private_chat(person)
    await asyncio.to_thread(bot.start)
    before = await asyncio.to_thread(_readiness, bot)
    long = "rain " * 350  # an echo of a second or so
    person.say(chat, f"/ask {long}")
    await fake.until(lambda: chat.previews)
    assert bot.process is not None
    bot.process.send_signal(signal.SIGTERM)
    person.say(chat, "/ask and snow?")
    readiness = await asyncio.to_thread(bot.wait_for, lambda: _not_ready(bot))
    await asyncio.to_thread(bot.process.wait, 20)
    answered = [message.text for message in chat.messages if "heard" in message.text]
    assert (before, readiness) == ((200, []), (503, ["bot"]))
    assert bot.process.returncode == 0
    assert len(answered) == 1
    assert answered[0].count("rain") == 350
    await asyncio.to_thread(bot.start)
    await fake.until(lambda: [one for one in chat.messages if "heard: and snow?" in one.text], within_s=10)
    await asyncio.to_thread(bot.stop)


def _not_ready(bot: DryBot) -> tuple[int, list[str]] | None:
    found = _readiness(bot)
    return found if found[0] != 200 else None


def _readiness(bot: DryBot) -> tuple[int, list[str]]:
    connection = http.client.HTTPConnection(urlsplit(bot.url).netloc, timeout=5)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())["down"]
    finally:
        connection.close()


async def test_a_signal_while_it_starts_ends_it_too(tmp_path: Path):
    bot = DryBot(tmp_path)
    starting = asyncio.create_task(asyncio.to_thread(bot.start))
    async with asyncio.timeout(20):
        while not (tmp_path / "logs" / "bot.log").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert bot.process is not None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ProcessLookupError):
            bot.process.send_signal(number)
    with contextlib.suppress(AssertionError):  # it may have been up just before
        await starting
    bot.process.wait(timeout=20)
    assert bot.process.returncode == 0
