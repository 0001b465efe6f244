"""What the person who hosts the bot does from the command line: run it, and ask the doctor."""

from __future__ import annotations

import asyncio
import importlib.metadata
import signal
import time
from datetime import timedelta
from pathlib import Path

from claasbot import doctor
from claasbot.app import running, store_key
from claasbot.data_folder import DataFolder
from claasbot.doctor import Finding
from claasbot.errors import NotFound, StoreError
from claasbot.inference.isolation import CPU_PLUGIN
from claasbot.inference.probe import probe
from claasbot.logs import BOT_LOG, log_to
from claasbot.machines import Say, StartMachines, base_model_name, model_folder_if_any, real_machines
from claasbot.machines import is_gpu as uses_gpu
from claasbot.own_command import own_command
from claasbot.platforms import PLATFORMS, bot_accounts
from claasbot.running_bot import ask
from claasbot.services.clock import utc_now
from claasbot.settings import Settings
from claasbot.storage import audit
from claasbot.storage.audit import Chain
from claasbot.storage.rows import text_of

_FINISH_S = 6.0
"""For what was begun when the bot is to end; with the ends of its children it makes less than 20 seconds."""


async def run_until_stopped(settings: Settings, say: Say, start_machines: StartMachines = real_machines) -> int:
    """Bring the bot up, print the link, and wait for Ctrl-C or SIGTERM; a second one changes nothing."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    starting = asyncio.current_task()
    assert starting is not None
    up = False

    def stop() -> None:
        if not up and not stopped.is_set():
            starting.cancel()
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    data = DataFolder(root=settings.data.absolute())
    data.make()
    log_to(data.logs / BOT_LOG, settings.log.rules())
    began = time.perf_counter()
    try:
        async with running(settings, say, start_machines=start_machines) as bot:
            up = True
            say(f"Ready after {time.perf_counter() - began:.0f} s. Dashboard and playground, signed in by this link:")
            say(f"  {await bot.sign_in_link()}")
            say(f"Terminal: `{own_command('chat')}` in another window. Ctrl-C stops everything.")
            await stopped.wait()
            say("Stopping…")
            await bot.cycle.finish(_FINISH_S)
    except asyncio.CancelledError:
        if not stopped.is_set():
            raise
    for number in (signal.SIGINT, signal.SIGTERM):  # all is down: one that comes now must not change the exit status
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    say("Stopped.")
    return 0


async def examine(settings: Settings) -> list[Finding]:
    """The doctor's findings, with what the running bot says of its server where one runs."""
    data = DataFolder(root=settings.data.absolute())
    bot_runs = data.is_locked()
    folder = model_folder_if_any(settings, data)
    findings = doctor.examine(
        settings, folder, accounts=bot_accounts(settings), is_gpu=uses_gpu(settings), bot_runs=bot_runs
    )
    try:
        findings.append(await _server(settings, data, bot_runs=bot_runs))
        findings.append(await _audit(settings, data, bot_runs=bot_runs))
        if bot_runs:
            findings += await _platforms_of_running_bot(data.socket)
            findings.append(await _errors_of_running_bot(data.socket))
    except NotFound as error:
        findings.append(Finding(name="bot", level="note", detail=str(error)))
    return findings


async def _server(settings: Settings, data: DataFolder, *, bot_runs: bool) -> Finding:
    if bot_runs:
        return await _server_of_running_bot(data.socket)
    if settings.server.url:
        found = await probe(settings.server.url, settings.server.api_key.get_secret_value() or None)
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


async def _audit(settings: Settings, data: DataFolder, *, bot_runs: bool) -> Finding:
    if bot_runs:
        chain = Chain(**(await ask(data.socket, "GET", "/api/audit"))["chain"])
    elif data.database.is_file():
        try:
            chain = await asyncio.to_thread(audit.verify_file, data.database, store_key(settings))
        except StoreError as error:
            detail, _, todo = str(error).rpartition("; ")
            return Finding(name="audit", level="problem", detail=detail or todo, todo=todo)
    else:
        return Finding(name="audit", level="ok", detail="no database yet")
    if chain.trouble:
        todo = f"see who could write the database; `{own_command('audit')}` lists the rows"
        return Finding(name="audit", level="problem", detail=f"touched: {chain.trouble}", todo=todo)
    return Finding(name="audit", level="ok", detail=chain.told)


async def _errors_of_running_bot(socket: Path) -> Finding:
    yesterday = text_of(utc_now() - timedelta(days=1))
    n = sum(row["n"] for row in await ask(socket, "GET", "/api/errors") if row["last_at"] >= yesterday)
    if not n:
        return Finding(name="errors", level="ok", detail="none since yesterday")
    return Finding(name="errors", level="note", detail=f"{n} since yesterday", todo=f"run `{own_command('errors')}`")


async def _platforms_of_running_bot(socket: Path) -> list[Finding]:
    """How each bot account stands, in its own words: a refused token, a missing intent, another poller."""
    status = await ask(socket, "GET", "/api/status")
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
    status = await ask(socket, "GET", "/api/status")
    ours = [light for light in status["lights"] if not light["name"].startswith(PLATFORMS)]
    down = [light for light in ours if light["state"] == "down"]
    if down:
        detail = "; ".join(f"{light['name']}: {light['detail']}" for light in down)
        return Finding(name="server", level="problem", detail=detail, todo="read the logs in the data folder's logs/")
    lights = ", ".join(f"{light['name']} {light['state']}" for light in ours)
    return Finding(name="server", level="ok", detail=f"the bot runs: {lights}")
