"""The terminal itself: lines in without blocking the loop, text out without tearing the prompt."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TextIO

_CHUNK_BYTES = 65_536


class Lines:
    """Standard input, line by line, without a thread that blocks the way out."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()

    def end(self) -> None:
        self._chunks.put_nowait(b"")

    async def __aiter__(self) -> AsyncIterator[str]:
        loop = asyncio.get_running_loop()
        try:
            loop.add_reader(self._fd, self._read)
        except PermissionError:  # a plain file: epoll refuses it, and reading it never waits
            while self._read():
                pass
        try:
            rest = b""
            while chunk := await self._chunks.get():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line.decode(errors="replace")
            if rest:
                yield rest.decode(errors="replace")
        finally:
            loop.remove_reader(self._fd)

    def _read(self) -> bool:
        chunk = os.read(self._fd, _CHUNK_BYTES)
        self._chunks.put_nowait(chunk)
        if not chunk:
            asyncio.get_running_loop().remove_reader(self._fd)
        return bool(chunk)


@dataclass(slots=True)
class Screen:
    """What is on the terminal's last line, so that nothing is written into the middle of it."""

    out: TextIO
    is_tty: bool
    at_prompt: bool = False
    in_answer: bool = False

    def prompt(self) -> None:
        if self.is_tty:
            self._write("you> ")
            self.at_prompt = True

    def answer_starts(self) -> None:
        self._clear_prompt()
        if self.is_tty:
            self._write("bot> ")
        self.in_answer = True

    def delta(self, text: str) -> None:
        if not self.in_answer:
            self.answer_starts()
        self._write(printable(text))

    def answer_ends(self, remark: str) -> None:
        self._write("\n")
        self.in_answer = False
        if remark:
            self.line(f"     ({remark})")

    def line(self, text: str) -> None:
        """A whole line of its own; the prompt comes back after it."""
        was_at_prompt = self.at_prompt
        self._clear_prompt()
        if self.in_answer:
            self._write("\n")
        self._write(f"{printable(text)}\n")
        if was_at_prompt:
            self.prompt()

    def _clear_prompt(self) -> None:
        if self.at_prompt:
            self._write("\r\x1b[K")
            self.at_prompt = False

    def _write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()


def printable(text: str) -> str:
    """Without control characters: a model's or a person's text must not steer the terminal."""
    return "".join(letter for letter in text if letter in "\n\t" or letter.isprintable())
