"""When a server that failed is asked again."""

from __future__ import annotations

import random

import pytest

from claasbot.errors import ServerDown, ServerRefused
from claasbot.inference.breaker import Breaker


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(n_failures=3, open_s=2.0, clock=clock, drawn=random.Random(0))


def fails(breaker: Breaker, n: int = 1) -> None:
    for _ in range(n):
        with pytest.raises(ServerDown, match="no answer"), breaker.call():
            raise ServerDown("no answer")


def test_failures_in_a_row_open_it_and_one_success_starts_the_count_again(breaker: Breaker) -> None:
    fails(breaker, 2)
    breaker.succeeded()
    fails(breaker, 2)
    assert breaker.why_open is None
    fails(breaker)
    assert breaker.why_open == "no answer"


def test_while_it_is_open_nobody_waits(breaker: Breaker, clock: Clock) -> None:
    fails(breaker, 3)
    clock.now_s = 0.9
    with pytest.raises(ServerDown, match="given a pause after 3 failures: no answer"), breaker.call():
        pytest.fail("the server was asked")
    assert breaker.why_open == "no answer"


def test_after_the_pause_one_call_looks_and_the_others_wait_for_what_it_sees(breaker: Breaker, clock: Clock) -> None:
    fails(breaker, 3)
    clock.now_s = 2.0
    with breaker.call():
        with pytest.raises(ServerDown, match="given a pause"), breaker.call():
            pytest.fail("two looked")
        breaker.succeeded()
        with breaker.call():
            pass  # it is closed from the first answer on, not from the end of the stream
    assert breaker.why_open is None


def test_a_look_that_fails_begins_another_pause(breaker: Breaker, clock: Clock) -> None:
    fails(breaker, 3)
    clock.now_s = 2.0
    fails(breaker)
    with pytest.raises(ServerDown, match="given a pause after 4 failures"), breaker.call():
        pytest.fail("the server was asked")


def test_a_look_that_is_broken_off_leaves_the_next_one_its_place(breaker: Breaker, clock: Clock) -> None:
    fails(breaker, 3)
    clock.now_s = 2.0
    with pytest.raises(KeyboardInterrupt), breaker.call():
        raise KeyboardInterrupt
    with breaker.call():
        breaker.succeeded()
    assert breaker.why_open is None


def test_an_answer_that_says_no_is_an_answer(breaker: Breaker) -> None:
    for _ in range(5):
        with pytest.raises(ServerRefused), breaker.call():
            breaker.succeeded()
            raise ServerRefused("no")
    assert breaker.why_open is None
