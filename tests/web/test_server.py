"""Where it listens, and who comes in by which door."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from claasbot.errors import PortInUse, SettingsError
from claasbot.web.parts import WebParts
from claasbot.web.server import WebServer


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "claasbot.sock"


@contextlib.asynccontextmanager
async def serving(parts: WebParts, **options) -> AsyncIterator[WebServer]:
    server = WebServer(parts, host="127.0.0.1", port=0, **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def terminal(path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession("http://localhost", connector=aiohttp.UnixConnector(str(path))) as session:
        yield session


async def test_a_taken_port_is_named_with_its_setting(stranger):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=rf"port {port} .* set web\.port"):
            await WebServer(stranger.parts, host="127.0.0.1", port=port).start()


@pytest.mark.parametrize("host", ["203.0.113.1", "no such host"])
async def test_an_address_that_is_not_ours_is_named_with_its_setting(stranger, host):
    with pytest.raises(SettingsError, match=r"web\.host"):
        await WebServer(stranger.parts, host=host, port=0).start()


async def test_any_free_port_can_be_found_by_its_link(stranger):
    async with serving(stranger.parts) as server, aiohttp.ClientSession() as session:
        assert (await session.get(f"{server.url}/sign-in")).status == 200


async def test_the_socket_is_the_owners_alone_and_goes_at_the_end(stranger, socket_path):
    before = os.umask(0)
    try:
        async with serving(stranger.parts, socket_path=socket_path):
            assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
            assert stat.S_IMODE(socket_path.parent.stat().st_mode) == 0o700
            assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert not socket_path.exists()


async def test_the_socket_of_a_crashed_bot_is_replaced(stranger, socket_path):
    socket_path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(socket_path))
    async with serving(stranger.parts, socket_path=socket_path), terminal(socket_path) as session:
        assert (await session.get("/api/status")).status == 200


async def test_the_socket_of_a_living_bot_is_left_alone(stranger, socket_path):
    async with serving(stranger.parts, socket_path=socket_path):
        with pytest.raises(PortInUse, match="another claasbot"):
            await WebServer(stranger.parts, host="127.0.0.1", port=0, socket_path=socket_path).start()
        assert socket_path.exists()


async def test_a_path_too_long_for_a_socket_is_explained(stranger, tmp_path):
    with pytest.raises(SettingsError, match="CLAASBOT_DATA"):
        await WebServer(stranger.parts, host="127.0.0.1", port=0, socket_path=tmp_path / ("x" * 120)).start()


async def test_a_start_that_fails_leaves_no_port_open(stranger, tmp_path):
    server = WebServer(stranger.parts, host="127.0.0.1", port=0, socket_path=tmp_path / ("x" * 120))
    with pytest.raises(SettingsError):
        await server.start()
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))


async def test_the_owner_chats_in_a_chat_of_their_own(stranger, socket_path):
    async with serving(stranger.parts, socket_path=socket_path), terminal(socket_path) as session:
        answer = await session.post("/api/events", json={"kind": "said", "update_key": "k", "text": "hello"})
        assert answer.status == 202
    [event] = stranger.accepted
    assert event.address == stranger.parts.console.address
    assert (event.account, event.display_name) == (f"local:{getpass.getuser()}", getpass.getuser())


async def test_the_owner_gets_a_link_that_signs_a_browser_in(stranger, socket_path):
    async with serving(stranger.parts, socket_path=socket_path) as server, terminal(socket_path) as session:
        link = (await (await session.post("/api/sign-in-link")).json())["link"]
        assert link.startswith(f"{server.url}/sign-in?token=")
        token = link.partition("token=")[2]
        assert (await session.post("/sign-in", data={"token": token}, allow_redirects=False)).status == 303


async def test_stopping_does_not_wait_for_open_tabs(stranger, socket_path):
    async with asyncio.timeout(5), terminal(socket_path) as session:
        async with serving(stranger.parts, socket_path=socket_path):
            stream = await session.get("/api/stream")
            assert await stream.content.readuntil(b"\n\n")
        assert stream.status == 200


async def test_probes_say_which_part_is_down_and_need_no_session(stranger):
    assert await (await stranger.http.get("/healthz")).json() == {"ok": True}
    answer = await stranger.http.get("/readyz")
    assert (answer.status, await answer.json()) == (503, {"ready": False, "down": ["trainer"]})
