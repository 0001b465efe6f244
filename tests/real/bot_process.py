"""`claasbot run` as a process, spoken to as the terminal does: over its Unix socket. Ends what it started."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
START_S = 240.0


class BotProcess:
    """One bot on one data folder. Start it again after a kill: the folder stays."""

    command: tuple[str, ...] = (sys.executable, "-m", "claasbot", "run")

    def __init__(self, data: Path, model: Path, **settings: str) -> None:
        self.data = data
        self.model = model
        self.settings = settings
        self.url = self.sign_in_url = ""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when the link is printed."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CLAASBOT_")}
        environment |= {
            "CLAASBOT_DATA": str(self.data),
            "CLAASBOT_SERVER__MODEL": str(self.model),
            "CLAASBOT_SERVER__PORT": str(free_port()),
            "CLAASBOT_WEB__PORT": "0",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(ROOT),
            **self.settings,
        }
        self.url = self.sign_in_url = ""
        with (self.data / "said.txt").open("w") as said:
            self.process = subprocess.Popen(
                self.command,
                env=environment,
                cwd=self.data,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        found = self.wait_for(lambda: re.search(r"(http://\S+)/sign-in\?token=\S+", self.said()), START_S)
        self.sign_in_url, self.url = found[0], found[1]

    def said(self) -> str:
        """What it printed since its start."""
        return (self.data / "said.txt").read_text()

    def stop(self) -> float:
        """Ctrl-C; returns the seconds that it took."""
        assert self.process is not None
        started = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)
        return time.monotonic() - started

    def kill(self) -> None:
        """kill -9, as a crash: nobody gets to say goodbye."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=10)

    def descendants(self) -> dict[int, str]:
        """Every process below the bot now: pid → command line. Ask before a kill: orphans have another parent."""
        parents = {pid: int(stat.rpartition(")")[2].split()[1]) for pid, stat in _every_process()}
        below, frontier = set(), {self.pid}
        while frontier:
            frontier = {pid for pid, parent in parents.items() if parent in frontier} - below
            below |= frontier
        return {pid: _command(pid) for pid in below}

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None else 0

    def pid_of(self, words: str) -> int:
        """The child whose command line holds `words` and is no keeper."""
        found = [pid for pid, command in self.descendants().items() if words in command and "keeper.py" not in command]
        assert found, self.descendants()
        return min(found)

    # What the terminal does.

    def ask(self, method: str, path: str, body: object = None) -> Any:
        connection = _UnixConnection(self.data / "run" / "claasbot.sock")
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status < 400, f"{answer.status}: {text[:300]}"
            return json.loads(text)
        finally:
            connection.close()

    def post(self, kind: str, **facts: object) -> None:
        self.ask("POST", "/api/events", {"kind": kind, "update_key": uuid.uuid4().hex, **facts})

    def turns(self) -> list[dict[str, Any]]:
        return self.ask("GET", "/api/transcript")["turns"]

    def say(self, text: str, within_s: float = 120.0) -> dict[str, Any]:
        """The answer's turn, as the transcript has it."""
        n_before = sum(turn["role"] == "assistant" for turn in self.turns())
        self.post("said", text=text)
        return self.wait_for(
            lambda: next(iter([t for t in self.turns() if t["role"] == "assistant"][n_before:]), None), within_s
        )

    def wait_for(self, look: Any, within_s: float = 120.0) -> Any:
        """What `look` returns as soon as it is true."""
        deadline = time.monotonic() + within_s
        while not (found := look()):
            assert self.process is not None
            in_time = time.monotonic() < deadline and (self.process.poll() is None or self.process.returncode == -9)
            assert in_time, f"nothing within {within_s:.0f} s; the bot said: {self.said()[-800:]}"
            time.sleep(0.05)
        return found


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(str(self._path))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def alive(pids: set[int]) -> dict[int, str]:
    """Those that still run; zombies that nobody has reaped do not count."""
    return {
        pid: _command(pid)
        for pid, stat in _every_process()
        if pid in pids and stat.rpartition(")")[2].split()[0] != "Z"
    }


def _every_process() -> list[tuple[int, str]]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                found.append((int(entry.name), (entry / "stat").read_text()))
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
