"""Where the time of a lesson went, counted once."""

import math

from claasbot.domain.job import lesson_s, stage_seconds


def test_what_training_spans_is_not_counted_twice():
    seconds = {"queue": 1.0, "stage": 0.5, "parent": 0.25, "student": 4.0, "train": 6.0, "load": 0.5, "canary": 2.0}
    # 4.25 s of the 6 s are reported by the trainer, the rest is hand-over
    assert stage_seconds(seconds) == {
        "queue": 1.0, "stage": 0.5, "parent": 0.25, "student": 4.0, "load": 0.5, "canary": 2.0, "hand-over": 1.75,
    }  # fmt: skip
    assert lesson_s(seconds) == 10.0


def test_stages_that_were_not_measured_do_not_count():
    assert lesson_s({"queue": math.nan, "canary": -1.0, "gate": 0.5}) == 0.5
