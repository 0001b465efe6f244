"""Shapes of a lesson: shares of time that add up, curves that fit their box."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claasbot.web.lesson_view import CURVE_HEIGHT, CURVE_WIDTH, curve, time_bar


def test_the_bar_shows_the_stages_in_the_order_in_which_they_happen():
    bar = time_bar({"gate": 1.0, "save": 1.0, "queue": 1.0, "unheard of": 1.0, "teacher": 1.0, "canary": 1.0})
    assert [segment.name for segment in bar] == ["queue", "teacher", "save", "unheard of", "canary", "gate"]


def test_time_in_the_trainer_is_not_counted_twice():
    bar = {segment.name: segment for segment in time_bar({"queue": 1.0, "teacher": 2.0, "save": 1.0, "train": 4.0})}
    assert "train" not in bar
    assert bar["hand-over"].seconds == pytest.approx(1.0)
    assert [round(segment.width, 1) for segment in bar.values()] == [20.0, 40.0, 20.0, 20.0]


def test_what_took_no_time_is_left_out():
    assert time_bar({}) == ()
    assert [one.name for one in time_bar({"queue": 0.0, "stage": -0.1, "load": math.nan, "save": 1.0})] == ["save"]


_SECONDS = st.floats(min_value=-1.0, max_value=1e6) | st.sampled_from([math.nan, math.inf])


@given(st.dictionaries(st.sampled_from(("queue", "load", "teacher", "train", "gate", "else")), _SECONDS))
def test_segments_follow_one_another_and_fill_the_bar(seconds):
    bar = time_bar(seconds)
    assert not bar or sum(segment.width for segment in bar) == pytest.approx(100, abs=0.1)
    for left, right in itertools.pairwise(bar):
        assert right.start == pytest.approx(left.start + left.width, abs=0.01)


def test_a_curve_spans_its_box():
    found = curve("loss", [4.0, 2.0, 3.0])
    assert found.dots == ((0.0, 0.0), (CURVE_WIDTH / 2, CURVE_HEIGHT), (CURVE_WIDTH, CURVE_HEIGHT / 2))
    assert (found.first, found.last, found.lowest, found.highest) == (4.0, 3.0, 2.0, 4.0)


def test_one_step_and_equal_steps_lie_in_the_middle():
    assert curve("loss", [1.0]).dots == ((0.0, CURVE_HEIGHT / 2),)
    assert {y for _, y in curve("loss", [1.0, 1.0]).dots} == {CURVE_HEIGHT / 2}


def test_what_is_not_finite_has_no_dot():
    assert len(curve("loss", [1.0, math.nan, math.inf, 2.0]).dots) == 2
    assert curve("loss", [math.nan]).dots == ()
