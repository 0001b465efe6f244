"""Runs jobs in the trainer process beside us: job folders out, verified version folders back.

The trainer is a Child: kept alive between jobs, started again when it dies or falls silent. Its side of the protocol is
`training/jobs.py`. A job that fails here leaves no folder: the next trainer must not find it and die of it again.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

from claasbot import adapter_files
from claasbot.children import BackOff, Child, ChildSpec, Progress, environment_for_children
from claasbot.domain.job import TrainingJob, TrainingResult, job_to_json, result_from_json
from claasbot.errors import AdapterDamaged, EngineDown, EngineError, JobRefused

JOB, CLAIMED, HEARTBEAT, RESULT, ERROR = "job.json", "claimed", "heartbeat", "result.json", "error.json"
READY = "trainer.json"

Given = ParamSpec("Given")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerLimits:
    """In seconds. The trainer's heart beats once a second, whatever it computes."""

    deadline_s: float = 600.0
    """Longest job."""
    silence_s: float = 20.0
    """Longest time without a heartbeat, or until a job is claimed."""
    start_s: float = 180.0
    poll_s: float = 0.02


@dataclass(slots=True, eq=False)
class _Attempt:
    """One call of `run`, from its beginning: it may wait for the trainer for minutes before its folder exists."""

    job: TrainingJob
    folder: Path
    is_discarded: bool = False

    def refuse_if_discarded(self) -> None:
        if self.is_discarded:
            raise EngineDown(f"job {self.job.job_id} was discarded while it ran")


def trainer_command(*, jobs: Path, model: Path, threads: int, device: Literal["cpu", "cuda"]) -> tuple[str, ...]:
    return (
        *(sys.executable, "-m", "claasbot.training"),
        *("--jobs", str(jobs.absolute())),
        *("--model", str(model.absolute())),
        *("--threads", str(threads)),
        *("--device", device),
    )


class LocalEngine:
    """One trainer on this machine. `start` it, or the first job does."""

    def __init__(
        self,
        *,
        jobs: Path,
        model: Path,
        log_path: Path,
        threads: int,
        device: Literal["cpu", "cuda"] = "cpu",
        limits: TrainerLimits = TrainerLimits(),
        command: tuple[str, ...] | None = None,
        back_off: BackOff = BackOff(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`command` runs another trainer that keeps the protocol."""
        self._jobs = jobs
        self._limits = limits
        self._clock = clock
        self._running = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._attempts: set[_Attempt] = set()
        self.child = Child(
            ChildSpec(
                name="the trainer",
                argv=command or trainer_command(jobs=jobs, model=model, threads=threads, device=device),
                env=environment_for_children(os.environ) | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
                log_path=log_path,
                ready_within_s=limits.start_s,
                grace_s=5.0,
                poll_s=min(0.1, limits.poll_s * 5),
                back_off=back_off,
            ),
            is_ready=self._trainer_is_ready,
            raises=EngineDown,
            before=self._clean,
        )

    async def start(self, on_progress: Progress = lambda seconds: None) -> None:
        """Return when it holds the base model. Raises EngineDown with the end of its log."""
        await self.child.start(on_progress)

    def is_ready(self) -> bool:
        return self.child.is_ready

    async def run(self, job: TrainingJob) -> TrainingResult:
        attempt = _Attempt(job, self._jobs / job.job_id)
        self._attempts.add(attempt)
        try:
            async with self._running:
                return await self._run_next(attempt)
        finally:
            self._attempts.discard(attempt)

    async def discard(self, job_id: str) -> None:
        """Also of a job that runs or waits: when this returns, nothing works on it any more or ever will.

        What the trainer made of it may lie under the version's name: that is the caller's to delete, now safely.
        """
        folder = self._jobs / job_id
        async with self._writing:
            for attempt in self._attempts:
                attempt.is_discarded = attempt.is_discarded or attempt.job.job_id == job_id
            if _has(folder, JOB) and not _has(folder, RESULT) and not _has(folder, ERROR):
                await self.child.restart("its job was discarded")  # unclaimed too: it may claim it while we look
            await _in_thread(adapter_files.remove, folder)

    async def discard_all_but(self, job_ids: Collection[str]) -> None:
        """Of all jobs but these, as `discard` does: results that a crash left behind hold people's text."""
        for job_id in sorted(await _in_thread(_job_ids, self._jobs) - set(job_ids)):
            await self.discard(job_id)

    async def close(self) -> None:
        await self.child.stop()

    # --- inside

    async def _run_next(self, attempt: _Attempt) -> TrainingResult:
        if self.child.state.phase in ("stopped", "failed"):
            await self.start()
        await self.child.wait_ready(self._limits.start_s)
        try:
            return await self._run(attempt)
        except asyncio.CancelledError:
            await self._take_back(attempt.folder, "its job was taken back")
            raise
        except EngineDown:
            await _in_thread(adapter_files.remove, attempt.folder)
            raise

    async def _run(self, attempt: _Attempt) -> TrainingResult:
        if not (attempt.folder / RESULT).exists():  # else it was done before we died, and not recorded
            async with self._writing:
                attempt.refuse_if_discarded()
                await _in_thread(_write_job, attempt.folder, attempt.job)
            await self._until_done(attempt)
        return await _in_thread(_checked_result, attempt.folder, attempt.job)

    async def _until_done(self, attempt: _Attempt) -> None:
        """Return when there is an outcome. Raises EngineDown when there can be none any more."""
        folder, generation = attempt.folder, self.child.generation
        started = seen_at = self._clock()
        sign: object = None
        while not _has(folder, RESULT) and not _has(folder, ERROR):
            attempt.refuse_if_discarded()
            if self.child.generation != generation or not self.child.is_ready:
                raise EngineDown(f"the trainer died during job {folder.name}: {self.child.state.why}; try again")
            now = self._clock()
            if (latest := _sign_of_life(folder)) != sign:
                sign, seen_at = latest, now
            if now - seen_at > self._limits.silence_s:
                await self._restart(f"the trainer was silent for {self._limits.silence_s:g} s in job {folder.name}")
            if now - started > self._limits.deadline_s:
                await self._restart(f"job {folder.name} took longer than {self._limits.deadline_s:g} s")
            await asyncio.sleep(self._limits.poll_s)

    async def _restart(self, why: str) -> None:
        await self.child.restart(why)
        raise EngineDown(f"{why}; it was started again, try again")

    async def _take_back(self, folder: Path, why: str) -> None:
        """Nobody waits for it any more: it goes, and a trainer that is in the middle of it gives the device back."""
        is_running = _has(folder, CLAIMED) and not _has(folder, RESULT) and not _has(folder, ERROR)
        if not _has(folder, RESULT):
            adapter_files.remove(folder)
        if is_running and self.child.is_ready:
            await self.child.restart(why)

    async def _trainer_is_ready(self) -> bool:
        return (self._jobs / READY).exists()

    def _clean(self) -> None:
        """Before every start: no sign of an earlier trainer, and no job that nobody waits for."""
        self._jobs.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._jobs / READY).unlink(missing_ok=True)
        for folder in self._jobs.iterdir():
            is_leftover = folder.name.startswith(".")  # half deleted: nobody finds a result in it any more
            if folder.is_dir() and (is_leftover or not (folder / RESULT).exists()):
                adapter_files.remove(folder)


async def _in_thread(work: Callable[Given, Value], *args: Given.args, **kwargs: Given.kwargs) -> Value:
    """Off the loop, and never left behind: a thread goes on after a cancellation, and would write into the next try."""
    working = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.gather(working, return_exceptions=True)
        raise


def _job_ids(jobs: Path) -> set[str]:
    """Of all folders, half deleted ones included: discarding such a job again deletes the rest."""
    names = [folder.name for folder in jobs.iterdir() if folder.is_dir()] if jobs.exists() else []
    return {name.removeprefix(".").removesuffix(".doomed") for name in names}


def _write_job(folder: Path, job: TrainingJob) -> None:
    """The job appears whole, for our account only: it holds what people wrote."""
    if folder.exists():
        shutil.rmtree(folder)  # of an attempt that ended without a result
    folder.mkdir(mode=0o700, parents=True)
    adapter_files.write_aside(folder / JOB, job_to_json(job))


def _checked_result(folder: Path, job: TrainingJob) -> TrainingResult:
    """What the trainer reports, if the version folder bears it out."""
    if (folder / ERROR).exists():
        raise _error(folder, job.job_id)
    try:
        result = result_from_json((folder / RESULT).read_text())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineDown(f"job {job.job_id}: {RESULT} is not readable ({type(error).__name__}); try again") from error
    try:
        manifest = adapter_files.verify(Path(job.folder))
    except AdapterDamaged as error:
        adapter_files.remove(Path(job.folder))  # not recorded yet, and a folder in the way could never be made again
        raise EngineDown(f"job {job.job_id} left a damaged version ({error}); it is removed, try again") from error
    said = (result.job_id, result.version_name, result.weights_sha256)
    found = (manifest.job_id, manifest.version_name, manifest.weights_sha256)
    if said != found or said[:2] != (job.job_id, job.version_name):
        raise EngineDown(f"job {job.job_id} reports {said!r}, its version folder says {found!r}; try again")
    return result


def _error(folder: Path, job_id: str) -> EngineError | AdapterDamaged:
    try:
        facts = json.loads((folder / ERROR).read_text())
        message, may_retry = f"job {job_id}: {facts['message']}", bool(facts["retry"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return EngineDown(f"job {job_id}: {ERROR} is not readable ({type(error).__name__}); try again")
    if facts.get("kind") == "AdapterDamaged":
        return AdapterDamaged(message)
    return EngineDown(message) if may_retry else JobRefused(message)


def _sign_of_life(folder: Path) -> tuple[bool, int | None]:
    """Changes with the claim and with every heartbeat; the file's own clock is compared with itself only."""
    try:
        return _has(folder, CLAIMED), (folder / HEARTBEAT).stat().st_mtime_ns
    except FileNotFoundError:
        return _has(folder, CLAIMED), None


def _has(folder: Path, name: str) -> bool:
    return (folder / name).exists()
