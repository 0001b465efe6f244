"""A server that is down, slow, silent, half-hearted or without its memory: nobody is forgotten, nobody waits for ever.

Shows R-10 (down), R-11 (restarted, its adapters gone) and R-12 (slow, hanging, half answers, 429, wrong JSON). Our real
client asks vLLM's routes over HTTP; the scripted server answers behind them, and a proxy in between does harm.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from claasbot.domain.conversation import Commanded
from claasbot.errors import ServerBroke, ServerDown, ServerError, ServerRefused
from claasbot.inference.connection import Patience
from claasbot.inference.scripted import ScriptedServer
from claasbot.inference.vllm import VllmServer
from claasbot.ports import InferenceServer
from claasbot.services.receiving import DOWN
from claasbot.settings import Settings
from claasbot.storage.rows import rows
from claasbot.storage.store import Store
from tests.contracts.test_inference_server import InferenceServerContract, ask, whole
from tests.faults.conftest import scaled
from tests.faults.proxy import Proxy, Trouble, proxied
from tests.faults.vllm_front import VllmFront, fronted
from tests.services.world import World, running_world

HURRIED = Patience(connect_s=0.5, call_s=0.3, load_s=1.0, forget_s=0.2, silence_s=0.3, n_failures=5, pause_s=0.5)
"""The patience of a test, in the proportions of ours."""


class TestOurClientOverHttp(InferenceServerContract):
    """The routes that stand in for vLLM's here keep the contract, or nothing below would mean anything."""

    @pytest.fixture
    async def server(self) -> AsyncIterator[VllmServer]:
        async with fronted(ScriptedServer()) as self.front:
            client = await self.front.client()
            yield client
            await client.close()

    async def n_running(self, server: InferenceServer) -> int:
        return self.front.scripted.seen.n_running


@dataclass(slots=True, kw_only=True)
class Line:
    """A whole bot, whose server stands behind a proxy."""

    world: World
    front: VllmFront
    proxy: Proxy
    client: VllmServer

    async def ask(self, account: str, text: str, key: str) -> None:
        """By command: messages in a row, where they wait, are served by one answer."""
        address = self.world.chat.chat_of(account)
        key = f"{account}-{key}"
        asked = Commanded(address=address, account=account, update_key=key, own_key=key, command="ask", argument=text)
        await self.world.chat.post(asked)

    def answers(self, account: str) -> list[str]:
        return [reply.text for reply in self.world.chat.said_to(account, "reply") if not reply.notice]

    def notices(self) -> Counter[tuple[str, str]]:
        return Counter((one.address.chat, one.text) for one in self.world.chat.shown if one.kind == "notice")

    async def until(self, true: object, within_s: float = 30.0) -> float:
        """Seconds until the function is true."""
        began = time.monotonic()
        async with asyncio.timeout(within_s):
            while not true():  # type: ignore[operator]  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return time.monotonic() - began


@asynccontextmanager
async def lined(folder: Path, patience: Patience = HURRIED) -> AsyncIterator[Line]:
    store = Store(folder / "claasbot.db")
    await store.open()
    scripted = ScriptedServer()
    try:
        async with fronted(scripted) as front, proxied(front.port) as proxy:
            client = await front.client(proxy.url, patience=patience)
            settings = Settings(data=folder, learning={"debounce_s": 0.0})
            try:
                async with running_world(folder, settings, store, server=scripted, reached=client) as world:
                    yield Line(world=world, front=front, proxy=proxy, client=client)
            finally:
                await client.close()
    finally:
        await store.close()


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    async with lined(tmp_path) as line:
        yield line


# ---


async def test_a_server_that_is_down_is_told_once_and_everything_is_answered_in_order_afterwards(line, totals):
    """R-10. 100 messages in 20 chats meet a server that is not there."""
    people, n_each = [f"person{n}" for n in range(20)], 5
    await line.front.stop()
    for number in range(n_each):
        for account in people:
            await line.ask(account, f"What is number {number}?", str(number))
    told_s = await line.until(lambda: len([one for one in line.notices() if one[1] == DOWN.text]) == len(people))
    await asyncio.sleep(scaled(60, 1))  # of real time: connections are refused meanwhile, and nobody hears of it again
    assert not any(line.answers(account) for account in people)
    await line.front.start()
    caught_up_s = await line.until(lambda: all(len(line.answers(account)) == n_each for account in people))
    await line.world.cycle.settled()
    n_notices = [count for (_, text), count in line.notices().items() if text == DOWN.text]
    in_order = sum([*map(_number, line.answers(account))] == list(range(n_each)) for account in people)
    asked = n_each * len(people)
    answered = sum(len(line.answers(account)) for account in people)
    totals["unanswered"] += asked - answered
    print(f"told after {told_s:.1f} s, {asked} messages caught up in {caught_up_s:.1f} s, {answered} answers")
    assert told_s <= 10
    assert n_notices == [1] * len(people)
    assert in_order == len(people)
    assert caught_up_s <= 30
    assert answered == asked


def _number(answer: str) -> int:
    return int(answer.rpartition("number ")[2].rstrip("?"))


async def test_a_second_outage_is_told_again(line):
    for number in (1, 2):
        await line.front.stop()
        await line.ask("ada", "What is rain?", str(number))
        await line.until(lambda n=number: line.notices()["ada", DOWN.text] == n)
        await line.front.start()
        await line.until(lambda n=number: len(line.answers("ada")) == n)


async def test_whoever_wants_to_be_forgotten_need_not_wait_for_the_server(line):
    await line.ask("ada", "What is rain?", "1")
    await line.until(lambda: line.answers("ada"))
    await line.front.stop()
    await line.ask("ada", "What is snow?", "2")
    await line.until(lambda: line.notices()["ada", DOWN.text])
    card = await line.world.chat.command("ada", "forget")
    assert "delete" in card.text.lower()


async def test_a_message_that_breaks_the_server_again_and_again_is_given_up_and_the_next_is_answered(line):
    """What the server took and did not end is tried five times; one that it did not take waits for it."""
    scripted = line.world.server
    await line.ask("bob", "What is rain?", "1")
    await line.until(lambda: line.answers("bob"))
    began = len(scripted.seen.requests)
    scripted.faults.breaks_after_tokens = 6
    await line.ask("ada", "The words that break it.", "1")
    told = await line.world.chat.wait_for(lambda shown: "broke off 5 times" in shown.text)
    assert "another way" in told.text
    assert len(scripted.seen.requests) - began == 5
    scripted.faults.breaks_after_tokens = None
    await line.ask("ada", "What is snow?", "2")
    await line.until(lambda: line.answers("ada"))


# ---


async def test_a_server_that_forgot_its_adapters_gets_them_again_and_nobody_is_answered_by_the_base_unmarked(line):
    """R-11."""
    people = [f"person{n}" for n in range(4)]
    world = line.world
    for account in people:
        await world.taught(account)
    n_loads, unmarked, slowest = len(world.server.seen.loads), 0, 0.0
    for round_ in range(scaled(10, 3)):
        world.server.restart()
        began = time.monotonic()
        replies = await asyncio.gather(*(world.chat.say(account, f"Still there, {round_}?") for account in people))
        slowest = max(slowest, time.monotonic() - began)
        unmarked += sum(reply.version_name == "base" and not reply.data["fell_back"] for reply in replies)
        assert [reply.version_name for reply in replies] == [f"p{n + 1}.v1" for n in range(len(people))]
    loads = Counter(world.server.seen.loads[n_loads:])
    print(f"{sum(loads.values())} loads after {scaled(10, 3)} restarts, slowest round {slowest:.2f} s")
    assert unmarked == 0
    assert slowest <= 10
    assert set(loads.values()) == {scaled(10, 3)}


async def test_a_version_that_cannot_be_loaded_again_is_answered_by_the_base_and_marked_so(line):
    await line.world.taught("ada")
    line.world.server.restart()
    line.world.server.faults.refuses_load = "no slot"
    reply = await line.world.chat.say("ada", "Still there?")
    assert (reply.version_name, reply.data["fell_back"]) == ("base", True)


# ---

TROUBLES = {
    "hanging": Trouble(hangs=True),
    "cut in the headers": Trouble(cuts_after=20),
    "cut in the stream": Trouble(cuts_after=600),
    "reset in the stream": Trouble(resets_after=600),
    "reset at once": Trouble(resets_after=0),
    "slower than our patience": Trouble(latency_s=0.5),
}


@pytest.mark.parametrize("name", TROUBLES)
async def test_trouble_on_the_way_ends_in_an_error_of_ours_within_our_patience(line, name):
    """R-12, one call at a time: `info`, an answer, a load."""
    line.proxy.trouble = TROUBLES[name]
    calls = [lambda: whole(line.client, ask("What is rain?" * 40, "scripted", max_tokens=500))]
    if "stream" not in name:  # the other answers are shorter than that
        calls += [line.client.info, line.client.loaded, lambda: line.client.load("p1.v1-x", Path("/nowhere"))]
    for call in calls:
        with pytest.raises(ServerError):
            async with asyncio.timeout(10):
                await call()


async def test_an_answer_that_trickles_is_waited_for(line):
    line.proxy.trouble = Trouble(trickles=True)
    _, completion = await whole(line.client, ask("Hi", "scripted", max_tokens=4))
    assert completion.text


@pytest.mark.parametrize(
    ("status", "body", "raised"),
    [(429, "slow down", ServerDown), (502, "<html>bad gateway</html>", ServerDown), (503, "", ServerDown),
     (500, "{", ServerBroke), (200, "<html>log in first</html>", ServerError), (200, "[1, 2", ServerError)],
)  # fmt: skip
async def test_what_is_no_answer_of_vllm_is_an_error_of_ours(line, status, body, raised):
    line.front.refuses = (status, body)
    with pytest.raises(raised):
        await whole(line.client, ask("Hi", "scripted"))
    with pytest.raises(ServerRefused if status in (200, 500) else ServerDown):
        await line.client.info()


async def test_nothing_is_left_behind_by_a_hundred_calls_in_trouble(line, totals):
    """R-12: tasks and descriptors are back where they were, ±5."""
    await line.world.chat.say("ada", "Hi")
    await _quiet(line)
    tasks, descriptors = len(asyncio.all_tasks()), _n_descriptors()
    n_failed = 0
    for number in range(scaled(200, 30)):
        line.proxy.trouble = list(TROUBLES.values())[number % len(TROUBLES)]
        results = await asyncio.gather(
            *(whole(line.client, ask("What is rain?" * 40, "scripted", max_tokens=500)) for _ in range(4)),
            return_exceptions=True,
        )
        n_failed += sum(isinstance(one, ServerError) for one in results)
    line.proxy.trouble = Trouble()
    await asyncio.sleep(HURRIED.pause_s)
    assert (await line.world.chat.say("ada", "Still there?")).text
    await _quiet(line)
    more_tasks, more_descriptors = len(asyncio.all_tasks()) - tasks, _n_descriptors() - descriptors
    print(f"{n_failed} calls failed; tasks {more_tasks:+d}, descriptors {more_descriptors:+d}")
    assert n_failed == scaled(200, 30) * 4
    assert abs(more_tasks) <= 5
    assert abs(more_descriptors) <= 5


async def test_a_server_that_does_not_answer_is_left_alone_and_seen_when_it_is_back(line):
    """R-12: the breaker opens after five failures in a row, lets one call look, and closes."""
    await line.world.chat.say("ada", "Hi")
    line.proxy.trouble = Trouble(hangs=True)
    for _ in range(HURRIED.n_failures):
        with pytest.raises(ServerDown, match="silent"):
            await line.client.loaded()
    n_before = line.proxy.n_connections
    assert line.client.pause is not None
    results = await asyncio.gather(*(line.client.loaded() for _ in range(50)), return_exceptions=True)
    assert all("given a pause" in str(one) for one in results)
    assert line.proxy.n_connections == n_before
    await asyncio.sleep(HURRIED.pause_s)
    results = await asyncio.gather(*(line.client.loaded() for _ in range(50)), return_exceptions=True)
    assert sum("given a pause" in str(one) for one in results) == 49
    line.proxy.trouble = Trouble()
    assert await line.client.trouble() is None  # a look is always allowed, and what it sees counts
    assert line.client.pause is None
    assert await line.client.loaded() == frozenset()


async def test_people_are_answered_after_every_kind_of_trouble(line, totals):
    """R-12 as people see it: one sentence at most, and then the answer."""
    for number, (name, trouble) in enumerate(TROUBLES.items()):
        account = f"person{number}"
        line.proxy.trouble = trouble
        await line.ask(account, f"What is {name}?", "1")
        await line.until(lambda a=account: any(chat == a for chat, _ in line.notices()))
        line.proxy.trouble = Trouble()
        await line.until(lambda a=account: line.answers(a))
        await line.world.cycle.settled()
        assert [one for one in line.notices().items() if one[0] == (account, DOWN.text)] == [((account, DOWN.text), 1)]
        assert len(line.answers(account)) == 1, name
    turns = await line.world.store.run(rows, "SELECT role, count(*) AS n FROM turn GROUP BY role ORDER BY role")
    assert [row["n"] for row in turns] == [len(TROUBLES)] * 2


async def _quiet(line: Line) -> None:
    """Kept connections close after three seconds of their own accord."""
    await line.client.close()
    await line.until(lambda: not line.proxy._pumps)


def _n_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a pathlib walk is one descriptor more
