"""A trainer process without torch: keeps the protocol of job folders, makes dry-run versions, misbehaves on request.

`fake_trainer.py JOBS BEHAVIOUR_FILE`: the file's word is read for every job.
"""

import asyncio
import json
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a file, as the real one is run as a module

from claasbot.children import BackOff
from claasbot.domain.job import job_from_json, result_to_json
from claasbot.engines.dry_run import DryRunEngine
from claasbot.engines.local import LocalEngine, TrainerLimits
from claasbot.errors import AdapterDamaged, JobRefused
from claasbot.inference.scripted import toy_logprobs


def fake_local(home: Path, **options: Any) -> LocalEngine:
    """A LocalEngine whose trainer this is; `home/behaviour` holds the word."""
    behaviour = home / "behaviour"
    behaviour.touch()
    return LocalEngine(
        jobs=home / "jobs",
        model=home,
        log_path=home / "trainer.log",
        threads=1,
        command=(sys.executable, __file__, str(home / "jobs"), str(behaviour)),
        back_off=BackOff(first_s=0.01),
        **{"limits": TrainerLimits(poll_s=0.005), **options},
    )


def main(jobs: Path, behaviour: Path) -> None:
    if behaviour.read_text() == "never ready":
        time.sleep(60)
    if behaviour.read_text() == "no model":
        sys.exit("trainer: the base model cannot be read")
    put(jobs / "trainer.json", json.dumps({"pid": os.getpid()}))
    while True:
        for folder in sorted(jobs.glob("[!.]*")):  # a dot: on its way out
            with suppress(FileNotFoundError, NotADirectoryError):  # taken back meanwhile; our own trainer.json
                has = {path.name for path in folder.iterdir()}
                if "job.json" in has and not has & {"result.json", "error.json"}:
                    do(folder, behaviour.read_text())
        time.sleep(0.005)


def do(folder: Path, word: str) -> None:
    if word == "does not claim":
        time.sleep(60)
    put(folder / "claimed", json.dumps({"pid": os.getpid()}))
    (folder / "heartbeat").touch()
    job = job_from_json((folder / "job.json").read_text())
    match word:
        case "die" | "beyond its memory":
            die(word)
        case "hang":
            wait_for(folder.parents[1] / "go")
        case "out of memory":
            put(folder / "error.json", json.dumps({"kind": "EngineError", "message": "out of memory", "retry": True}))
            return
        case "garbage":
            put(folder / "result.json", "{")
            return
        case "compute for ever":
            while True:
                time.sleep(0.005)
                (folder / "heartbeat").touch()
    try:
        result = asyncio.run(DryRunEngine(toy_logprobs).run(job))
    except (JobRefused, AdapterDamaged) as error:
        facts = {"kind": type(error).__name__, "message": str(error), "retry": False}
        put(folder / "error.json", json.dumps(facts))
        return
    if word == "damage":
        with (Path(job.folder) / "adapter_model.safetensors").open("ab") as file:
            file.write(b"!")
    put(folder / "result.json", result_to_json(result))


def die(word: str) -> None:
    """Without an outcome: as the kernel or an allocator ends a process."""
    if word == "beyond its memory":
        resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28))
        bytearray(1 << 30)
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(go: Path) -> None:
    """Whatever becomes of the job folder meanwhile."""
    while not go.exists():
        time.sleep(0.005)


def put(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.aside")
    aside.write_text(text)
    aside.rename(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
