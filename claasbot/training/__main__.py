"""The trainer process: `python -m claasbot.training --jobs FOLDER --model FOLDER`.

Parses and refuses before torch is loaded, loads the base model once, then runs jobs until it is told to end. Ending
needs no tidying up: whatever it leaves is overwritten or ignored by the next trainer, so a signal ends it at once, also
in the middle of a step.
"""

import argparse
import fcntl
import json
import logging
import os
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from claasbot.adapter_files import write_aside
from claasbot.errors import ClaasbotError
from claasbot.training.environment import set_environment

READY, LOCK = "trainer.json", ".lock"
_SIGNALS = {signal.SIGTERM, signal.SIGINT}


def main(argv: list[str] | None = None) -> None:
    options = _parser().parse_args(argv)
    options.jobs.mkdir(parents=True, exist_ok=True)
    lock = _lock(options.jobs)
    (options.jobs / READY).unlink(missing_ok=True)  # what an earlier trainer said does not hold any more
    _end_on_signal(options.jobs / READY)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    with lock:
        try:
            _serve(options)
        except ClaasbotError as error:
            raise SystemExit(f"trainer: {error}") from error


def _lock(jobs: Path) -> IO[str]:
    """Held until the process ends: of two trainers on one folder the second would run a job that the first is at."""
    file = (jobs / LOCK).open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise SystemExit(f"trainer: another trainer works on {jobs}; stop it, or give --jobs another folder") from None
    return file


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m claasbot.training", description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=Path, required=True, help="folder of job folders")
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch decides)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser


def _serve(options: argparse.Namespace) -> None:
    set_environment()
    import torch

    from claasbot.resources import suites_dir
    from claasbot.training.jobs import serve
    from claasbot.training.memory import keep_freed_memory
    from claasbot.training.policy import load_policy
    from claasbot.training.probes import Probes
    from claasbot.training.run import run_job

    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device == "cuda":  # a job that runs again must make the same bytes
        torch.use_deterministic_algorithms(True, warn_only=True)
    policy = load_policy(options.model, device=options.device)
    probes = Probes(policy, suites_dir() / "probes.json")
    ready = {
        "pid": os.getpid(),
        "device": options.device,
        "threads": torch.get_num_threads(),
        "model": str(options.model),
        "base_revision": policy.revision,
        "ready_at": datetime.now(UTC).isoformat(),
    }
    write_aside(options.jobs / READY, json.dumps(ready))
    logging.getLogger("claasbot.trainer").info("ready: %s on %s", policy.name, options.device)
    serve(options.jobs, lambda job: run_job(job, policy, probes))


def _end_on_signal(ready: Path) -> None:
    """A thread of its own waits for SIGTERM and SIGINT: the main thread may be inside a long backward pass."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # threads that start later inherit this

    def wait() -> None:
        signal.sigwait(_SIGNALS)
        ready.unlink(missing_ok=True)
        sys.stderr.flush()
        os._exit(0)

    threading.Thread(target=wait, name="signals", daemon=True).start()


if __name__ == "__main__":
    main()
