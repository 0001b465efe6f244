"""What a bot without hardware stands on: the scripted server and the dry-run engine, for vLLM and the trainer."""

from __future__ import annotations

from contextlib import AsyncExitStack

from claasbot.adapter_files import WEIGHTS, sha256_of
from claasbot.data_folder import DataFolder
from claasbot.domain.adapter import AdapterVersion
from claasbot.engines.dry_run import DryRunEngine
from claasbot.inference.scripted import ScriptedServer, toy_logprobs
from claasbot.machines import Machines, Say
from claasbot.services.health import Light
from claasbot.settings import Settings


async def dry_machines(chosen: Settings, data: DataFolder, stack: AsyncExitStack, say: Say) -> Machines:
    return machines_of(ScriptedServer(), DryRunEngine(toy_logprobs), data, stack)


def machines_of(server: ScriptedServer, engine: DryRunEngine, data: DataFolder, stack: AsyncExitStack) -> Machines:
    stack.push_async_callback(server.close)
    stack.push_async_callback(engine.close)

    async def restart() -> None:
        server.restart()

    async def expected(version: AdapterVersion) -> str | None:
        return sha256_of(data.root / version.folder / WEIGHTS)

    async def lights(is_learning: bool) -> tuple[Light, ...]:
        return Light(name="server", state="ok"), Light(name="trainer", state="busy" if is_learning else "ok")

    return Machines(server=server, engine=engine, restart_server=restart, expected_checksum=expected, lights=lights)
