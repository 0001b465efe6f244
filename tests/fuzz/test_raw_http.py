"""S-02: bytes that are no HTTP, bombs and slow senders: the bot lives, stays small, and answers everybody else."""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from contextlib import AsyncExitStack

import aiohttp
import pytest

from tests.faults.conftest import scaled
from tests.fuzz.raw_http import Answers, bad_chunks, bombs, large, mutated, send, smuggling
from tests.fuzz.site import RunningSite

SEED = 20261120
AT_ONCE = 40
MOST_MB = 100.0
N_SLOW = 200


class Polite:
    """Somebody else, who asks all the time."""

    def __init__(self, site: RunningSite) -> None:
        self._url = f"{site.url}/healthz"
        self.seconds: list[float] = []
        self.failures: list[str] = []

    async def ask_for_ever(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
            while True:
                await self.ask(http)
                await asyncio.sleep(0.02)

    async def ask(self, http: aiohttp.ClientSession) -> None:
        began = time.perf_counter()
        try:
            async with http.get(self._url) as answer:
                if (await answer.json()) != {"ok": True}:
                    self.failures.append(str(answer.status))
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failures.append(repr(error))
        self.seconds.append(time.perf_counter() - began)


async def flood(site: RunningSite, requests: list[bytes]) -> Answers:
    answers, gate = Answers(), asyncio.Semaphore(AT_ONCE)

    async def one(request: bytes) -> None:
        async with gate:
            await send(site.port, request, answers)

    await asyncio.gather(*(one(request) for request in requests))
    return answers


async def flooded(site: RunningSite, requests: list[bytes]) -> tuple[Answers, Polite]:
    polite = Polite(site)
    task = asyncio.create_task(polite.ask_for_ever())
    try:
        return await flood(site, requests), polite
    finally:
        task.cancel()


async def test_no_second_request_hides_in_the_body_of_a_first(site: RunningSite) -> None:
    requests = smuggling()
    answers = await flood(site, requests)
    assert answers.smuggled == []
    assert set(answers.statuses) == {"400"}, answers.statuses
    assert sum(answers.statuses.values()) == len(requests) >= 100


async def test_mutated_requests_bombs_and_long_headers_neither_end_nor_grow_the_bot(site: RunningSite) -> None:
    chance = random.Random(SEED)
    whole = [*smuggling(), *bad_chunks(), *large()]
    await flood(site, whole[:40])
    before_mb = site.rss_mb()
    small = [request for request in whole if len(request) < 5_000]
    requests = [*whole, *bombs(scaled(10_000, 1_000))]
    requests += [mutated(chance.choice(small), chance) for _ in range(scaled(5_000, 400) - len(requests))]
    chance.shuffle(requests)
    answers, polite = await flooded(site, requests)
    grown_mb = site.rss_mb() - before_mb
    print(
        json.dumps(
            {
                "seed": SEED,
                "requests": sum(answers.statuses.values()),
                "statuses": answers.statuses,
                "grown_mb": round(grown_mb, 1),
                "polite": len(polite.seconds),
                "polite_p95_ms": round(statistics.quantiles(polite.seconds, n=20)[18] * 1_000, 1),
            }
        )
    )
    assert site.is_alive
    assert not [status for status in answers.statuses if status.startswith("5")], answers.statuses
    assert grown_mb <= MOST_MB
    assert polite.failures == [] and len(polite.seconds) > 10
    assert "Traceback" not in site.log.read_text()


async def test_two_hundred_slow_senders_keep_nobody_waiting(site: RunningSite) -> None:
    async with AsyncExitStack() as stack:
        for n in range(N_SLOW):
            _, writer = await asyncio.open_connection("127.0.0.1", site.port)
            stack.push_async_callback(writer.wait_closed)
            stack.callback(writer.transport.abort)
            halves = (b"GET / HT", b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\na")
            writer.write(halves[n % 2])
            await writer.drain()
        polite = Polite(site)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
            for _ in range(20):
                await polite.ask(http)
        assert polite.failures == []
        assert site.is_alive


@pytest.mark.parametrize("path", ["/sign-in", "/api/events"])
async def test_a_body_that_unpacks_to_gigabytes_is_refused_unread(site: RunningSite, path: str) -> None:
    packed = next(request for request in bombs(1_000) if path.encode() in request)
    before_mb, before_s = site.rss_mb(), site.cpu_s()
    answers = await flood(site, [packed])
    assert set(answers.statuses) <= {"401", "415"}, answers.statuses
    assert site.rss_mb() - before_mb < MOST_MB / 4
    assert site.cpu_s() - before_s < 0.5, "somebody unpacked it"


def test_the_bot_does_not_start_on_the_parser_that_lets_requests_be_smuggled() -> None:
    command = [sys.executable, "-c", "from claasbot.web.server import check_parser; check_parser()"]
    for setting, words in (("", ""), ("1", "without its compiled HTTP parser; unset AIOHTTP_NO_EXTENSIONS")):
        environment = {**os.environ, "AIOHTTP_NO_EXTENSIONS": setting}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert words in done.stderr and (done.returncode != 0) == bool(words)
