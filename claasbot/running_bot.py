"""The running bot, asked over its socket: its JSON, or lines for whoever typed the command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp

from claasbot.data_folder import why_nobody_answers
from claasbot.errors import BadInput, NotFound
from claasbot.own_command import own_command

_PATIENCE = aiohttp.ClientTimeout(total=None)
"""A backup of many versions takes minutes; whoever waits can end it."""


async def ask_for_sign_in_link(socket: Path, name: str = "") -> str:
    """A fresh link from the running bot, for the admin `name` or the first owner. Raises NotFound when none runs."""
    return str((await ask(socket, "POST", "/api/sign-in-link", {"name": name}))["link"])


async def list_admins(socket: Path) -> list[str]:
    """A line for every admin. Raises NotFound when no bot runs."""
    found = await ask(socket, "GET", "/api/admins")
    lines = []
    for one in found:
        code = " and code" if one["has_second_factor"] else ""
        lines.append(f"{one['name']:24} {one['role']:8} {'password' if one['has_password'] else 'link only'}{code}")
    return lines or [f"Nobody yet: `{own_command('sign-in')}` makes the first owner."]


async def change_admin(socket: Path, what: str, name: str, *, role: str = "", password: str = "") -> str:
    """`what`: add, role, password or remove. Raises NotFound when no bot runs, BadInput for what it refuses."""
    if what == "add":
        answer = await ask(socket, "POST", "/api/admins", {"name": name, "role": role})
        return f"{name} is added as {role}. This link signs them in once, within a day:\n  {answer['link']}"
    body = {"role": {"role": role}, "password": {"password": password}}.get(what)
    await ask(socket, "POST", f"/api/admins/{name}/{what}", body)
    done = {"role": f"now has the role {role}", "password": "has a new password", "remove": "is removed"}
    return f"{name} {done[what]}."


async def list_keys(socket: Path) -> list[str]:
    """A line for every API key. Raises NotFound when no bot runs."""
    found = await ask(socket, "GET", "/api/keys")
    return [
        f"{one['id']:>4}  {one['name']:24} {one['scopes']:20} until {one['expires_at'][:10]}, "
        f"{'used ' + one['last_used_at'][:10] if one['last_used_at'] else 'never used'}"
        for one in found
    ] or ["No keys."]


async def add_key(socket: Path, name: str, scopes: list[str], days: int) -> str:
    """The key, which is shown this once. Raises NotFound when no bot runs, BadInput for what it refuses."""
    return str((await ask(socket, "POST", "/api/keys", {"name": name, "scopes": scopes, "days": days}))["key"])


async def revoke_key(socket: Path, key_id: int) -> None:
    """Raises NotFound when no bot runs, BadInput where there is no such key."""
    await ask(socket, "POST", f"/api/keys/{key_id}/revoke")


async def strangers(socket: Path) -> list[str]:
    """A line for everybody who waits to be let in. Raises NotFound when no bot runs."""
    waiting = await ask(socket, "GET", "/api/strangers")
    lines = [f"{one['code']}  {one['name']} on {one['platform']}" for one in waiting]
    return lines or ["Nobody waits. A stranger who writes to the bot gets a code and is listed here for an hour."]


async def let_in(socket: Path, code: str) -> str:
    """Raises NotFound when no bot runs, BadInput for a code that nobody has."""
    found = await ask(socket, "POST", "/api/pair", {"code": code})
    role, told = " as an admin" if found["is_admin"] else "", ", and told so" if found["is_told"] else ""
    return f"{found['name']} ({found['platform']}) is let in{role}{told}."


async def ask(socket: Path, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
    """One request to the running bot; the JSON that it answers. Raises NotFound when none runs, BadInput for what it
    refuses.
    """
    async with _answer(socket, method, path, body) as answer:
        return await answer.json()


async def ask_for_file(socket: Path, path: str, file: BinaryIO) -> None:
    """What the running bot hands out. Raises as `ask` does."""
    async with _answer(socket, "POST", path) as answer:
        async for chunk in answer.content.iter_chunked(1 << 16):
            await asyncio.to_thread(file.write, chunk)


@asynccontextmanager
async def _answer(
    socket: Path, method: str, path: str, body: Mapping[str, object] | None = None
) -> AsyncIterator[aiohttp.ClientResponse]:
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(socket)), timeout=_PATIENCE) as session,
            session.request(method, f"http://localhost{path}", json=body) as answer,
        ):
            if answer.status >= HTTPStatus.BAD_REQUEST:
                raise BadInput((await answer.json())["error"])
            yield answer
    except aiohttp.ClientConnectorError as error:
        raise NotFound(why_nobody_answers(socket)) from error
    except aiohttp.ClientError as error:
        raise NotFound(f"the claasbot on this data folder does not answer ({type(error).__name__})") from error
