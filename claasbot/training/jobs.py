"""The trainer's side of the job folders: find, claim, heartbeat, run, report.

`jobs/<id>/job.json` appears by rename; `claimed`, `heartbeat` and then `result.json` or `error.json` appear beside it.
Folders are all it knows of the bot. Refuses to remember: a job without an outcome is run, whoever claimed it before, so
being killed at any moment costs only time. Logs hold ids and kinds of errors, never text of messages.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from claasbot.adapter_files import write_aside
from claasbot.domain.job import TrainingJob, TrainingResult, job_from_json, result_to_json
from claasbot.errors import AdapterDamaged, JobRefused
from claasbot.training.memory import free_scratch, is_out_of_memory

log = logging.getLogger("claasbot.trainer")

JOB, CLAIMED, HEARTBEAT, RESULT, ERROR = "job.json", "claimed", "heartbeat", "result.json", "error.json"
SCAN_EVERY_S = 0.02
HEARTBEAT_EVERY_S = 1.0

Run = Callable[[TrainingJob], TrainingResult]


def serve(folder: Path, run: Run) -> None:
    """Run jobs as they come, oldest first, until the process ends."""
    while True:
        waiting = open_jobs(folder)
        if waiting:
            do(waiting[0], run)
            free_scratch()
        else:
            time.sleep(SCAN_EVERY_S)


def open_jobs(folder: Path) -> list[Path]:
    """Job folders that have a job and no outcome, oldest first."""
    found = []
    for entry in os.scandir(folder):
        if entry.name.startswith("."):  # on its way out: the bot renames a folder before it deletes it
            continue
        path = Path(entry.path)
        with suppress(FileNotFoundError, NotADirectoryError):  # taken back while we look; our own trainer.json
            if not (path / RESULT).exists() and not (path / ERROR).exists():
                found.append(((path / JOB).stat().st_mtime_ns, entry.name, path))
    return [path for _, _, path in sorted(found)]


def do(folder: Path, run: Run) -> None:
    """One job, from claim to outcome. A folder that disappears meanwhile was taken back: nothing to report."""
    start = time.monotonic()
    try:
        write_aside(folder / CLAIMED, json.dumps({"pid": os.getpid(), "started_at": _now()}))
        with _heartbeat(folder / HEARTBEAT):
            name, text = _outcome(folder, run)
        write_aside(folder / name, text)
        log.info("job %s: %s after %.2f s", folder.name, name, time.monotonic() - start)
    except FileNotFoundError:
        log.info("job %s was taken back", folder.name)


def _outcome(folder: Path, run: Run) -> tuple[str, str]:
    """The file to write and what is in it: every failure becomes one line that says whether to try again."""
    try:
        return RESULT, result_to_json(run(_read(folder)))
    except AdapterDamaged as error:
        return ERROR, _error("AdapterDamaged", str(error), retry=False)
    except JobRefused as error:
        return ERROR, _error("JobRefused", str(error), retry=False)
    except Exception as error:  # the outermost loop: log once, report, go on with the next job
        if is_out_of_memory(error):
            return ERROR, _error("EngineError", "the trainer ran out of memory; lower recipe.max_tokens", retry=True)
        where = _origin(error)
        log.error("job %s failed: %s at %s", folder.name, type(error).__name__, where)
        return ERROR, _error("EngineError", f"the trainer failed with {type(error).__name__} at {where}", retry=True)


def _read(folder: Path) -> TrainingJob:
    try:
        return job_from_json((folder / JOB).read_text())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise JobRefused(
            f"{JOB} of {folder.name} is not a job ({type(error).__name__}); are bot and trainer of one version?"
        ) from None


def _error(kind: str, message: str, *, retry: bool) -> str:
    return json.dumps({"kind": kind, "message": message, "retry": retry})


def _origin(error: Exception) -> str:
    """File and line that raised. Its message is left out: a library may quote what somebody wrote."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "an unknown line" if trace is None else f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


@contextmanager
def _heartbeat(path: Path) -> Iterator[None]:
    """Touches `path` now and every second from a thread: a step that computes is alive, a stopped process is not."""
    done = threading.Event()

    def beat() -> None:
        while True:
            with suppress(OSError):
                path.touch()
            if done.wait(HEARTBEAT_EVERY_S):
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _now() -> str:
    return datetime.now(UTC).isoformat()
