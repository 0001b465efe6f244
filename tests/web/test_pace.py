"""S-24: changes have a limit for each session, reading has none."""

from __future__ import annotations

from datetime import timedelta

import pytest

from claasbot.web.pace import Pace

from .conftest import NOON


def test_a_bucket_holds_what_a_minute_refills():
    pace = Pace(6)
    assert [pace.wait_s("a", NOON) for _ in range(7)] == [0.0] * 6 + [10.0]
    assert pace.wait_s("a", NOON + timedelta(seconds=4)) == pytest.approx(6.0)
    assert pace.wait_s("a", NOON + timedelta(seconds=10)) == 0.0
    assert pace.wait_s("a", NOON + timedelta(hours=9)) == 0.0
    assert [pace.wait_s("a", NOON + timedelta(hours=9)) > 0 for _ in range(6)] == [False] * 5 + [True]


def test_one_session_does_not_use_up_another_ones_bucket():
    pace = Pace(1)
    assert (pace.wait_s("a", NOON), pace.wait_s("b", NOON)) == (0.0, 0.0)
    assert pace.wait_s("a", NOON) > 0


def test_a_clock_that_goes_back_refills_nothing_and_locks_nobody_out():
    pace = Pace(2)
    assert [pace.wait_s("a", NOON) for _ in range(2)] == [0.0, 0.0]
    assert pace.wait_s("a", NOON - timedelta(days=1)) == 30.0
    assert pace.wait_s("a", NOON - timedelta(days=1) + timedelta(seconds=30)) == 0.0


def test_a_thousand_sessions_do_not_fill_the_memory():
    pace = Pace(1)
    for n in range(5_000):
        pace.wait_s(str(n), NOON + timedelta(milliseconds=n))
    assert len(pace._buckets) <= 1_000


async def test_whoever_changes_too_much_is_told_when_to_come_back(site):
    answers = [await site.post("/api/train-now") for _ in range(site.parts.writes_per_minute + 1)]
    assert {answer.status for answer in answers[:-1]} == {200}
    last = answers[-1]
    assert (last.status, last.headers["Retry-After"]) == (429, "1")
    assert (await last.json())["error"] == "That was too much at once: try again in 1 s."
    assert (await site.http.get("/api/status")).status == 200
    site.later(seconds=1)
    assert (await site.post("/api/train-now")).status == 200
