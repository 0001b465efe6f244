"""What the person who hosts the bot does from the command line: run it, get a link, ask the doctor."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import logging.handlers
import os
import signal
import time
from http import HTTPStatus
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import aiohttp

from claasbot import doctor
from claasbot.app import PLATFORMS, Say, base_model_name, bot_accounts, model_folder_if_any, running
from claasbot.app import is_gpu as uses_gpu
from claasbot.data_folder import DataFolder
from claasbot.doctor import Finding
from claasbot.errors import BadInput, NotFound
from claasbot.inference.isolation import CPU_PLUGIN
from claasbot.inference.probe import probe
from claasbot.own_command import own_command
from claasbot.services.backing_up import Contents, backup, restore
from claasbot.services.clock import utc_now
from claasbot.settings import Settings
from claasbot.storage.store import Store

_LOG_BYTES = 8 * 1024 * 1024


async def run_until_stopped(settings: Settings, say: Say) -> int:
    """Bring the bot up, print the link, and wait for Ctrl-C or SIGTERM."""
    log_to(DataFolder(root=settings.data.absolute()).logs / "bot.log")
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    starting = asyncio.current_task()
    assert starting is not None
    up = False

    def stop() -> None:
        stopped.set()
        if not up:
            starting.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    began = time.perf_counter()
    try:
        async with running(settings, say) as bot:
            up = True
            say(f"Ready after {time.perf_counter() - began:.0f} s. Dashboard and playground, signed in by this link:")
            say(f"  {await bot.sign_in_link()}")
            say(f"Terminal: `{own_command('chat')}` in another window. Ctrl-C stops everything.")
            await stopped.wait()
            say("Stopping…")
    except asyncio.CancelledError:
        if not stopped.is_set():
            raise
    say("Stopped.")
    return 0


def log_to(path: Path) -> None:
    """Our log: ids and outcomes, never the text of a message. Libraries speak from WARNING on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = PrivateLog(path, maxBytes=_LOG_BYTES, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger("claasbot").setLevel(logging.INFO)


class PrivateLog(logging.handlers.RotatingFileHandler):
    """For the owner's eyes, also after it was rotated."""

    def _open(self) -> TextIOWrapper:
        file = super()._open()
        os.fchmod(file.fileno(), 0o600)
        return file


async def ask_for_sign_in_link(socket: Path) -> str:
    """A fresh link from the running bot. Raises NotFound when none runs."""
    return str((await _ask(socket, "POST", "/api/sign-in-link"))["link"])


async def strangers(socket: Path) -> list[str]:
    """A line for everybody who waits to be let in. Raises NotFound when no bot runs."""
    waiting = await _ask(socket, "GET", "/api/strangers")
    lines = [f"{one['code']}  {one['name']} on {one['platform']}" for one in waiting]
    return lines or ["Nobody waits. A stranger who writes to the bot gets a code and is listed here for an hour."]


async def let_in(socket: Path, code: str) -> str:
    """Raises NotFound when no bot runs, BadInput for a code that nobody has."""
    found = await _ask(socket, "POST", "/api/pair", {"code": code})
    role, told = " as an admin" if found["is_admin"] else "", ", and told so" if found["is_told"] else ""
    return f"{found['name']} ({found['platform']}) is let in{role}{told}."


async def back_up(settings: Settings, to: Path) -> Contents:
    """By the running bot, or with the data folder's lock where none runs. `to` is absolute. Raises BadInput."""
    data = DataFolder(root=settings.data.absolute())
    if data.is_locked():
        facts = await _ask(data.socket, "POST", "/api/backup", {"to": str(to)})
        return Contents(**{**facts, "folders": tuple(facts["folders"])})
    if not data.database.is_file():
        raise NotFound(f"there is no database in {data.root}; set CLAASBOT_DATA to the folder of your bot")
    with data.lock():
        store = Store(data.database)
        await store.open()
        try:
            return await backup(store, data.root, to, utc_now)
        finally:
            await store.close()


def put_back(settings: Settings, backup_folder: Path) -> Contents:
    """A backup into an empty data folder that no bot uses. Raises BadInput, AdapterDamaged, StoreError."""
    data = DataFolder(root=settings.data.absolute())
    with data.lock():
        return restore(backup_folder.absolute(), data.root)


async def _ask(socket: Path, method: str, path: str, body: dict[str, str] | None = None) -> Any:
    """One request to the running bot over its socket; the JSON that it answers.

    Raises NotFound when none answers, and BadInput for what it refuses.
    """
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(socket))) as session,
            session.request(method, f"http://localhost{path}", json=body) as answer,
        ):
            if answer.status == HTTPStatus.BAD_REQUEST:
                raise BadInput((await answer.json())["error"])
            answer.raise_for_status()
            return await answer.json()
    except aiohttp.ClientError as error:
        raise NotFound(f"no claasbot runs on this data folder; start it with `{own_command('run')}`") from error


async def examine(settings: Settings) -> list[Finding]:
    """The doctor's findings, with what the running bot says of its server where one runs."""
    data = DataFolder(root=settings.data.absolute())
    bot_runs = data.is_locked()
    folder = model_folder_if_any(settings, data)
    findings = doctor.examine(
        settings, folder, accounts=bot_accounts(settings), is_gpu=uses_gpu(settings), bot_runs=bot_runs
    )
    findings.append(await _server(settings, data, bot_runs=bot_runs))
    if bot_runs:
        findings += await _platforms_of_running_bot(data.socket)
    return findings


async def _server(settings: Settings, data: DataFolder, *, bot_runs: bool) -> Finding:
    if bot_runs:
        return await _server_of_running_bot(data.socket)
    if settings.server.url:
        found = await probe(settings.server.url, settings.server.api_key or None)
        lacks = found.lacks(base_model=base_model_name(settings), max_loras=settings.server.max_loras)
        if not lacks:
            return Finding(name="server", level="ok", detail=f"{settings.server.url} has all that is needed")
        todo = "start it with the flags and variables of docs/attached-server.md"
        return Finding(name="server", level="problem", detail="; ".join(lacks), todo=todo)
    plugins = {entry.name for entry in importlib.metadata.entry_points(group="vllm.general_plugins")}
    if CPU_PLUGIN not in plugins:
        todo = "run `make install`: without it people's adapters mix on the CPU"
        return Finding(name="server", level="problem", detail=f"the plugin {CPU_PLUGIN} is not installed", todo=todo)
    detail = f"`{own_command('run')}` starts it: plugin {CPU_PLUGIN}, {settings.server.max_loras} adapter slots"
    return Finding(name="server", level="ok", detail=detail)


async def _platforms_of_running_bot(socket: Path) -> list[Finding]:
    """How each bot account stands, in its own words: a refused token, a missing intent, another poller."""
    status = await _ask(socket, "GET", "/api/status")
    return [
        Finding(
            name=light["name"],
            level="ok" if light["state"] == "ok" else "problem" if light["state"] == "down" else "note",
            detail=light["detail"],
        )
        for light in status["lights"]
        if light["name"].startswith(PLATFORMS)
    ]


async def _server_of_running_bot(socket: Path) -> Finding:
    status = await _ask(socket, "GET", "/api/status")
    ours = [light for light in status["lights"] if not light["name"].startswith(PLATFORMS)]
    down = [light for light in ours if light["state"] == "down"]
    if down:
        detail = "; ".join(f"{light['name']}: {light['detail']}" for light in down)
        return Finding(name="server", level="problem", detail=detail, todo="read the logs in the data folder's logs/")
    lights = ", ".join(f"{light['name']} {light['state']}" for light in ours)
    return Finding(name="server", level="ok", detail=f"the bot runs: {lights}")
