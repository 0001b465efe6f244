"""What a disk may hold after the power went: the recorded calls of a run, replayed up to a moment, with what was not
synced by then dropped, torn or kept in any order.

Stricter than common file systems: a new name lasts only once its folder was synced, whatever became of the file.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

SECTOR = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    what: str
    path: str
    other: str
    offset: int
    inode: int
    data: bytes


def read_log(log: Path) -> list[Call]:
    calls = []
    with log.open("rb") as file:
        while line := file.readline():
            what, path, other, offset, inode, length = line.decode().rstrip("\n").split("\t")
            data = file.read(int(length))
            calls.append(Call(what=what, path=path, other=other, offset=int(offset), inode=int(inode), data=data))
    return calls


@dataclass(slots=True, eq=False)
class File:
    synced: bytes = b""
    now: bytearray = field(default_factory=bytearray)
    since: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Writes (offset, bytes) and truncations (size, None) since the last sync."""

    def change(self, offset: int, data: bytes | None) -> None:
        _apply(self.now, offset, data)
        self.since.append((offset, data))

    def sync(self) -> None:
        self.synced = bytes(self.now)
        self.since.clear()

    def survives(self, luck: random.Random, keep: float) -> bytes:
        content = bytearray(self.synced)
        for offset, data in self.since:
            if luck.random() >= keep:
                continue
            if data is not None and luck.random() < 0.3:
                data = data[: SECTOR * luck.randint(0, len(data) // SECTOR)]
            _apply(content, offset, data)
        return bytes(content)


@dataclass(slots=True, eq=False)
class Folder:
    synced: dict[str, Node] = field(default_factory=dict)
    now: dict[str, Node] = field(default_factory=dict)
    since: list[dict[str, Node | None]] = field(default_factory=list)

    def change(self, **names: Node | None) -> None:
        _rename(self.now, names)
        self.since.append(names)

    def sync(self) -> None:
        self.synced = dict(self.now)
        self.since.clear()

    def survives(self, luck: random.Random, keep: float) -> dict[str, Node]:
        """Names change in order: file systems keep a journal of them."""
        names = dict(self.synced)
        n = luck.choice((0, len(self.since), luck.randint(0, len(self.since)))) if keep < 1 else len(self.since)
        for change in self.since[:n]:
            _rename(names, change)
        return names


Node = File | Folder


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        content.extend(bytes(offset - len(content)))
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


def _rename(names: dict[str, Node], change: dict[str, Node | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class Disk:
    """The folder `root`, empty at first, as the calls make it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._top = Folder()
        self._by_inode: dict[int, File] = {}
        self.said: list[str] = []

    def replay(self, call: Call) -> None:
        match call.what:
            case "said":
                self.said.append(call.data.decode())
            case "create":
                self._by_inode[call.inode] = made = File()
                self._link(call.path, made)
            case "mkdir":
                self._link(call.path, Folder())
            case "write":
                self._file(call).change(call.offset, call.data)
            case "truncate":
                self._file(call).change(call.offset, None)
            case "sync":
                node = self._find(call.path)
                (node if isinstance(node, Folder) else self._file(call)).sync()
            case "unlink":
                self._link(call.path, None)
            case "link":
                self._link(call.other, self._find(call.path))
            case "rename":
                self._move(call.path, call.other)
            case _:
                raise AssertionError(call)

    def survives(self, to: Path, luck: random.Random) -> None:
        """Write what is left after the power went now. Some disks lose everything, some nothing."""
        _write(self._top, to, luck, luck.choice((0.0, 0.5, 0.9, 1.0)))

    def facts(self) -> Iterator[dict[str, object]]:
        """What the process had said by then."""
        for line in "".join(self.said).splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)

    def _parts(self, path: str) -> tuple[str, ...]:
        return PurePosixPath(path).relative_to(self._root).parts

    def _find(self, path: str) -> Node | None:
        node: Node | None = self._top
        for name in self._parts(path):
            node = node.now.get(name) if isinstance(node, Folder) else None
        return node

    def _parent(self, path: str) -> Folder:
        parent = self._find(str(PurePosixPath(path).parent))
        assert isinstance(parent, Folder), path
        return parent

    def _link(self, path: str, node: Node | None) -> None:
        self._parent(path).change(**{PurePosixPath(path).name: node})

    def _move(self, path: str, other: str) -> None:
        node, before, after = self._find(path), self._parent(path), self._parent(other)
        old, new = PurePosixPath(path).name, PurePosixPath(other).name
        if before is after:
            before.change(**{old: None, new: node})
        else:
            after.change(**{new: node})
            before.change(**{old: None})

    def _file(self, call: Call) -> File:
        """By its inode; where another name was seen last, it was renamed behind the C library's back (safetensors)."""
        file = self._by_inode[call.inode]
        if not call.path.endswith(" (deleted)") and self._find(call.path) is not file:
            parent = self._parent(call.path)
            [old] = [name for name, node in parent.now.items() if node is file]
            parent.change(**{old: None, PurePosixPath(call.path).name: file})
        return file


def _write(folder: Folder, to: Path, luck: random.Random, keep: float) -> None:
    to.mkdir()
    for name, node in folder.survives(luck, keep).items():
        if isinstance(node, Folder):
            _write(node, to / name, luck, keep)
        else:
            (to / name).write_bytes(node.survives(luck, keep))
