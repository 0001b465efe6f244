"""S-10: of ten thousand updates without the right secret none is taken, and comparing tells nothing by its time."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from claasbot.chat.telegram.client import TelegramChat
from claasbot.chat.telegram.receiving import TelegramRules
from claasbot.errors import ChatError
from claasbot.storage.store import Store
from claasbot.web.parts import Webhook
from claasbot.web.server import make_app
from tests.faults.conftest import scaled
from tests.fuzz.raw_http import Answers, send
from tests.web.conftest import Site

SEED = 20261120
SECRET = "kR3-x_9QbZ0vYt7LmN2pWs5uHc8eJd1aFg4iKo6rTqE"
HEADER = "X-Telegram-Bot-Api-Secret-Token"
UPDATE = json.dumps({"update_id": 1, "message": {"text": "x"}}).encode()


def chat() -> TelegramChat:
    """Not connected: an update with the right secret is told so, and with a wrong one is not even looked at."""
    url = "https://bot.example/webhooks/telegram/42"
    rules = TelegramRules(token=f"42:{'a' * 35}", webhook_url=url, webhook_secret=SECRET)
    return TelegramChat(rules, commands={})


def wrong_secrets(chance: random.Random, n: int) -> list[bytes]:
    """Near misses first: what a forgetful or guessing comparison would take."""
    secret = SECRET.encode()
    at = [chance.randrange(len(secret)) for _ in range(n)]
    near = [
        b"",
        secret[:-1],
        secret[1:],
        secret + b"x",
        secret * 2,
        secret.swapcase(),
        secret.lower(),
        SECRET.replace("o", "о").encode(),  # Cyrillic
        SECRET.replace("K", "\u212a").encode(),  # the Kelvin sign, which casefolds to k
        secret + "\u200b".encode(),
        b"\xff\xfe" + secret,
        secret + b"\xff",
        b"\xff" * 43,
        b"Bearer " + secret,
        b'"' + secret + b'"',
        secret + b", " + secret,
        b"x" * 8_000,
    ]
    near += [secret[:k] for k in range(len(secret))]
    near += [secret[:k] + bytes([secret[k] ^ 1]) + secret[k + 1 :] for k in at[: n // 2]]
    return (near + [bytes(chance.choices(secret, k=len(secret))) for _ in range(n)])[:n]


@pytest.fixture
async def hooked() -> AsyncIterator[TestServer]:
    store = Store(None)
    await store.open()
    site = Site(parts=None, http=None)  # type: ignore[arg-type]
    parts = site.wire(store)
    parts.webhooks[("telegram", "42")] = Webhook(receive=chat().receive, secret_header=HEADER)  # type: ignore[index]
    async with TestServer(make_app(parts)) as server:
        yield server
    await store.close()


async def test_no_update_without_the_right_secret_is_taken(hooked: TestServer) -> None:
    secrets = wrong_secrets(random.Random(SEED), scaled(10_000, 400))
    gate = asyncio.Semaphore(20)

    async def one(headers: bytes, answers: Answers) -> None:
        head = (
            b"POST /webhooks/telegram/42 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        )
        async with gate:
            await send(
                hooked.port or 0, head + b"Content-Length: %d\r\n%s\r\n" % (len(UPDATE), headers) + UPDATE, answers
            )

    answers = Answers()
    given = [b"", *(f"{HEADER}: ".encode() + secret + b"\r\n" for secret in secrets)]
    await asyncio.gather(*(one(headers, answers) for headers in given))
    print(json.dumps({"seed": SEED, "updates": len(secrets) + 1, "statuses": answers.statuses}))
    assert answers.statuses == Counter({"403": len(secrets) + 1})
    taken = Answers()
    await one(f"{HEADER}: {SECRET}\r\n".encode(), taken)
    assert taken.statuses == Counter({"503": 1})  # the bot is not connected; it was the secret


async def test_a_secret_for_another_account_or_platform_opens_nothing(hooked: TestServer) -> None:
    async with TestClient(hooked) as http:
        for path in ("/webhooks/telegram/43", "/webhooks/discord/42", "/webhooks/telegram/42%00"):
            answer = await http.post(path, json={"update_id": 1}, headers={HEADER: SECRET})
            assert answer.status == 404, path


class Tripwire(bytes):
    """What must not be compared byte by byte until the first difference."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared with ==")

    __ne__ = __eq__
    __hash__ = bytes.__hash__


class Given(str):
    def encode(self, *args: str, **more: str) -> bytes:
        return Tripwire(super().encode(*args, **more))


async def test_a_secret_is_compared_in_constant_time() -> None:
    assert await chat().receive({"update_id": 1}, Given("guessed")) is False
    with pytest.raises(ChatError, match="not connected"):
        await chat().receive({"update_id": 1}, Given(SECRET))
