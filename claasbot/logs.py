"""The log: one event, one line, for people or for machines. Ids and outcomes; never what people said.

Whatever an event brings along (names, paths, header values, errors of libraries), its line has no second line, no
control character and no secret in it. An error's trace is where it happened, and its message only where the system or
claasbot wrote it: other messages may quote people.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import re
import secrets
import shutil
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from io import TextIOWrapper
from pathlib import Path
from typing import Literal

from claasbot.errors import BadInput, ClaasbotError
from claasbot.masking import MASK, masked

Format = Literal["text", "json"]
Level = Literal["debug", "info", "warning", "error"]

BOT_LOG = "bot.log"
_TALKATIVE = ("httpx", "httpcore", "telegram", "discord", "aiohttp.access", "urllib3", "asyncio")
"""At INFO they write addresses down, and the token of a Telegram bot stands in its address."""
_PLACE = re.compile(r"(?:\b(\w+) |\b(p))?%[-#0+ ]*+\d*+(?:\.\d++)?([a-zA-Z%])")
_IDS = {"update": "inbox", "job": "job", "version": "version", "error": "error_id", "p": "person_id"}
"""How a message of ours names an id: the word before the place, as in `update %d`."""
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""Line breaks of every kind, terminal control, what turns the direction of writing, and halves of characters."""
_N_FRAMES = 20
_N_WAITING = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRules:
    """What is written and how much of it is kept; the settings `log.*`."""

    level: Level = "info"
    format: Format = "text"
    max_bytes: int = 8 * 2**20
    n_files: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Something that nobody expected, without a word of what people said."""

    error_id: str
    at: datetime
    place: str
    """What was being done, as the log says it: `update … failed`."""
    kind: str
    """The exception and what it came from: `KeyError < ValueError`."""
    trace: str
    inbox_id: int | None
    """The update that it met, by which the store knows the person."""
    is_quoted: bool
    """Somebody was told the id."""


def log_to(path: Path, rules: LogRules = LogRules()) -> logging.Handler:
    """Write the log of this process there. Libraries speak from WARNING on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = PrivateLog(path, maxBytes=rules.max_bytes, backupCount=rules.n_files, encoding="utf-8")
    handler.setFormatter(JsonLines() if rules.format == "json" else TextLines())
    logging.getLogger().addHandler(handler)
    logging.getLogger("claasbot").setLevel(rules.level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    return handler


class PrivateLog(logging.handlers.RotatingFileHandler):
    """For the owner's eyes, also after it was rotated. A disk that is full costs lines, and nothing else."""

    def _open(self) -> TextIOWrapper:
        file = super()._open()
        os.fchmod(file.fileno(), 0o600)
        return file

    def handleError(self, record: logging.LogRecord) -> None:
        """The default prints the record to the terminal, as it was before masking."""


class TextLines(logging.Formatter):
    """`2026-11-20T12:00:00.000+00:00 INFO claasbot.web.problems GET / 200 in 3 ms`"""

    def format(self, record: logging.LogRecord) -> str:
        trace = _trace_of(record)
        line = f"{_instant(record).isoformat(timespec='milliseconds')} {record.levelname} {record.name} {said(record)}"
        return one_line(masked(f"{line} | {_error_id(record)} | {trace}" if trace else line))


class JsonLines(logging.Formatter):
    """One object: time, level, logger, event, message, and the ids that the message names."""

    def format(self, record: logging.LogRecord) -> str:
        facts: dict[str, object] = {
            "time": _instant(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": str(record.msg) if record.args else said(record),
            "message": said(record),
            **ids_of(record),
        }
        trace = _trace_of(record)
        if trace:
            facts |= {"error_id": _error_id(record), "trace": [_clean(line) for line in trace.splitlines()]}
        return json.dumps({name: _clean(value) for name, value in facts.items()}, ensure_ascii=False, default=str)


class Failures(logging.Handler):
    """Gathers what was logged with an exception, until somebody stores it. The oldest go when nobody does."""

    def __init__(self, on_failure: Callable[[], None] = lambda: None) -> None:
        super().__init__(logging.ERROR)
        self._waiting: deque[Failure] = deque(maxlen=_N_WAITING)
        self.on_failure = on_failure

    def emit(self, record: logging.LogRecord) -> None:
        trace = _trace_of(record)
        if not trace:
            return
        ids = ids_of(record)
        inbox_id = ids.get("inbox")
        self._waiting.append(
            Failure(
                error_id=_error_id(record),
                at=_instant(record),
                place=one_line(masked(f"{record.name}: {_without_values(record)}")),
                kind=_kinds(_error_of(record)),
                trace=masked(trace),
                inbox_id=inbox_id if isinstance(inbox_id, int) else None,
                is_quoted="error_id" in ids,
            )
        )
        self.on_failure()

    def take(self) -> list[Failure]:
        """All that wait, oldest first."""
        taken = []
        while self._waiting:
            taken.append(self._waiting.popleft())
        return taken


def new_error_id() -> str:
    """What a person can read out on the telephone."""
    return secrets.token_hex(4)


def said(record: logging.LogRecord) -> str:
    """The message. asyncio adds reprs of whatever failed to its own, and those may quote people."""
    try:
        message = record.getMessage()
    except (TypeError, ValueError):  # the arguments do not fit the message
        message = str(record.msg)
    return message.partition("\n")[0] if record.name == "asyncio" else message


def ids_of(record: logging.LogRecord) -> dict[str, object]:
    """`update %d waits for the server` with 7 → {"inbox": 7}."""
    args = record.args if isinstance(record.args, tuple) else ()
    places = [found for found in _PLACE.finditer(str(record.msg)) if found.group(3) != "%"]
    if len(places) != len(args):
        return {}
    found = {_IDS.get(place.group(1) or place.group(2) or ""): arg for place, arg in zip(places, args, strict=True)}
    found.pop(None, None)
    if "person_id" in found:
        found["person_id"] = f"p{found['person_id']}"
    return {str(name): value for name, value in found.items()}


def one_line(text: str) -> str:
    """Whatever would break the line or steer a terminal is spelled out: `\\n`, `\\x1b`."""
    return _UNSEEN.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def trace_of(error: BaseException) -> str:
    """Where it happened, outermost first, for it and for what it came from. No values."""
    return "\n".join(_described(one) for one in _chain(error))


def prune(folder: Path, today: date, days: int) -> int:
    """Put each log away by its day, and drop those that are older than `days`; returns how many files went.

    To be called once a day: copy and cut, so that who writes goes on writing. Never raises for a disk that is full.
    """
    gone = 0
    for old in folder.glob("*.log.*"):
        kept_until = date.fromtimestamp(old.stat().st_mtime) + timedelta(days=days)
        if kept_until < today:
            old.unlink(missing_ok=True)
            gone += 1
    for log in folder.glob("*.log"):
        with suppress(OSError):
            if log.stat().st_size > 0 and not (aside := log.with_name(f"{log.name}.{today:%Y%m%d}")).exists():
                shutil.copy(log, aside)
                os.truncate(log, 0)
    return gone


def _instant(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _without_values(record: logging.LogRecord) -> str:
    """`update … failed, error …`: the same for every event of a kind."""
    return (
        _PLACE.sub(lambda place: place.group().partition("%")[0] + MASK, str(record.msg))
        if record.args
        else said(record)
    )


def _error_of(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if isinstance(record.exc_info, tuple) else None


def _trace_of(record: logging.LogRecord) -> str:
    error = _error_of(record)
    return "" if error is None else trace_of(error)


def _error_id(record: logging.LogRecord) -> str:
    """The one that the message names, or one that all handlers of this record share."""
    known = ids_of(record).get("error_id") or getattr(record, "error_id", None)
    if known is None:
        known = record.error_id = new_error_id()
    return str(known)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        hidden = error.__suppress_context__ or error.__cause__ is not None
        error = error.__cause__ if hidden else error.__context__


def _kinds(error: BaseException | None) -> str:
    return " < ".join(type(one).__name__ for one in _chain(error))


def _described(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-_N_FRAMES:]
    places = [f"  {_short(frame.filename)}:{frame.lineno} in {frame.name}" for frame in frames]
    is_ours = isinstance(error, ClaasbotError) and not isinstance(error, BadInput)
    message = f": {error}" if is_ours or isinstance(error, OSError) else ""
    return "\n".join([*places, f"{type(error).__name__}{message}"])


def _short(file: str) -> str:
    """`claasbot/web/api.py`, `aiohttp/web_app.py`: where somebody put them says nothing."""
    return file.rpartition("site-packages/")[2].removeprefix(f"{Path(__file__).parents[1]}/")


def _clean(value: object) -> object:
    return one_line(masked(value)) if isinstance(value, str) else value
