"""Looks for words in everything that a bot has written to its data folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from claasbot.logs import LogRules, log_to


def found_in(folder: Path, words: dict[str, str]) -> set[tuple[str, str]]:
    """(which, in which file): in names of files too, and as UTF-16."""
    found = set()
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for name, word in words.items():
            if word in str(path.relative_to(folder)) or word.encode() in content or word.encode("utf-16-le") in content:
                found.add((name, path.name))
    return found


@contextmanager
def logged(data: Path) -> Iterator[None]:
    """Everything, not only what a host would see."""
    handler = log_to(data / "logs" / "bot.log", LogRules(level="debug"))
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
        logging.getLogger("claasbot").setLevel(logging.NOTSET)
