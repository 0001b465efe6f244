"""Server and trainer, started as the settings want them, and how they are asked after. Torch is in their processes."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from claasbot.adapter_checksum import expected_checksum
from claasbot.base_model import find_model
from claasbot.children import Child
from claasbot.data_folder import EMBEDDED_MODEL, DataFolder
from claasbot.domain.adapter import AdapterVersion
from claasbot.engines.local import LocalEngine, TrainerLimits
from claasbot.errors import ModelMissing, ServerRefused
from claasbot.inference.launch import LaunchedServer, ServerPlan
from claasbot.inference.model_folder import base_facts
from claasbot.inference.vllm import Mount, VllmServer
from claasbot.ports import InferenceServer, TrainingEngine
from claasbot.services.canaries import Checksum
from claasbot.services.health import Light
from claasbot.settings import Settings

Say = Callable[[str], None]
"""Shows one line to the person who started claasbot."""

_GPU_MODEL = "Qwen/Qwen3-8B"
_PROGRESS_S = 5.0


def is_gpu(settings: Settings) -> bool:
    """`auto` takes the GPU where NVIDIA's tool lists one, as the Makefile does."""
    return _lists_gpu() if settings.accelerator == "auto" else settings.accelerator == "gpu"


@cache
def _lists_gpu() -> bool:
    """Asked once: the tool takes seconds where the driver sleeps, and the event loop waits for it."""
    tool = shutil.which("nvidia-smi")
    return tool is not None and subprocess.run([tool, "-L"], capture_output=True, check=False).returncode == 0


def base_model_name(settings: Settings) -> str:
    """The name under which the server serves the base model."""
    return settings.server.model or (_GPU_MODEL if is_gpu(settings) else EMBEDDED_MODEL)


def wants_embedded_model(settings: Settings) -> bool:
    return not settings.server.model and not is_gpu(settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """What needs hardware: the server and the trainer, started, and how they are asked after."""

    server: InferenceServer
    engine: TrainingEngine
    restart_server: Callable[[], Awaitable[None]]
    expected_checksum: Checksum
    lights: Callable[[bool], Awaitable[tuple[Light, ...]]]
    """Of server and trainer; given whether a lesson runs."""


StartMachines = Callable[[Settings, DataFolder, AsyncExitStack, Say], Awaitable[Machines]]
"""Starts both; the stack takes them down."""


async def real_machines(settings: Settings, data: DataFolder, stack: AsyncExitStack, say: Say) -> Machines:
    """vLLM and the trainer, as the settings want them."""
    model = await _model_folder(settings, data, say)
    server, engine = await _server_and_engine(settings, data, model, stack, say)
    if not isinstance(server, LaunchedServer) and (trouble := await server.trouble()):
        say(f"server: {trouble}")

    async def lights(is_learning: bool) -> tuple[Light, ...]:
        return await _server_light(server), _trainer_light(engine, is_busy=is_learning)

    return Machines(
        server=server,
        engine=engine,
        restart_server=_restarter(server),
        expected_checksum=_checksums(data.root),
        lights=lights,
    )


async def _model_folder(settings: Settings, data: DataFolder, say: Say) -> Path:
    if not wants_embedded_model(settings):
        return find_model(base_model_name(settings))
    if not (data.embedded_model / "config.json").is_file():
        await prepare_model(data.embedded_model, say)
    return data.embedded_model


async def prepare_model(folder: Path, say: Say) -> None:
    """Make the embedded model's folder with the trainer's own program, once. Raises ModelMissing with its last line."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "claasbot.training.prepare", "--to", str(folder),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    last = ""
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            last = line.decode(errors="replace").strip()
            say(f"model: {last}")
        status = await process.wait()
    except asyncio.CancelledError:  # what it has made so far lies aside; the next start removes it
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if status != 0:
        raise ModelMissing(f"the base model could not be prepared: {last or 'no output'}")


def model_folder_if_any(settings: Settings, data: DataFolder) -> Path | None:
    """Where the base model is or will be; None for one of the hub that is not here yet."""
    if wants_embedded_model(settings):
        return data.embedded_model
    try:
        return find_model(base_model_name(settings))
    except ModelMissing:
        return None


async def _server_and_engine(
    settings: Settings, data: DataFolder, model: Path, stack: AsyncExitStack, say: Say
) -> tuple[VllmServer, LocalEngine]:
    """Start both at the same time: each spends most of its start reading the same weights."""
    server = _server(settings, data, model)
    engine = LocalEngine(
        jobs=data.jobs,
        model=model,
        log_path=data.logs / "trainer.log",
        threads=settings.trainer.threads,
        device="cuda" if is_gpu(settings) else "cpu",
        limits=TrainerLimits(deadline_s=settings.trainer.job_deadline_s),
    )
    stack.push_async_callback(server.close)
    stack.push_async_callback(engine.close)
    try:
        async with asyncio.TaskGroup() as group:
            if isinstance(server, LaunchedServer):
                group.create_task(_started("server", server.start, say))
            group.create_task(_started("trainer", engine.start, say))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return server, engine


def _server(settings: Settings, data: DataFolder, model: Path) -> VllmServer:
    chosen = settings.server
    name = base_model_name(settings)
    if chosen.url:
        mount = None
        if chosen.adapters_path:
            mount = Mount(here=data.adapters, there=PurePosixPath(chosen.adapters_path))
        return VllmServer(
            base_facts(name, model),
            url=chosen.url,
            api_key=chosen.api_key.get_secret_value() or None,
            max_loras=chosen.max_loras,
            mount=mount,
        )
    plan = ServerPlan(
        model=model,
        base_model=name,
        port=chosen.port,
        accelerator="gpu" if is_gpu(settings) else "cpu",
        max_lora_rank=settings.recipe.rank,
        max_loras=chosen.max_loras,
        max_cpu_loras=chosen.max_cpu_loras,
        max_model_len=chosen.max_model_len,
        kv_cache_gib=chosen.kv_cache_gib,
        gpu_memory_share=chosen.gpu_memory_share,
        threads=chosen.threads,
        start_deadline_s=chosen.start_deadline_s,
        log_path=data.logs / "server.log",
    )
    return LaunchedServer(plan)


async def _started(name: str, start: Callable[[Callable[[float], None]], Awaitable[None]], say: Say) -> None:
    """Start a child and say every few seconds that it is still starting."""
    said = 0.0

    def progress(seconds: float) -> None:
        nonlocal said
        if seconds - said >= _PROGRESS_S:
            said = seconds
            say(f"{name}: starting, {seconds:.0f} s")

    say(f"{name}: starting")
    began = time.perf_counter()
    await start(progress)
    say(f"{name}: ready after {time.perf_counter() - began:.0f} s")


def _restarter(server: VllmServer) -> Callable[[], Awaitable[None]]:
    async def restart() -> None:
        if not isinstance(server, LaunchedServer):
            raise ServerRefused(
                "the attached server cannot drop an adapter's copy: restart it, then the erasure goes on by itself"
            )
        await server.restart("an adapter must leave its memory")

    return restart


def _checksums(data: Path) -> Callable[[AdapterVersion], Awaitable[str | None]]:
    async def expected(version: AdapterVersion) -> str | None:
        return await asyncio.to_thread(expected_checksum, data / version.folder, "bfloat16")

    return expected


async def _server_light(server: VllmServer) -> Light:
    if isinstance(server, LaunchedServer):
        if server.child.is_ready and server.pause is not None:
            return Light(name="server", state="down", detail=f"{server.pause}; see the server's log"[:200])
        return _light("server", server.child, is_busy=False)
    trouble = await server.trouble()
    return Light(name="server", state="down" if trouble else "ok", detail=trouble or "attached")


def _trainer_light(engine: LocalEngine, *, is_busy: bool) -> Light:
    return _light("trainer", engine.child, is_busy=is_busy)


def _light(name: str, child: Child, *, is_busy: bool) -> Light:
    state = child.state
    if state.phase == "ready":
        return Light(name=name, state="busy" if is_busy else "ok", detail="a lesson runs" if is_busy else "ready")
    if state.phase in ("starting", "restarting"):
        return Light(name=name, state="busy", detail=state.phase)
    return Light(name=name, state="down", detail=(state.why or state.phase).splitlines()[0][:200])
