"""S-15: one event is one line, whatever it brings along; a failure's says where it was, never what was said."""

from __future__ import annotations

import json
import logging
import os
import random
import stat
import unicodedata
from collections.abc import Iterator
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claasbot.errors import BadInput, StoreError
from claasbot.logs import Failures, JsonLines, LogRules, TextLines, ids_of, log_to, prune

HOSTILE = (
    "\n2026-11-20T12:00:00 INFO claasbot admin signed in",
    "\r\nInjected: header",
    "\x1b[2J\x1b]0;title\x07",
    '"}\n{"level": "error", "event": "forged"}',
    '\\"}, {"',
    "\x00\x08\x7f\x85",
    "\u2028line\u2029paragraph",
    "\u202ereversed\u2066isolated\ufeff",
    "\ud800 half a character",
    "%s %d %(name)s {} {0}",
    "\x0b\x0c\x1c\x1d\x1e",
    "a" * 10_000,
)


def record(message: str, *args: object, name: str = "claasbot.test", error: BaseException | None = None):
    info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord(name, logging.ERROR, __file__, 1, message, args, info)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def events() -> Iterator[logging.LogRecord]:
    """Hostile text by every way into a line."""
    for text in HOSTILE:
        yield record("update %d waits for the server (attempt %d): %s", 7, 1, text)
        yield record("update %r cannot be read", text)
        yield record(text)
        yield record("GET %s failed", text, name=f"claasbot{text}")
        yield record("job %s failed", text, error=raised(StoreError(text)))
        yield record("saving", error=raised(OSError(28, "No space left", text)))
        yield record("arguments that do not fit: %d", text)


def is_one_clean_line(line: str) -> bool:
    return len(line.splitlines()) == 1 and not any(unicodedata.category(sign) in ("Cc", "Cs") for sign in line)


def test_every_hostile_event_is_one_line_of_json():
    n_events = 0
    for event in events():
        line = JsonLines().format(event)
        facts = json.loads(line)
        assert is_one_clean_line(line), line
        assert facts["level"] == "error"
        n_events += 1
    print(json.dumps({"events": n_events, "lines": n_events}))
    assert n_events == 7 * len(HOSTILE)


def test_every_hostile_event_is_one_line_of_text():
    for event in events():
        assert is_one_clean_line(TextLines().format(event))


@given(st.text(), st.text())
def test_any_text_at_all_is_one_line(message, argument):
    for event in (record(message), record("update %d: %s", 1, argument), record(message, argument)):
        for line in (JsonLines().format(event), TextLines().format(event)):
            assert is_one_clean_line(line)
            line.encode()


def test_a_line_of_json_names_its_event_and_its_ids():
    facts = json.loads(JsonLines().format(record("update %d failed, error %s", 7, "ab12cd34")))
    assert facts["event"] == "update %d failed, error %s"
    assert facts["message"] == "update 7 failed, error ab12cd34"
    assert (facts["inbox"], facts["error_id"], facts["logger"]) == (7, "ab12cd34", "claasbot.test")
    assert datetime.fromisoformat(facts["time"]).utcoffset() == timedelta()


@pytest.mark.parametrize(
    ("message", "args", "ids"),
    [
        ("p%d is asked later: %s", (3, "no"), {"person_id": "p3"}),
        ("version %s is %s in %.2f s", ("p1.v2", "promoted", 1.5), {"version": "p1.v2"}),
        ("candidate of job %s waits: 100%% %s", ("abc", "no"), {"job": "abc"}),
        ("%s failed", ("learning",), {}),
        ("nothing", (), {}),
    ],
)
def test_ids_are_found_by_the_word_before_them(message, args, ids):
    assert ids_of(record(message, *args)) == ids


def test_a_trace_says_where_and_never_what_was_at_hand():
    secret = "what Ada said"
    try:
        try:
            int(secret)
        except ValueError as error:
            raise BadInput(f"{secret!r} is no number") from error
    except BadInput as error:
        event = record("update %d failed, error %s", 7, "ab12cd34", error=error)
    for formatter in (JsonLines(), TextLines()):
        line = formatter.format(event)
        assert secret not in line
        assert "BadInput" in line and "ValueError" in line and "test_logs.py" in line


def test_what_asyncio_adds_to_its_message_stays_out():
    event = record(
        "Task exception was never retrieved\nfuture: <Task exception=KeyError('what Ada said')>", name="asyncio"
    )
    assert "Ada" not in JsonLines().format(event) + TextLines().format(event)


def test_a_failure_is_kept_once_with_the_id_that_the_log_shows():
    failures, told = Failures(), []
    failures.on_failure = lambda: told.append(1)
    event = record("%s failed", "learning", error=raised(KeyError("what Ada said")))
    failures.handle(event)
    [failure] = failures.take()
    assert failure.error_id in TextLines().format(event)
    assert (failure.kind, failure.place, failure.is_quoted) == ("KeyError", "claasbot.test: … failed", False)
    assert failure.trace.startswith("  tests/test_logs.py:")
    assert "Ada" not in repr(failure)
    assert (told, failures.take()) == ([1], [])


def test_the_id_that_a_person_was_told_is_the_failures_id():
    failures = Failures()
    failures.handle(record("update %d failed, error %s", 7, "ab12cd34", error=raised(KeyError())))
    [failure] = failures.take()
    assert (failure.error_id, failure.inbox_id, failure.is_quoted) == ("ab12cd34", 7, True)


def test_failures_that_nobody_takes_do_not_grow_for_ever():
    failures = Failures()
    for _ in range(1_000):
        failures.handle(record("x", error=raised(KeyError())))
    assert len(failures.take()) == 200


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """As it was afterwards: handlers, and the levels that `log_to` sets."""
    names = ("", "claasbot", "httpx", "httpcore", "telegram", "discord", "aiohttp.access", "urllib3", "asyncio")
    before = {name: logging.getLogger(name).level for name in names}
    handlers = list(logging.getLogger().handlers)
    yield logging.getLogger()
    for handler in [one for one in logging.getLogger().handlers if one not in handlers]:
        logging.getLogger().removeHandler(handler)
        handler.close()
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize("rules", [LogRules(), LogRules(level="debug", format="json")])
def test_libraries_that_write_addresses_down_are_silent(tmp_path, root_logger, rules):
    log_to(tmp_path / "logs" / "bot.log", rules)
    logging.getLogger("httpx").info('HTTP Request: POST https://api.telegram.org/bot1:x/getMe "HTTP/1.1 200 OK"')
    logging.getLogger("telegram.ext").debug("token")
    logging.getLogger("aiohttp.access").info("GET /sign-in?token=x")
    logging.getLogger("claasbot.x").info("update %d: done", 1)
    [line] = (tmp_path / "logs" / "bot.log").read_text().splitlines()
    assert "update 1: done" in line


def test_the_log_is_rotated_by_size_and_is_the_owners_alone(tmp_path, root_logger):
    log_to(tmp_path / "bot.log", LogRules(max_bytes=2_000, n_files=2))
    for n in range(200):
        logging.getLogger("claasbot.x").info("update %d: done", n)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["bot.log", "bot.log.1", "bot.log.2"]
    assert all(file.stat().st_size <= 2_000 and stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)


def test_a_log_that_cannot_be_written_stops_nobody_and_says_nothing_aloud(tmp_path, root_logger, capsys):
    handler = log_to(tmp_path / "bot.log")
    handler.stream.close()
    handler.stream = (tmp_path / "bot.log").open()  # for reading: every write fails
    logging.getLogger("claasbot.x").error("update %d: %s", 1, "what nobody may see")
    assert capsys.readouterr().err == ""


def test_logs_are_kept_for_some_days_and_their_writers_go_on(tmp_path):
    today = date(2026, 11, 20)
    log = tmp_path / "server.log"
    with log.open("a") as writer:
        for day in range(5):
            writer.write(f"day {day}\n")
            writer.flush()
            prune(tmp_path, today + timedelta(days=day), days=2)
            aged = today + timedelta(days=day)
            for dated in tmp_path.glob(f"server.log.{aged:%Y%m%d}"):
                os.utime(dated, (datetime(aged.year, aged.month, aged.day, 12).timestamp(),) * 2)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "server.log", "server.log.20261122", "server.log.20261123", "server.log.20261124",
    ]  # fmt: skip
    assert (tmp_path / "server.log.20261124").read_text() == "day 4\n"


def test_a_thousand_random_events_are_a_thousand_lines(tmp_path, root_logger):
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    log_to(tmp_path / "bot.log", LogRules(format="json", max_bytes=2**26))
    for n in range(1_000):
        text = "".join(chr(draw.randrange(1, 0x3000)) for _ in range(30)) + draw.choice(HOSTILE)
        logging.getLogger("claasbot.x").warning("update %d: %s", n, text)
    lines = (tmp_path / "bot.log").read_bytes().split(b"\n")[:-1]
    print(json.dumps({"seed": seed, "events": 1_000, "lines": len(lines)}))
    assert [json.loads(line)["inbox"] for line in lines] == list(range(1_000))
