"""What this process opens and connects to while a test watches, from Python's own audit events (PEP 578).

A hook cannot be taken out again, so there is one for all tests, which sleeps between them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_CHANGES = ("os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink", "os.chmod", "os.truncate")
_CONNECTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")


@dataclass(slots=True)
class Seen:
    opened: list[str] = field(default_factory=list)
    """For reading."""
    changed: list[str] = field(default_factory=list)
    """Opened for writing, made, moved or removed."""
    asked: list[str] = field(default_factory=list)
    """Hosts: connected to, or looked up."""


_watchers: list[Seen] = []


def _hook(event: str, args: tuple[object, ...]) -> None:
    if not _watchers:
        return
    if event == "open" and isinstance(args[0], str | bytes):
        flags = args[2] if isinstance(args[2], int) else 0
        is_change = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        _note("changed" if is_change else "opened", os.fsdecode(args[0]))
    elif event in _CHANGES:
        for one in args:
            if isinstance(one, str | bytes):
                _note("changed", os.fsdecode(one))
    elif event in ("sqlite3.connect", "shutil.rmtree", "shutil.copyfile"):
        _note("changed", str(args[0]))
    elif event in _CONNECTS:
        _note("asked", str(args[1] if event in ("socket.connect", "socket.sendto") else args[0]))


def _note(kind: str, what: str) -> None:
    for seen in _watchers:
        getattr(seen, kind).append(what)


sys.addaudithook(_hook)


@contextmanager
def watching() -> Iterator[Seen]:
    seen = Seen()
    _watchers.append(seen)
    try:
        yield seen
    finally:
        _watchers.remove(seen)
