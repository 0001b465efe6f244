"""Supervises one child process: the server or the trainer, each under a keeper of its own.

Starts it, waits until it answers, restarts it with a growing delay when it dies, and ends it with everything below it.
Refuses to know what the child does: whether it is ready is asked of a function that the caller brings.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from claasbot import keeper
from claasbot.errors import ClaasbotError

Phase = Literal["starting", "ready", "restarting", "failed", "stopped"]
Progress = Callable[[float], None]
"""Called while a child starts, with the seconds so far."""

_KEEPER = str(Path(__file__).with_name("keeper.py"))
_N_TAIL_LINES = 8
_TAIL_BYTES = 128 * 1024
_LINE_CHARS = 400
_ERROR_LINE = re.compile(r"\w(Error|Exception): ")
_KEEPER_SLACK_S = keeper.GIVE_UP_S + 2.0
_STARTING_GRACE_S = 1.0
"""For a child that does not answer yet: it has nothing to lose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackOff:
    """Delays between restarts: `first_s`, doubled up to `most_s`; a child that was ready for `calm_s` starts over."""

    first_s: float = 1.0
    most_s: float = 60.0
    calm_s: float = 120.0

    def delay_s(self, n_failures: int) -> float:
        """Before the restart that follows `n_failures` (at least 1) deaths in a row."""
        return min(self.most_s, self.first_s * 2.0 ** min(n_failures - 1, 30))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """What to run, and how patient to be with it."""

    name: str
    """As it stands in messages: `the inference server`."""
    argv: tuple[str, ...]
    env: Mapping[str, str]
    """The whole environment: nothing of ours is inherited (see `environment_for_children`)."""
    log_path: Path
    ready_within_s: float
    grace_s: float = 10.0
    """Between SIGTERM and SIGKILL."""
    poll_s: float = 0.2
    log_bytes: int = 16 * 1024 * 1024
    """The log is moved to `.1` beyond this size, so that a child uses twice as much at most."""
    back_off: BackOff = BackOff()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildState:
    """Where a child stands, for doctor and dashboard."""

    phase: Phase
    since: float
    """By the clock that the child was given; monotonic seconds by default."""
    generation: int
    """How many times it was started."""
    last_exit: str | None = None
    why: str | None = None
    """What went wrong last, with the end of its log."""


def environment_for_children(inherited: Mapping[str, str]) -> dict[str, str]:
    """Our environment without our settings: those hold the keys of the chat platforms, which no child needs."""
    return {name: value for name, value in inherited.items() if not name.startswith("CLAASBOT_")}


class Child:
    """One supervised process. `start`, then `stop`; all between is done by the one task that it owns."""

    def __init__(
        self,
        spec: ChildSpec,
        *,
        is_ready: Callable[[], Awaitable[bool]],
        raises: type[ClaasbotError],
        before: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`before` runs ahead of every start; what it raises (OSError too) ends `start()`, and delays a restart."""
        self.spec = spec
        self._is_ready = is_ready
        self._raises = raises
        self._before = before
        self._clock = clock
        self._state = ChildState(phase="stopped", since=clock(), generation=0)
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._restart_reason: str | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: ClaasbotError | None = None
        self._log_start = 0
        self._was_ready = False
        """Whether this generation ever answered."""

    @property
    def state(self) -> ChildState:
        return self._state

    @property
    def generation(self) -> int:
        return self._state.generation

    @property
    def is_ready(self) -> bool:
        return self._state.phase == "ready"

    async def start(self, on_progress: Progress = lambda seconds: None) -> None:
        """Return when it answers. Raises the given error, and leaves nothing, if it dies first or takes too long."""
        if self._task is not None:
            raise self._raises(f"{self.spec.name} was started already; stop it first")
        self._stopping.clear()
        self._failure = None
        self._set("starting")
        self._task = asyncio.create_task(self._supervise(), name=f"child {self.spec.name}")
        started = self._clock()
        try:
            while self._state.phase == "starting":
                await self._change(self.spec.poll_s)
                on_progress(self._clock() - started)
        except BaseException:
            await self.stop()
            raise
        if not self.is_ready:
            await self._join()
            raise self._start_failure()

    def _start_failure(self) -> ClaasbotError:
        return self._failure or self._raises(f"{self.spec.name} was stopped while it started")

    async def wait_ready(self, within_s: float) -> None:
        """Return when it is ready, also after a restart that is going on. Raises the given error otherwise."""
        deadline = time.monotonic() + within_s
        while not self.is_ready:
            left_s = deadline - time.monotonic()
            if self._state.phase in ("failed", "stopped") or left_s <= 0:
                raise self._raises(
                    f"{self.spec.name} is {self._state.phase}, expected ready within {within_s:g} s;"
                    f" see {self.spec.log_path}{_after_colon(self._state.why)}"
                )
            await self._change(left_s)

    async def restart(self, reason: str) -> None:
        """End the process (it hangs, or holds what it must not); it comes back by itself, a generation later."""
        self._restart_reason = reason
        if self.is_ready:
            self._set("restarting", why=reason)
        await self._end(self._process)

    async def stop(self) -> None:
        """End the child and everything below it, within its grace and a few seconds."""
        self._stopping.set()
        await self._end(self._process)
        await self._join()
        if self._state.phase != "failed":
            self._set("stopped")

    def tail(self) -> str:
        """The first error and the last lines that this generation wrote: a cause stands far above what it broke."""
        try:
            with self.spec.log_path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(min(self._log_start, size), size - _TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        lines = [line[:_LINE_CHARS] for line in text.splitlines() if line.strip()]
        last = lines[-_N_TAIL_LINES:]
        cause = next((line for line in lines if _ERROR_LINE.search(line) and "WARNING" not in line), None)
        return "\n".join(last if cause is None or cause in last else [cause, "...", *last])

    # --- the owned task

    async def _supervise(self) -> None:
        """Every way out of here ends the process and says so in the state."""
        try:
            await self._keep_running()
        except Exception as error:  # the outermost loop of this task: nobody else would see it
            unknown = self._raises(f"{self.spec.name} cannot be supervised: {error!r}")
            self._failure = error if isinstance(error, ClaasbotError) else unknown
            await self._end(self._process)
            self._set("failed", why=str(self._failure))

    async def _keep_running(self) -> None:
        """Start, watch, and start again. The first start may fail; later ones are tried until `stop`."""
        n_failures = 0
        while not self._stopping.is_set():
            self._restart_reason = None
            ready_at = self._clock()
            try:
                await self._launch()
                await self._until_ready()
                ready_at = self._clock()
                await self._until_dead()
                why = self._death("died")
            except ClaasbotError as error:
                if self._state.phase == "starting" and not self._stopping.is_set():
                    raise
                why = str(error)
                await self._end(self._process)
            if self._stopping.is_set():
                return
            reason = self._ordered()
            self._set("restarting", why=reason or why)
            if reason is None:
                calm = self._clock() - ready_at >= self.spec.back_off.calm_s
                n_failures = 1 if calm else n_failures + 1
                await _within(self._stopping.wait(), self.spec.back_off.delay_s(n_failures))

    async def _launch(self) -> None:
        """Start a keeper with the command below it; the pipe to the keeper ends with us."""
        argv = (sys.executable, "-I", "-S", _KEEPER, "--grace", str(self.spec.grace_s), "--", *self.spec.argv)
        try:
            self._before()
            with self._opened_log() as log:
                self._process = await asyncio.create_subprocess_exec(
                    *argv,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env=dict(self.spec.env),
                    start_new_session=True,  # Ctrl-C is for us: we end our children in order
                )
        except OSError as error:
            raise self._raises(f"{self.spec.name} cannot be started: {error}") from error
        self._was_ready = False
        self._state = replace(self._state, generation=self.generation + 1)
        if self._stopping.is_set():  # while we were starting it
            await self._end(self._process)

    async def _until_ready(self) -> None:
        process = self._running()
        deadline = self._clock() + self.spec.ready_within_s
        while process.returncode is None:
            if await self._answers():
                self._was_ready = True
                self._set("ready")
                return
            if self._clock() >= deadline:
                raise self._raises(
                    f"{self.spec.name} was not ready within {self.spec.ready_within_s:g} s;"
                    f" see {self.spec.log_path}{_after_colon(self.tail())}"
                )
            await _within(process.wait(), self.spec.poll_s)
        raise self._raises(self._death("died while it started"))

    async def _answers(self) -> bool:
        """A probe that hangs must not hide that the process died."""
        try:
            async with asyncio.timeout(max(1.0, self.spec.poll_s)):
                return await self._is_ready()
        except TimeoutError:
            return False

    async def _until_dead(self) -> None:
        process = self._running()
        while process.returncode is None:
            await _within(process.wait(), max(1.0, self.spec.poll_s))
            self._rotate_log()

    def _death(self, how: str) -> str:
        """One sentence and the end of the log; also remembers how it ended and ends what a killed keeper left."""
        process = self._running()
        code = process.returncode if process.returncode is not None else 0
        if code < 0:
            end_session(process.pid)
        self._state = replace(self._state, last_exit=describe_exit(code))
        return f"{self.spec.name} {how} ({describe_exit(code)}); see {self.spec.log_path}{_after_colon(self.tail())}"

    async def _end(self, process: asyncio.subprocess.Process | None) -> None:
        """Close the pipe and wait for the keeper, which ends in time by itself; if it cannot, do its work."""
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        grace_s = self.spec.grace_s if self._was_ready else min(self.spec.grace_s, _STARTING_GRACE_S)
        if await _within(process.wait(), grace_s):
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()  # a keeper that is ending its command takes this as the end of the grace
        if not await _within(process.wait(), _KEEPER_SLACK_S):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            end_session(process.pid)

    async def _join(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await asyncio.wait({task})
            task.result()

    # --- state and log

    def _ordered(self) -> str | None:
        """Why `restart` was called during this generation; None when the child died by itself."""
        return self._restart_reason

    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    def _set(self, phase: Phase, *, why: str | None = None) -> None:
        kept = None if phase == "ready" else self._state.why
        self._state = replace(self._state, phase=phase, since=self._clock(), why=why or kept)
        self._changed.set()

    async def _change(self, within_s: float) -> None:
        """Wait for the next change of state, or for the time."""
        self._changed.clear()
        await _within(self._changed.wait(), within_s)

    @contextlib.contextmanager
    def _opened_log(self) -> Iterator[int]:
        self.spec.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._rotate_log()
        log = os.open(self.spec.log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._log_start = os.fstat(log).st_size
            yield log
        finally:
            os.close(log)

    def _rotate_log(self) -> None:
        """Copy and cut: the child keeps its descriptor, and appending makes it go on at the new end.

        Never raises. Where the disk has no room for the copy the lines are lost, and their room is free.
        """
        log, rotated = self.spec.log_path, self.spec.log_path.with_name(f"{self.spec.log_path.name}.1")
        with contextlib.suppress(OSError):
            if log.stat().st_size <= self.spec.log_bytes:
                return
            try:
                shutil.copy(log, rotated)
            except OSError:
                rotated.unlink(missing_ok=True)
            os.truncate(log, 0)
            self._log_start = 0


def describe_exit(code: int) -> str:
    """A keeper's exit status in words."""
    number = code - 128 if code > 128 else -code
    if number <= 0:
        return f"exit status {code}"
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"exit status {code}"
    return f"ended by {name}" + (", perhaps out of memory" if name == "SIGKILL" else "")


def end_session(session: int) -> None:
    """SIGKILL what a killed keeper left: its processes never leave its session by themselves."""
    for pid, (_, found) in keeper.process_table().items():
        if found == session:
            keeper.send(pid, signal.SIGKILL)


async def _within(awaitable: Awaitable[object], seconds: float) -> bool:
    """False when the time passed first."""
    try:
        async with asyncio.timeout(seconds):
            await awaitable
    except TimeoutError:
        return False
    return True


def _after_colon(text: str | None) -> str:
    return f":\n{text}" if text else ""
