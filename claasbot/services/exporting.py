"""Everything that is stored about one person as one zip file: rows as JSON, talk as text, their adapter, hashes.

Written page by page, in a thread, while the bot goes on. Refuses to hold anything of anybody else, and to stay: the
file is gone when whoever asked for it has it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from claasbot import __version__, adapter_files
from claasbot.domain.adapter import AdapterVersion
from claasbot.domain.person import CONSENT_TEXT, CONSENT_VERSION
from claasbot.errors import BadInput, NotFound
from claasbot.services.clock import Clock
from claasbot.storage import erasure, people, reading_back, versions
from claasbot.storage.rows import Row, text_of
from claasbot.storage.store import Store

EXPORTS = "exports"
MANIFEST = "manifest.json"
_PAGE = 100
"""Rows of one unit of the store; an answer with its tokens is some ten kilobytes."""
_CHUNK = 1 << 20
_ADAPTER = (adapter_files.WEIGHTS, adapter_files.ADAPTER_CONFIG)
_SMALLEST = 1 << 16
"""What is kept free for the end of the zip, beside an adapter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    path: Path
    name: str
    left_out: str = ""
    """Why something is not in it; empty: nothing is missing."""


class Exporting:
    """One export at a time: it takes disk, and the next person's turn comes soon."""

    def __init__(self, store: Store, data: Path, clock: Clock) -> None:
        self._store = store
        self._data = data
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()

    @asynccontextmanager
    async def made(self, person_id: int, *, at_most_bytes: int | None = None) -> AsyncIterator[Export]:
        """The file, for as long as the block runs. `at_most_bytes`: an adapter that does not fit is left out.

        Raises NotFound for nobody and for whoever is being forgotten, BadInput when it is too large even so.
        """
        async with self._one_at_a_time:
            if (await self._store.run(people.person, person_id)).is_blocked:
                raise NotFound(f"everything about p{person_id} is being deleted")
            path = await asyncio.to_thread(_new_file, self._data / EXPORTS, person_id)
            try:
                yield await self._write(path, person_id, at_most_bytes)
            finally:
                await asyncio.to_thread(path.unlink, missing_ok=True)

    async def _write(self, path: Path, person_id: int, at_most_bytes: int | None) -> Export:
        left_out = ""
        with path.open("r+b") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            bundle = _Bundle(archive)
            for table in erasure.owned_tables():
                await self._add_rows(bundle, table, person_id)
            await self._add_conversations(bundle, person_id)
            await self._add_consent(bundle, person_id)
            current = await self._store.run(versions.current, person_id)
            if current is not None:
                room = None if at_most_bytes is None else at_most_bytes - file.tell() - _SMALLEST
                left_out = await asyncio.to_thread(_add_adapter, bundle, self._data, current, room)
            facts = {
                "person": f"p{person_id}",
                "made_at": text_of(self._clock()),
                "claasbot": __version__,
                "left_out": left_out,
                "sha256": dict(bundle.hashes),
            }
            archive.writestr(MANIFEST, json.dumps(facts, indent=1))
            n_bytes = file.tell()
        if at_most_bytes is not None and n_bytes > at_most_bytes:
            raise BadInput(
                f"Your export has {n_bytes / 1e6:.0f} MB, more than may be sent here: ask the host of this bot for "
                f"`claasbot export p{person_id}`."
            )
        return Export(path=path, name=file_name(person_id), left_out=left_out)

    async def _add_rows(self, bundle: _Bundle, table: str, person_id: int) -> None:
        with bundle.entry(f"rows/{table}.json") as write:
            key: int | None = 0
            separator = "[\n"
            while key is not None:
                found, key = await self._store.run(erasure.page, person_id, table, key, _PAGE)
                texts = [json.dumps(row, ensure_ascii=False) for row in found]
                if texts:
                    await asyncio.to_thread(write, separator + ",\n".join(texts))
                    separator = ",\n"
            write("[]\n" if separator == "[\n" else "\n]\n")

    async def _add_conversations(self, bundle: _Bundle, person_id: int) -> None:
        with bundle.entry("conversations.md") as write:
            write(f"# What p{person_id} and claasbot said\n")
            key: tuple[int, int] | None = (0, 0)
            conversation_id = 0
            while key is not None:
                found, key = await self._store.run(reading_back.turns_page, person_id, key, _PAGE)
                for turn in found:
                    if turn["conversation_id"] != conversation_id:
                        conversation_id = turn["conversation_id"]
                        write(f"\n## {turn['platform']}, chat {turn['chat']}, {turn['started_at'][:16]}\n")
                    write(_turn_as_text(turn))

    async def _add_consent(self, bundle: _Bundle, person_id: int) -> None:
        given = await self._store.run(people.consent_history, person_id)
        with bundle.entry("consent.md") as write:
            write("# What you agreed to, and when\n\n")
            for row in given:
                where = f"{row['platform']}, chat {row['chat']}"
                write(f"- {row['at'][:19]} UTC, {where}: {row['state']} (text {row['text_version']})\n")
            write(f"\nText {CONSENT_VERSION}, which stands now:\n\n> {CONSENT_TEXT}\n")


@dataclass(slots=True)
class _Bundle:
    """A zip that is being written, with the hash of every entry."""

    archive: zipfile.ZipFile
    hashes: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def entry(self, name: str) -> Iterator[_Writer]:
        with self.archive.open(name, "w", force_zip64=True) as file:
            writer = _Writer(file)
            yield writer
        self.hashes[name] = writer.sha256.hexdigest()

    def add_file(self, name: str, path: Path) -> None:
        with self.entry(name) as write, path.open("rb") as source:
            while chunk := source.read(_CHUNK):
                write.raw(chunk)


class _Writer:
    """Text and bytes into one entry."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def __call__(self, text: str) -> None:
        self.raw(text.encode(errors="replace"))

    def raw(self, content: bytes) -> None:
        self._file.write(content)
        self.sha256.update(content)


def file_name(person_id: int) -> str:
    """What the person sees."""
    return f"claasbot-p{person_id}.zip"


def drop_exports(exports: Path, person_id: int | None = None) -> None:
    """Delete what is being handed out of one person, or everything that a crash left behind."""
    for path in exports.glob("*.zip" if person_id is None else f"p{person_id}-*.zip"):
        path.unlink(missing_ok=True)


def _new_file(exports: Path, person_id: int) -> Path:
    """Empty, for the owner's eyes; the name cannot be guessed."""
    exports.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = exports / f"p{person_id}-{secrets.token_hex(8)}.zip"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return path


def _add_adapter(bundle: _Bundle, data: Path, version: AdapterVersion, room_bytes: int | None) -> str:
    """The version that answers now; why it is left out, or nothing."""
    files = [data / version.folder / name for name in _ADAPTER]
    if not all(path.is_file() for path in files):
        return f"the files of {version.name} are not here"
    n_bytes = sum(path.stat().st_size for path in files)
    if room_bytes is not None and n_bytes > room_bytes:
        return f"the adapter {version.name} has {n_bytes / 1e6:.0f} MB, too many to be sent here: ask the host"
    for path in files:
        bundle.add_file(f"adapter/{path.name}", path)
    return ""


def _turn_as_text(turn: Row) -> str:
    who = "You" if turn["role"] == "user" else f"claasbot ({turn['version_name'] or 'base'})"
    gone = ", replaced later" if turn["replaced_at"] else ", deleted by you" if turn["deleted_at"] else ""
    feedback = f"\n_Your feedback: {turn['feedback']}_\n" if turn["feedback"] else ""
    return f"\n**{who}**, {turn['created_at'][:16]}{gone}:\n\n{turn['text']}\n{feedback}"
