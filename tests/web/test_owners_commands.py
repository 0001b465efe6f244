"""`claasbot admin`, `claasbot key` and `claasbot sign-in` against a running bot's socket."""

from __future__ import annotations

import asyncio
import io
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from claasbot.cli import main

from .test_server import serving
from .test_sign_in import type_in

Command = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
async def claasbot(stranger, tmp_path, monkeypatch, capsys) -> AsyncIterator[Command]:
    """Runs a command beside the bot; returns its exit status and what it printed."""
    monkeypatch.setenv("CLAASBOT_DATA", str(tmp_path))

    async def run(*words: str) -> tuple[int, str]:
        status = await asyncio.to_thread(main, list(words))
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    async with serving(stranger.parts, socket_path=tmp_path / "run" / "claasbot.sock"):
        yield run


async def test_admins_are_added_listed_changed_and_removed(claasbot, stranger):
    assert "makes the first owner" in (await claasbot("admin", "list"))[1]
    status, printed = await claasbot("admin", "add", "eve", "--role", "admin")
    token = re.search(r"/sign-in\?token=([\w-]{43})", printed).group(1)  # type: ignore[union-attr]
    assert status == 0 and "eve is added as admin" in printed
    entered = await stranger.http.post("/sign-in", data={"token": token}, allow_redirects=False)
    assert entered.status == 303
    lines = (await claasbot("admin", "list"))[1].splitlines()
    assert [line.split() for line in lines] == [["admin", "owner", "link", "only"], ["eve", "admin", "link", "only"]]
    assert await claasbot("admin", "role", "eve", "--role", "viewer") == (0, "eve now has the role viewer.\n")
    assert await claasbot("admin", "remove", "eve") == (0, "eve is removed.\n")
    assert (await stranger.http.get("/api/status")).status == 401


async def test_a_password_is_typed_and_never_shown(claasbot, stranger, monkeypatch):
    await claasbot("admin", "add", "eve")
    monkeypatch.setattr(sys, "stdin", io.StringIO("drei Enten am Fluss\n"))
    assert await claasbot("admin", "password", "eve") == (0, "eve has a new password.\n")
    assert (await type_in(stranger)).status == 303


async def test_a_link_may_be_for_an_admin(claasbot, stranger):
    await claasbot("admin", "add", "eve")
    _, printed = await claasbot("sign-in", "--name", "eve")
    await stranger.http.post("/sign-in", data={"token": printed.strip().partition("token=")[2]})
    assert "signed in as <strong>eve</strong>" in await stranger.page("/security")


async def test_keys_are_made_listed_and_revoked(claasbot, stranger):
    _, key = await claasbot("key", "add", "grafana", "--scopes", "read,metrics", "--days", "3")
    program = {"Authorization": f"Bearer {key.strip()}"}
    assert (await stranger.http.get("/api/status", headers=program)).status == 200
    listed = (await claasbot("key", "list"))[1]
    assert re.match(r" +1  grafana +metrics read +until 2026-11-23, used 2026-11-20\n", listed)
    assert await claasbot("key", "revoke", "1") == (0, "Key 1 opens nothing any more.\n")
    assert (await stranger.http.get("/api/status", headers=program)).status == 401
    assert await claasbot("key", "list") == (0, "No keys.\n")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("admin", "remove"), "say who: claasbot admin remove NAME"),
        (("admin", "role", "nobody"), "There is no admin 'nobody'."),
        (("admin", "add", "Not A Name"), "The name 'Not A Name' cannot be used"),
        (("sign-in", "--name", "nobody"), "There is no admin 'nobody'."),
        (("key", "revoke", "one"), "'one' is no number of a key"),
        (("key", "revoke", "7"), "There is no such key."),
        (("key", "add", "x", "--scopes", "everything"), "is 'everything': input should be 'read'"),
    ],
)
async def test_what_cannot_be_done_is_one_line(claasbot, words, line):
    status, printed = await claasbot(*words)
    assert status == 1 and printed.startswith("claasbot: ") and line in printed and printed.count("\n") == 1
