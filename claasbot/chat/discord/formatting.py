"""Markdown as Discord shows it: pieces of at most 2000 units, each with its code fences closed. Pure text.

Discord has no tables, so they become code blocks with even columns. Three backticks open or close a
block wherever they stand, also in the middle of a line.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

MAX_UNITS = 2000
_FENCE = "```"
_ROOM_FOR_CODE = 200
"""A code block that would open this close to the end of a piece opens in the next one."""
_OPENING = re.compile(r"```([\w+\-.#]{0,20})(?:\n|$)")
_DELIMITER_ROW = re.compile(r"\s*+(?:\|\s*+)?:?-+:?\s*+(\|\s*+:?-++:?\s*+)*+\|?\s*")


def units(text: str) -> int:
    """Length in UTF-16 units, the strictest way in which Discord may count."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def pieces(text: str, limit: int = MAX_UNITS) -> tuple[str, ...]:
    """`text` as messages, in order; none for blank text.

    A piece that ends inside a code block closes it, and the next one opens it again in the same language.
    """
    cutter = _Cutter(limit)
    for atom, opens in _atoms(with_tables_as_code(text.strip("\n"))):
        cutter.add(atom, opens)
    return cutter.done()


def with_tables_as_code(text: str) -> str:
    """Every table outside of code blocks, as a code block."""
    lines, shown = text.split("\n"), []
    index, in_code = 0, False
    while index < len(lines):
        rows = 0 if in_code else _table_rows(lines, index)
        if rows:
            shown += [_FENCE, *_even(lines[index : index + rows]), _FENCE]
            index += rows
            continue
        in_code ^= lines[index].count(_FENCE) % 2 == 1
        shown.append(lines[index])
        index += 1
    return "\n".join(shown)


def _table_rows(lines: list[str], start: int) -> int:
    """How many lines from `start` on are one table; 0 when there is none."""
    if start + 1 >= len(lines) or "|" not in lines[start] or "|" not in lines[start + 1]:
        return 0
    if not _DELIMITER_ROW.fullmatch(lines[start + 1]):
        return 0
    end = start
    while end < len(lines) and "|" in lines[end] and _FENCE not in lines[end]:
        end += 1
    return end - start if end - start >= 2 else 0


def _even(lines: list[str]) -> list[str]:
    """The rows with columns of one width, the delimiter row as a rule of dashes."""
    table = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    del table[1]
    n_columns = max(len(row) for row in table)
    widths = [max((_width(row[at]) for row in table if at < len(row)), default=0) for at in range(n_columns)]
    rows = [" | ".join(cell + " " * (widths[at] - _width(cell)) for at, cell in enumerate(row)) for row in table]
    return [rows[0].rstrip(), "-+-".join("-" * width for width in widths), *(row.rstrip() for row in rows[1:])]


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _atoms(text: str) -> Iterator[tuple[str, str | None]]:
    """Lines and fences, in order; beside a fence that opens, the language of its block ("" without one)."""
    at, in_code = 0, False
    while at < len(text):
        fence = text.find(_FENCE, at)
        for line in text[at : len(text) if fence < 0 else fence].splitlines(keepends=True):
            yield line, None
        if fence < 0:
            return
        opening = None if in_code else _OPENING.match(text, fence)
        end = opening.end() if opening else fence + len(_FENCE)
        yield text[fence:end], None if in_code else (opening.group(1) if opening else "")
        at, in_code = end, not in_code


class _Cutter:
    """Collects atoms into pieces."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[str] = []
        self._text = ""
        self._language: str | None = None
        """Of the code block that is open; None outside."""

    def add(self, atom: str, opens: str | None) -> None:
        if opens is not None:
            if self._room() < min(_ROOM_FOR_CODE, self._limit // 2):
                self._cut()
            self._text += atom
            self._language = opens
        elif atom == _FENCE and self._language is not None:
            self._text += atom  # the room for it was kept
            self._language = None
        else:
            self._add_line(atom)

    def done(self) -> tuple[str, ...]:
        self._cut()
        return tuple(self._pieces)

    def _room(self) -> int:
        closing = 0 if self._language is None else len("\n" + _FENCE)
        return self._limit - units(self._text) - closing

    def _add_line(self, line: str) -> None:
        if units(line) > self._room() and self._room() < self._limit // 2:
            self._cut()
        while units(line) > self._room():
            head = _head(line, self._room())
            self._text += head
            line = line[len(head) :]
            self._cut()
        self._text += line

    def _cut(self) -> None:
        """End the piece. What follows inside a code block gets an opening of its own."""
        closed = self._text
        if self._language is not None:
            closed += ("" if closed.endswith("\n") else "\n") + _FENCE
        if closed.strip():
            self._pieces.append(closed.rstrip() if self._language is None else closed)
        self._text = "" if self._language is None else f"{_FENCE}{self._language}\n"


def _head(line: str, room: int) -> str:
    """As much of a long line as fits, up to a space where there is one in its second half."""
    size = min(len(line), room)
    while units(line[:size]) > room:
        size -= 1
    space = line.rfind(" ", size // 2, size)
    return line[: space + 1 if space > 0 else size] or line[:1]
