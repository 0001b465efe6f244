"""S-12: the bot asks its server and its platforms, and nobody whom people, a redirect or the environment name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from telegram.error import TelegramError

from claasbot.chat.telegram.bot import new_bot
from claasbot.domain.conversation import Attachment, ChatEvent, Commanded, Reacted, Said
from claasbot.errors import ServerError
from claasbot.inference.connection import Connection, Patience
from claasbot.settings import Settings
from claasbot.storage.store import Store
from tests.chat.telegram.fake_bot_api import FakeBotApi
from tests.chat.telegram.running_bot import running
from tests.fuzz.watching import watching
from tests.hostile.names import addresses
from tests.services.world import running_world

TOKEN = f"42:{'a' * 35}"


@dataclass
class Listener:
    """Counts who comes."""

    port: int
    visits: list[str] = field(default_factory=list)


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    async def visited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.visits.append(str(writer.get_extra_info("peername")))
        writer.close()

    server = await asyncio.start_server(visited, "localhost", 0)
    found = Listener(server.sockets[0].getsockname()[1])
    yield found
    server.close()
    await server.wait_closed()


@pytest.fixture
async def redirecting(listener: Listener) -> AsyncIterator[TestServer]:
    """A server, or a platform, that sends everybody on."""

    async def send_on(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"http://127.0.0.1:{listener.port}/")

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", send_on)
    async with TestServer(app) as server:
        yield server


def said_in_every_way(address: str, n: int, facts: dict[str, object]) -> list[ChatEvent]:
    """As a name, a message, feedback, a command's argument, a reaction and a file."""
    file = Attachment(name=address, reference=address, n_bytes=10)
    who = {**facts, "account": f"{n % 5}", "display_name": address}
    return [
        Said(**who, update_key=f"s{n}", text=address, message_key=f"m{n}"),
        Said(**who, update_key=f"f{n}", text="Read it.", message_key=f"n{n}", attachments=(file,)),
        *(
            Commanded(**who, update_key=f"{command}{n}", command=command, argument=address)
            for command in ("feedback", "correct", "persona", "compare", "ask", "pair", "link", "unlearn")
        ),
        Reacted(**who, update_key=f"r{n}", message_key=f"m{n}", reaction=address[:40]),
    ]


async def test_nothing_that_people_say_becomes_an_address_to_ask(
    tmp_path: Path, store: Store, listener: Listener
) -> None:
    corpus = list(addresses(listener.port))
    async with running_world(tmp_path, Settings(learning={"debounce_s": 0.0}), store) as world:
        await world.taught("0")
        with watching() as seen:
            for n, address in enumerate(corpus):
                facts = {"address": world.chat.chat_of(str(n % 5))}
                for event in said_in_every_way(address, n, facts):
                    await world.chat.post(event)
            await world.cycle.settled()
    assert len(corpus) > 40
    assert (seen.asked, listener.visits) == ([], [])


async def test_a_bot_on_telegram_asks_telegram_only(fake: FakeBotApi, listener: Listener) -> None:
    async with running(fake) as bot:
        ada = fake.person("Ada")
        chat = fake.private_chat(ada)
        with watching() as seen:
            corpus = list(addresses(listener.port))
            for address in corpus[:12]:
                ada.say(chat, address)
                await bot.next(Said)
                ada.attach(chat, f"{address.rpartition('/')[2]}.txt", address.encode(), address)
                said = await bot.next(Said)
                assert await bot.chat.read(said.attachments[0]) == address
    hosts = {address.partition(",")[0].strip("('\"") for address in seen.asked}
    assert hosts <= {"127.0.0.1", "localhost"} and listener.visits == []


async def test_a_server_that_sends_us_on_is_refused(redirecting: TestServer, listener: Listener) -> None:
    connection = Connection(url=str(redirecting.make_url("")), socket=None, api_key="key", patience=Patience())
    with pytest.raises(ServerError):
        await connection.expect("listing models", "GET", "/v1/models")
    with pytest.raises(ServerError):
        async for _ in connection.stream("/v1/chat/completions", {}, lambda answer: answer.refusal("completing")):
            pass
    await connection.close()
    assert listener.visits == []


async def test_a_platform_that_sends_us_on_is_refused(redirecting: TestServer, listener: Listener) -> None:
    bot = new_bot(TOKEN, f"{redirecting.make_url('/bot')}", f"{redirecting.make_url('/file/bot')}")
    await bot.connect()
    with pytest.raises(TelegramError):
        await bot.get_me()
    with pytest.raises(TelegramError):
        await bot.raw_updates(None, 0, ())
    await bot.disconnect()
    assert listener.visits == []


async def test_a_proxy_of_the_environment_sees_no_token(
    redirecting: TestServer, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token stands in each address of the Bot API; texts stand in each request to the server."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{listener.port}")
    bot = new_bot(TOKEN, f"{redirecting.make_url('/bot')}")
    await bot.connect()
    with pytest.raises(TelegramError):
        await bot.get_me()
    await bot.disconnect()
    connection = Connection(url=str(redirecting.make_url("")), socket=None, api_key=None, patience=Patience())
    assert (await connection.ask("GET", "/health")).status == 307
    await connection.close()
    assert listener.visits == []
