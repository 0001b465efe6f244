"""`site_process` as a test holds it: started, signed in to, looked at from outside, and ended."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from email.message import Message
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

ROOT = Path(__file__).resolve().parents[2]


class Site:
    """A bot that listens, as a browser and the owner's terminal reach it."""

    def __init__(self, url: str, socket_path: str) -> None:
        self.url = url
        self.socket = socket_path

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def sign_in(self) -> dict[str, str]:
        """A new session: the headers under which a page changes something."""
        link = json.loads(self.ask_as_owner("POST", "/api/sign-in-link", {}))["link"]
        token = parse_qs(urlsplit(link).query)["token"][0]
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        status, headers, _ = self.ask("POST", "/sign-in", f"token={token}", form)
        assert status == 303, status
        cookie = headers["Set-Cookie"].partition(";")[0]
        _, _, page = self.ask("GET", "/playground", headers={"Cookie": cookie})
        csrf = re.search(rb'name="csrf-token" content="([^"]+)"', page)
        assert csrf, page[:500]
        return {"Cookie": cookie, "X-CSRF-Token": csrf.group(1).decode()}

    def ask_as_owner(self, method: str, path: str, facts: object) -> bytes:
        """JSON over the Unix socket."""
        connection = http.client.HTTPConnection("localhost", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.socket)
        with closing(connection):
            connection.request(method, path, body=json.dumps(facts), headers={"Content-Type": "application/json"})
            return connection.getresponse().read()

    def ask(
        self, method: str, path: str, body: str | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Message, bytes]:
        """Status, headers and body over TCP; redirects are not followed."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        with closing(connection):
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()


class RunningSite(Site):
    """In a process of its own. Use as a context; `wrapper` is a command that runs the process, such as strace."""

    def __init__(self, data: Path, *wrapper: str) -> None:
        self._data = data
        self._wrapper = wrapper

    def __enter__(self) -> Self:
        command = [*self._wrapper, sys.executable, "-m", "tests.fuzz.site_process", "--data", str(self._data)]
        self.log = self._data.parent / "site.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout is not None
        first = self._process.stdout.readline()
        assert first, self.log.read_text()[-2_000:]
        facts = json.loads(first)
        super().__init__(facts["url"], facts["socket"])
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()
            self._process.stdout.close()

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def cpu_s(self) -> float:
        """Spent so far: what the machine does besides does not count."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024  # type: ignore[union-attr]
