"""Runs the cycle process with a library of ours between it and the disk (`durable_calls.c`), and looks at what is left.

Needs gcc. What safetensors does without the C library (the rename of its temporary file) passes unseen.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from claasbot import adapter_files
from claasbot.data_folder import DataFolder
from claasbot.errors import AdapterDamaged
from claasbot.storage.rows import rows
from claasbot.storage.store import Store

ROOT = Path(__file__).parents[2]
DEADLINE_S = 120.0


@functools.cache
def library() -> Path:
    """Compiled once per run of the tests."""
    made = Path(tempfile.mkdtemp(prefix="claasbot-faults-")) / "durable_calls.so"
    source = Path(__file__).with_name("durable_calls.c")
    flags = ("-O1", "-Wall", "-Wno-format-truncation", "-shared", "-fPIC")
    subprocess.run(["gcc", *flags, "-o", str(made), str(source), "-ldl", "-lpthread"], check=True)
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens at the N-th call that changes the data folder."""

    do: str = "nothing"
    at: int = 0
    match: str = ""
    only: str = ""
    gate: Path | None = None
    log: Path | None = None

    def environment(self, data: Path) -> dict[str, str]:
        chosen = {
            "FAULT_ROOT": str(data), "FAULT_DO": self.do, "FAULT_AT": str(self.at), "FAULT_MATCH": self.match,
            "FAULT_ONLY": self.only, "FAULT_GATE": str(self.gate or ""), "FAULT_LOG": str(self.log or ""),
        }  # fmt: skip
        return {"LD_PRELOAD": str(library()), **{name: value for name, value in chosen.items() if value}}


@dataclass(slots=True, kw_only=True)
class Ran:
    status: int
    said: list[dict[str, Any]]
    errors: str

    @property
    def was_killed(self) -> bool:
        return self.status == -signal.SIGKILL

    def all(self, what: str) -> list[Any]:
        return [facts[what] for facts in self.said if what in facts]

    def the(self, what: str) -> Any:
        [found] = self.all(what)
        return found


def start(
    data: Path, *arguments: str, fault: Fault | None = None, before: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """`before`: what the command is handed to, such as `unshare`."""
    data.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLAASBOT_")}
    return subprocess.Popen(
        [*before, sys.executable, "-m", "tests.faults.cycle_process", "--data", str(data), *arguments],
        env=environment | ({} if fault is None else fault.environment(data)),
        cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def run(data: Path, *arguments: str, fault: Fault | None = None) -> Ran:
    """Until it ends by itself, is killed by its fault, or takes too long."""
    with start(data, *arguments, fault=fault) as process:
        try:
            out, errors = process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            out, errors = process.communicate()
            raise AssertionError(f"no end in {DEADLINE_S:.0f} s: {out[-1000:]} {errors[-1000:]}") from None
    return Ran(status=process.returncode, said=lines_of(out), errors=errors)


def lines_of(text: str) -> list[dict[str, Any]]:
    """What was said in whole lines: a kill may cut the last one."""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def n_calls(log: Path) -> int:
    return log.read_bytes().count(b"\n")


@dataclass(slots=True, kw_only=True)
class Left:
    """What a data folder holds, as the tests count it."""

    lost: list[str] = field(default_factory=list)
    """Updates that were accepted and are not there."""
    doubled: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    """Broken rows, versions and pointers."""

    def add_to(self, totals: Counter[str]) -> None:
        for name in ("lost", "doubled", "torn"):
            totals[name] += len(getattr(self, name))

    @property
    def is_right(self) -> bool:
        return not (self.lost or self.doubled or self.torn)


def look(data: Path, accepted: Iterable[str] = ()) -> Left:
    """Open the store as the bot does, and compare rows and folders."""
    return asyncio.run(_look(DataFolder(root=data), set(accepted)))


async def _look(data: DataFolder, accepted: set[str]) -> Left:
    store = Store(data.database)
    await store.open()
    try:
        left = Left()
        verdict = [
            str(row) for row in await store.run(rows, "PRAGMA integrity_check") if row["integrity_check"] != "ok"
        ]
        left.torn += verdict + [str(row) for row in await store.run(rows, "PRAGMA foreign_key_check")]
        there = {row["update_key"] for row in await store.run(rows, "SELECT update_key FROM inbox")}
        left.lost += sorted(accepted - there)
        left.doubled += [str(row) for row in await store.run(rows, _TAUGHT_TWICE)]
        left.torn += [str(row) for row in await store.run(rows, _BAD_POINTER)]
        for row in await store.run(rows, "SELECT folder, weights_sha256 FROM adapter_version"):
            left.torn += _damage(data.root / row["folder"], row["weights_sha256"])
    finally:
        await store.close()
    for folder in data.adapters.glob("p*/v*"):
        left.torn += _damage(folder, None)
    return left


def _damage(folder: Path, weights: str | None) -> list[str]:
    try:
        manifest = adapter_files.verify(folder)
    except AdapterDamaged as error:
        return [str(error)]
    return [] if weights in (None, manifest.weights_sha256) else [f"{folder} has other weights than its row"]


_TAUGHT_TWICE = """
SELECT completion_id, count(*) FROM experience WHERE state = 'consumed' GROUP BY completion_id HAVING count(*) > 1
UNION ALL SELECT inbox_id, count(*) FROM turn WHERE role = 'assistant' GROUP BY inbox_id HAVING count(*) > 1
UNION ALL SELECT job_id, count(*) FROM adapter_version GROUP BY job_id HAVING count(*) > 1
"""
_BAD_POINTER = """
SELECT person.id FROM person JOIN adapter_version AS version ON version.id = current_version_id
WHERE version.state != 'promoted' OR version.person_id != person.id
UNION ALL SELECT experience.id FROM experience LEFT JOIN adapter_version AS version ON version.id = consumed_by
WHERE experience.state = 'consumed' AND (version.id IS NULL OR version.state NOT IN ('promoted', 'retired'))
"""
