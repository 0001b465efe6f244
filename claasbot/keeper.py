"""Keeps one command from outliving the bot: `python claasbot/keeper.py [--grace SECONDS] -- command arguments...`

Standard input is the read end of a pipe that the bot holds open. When it closes (the bot is gone, also by kill -9) or
on SIGTERM, every process below the keeper gets SIGTERM, and SIGKILL after the grace; a second SIGTERM ends the grace.
When the command ends by itself, what it left behind is ended the same way: vLLM's engine process outlives its API
server. The keeper exits with the command's status, 128 + n for signal n. It reads nothing, restarts nothing, logs
nothing.

Standard library only and run as a file: it must start fast, from any folder, beside any environment. Finding processes
that left the group needs Linux; elsewhere the process group alone is ended.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 10.0
GIVE_UP_S = 5.0  # after SIGKILL: what is still there hangs in the kernel, and waiting does not help
LOOK_S = 0.05
PARENT_LOOK_S = 1.0
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Keeper:
    """One command, the pipe that it depends on, and everything that it started."""

    def __init__(self, command: list[str], grace_s: float) -> None:
        self.grace_s = grace_s
        self.bot = os.getppid()
        self.n_ending_signals = 0
        self.wakeup, wakeup_end = os.pipe()
        for end in (self.wakeup, wakeup_end):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in _ENDING:
            signal.signal(number, self._count_signal)
        adopt_orphans()
        self.group = start(command)
        self.status: int | None = None

    def run(self) -> int:
        """Wait for the end of the command, of the bot or of our orders; leave nothing behind."""
        while self.status is None and self.n_ending_signals == 0 and not self._bot_is_gone():
            self.reap()
        self.end_all()
        return self.status if self.status is not None else 128 + signal.SIGKILL

    def end_all(self) -> None:
        """SIGTERM to all that is left, SIGKILL to what is left after the grace."""
        n_signals = self.n_ending_signals
        killing_from = time.monotonic() + self.grace_s
        told: set[int] = set()
        while self.reap():
            now = time.monotonic()
            killing = now >= killing_from or self.n_ending_signals > n_signals
            if now >= killing_from + GIVE_UP_S:
                return
            left = descendants(os.getpid()) or {-self.group}
            for pid in (
                left if killing else left - told
            ):  # one SIGTERM each: a second one means "hurry" to some programs
                send(pid, signal.SIGKILL if killing else signal.SIGTERM)
            told |= left
            self._sleep(LOOK_S)

    def reap(self) -> bool:
        """Take the status of every child that ended. False when none is left.

        Orphans of the command become our children, so that no child means nothing below us: a list of processes is
        not enough to know, because a process can change its parent while the list is made.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.group:
                code = os.waitstatus_to_exitcode(status)
                self.status = code if code >= 0 else 128 - code

    def _bot_is_gone(self) -> bool:
        """Wait for something to happen; True when the pipe is closed or the parent is another one."""
        ready, _, _ = select.select([0, self.wakeup], [], [], PARENT_LOOK_S)
        self._drain(ready)
        return (0 in ready and os.read(0, 4096) == b"") or os.getppid() != self.bot

    def _sleep(self, seconds: float) -> None:
        self._drain(select.select([self.wakeup], [], [], seconds)[0])

    def _drain(self, ready: list[int]) -> None:
        if self.wakeup in ready:
            os.read(self.wakeup, 4096)

    def _count_signal(self, *_: object) -> None:
        self.n_ending_signals += 1


def start(command: list[str]) -> int:
    """Start the command in a group of its own; SIGTERM reaches it when the keeper dies. Returns its id."""
    keeper = os.getpid()
    pid = os.fork()
    if pid != 0:
        return pid
    try:
        os.setpgid(0, 0)
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != keeper:  # it died before the line above
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for number in (*_ENDING, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the pipe is the keeper's
        os.execvp(command[0], command)  # noqa: S606 - a shell is what we avoid
    except OSError as error:
        os.write(2, f"{command[0]!r} cannot be started: {error.strerror}\n".encode())
    os._exit(127)


def adopt_orphans() -> None:
    """Become a session of our own and the parent of every orphan below us, so that none can leave."""
    with contextlib.suppress(PermissionError):  # already the leader of one
        os.setsid()
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def descendants(root: int) -> set[int]:
    """Ids of all processes below `root` that have not ended."""
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in process_table().items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    waiting = [root]
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            found.add(pid)
            waiting.append(pid)
    return found


def process_table() -> dict[int, tuple[int, int]]:
    """Process id → (parent, session), of processes that are not zombies. Empty without /proc."""
    table: dict[int, tuple[int, int]] = {}
    for pid in _numbers_in("/proc"):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - pathlib takes longer to import than we take to start
                fields = file.read().rpartition(b")")[2].split()  # the name before it may hold anything
        except OSError:
            continue
        if fields[0] not in b"ZX":
            table[pid] = (int(fields[1]), int(fields[3]))
    return table


def _numbers_in(folder: str) -> list[int]:
    try:
        with os.scandir(folder) as entries:
            return [int(entry.name) for entry in entries if entry.name.isdigit()]
    except FileNotFoundError:
        return []


def send(pid: int, number: int) -> bool:
    """False when there is no such process any more."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def main(argv: list[str]) -> int:
    grace_s = GRACE_S
    if argv[:1] == ["--grace"]:
        grace_s, argv = float(argv[1]), argv[2:]
    if len(argv) < 2 or argv[0] != "--":
        print("usage: keeper.py [--grace SECONDS] -- command arguments...", file=sys.stderr)
        return 2
    return Keeper(argv[1:], grace_s).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
