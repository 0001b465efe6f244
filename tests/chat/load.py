"""Many private chats at once on a simulated platform, and what the bot adds: `python -m tests.chat.load`.

The whole bot talks HTTP to the stand-in for Telegram in the same process; the scripted server streams at the pace of a
real one. Prints figures and judges none of them, but for answers that are lost or come twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretStr
from sqlite_utils import Database

from claasbot.data_folder import DataFolder
from claasbot.domain.conversation import ChatAddress, Message
from claasbot.domain.person import CONSENT_VERSION
from claasbot.inference.scripted import Rule
from claasbot.platforms import platforms
from claasbot.settings import AccessSettings, ChatSettings, Settings, TelegramSettings
from claasbot.storage import people
from claasbot.storage.store import Store
from tests.chat.telegram.fake_bot_api import FakeBotApi
from tests.chat.telegram.people import Person
from tests.chat.telegram.server import Call
from tests.chat.telegram.world import Chat
from tests.services.world import running_world

FIRST_TOKEN_S = 0.2
STREAM_S = 2.0
N_TOKENS = 60
_TOKEN_CHARS = 6
"""The scripted server sends so many of its ids at a time: one of a real model's tokens."""
PER_S = 30
"""Telegram's limit on all messages of a bot, and the burst that it takes."""
DRAFTS_REFUSED, MESSAGES_REFUSED, RETRY_AFTER_S = 0.05, 0.02, 2
_VISIBLE = ("sendMessage", "sendMessageDraft", "editMessageText")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Seconds: the median, the 95th percentile, the longest."""

    p50: float
    p95: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One run. Forced: how long a client that sends nothing else must wait if all answers end at once."""

    limits: str
    n_chats: int
    message_to_server_s: Spread
    first_visible_added_s: Spread
    last_token_to_final_s: Spread
    forced_s: Spread
    n_lost: int
    n_doubled: int
    n_429: int
    previews_per_answer: float
    calls_per_s: float
    wall_s: float
    cpu_s: float
    loop_late_s: Spread
    """How late the event loop, shared by bot and platform, woke a task that slept."""


@dataclass(slots=True, kw_only=True)
class Answer:
    """What the server says to one person, and when."""

    text: str
    asked_at: float = 0.0
    began_at: float = 0.0
    first_at: float = 0.0
    last_at: float = 0.0
    n_pieces: int = 0


_ANSWER: ContextVar[Answer] = ContextVar("answer")


@dataclass(slots=True)
class Pace:
    """The scripted server's rule and its patience: a first token after a while, then one after another."""

    answers: dict[str, Answer] = field(default_factory=dict)
    """By question."""

    def rule(self, messages: tuple[Message, ...], model: str) -> str | None:
        del model
        answer = self.answers.get(messages[-1].content)
        if answer is None:
            return None
        answer.began_at, answer.n_pieces = time.time(), 0
        _ANSWER.set(answer)  # the pieces are fetched by tasks of their own, which inherit it
        return answer.text

    async def before_token(self) -> None:
        answer = _ANSWER.get()
        due = answer.began_at + FIRST_TOKEN_S + answer.n_pieces * STREAM_S / N_TOKENS
        await asyncio.sleep(max(0.0, due - time.time()))
        answer.last_at = time.time()
        answer.first_at = answer.first_at or answer.last_at
        answer.n_pieces += 1


def main(argv: list[str] | None = None) -> int:
    """1 when an answer was lost or came twice."""
    options = _parser().parse_args(argv)
    told = [f"{load:.1f}" for load in os.getloadavg()]
    print(f"simulated platform; {os.cpu_count()} cores, load average before {' '.join(told)}", flush=True)
    runs = []
    for is_limited in (False, True):
        runs.append(asyncio.run(_measure(options.chats, options.seconds, is_limited=is_limited)))
        _print(runs[-1])
    if options.json:
        print(json.dumps([asdict(run) for run in runs]))
    return 1 if any(run.n_lost or run.n_doubled for run in runs) else 0


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m tests.chat.load", description=__doc__.splitlines()[0])
    parser.add_argument("--chats", type=int, default=200, help="private chats that write at once (default 200)")
    parser.add_argument(
        "--seconds", type=float, default=25.0, help="answers that are not there by then are lost (default 25)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on the last line")
    return parser


async def _measure(n_chats: int, within_s: float, *, is_limited: bool) -> Figures:
    fake, pace = FakeBotApi(), Pace()
    await fake.start()
    if is_limited:
        fake.limit_rates()
    else:
        fake.flood_some("sendMessageDraft", DRAFTS_REFUSED, retry_after=RETRY_AFTER_S, seed=1)
        fake.flood_some("sendMessage", MESSAGES_REFUSED, retry_after=RETRY_AFTER_S, seed=2)
    with tempfile.TemporaryDirectory(prefix="claasbot-load-") as folder:
        store = Store(Path(folder) / "claasbot.db")
        await store.open()
        try:
            asked = _questions(fake, pace, n_chats)
            await store.run(_acquaint, fake.bot.id, [person for _, person, _ in asked])
            late, cpu_s, wall_s = await _run(fake, pace, store, asked, Path(folder), within_s)
        finally:
            await store.close()
            await fake.stop()
    fake.check()
    limits = "the platform's own limits" if is_limited else "429s at random"
    return _figures(fake, [(chat, pace.answers[text]) for chat, _, text in asked], limits, late, cpu_s, wall_s)


def _questions(fake: FakeBotApi, pace: Pace, n_chats: int) -> list[tuple[Chat, Person, str]]:
    asked = []
    for number in range(n_chats):
        person = fake.person(f"Person{number}")
        text = f"Question {number}?"
        words = f"Answer {number}: " + " ".join(f"word{n:02}" for n in range(N_TOKENS))  # a loop would be remarked upon
        pace.answers[text] = Answer(text=words[: N_TOKENS * _TOKEN_CHARS - 2] + ".")
        asked.append((fake.private_chat(person), person, text))
    return asked


def _acquaint(db: Database, bot_id: int, known: Iterable[Person]) -> None:
    """They have seen the consent card before: it is a message more, once."""
    now = datetime.now(UTC)
    for one in known:
        address = ChatAddress(platform="telegram", bot_account=str(bot_id), chat=str(one.id))
        person = people.person_of(db, "telegram", str(one.id), one.first_name, now)
        people.record_consent(db, person.person_id, address, "asked", CONSENT_VERSION, now)


async def _run(
    fake: FakeBotApi, pace: Pace, store: Store, asked: list[tuple[Chat, Person, str]], folder: Path, within_s: float
) -> tuple[list[float], float, float]:
    """Everybody asks at once; ends when all are answered and nothing follows, or when the time is over."""
    settings = _settings(fake)
    [client] = platforms(settings, DataFolder(root=folder), store).clients
    late: list[float] = []
    async with running_world(folder, settings, store, client=client) as world:
        rules: tuple[Rule, ...] = (pace.rule, *world.server.rules)
        world.server.rules = rules
        world.server.faults.before_token = pace.before_token
        await fake.until(lambda: fake.bot.updates.is_polled, within_s=10)
        fake.calls.clear()
        watch = asyncio.create_task(_watch(late))
        began, cpu_began = time.monotonic(), time.process_time()
        for chat, person, text in asked:
            person.say(chat, text)
            pace.answers[text].asked_at = time.time()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not all(len(chat.messages) > 1 for chat, _, _ in asked):  # noqa: ASYNC110 - looks rarely, to not disturb
                    await asyncio.sleep(0.1)
                await world.cycle.settled()
        wall_s, cpu_s = time.monotonic() - began, time.process_time() - cpu_began
        await asyncio.sleep(1.0)  # what comes twice comes soon
        watch.cancel()
    return late, cpu_s, wall_s


def _settings(fake: FakeBotApi) -> Settings:
    token = SecretStr(fake.bot.token)
    return Settings(
        access=AccessSettings(mode="open"),
        chat=ChatSettings(max_tokens=2 * N_TOKENS * _TOKEN_CHARS),
        telegram=TelegramSettings(tokens=(token,), base_url=fake.base_url, base_file_url=fake.base_file_url),
    )


async def _watch(late: list[float]) -> None:
    while True:
        began = time.monotonic()
        await asyncio.sleep(0.02)
        late.append(time.monotonic() - began - 0.02)


def _figures(
    fake: FakeBotApi,
    answered: list[tuple[Chat, Answer]],
    limits: str,
    late: list[float],
    cpu_s: float,
    wall_s: float,
) -> Figures:
    shown = [call for call in fake.calls if call.method in _VISIBLE and call.status == 200]
    first: dict[int, float] = {}
    final: dict[int, float] = {}
    for call in shown:
        first.setdefault(call["chat_id"], call.at)
        if call.method != "sendMessageDraft":
            final.setdefault(call["chat_id"], call.at)
    n_finals = [sum(one.text == answer.text for one in chat.messages) for chat, answer in answered]
    seen = [(chat.id, answer) for chat, answer in answered if chat.id in first]
    n_chats = len(answered)
    return Figures(
        limits=limits,
        n_chats=n_chats,
        message_to_server_s=_spread(answer.began_at - answer.asked_at for _, answer in seen),
        first_visible_added_s=_spread(first[chat] - answer.first_at for chat, answer in seen),
        last_token_to_final_s=_spread(final[chat] - answer.last_at for chat, answer in seen if chat in final),
        forced_s=_spread(max(0.0, (n + 1 - PER_S) / PER_S) for n in range(n_chats)),
        n_lost=n_finals.count(0),
        n_doubled=sum(n > 1 for n in n_finals),
        n_429=sum(call.status == 429 for call in fake.calls),
        previews_per_answer=_n_previews(shown) / n_chats,
        calls_per_s=len(fake.calls) / wall_s,
        wall_s=wall_s,
        cpu_s=cpu_s,
        loop_late_s=_spread(late),
    )


def _n_previews(shown: Iterable[Call]) -> int:
    return sum(call.method == "sendMessageDraft" for call in shown)


def _spread(values: Iterable[float]) -> Spread:
    ordered = sorted(values) or [math.nan]
    p50, p95 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.95))
    return Spread(p50=p50, p95=p95, most=ordered[-1])


def _print(run: Figures) -> None:
    rows = (
        ("server asked after the person's message", run.message_to_server_s),
        ("first visible text after the server's first token", run.first_visible_added_s),
        ("final message after the server's last token", run.last_token_to_final_s),
        (f"forced by {PER_S} messages a second, all at once", run.forced_s),
        ("event loop late by", run.loop_late_s),
    )
    print(f"\n{run.n_chats} chats at once, {run.limits}")
    for name, spread in rows:
        print(f"  {name:<50} p50 {spread.p50:6.2f} s   p95 {spread.p95:6.2f} s   most {spread.most:6.2f} s")
    print(f"  answers lost {run.n_lost}, doubled {run.n_doubled}; 429s met {run.n_429}")
    print(f"  previews per answer {run.previews_per_answer:.2f}; {run.calls_per_s:.0f} calls/s")
    print(f"  {run.wall_s:.1f} s, of which {run.cpu_s:.1f} s of one core (bot and platform)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
