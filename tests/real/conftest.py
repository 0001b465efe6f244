"""A real vLLM server and a real trainer, started once for all tests here. Nothing is skipped: what is missing fails.

`real_server` and `real_engine` may be used from any test, whatever its event loop: both live on a loop of their own.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from claasbot.base_model import base_revision
from claasbot.engines.local import LocalEngine
from claasbot.inference.isolation import CPU_PLUGIN
from claasbot.inference.launch import LaunchedServer, ServerPlan
from claasbot.inference.model_folder import base_facts
from claasbot.inference.vllm import VllmServer
from tests.contracts.other_loop import EngineOnOtherLoop, OtherLoop
from tests.faults.conftest import totals  # noqa: F401 - a fixture
from tests.real.bot_process import BotProcess, free_port

MODEL = Path(__file__).parents[2] / "data/var/models/SmolLM2-135M-Instruct"
BASE_NAME = "SmolLM2-135M-Instruct"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session")
def base_model_folder() -> Path:
    """The embedded model; made when it is not there yet (half a minute, and a download of 93 MB)."""
    done = subprocess.run(
        [sys.executable, "-m", "claasbot.training.prepare", "--to", str(MODEL)], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.fail(f"the base model cannot be prepared: {done.stdout[-500:]}{done.stderr[-500:]}")
    return MODEL


@pytest.fixture(scope="session")
def real_server_process(base_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LaunchedServer]:
    """Our server with our flags, in bfloat16. Its methods belong to its own loop: tests talk through `real_server`."""
    plugins = {entry.name for entry in importlib.metadata.entry_points(group="vllm.general_plugins")}
    if CPU_PLUGIN not in plugins:
        pytest.fail(f"the vLLM plugin {CPU_PLUGIN} is not installed; run `make install`")
    plan = ServerPlan(
        model=base_model_folder,
        base_model=BASE_NAME,
        port=free_port(),
        accelerator="cpu",
        max_lora_rank=16,
        max_loras=6,
        max_model_len=4096,
        log_path=tmp_path_factory.mktemp("server") / "server.log",
    )
    with OtherLoop() as loop:
        server = LaunchedServer(plan)
        loop.wait(server.start())
        yield server
        loop.wait(server.close())


@pytest.fixture
async def real_server(real_server_process: LaunchedServer) -> AsyncIterator[VllmServer]:
    """A client of the real server for one test; names of adapters must be its own."""
    plan = real_server_process.plan
    server = VllmServer(
        base_facts(plan.base_model, plan.model),
        url=f"http://127.0.0.1:{plan.port}",
        api_key=real_server_process.api_key,
        max_loras=plan.max_loras,
    )
    yield server
    for name in await server.loaded():
        await server.unload(name)
        await server.forget(name)
    await server.close()


@pytest.fixture(scope="session")
def real_engine(base_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineOnOtherLoop]:
    """The real trainer with one thread, so that a server beside it keeps answering."""
    home = tmp_path_factory.mktemp("engine")
    with OtherLoop() as loop:
        engine = LocalEngine(jobs=home / "jobs", model=base_model_folder, log_path=home / "trainer.log", threads=1)
        loop.wait(engine.start())
        yield EngineOnOtherLoop(engine, loop)
        loop.wait(engine.close())


@pytest.fixture(scope="session")
def running_app(base_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BotProcess]:
    """`claasbot run` on the real stack, as a person starts it: `.url` and `.sign_in_url`."""
    bot = BotProcess(tmp_path_factory.mktemp("bot"), base_model_folder, CLAASBOT_CHAT__MAX_TOKENS="64")
    bot.start()
    yield bot
    bot.stop()


@pytest.fixture(scope="session")
def real_base_revision(base_model_folder: Path) -> str:
    return base_revision(base_model_folder)
