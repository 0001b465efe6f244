"""Children under their keeper, with real little processes: started, restarted, ended, never left behind."""

import asyncio
import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from claasbot import keeper
from claasbot.children import BackOff, Child, ChildSpec, describe_exit, environment_for_children
from claasbot.errors import EngineDown, PortInUse

PATIENCE_S = 30.0  # a machine that is busy with something else; nothing waits this long when all is well
QUICK = (sys.executable, "-I", "-S", "-c")
KEEPER = [sys.executable, "-I", "-S", keeper.__file__]
ANSWER_THEN_WAIT = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text('up'); time.sleep(60)"
# A grandchild that leaves group and session, as a daemon does, and writes down its id.
LEAVE_A_DAEMON = """
import os, pathlib, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        if "stubborn" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
        time.sleep(60)
    os._exit(0)
os.wait()
while not os.path.exists(sys.argv[1]): time.sleep(0.005)
time.sleep(float(sys.argv[2]))
"""


def is_alive(pid: int) -> bool:
    return pid in keeper.process_table()


def until(condition: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


async def until_async(condition: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - other processes set no event of ours
            await asyncio.sleep(0.005)


def read_pid(path: Path) -> int:
    until(lambda: path.exists() and path.read_text() != "")
    return int(path.read_text())


# --- the keeper


def kept(*argv: str, grace_s: float = 10.0, **streams: int) -> subprocess.Popen[bytes]:
    """A keeper whose pipe we hold; closing it or leaving the `with` is our end."""
    return subprocess.Popen([*KEEPER, "--grace", str(grace_s), "--", *argv], stdin=subprocess.PIPE, **streams)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize(
    ("code", "expected"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_the_keeper_exits_with_the_status_of_its_command(code: str, expected: int) -> None:
    with kept(*QUICK, code) as process:
        assert process.wait(timeout=PATIENCE_S) == expected


def test_a_command_that_does_not_exist_is_said_in_one_line() -> None:
    with kept("no-such-command", stderr=subprocess.PIPE) as process:
        assert process.wait(timeout=PATIENCE_S) == 127
        assert process.stderr is not None
        assert process.stderr.read() == b"'no-such-command' cannot be started: No such file or directory\n"


def test_kill_9_of_the_parent_leaves_no_orphan_not_even_a_daemon(tmp_path: Path) -> None:
    daemon = tmp_path / "daemon"
    parent_code = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:], stdin=-1); time.sleep(60)"
    argv = [*KEEPER, "--grace", "0.2", "--", *QUICK, LEAVE_A_DAEMON, str(daemon), "60", "stubborn"]
    parent = subprocess.Popen([*QUICK, parent_code, *argv])
    pid = read_pid(daemon)
    below = keeper.descendants(parent.pid)
    assert pid in below
    assert len(below) == 3  # keeper, command, daemon

    parent.kill()
    parent.wait()

    until(lambda: not any(is_alive(each) for each in below))


def test_what_the_command_left_behind_ends_with_it(tmp_path: Path) -> None:
    daemon = tmp_path / "daemon"
    with kept(*QUICK, LEAVE_A_DAEMON, str(daemon), "0") as process:
        assert process.wait(timeout=PATIENCE_S) == 0
        assert not is_alive(read_pid(daemon))


def test_sigterm_gives_the_grace_and_a_second_one_ends_it(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    stubborn = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {ANSWER_THEN_WAIT}"
    with kept(*QUICK, stubborn, str(ready), grace_s=60) as process:
        until(ready.exists)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE_S) == 137


def test_a_killed_keeper_takes_its_command_along(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    with kept(*QUICK, ANSWER_THEN_WAIT, str(ready)) as process:
        until(ready.exists)
        (command,) = keeper.descendants(process.pid)
        process.kill()
        process.wait()
        until(lambda: not is_alive(command))


# --- the child


class Made:
    """A child whose readiness is a file that it writes itself."""

    def __init__(self, tmp_path: Path, code: str, **changes: object) -> None:
        self.up = tmp_path / "up"
        spec = {
            "name": "the test child",
            "argv": (*QUICK, code, str(self.up)),
            "env": environment_for_children(os.environ),
            "log_path": tmp_path / "child.log",
            "ready_within_s": PATIENCE_S,
            "grace_s": 0.2,
            "poll_s": 0.01,
            "back_off": BackOff(first_s=0.01, most_s=0.02),
        }
        hooks = {name: changes.pop(name) for name in ("before", "clock") if name in changes}
        self.child = Child(ChildSpec(**{**spec, **changes}), is_ready=self.answers, raises=EngineDown, **hooks)  # type: ignore[arg-type]

    async def answers(self) -> bool:
        return self.up.exists()

    def command(self) -> int:
        """The id of the command, below the keeper, below us."""
        pid = self.child._process.pid  # type: ignore[union-attr]
        (command,) = keeper.descendants(pid)
        return command


@pytest_asyncio.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., Made]]:
    made: list[Made] = []

    def new(code: str = ANSWER_THEN_WAIT, **changes: object) -> Made:
        made.append(Made(tmp_path, code, **changes))
        return made[-1]

    yield new
    for each in made:
        await each.child.stop()


async def test_it_starts_reports_its_seconds_and_stops_without_a_trace(make: Callable[..., Made]) -> None:
    made, seconds = make(), []
    await made.child.start(seconds.append)
    assert made.child.is_ready
    assert made.child.generation == 1
    assert seconds == sorted(seconds) != []
    command = made.command()

    await made.child.stop()

    assert made.child.state.phase == "stopped"
    assert not is_alive(command)


async def test_dying_at_start_fails_at_once_with_the_end_of_its_log(make: Callable[..., Made]) -> None:
    made = make("print('loading'); raise SystemExit('no memory for 2 GiB')", ready_within_s=math.inf)
    with pytest.raises(
        EngineDown, match=r"(?s)the test child died while it started \(exit status 1\).*no memory for 2 GiB"
    ):
        await made.child.start()
    assert made.child.state.phase == "failed"
    assert made.child.state.last_exit == "exit status 1"


async def test_the_first_error_is_told_however_far_above_the_end_it_stands(make: Callable[..., Made]) -> None:
    made = make(
        "import sys; sys.stdout = sys.stderr\n"
        "print('WARNING like OSError: not this')\n"
        "print('SafetensorError: incomplete metadata')\n"
        "for i in range(500): print('  File', i)\n"
        "raise SystemExit('RuntimeError: see above')"
    )
    with pytest.raises(EngineDown) as error:
        await made.child.start()
    lines = str(error.value).splitlines()
    assert lines[1:3] == ["SafetensorError: incomplete metadata", "..."]
    assert lines[-1] == "RuntimeError: see above"
    assert len(lines) == 11


async def test_a_start_that_takes_too_long_is_ended(make: Callable[..., Made], tmp_path: Path) -> None:
    log = tmp_path / "child.log"

    def clock() -> float:
        return 60.0 if log.exists() and log.read_text() else 0.0

    made = make("import time; print('thinking', flush=True); time.sleep(60)", ready_within_s=60.0, clock=clock)
    with pytest.raises(EngineDown, match=r"(?s)not ready within 60 s.*thinking"):
        await made.child.start()
    assert keeper.descendants(os.getpid()) == set()


async def test_a_check_before_the_start_is_raised_as_it_is(make: Callable[..., Made]) -> None:
    def taken() -> None:
        raise PortInUse("port 8000 is taken")

    made = make(before=taken)
    with pytest.raises(PortInUse):
        await made.child.start()
    assert made.child.generation == 0


async def test_a_log_that_cannot_be_written_is_an_error_and_not_a_hang(
    make: Callable[..., Made], tmp_path: Path
) -> None:
    made = make(log_path=Path("/proc/nothing/child.log"))
    with pytest.raises(EngineDown, match="cannot be"):
        await made.child.start()


async def test_a_killed_child_comes_back_as_the_next_generation(make: Callable[..., Made]) -> None:
    made = make()
    await made.child.start()
    made.up.unlink()
    os.kill(made.command(), signal.SIGKILL)

    await until_async(lambda: made.child.state.phase == "restarting")
    await made.child.wait_ready(PATIENCE_S)

    assert made.child.generation == 2
    assert made.child.state.last_exit == "ended by SIGKILL, perhaps out of memory"
    assert made.child.state.why is None


async def test_it_keeps_trying_with_a_growing_delay(make: Callable[..., Made], tmp_path: Path) -> None:
    code = f"import os, sys; os.path.exists({str(tmp_path / 'broken')!r}) and sys.exit('broken'); {ANSWER_THEN_WAIT}"
    made = make(code)
    await made.child.start()
    (tmp_path / "broken").touch()
    made.up.unlink()
    os.kill(made.command(), signal.SIGKILL)
    await until_async(lambda: made.child.generation >= 4)
    assert made.child.state.phase == "restarting"
    assert "broken" in (made.child.state.why or "")

    (tmp_path / "broken").unlink()
    await made.child.wait_ready(PATIENCE_S)


def test_the_delay_doubles_up_to_its_cap() -> None:
    back_off = BackOff(first_s=1.0, most_s=60.0)
    assert [back_off.delay_s(n) for n in (1, 2, 3, 6, 7, 5000)] == [1.0, 2.0, 4.0, 32.0, 60.0, 60.0]


async def test_stopping_while_it_waits_for_its_next_try_does_not_wait(make: Callable[..., Made]) -> None:
    made = make(back_off=BackOff(first_s=60.0))
    await made.child.start()
    os.kill(made.command(), signal.SIGKILL)
    await until_async(lambda: made.child.state.phase == "restarting")
    async with asyncio.timeout(30):  # half of the delay
        await made.child.stop()
    assert made.child.state.phase == "stopped"


async def test_stopping_while_it_starts_ends_the_start(make: Callable[..., Made]) -> None:
    made = make("import time; time.sleep(60)")
    starting = asyncio.create_task(made.child.start())
    await until_async(lambda: made.child.generation == 1)
    await made.child.stop()
    with pytest.raises(EngineDown, match="was stopped while it started"):
        await starting
    assert keeper.descendants(os.getpid()) == set()


async def test_stopping_while_the_process_is_being_made_ends_it_too(make: Callable[..., Made]) -> None:
    made = make("import time; time.sleep(60)")
    starting = asyncio.create_task(made.child.start())
    await asyncio.sleep(0)  # the start has its task
    await asyncio.sleep(0)  # the task waits for its process
    assert made.child.generation == 0
    async with asyncio.timeout(PATIENCE_S / 2):
        await made.child.stop()
    with pytest.raises(EngineDown, match="was stopped while it started"):
        await starting
    assert keeper.descendants(os.getpid()) == set()


async def test_cancelling_a_start_leaves_nothing(make: Callable[..., Made]) -> None:
    made = make("import time; time.sleep(60)")
    starting = asyncio.create_task(made.child.start())
    await until_async(lambda: made.child.generation == 1)
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await starting
    assert keeper.descendants(os.getpid()) == set()


async def test_an_ordered_restart_comes_without_delay(make: Callable[..., Made]) -> None:
    made = make(back_off=BackOff(first_s=60.0))
    await made.child.start()
    made.up.unlink()
    await made.child.restart("it hung")
    await made.child.wait_ready(PATIENCE_S)
    assert made.child.generation == 2


async def test_a_killed_keeper_is_a_death_too(make: Callable[..., Made]) -> None:
    made = make(f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {ANSWER_THEN_WAIT}")
    await made.child.start()
    command = made.command()
    made.up.unlink()
    os.kill(made.child._process.pid, signal.SIGKILL)  # type: ignore[union-attr]
    await until_async(lambda: made.child.generation == 2)
    await until_async(lambda: not is_alive(command))


async def test_waiting_for_a_child_that_does_not_come_back_ends_in_time(make: Callable[..., Made]) -> None:
    made = make(back_off=BackOff(first_s=60.0))
    await made.child.start()
    os.kill(made.command(), signal.SIGKILL)
    with pytest.raises(EngineDown, match=r"is restarting, expected ready within 0\.1 s"):
        await until_async(lambda: made.child.state.phase == "restarting")
        await made.child.wait_ready(0.1)


async def test_a_log_beyond_its_size_is_moved_and_the_child_goes_on_writing(
    make: Callable[..., Made], tmp_path: Path
) -> None:
    log = tmp_path / "child.log"
    log.write_text("x" * 5000)
    made = make("print('new', flush=True); " + ANSWER_THEN_WAIT, log_bytes=4000)
    await made.child.start()
    assert (tmp_path / "child.log.1").read_text() == "x" * 5000
    assert log.read_text() == "new\n"


async def test_a_full_disk_costs_lines_of_the_log_and_not_the_child(make: Callable[..., Made], tmp_path: Path) -> None:
    log, rotated = tmp_path / "child.log", tmp_path / "child.log.1"
    made = make(log_bytes=4000)
    await made.child.start()
    rotated.symlink_to("/dev/full")
    log.write_text("x" * 5000)
    await until_async(lambda: log.stat().st_size == 0 or not made.child.is_ready)
    assert made.child.is_ready
    assert made.child.generation == 1
    assert not rotated.is_symlink()  # half a copy would keep the disk full


async def test_a_disk_that_fails_before_a_restart_delays_it_and_no_more(make: Callable[..., Made]) -> None:
    failures: list[int] = []

    def full_disk() -> None:
        if failures:
            failures.pop()
            raise OSError(28, "No space left on device")

    made = make(before=full_disk)
    await made.child.start()
    failures += [1, 2]
    made.up.unlink()
    os.kill(made.command(), signal.SIGKILL)
    await until_async(lambda: not made.child.is_ready)
    await made.child.wait_ready(PATIENCE_S)
    assert failures == []


async def test_one_child_does_not_hold_the_pipe_of_another(make: Callable[..., Made]) -> None:
    first, other = make(), make()
    other.up = first.up.with_name("other")
    other.child.spec = ChildSpec(**{**_fields(other.child.spec), "argv": (*QUICK, ANSWER_THEN_WAIT, str(other.up))})
    await first.child.start()
    await other.child.start()
    command = first.command()
    first.child._process.stdin.close()  # type: ignore[union-attr]
    await until_async(lambda: not is_alive(command))


def test_children_do_not_get_our_settings() -> None:
    assert environment_for_children({"CLAASBOT_TELEGRAM__TOKEN": "1:a", "PATH": "/bin"}) == {"PATH": "/bin"}


def test_exit_states_in_words() -> None:
    assert describe_exit(0) == "exit status 0"
    assert describe_exit(3) == "exit status 3"
    assert describe_exit(139) == "ended by SIGSEGV"
    assert describe_exit(-9) == "ended by SIGKILL, perhaps out of memory"
    assert describe_exit(255) == "exit status 255"


def _fields(spec: ChildSpec) -> dict[str, object]:
    return {name: getattr(spec, name) for name in ChildSpec.__slots__}


def test_the_keeper_needs_nothing_but_the_standard_library() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", keeper.__file__], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "asyncio" not in done.stderr and "subprocess" not in done.stderr


async def test_a_child_that_never_answered_is_ended_without_its_grace(
    make: Callable[..., Made], tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    stubborn = "import pathlib, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    made = make(f"{stubborn} pathlib.Path({str(begun)!r}).write_text('x'); time.sleep(60)", grace_s=60.0)
    starting = asyncio.create_task(made.child.start())
    await until_async(begun.exists)
    command, ended_at = made.command(), time.monotonic()
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert time.monotonic() - ended_at < 5.0
    assert not is_alive(command)
