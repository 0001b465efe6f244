"""Whom to train, and when."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from claasbot.domain.schedule import Rules, Train, Wait, Waiting, back_off_s, decide

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
RULES = Rules(debounce_s=1.0, cooldown_s=10.0)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def someone(
    person_id: int = 1, *, newest: float = 5, last_job: float | None = None, job: int = 0, first: int = 0, n: int = 1
) -> Waiting:
    return Waiting(
        person_id=person_id,
        n_queued=n,
        newest_at=ago(newest),
        last_job_at=None if last_job is None else ago(last_job),
        first_queued=first,
        last_job=job,
    )


def test_one_piece_of_feedback_is_enough():
    assert decide((someone(),), NOW, RULES) == Train(person_id=1, reason="1 waiting")


def test_a_second_remark_gets_its_moment():
    assert decide((someone(newest=0.4),), NOW, RULES) == Wait(
        until=NOW + timedelta(seconds=0.6), reason="debounce or cooldown"
    )


def test_a_cooldown_holds():
    assert isinstance(decide((someone(last_job=9),), NOW, RULES), Wait)
    assert isinstance(decide((someone(last_job=10),), NOW, RULES), Train)


def test_a_pause_holds_everybody():
    assert decide((someone(),), NOW, Rules(is_paused=True)).reason == "learning is paused by an admin"


def test_whoever_learned_longest_ago_is_next():
    people = (someone(1, last_job=20, job=8), someone(2, last_job=30, job=7), someone(3))
    assert decide(people, NOW, RULES).person_id == 3
    assert decide(people[:2], NOW, RULES).person_id == 2


def test_who_is_next_is_a_matter_of_numbers_whatever_the_clock_said_at_the_time():
    """R-22: the first lesson ended while the clock was a day ahead, the second after it was set right."""
    people = (someone(1, last_job=-86_400, job=7), someone(2, last_job=20, job=8))
    assert decide(people, NOW, RULES).person_id == 1
    people = (someone(1, newest=20, first=9), someone(2, newest=-86_400, first=8))
    assert decide(people, NOW, RULES).person_id == 2


@given(st.floats(-200_000, 200_000), st.floats(-200_000, 200_000) | st.none())
def test_no_wait_is_longer_than_its_rule_whatever_the_clock_does(newest, last_job):
    """R-22: the clock may have been set back or forward by days since these moments."""
    decision = decide((someone(newest=newest, last_job=last_job),), NOW, RULES)
    if isinstance(decision, Wait):
        assert decision.until - NOW <= timedelta(seconds=max(RULES.debounce_s, RULES.cooldown_s))


def test_nothing_waits_for_ever_behind_somebody_eager():
    """Two people, one of whom always has feedback: they take turns."""
    last, job = {1: None, 2: None}, {1: 0, 2: 0}
    trained = []
    for second in range(0, 40, 5):
        now = NOW + timedelta(seconds=second)
        people = tuple(
            Waiting(person_id=p, n_queued=1, newest_at=ago(60), last_job_at=last[p], last_job=job[p]) for p in (1, 2)
        )
        decision = decide(people, now, Rules(debounce_s=0, cooldown_s=0))
        trained.append(decision.person_id)
        last[decision.person_id], job[decision.person_id] = now, second + 1
    assert trained == [1, 2] * 4


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 30), st.floats(0, 30) | st.none()), max_size=6))
def test_a_decision_is_right_now_or_names_the_moment(people):
    waiting = tuple(someone(i, n=n, newest=newest, last_job=last) for i, (n, newest, last) in enumerate(people))
    decision = decide(waiting, NOW, RULES)
    if isinstance(decision, Wait) and decision.until is not None:
        assert decision.until > NOW
        assert isinstance(decide(waiting, decision.until, RULES), Train)


def test_failures_back_off_up_to_a_minute():
    assert [back_off_s(n) for n in (1, 2, 3, 7, 50)] == [1, 2, 4, 60, 60]


def test_nobody_gets_more_lessons_than_the_host_gives():
    rules = Rules(debounce_s=0, lessons_per_day=2)
    had_two = Waiting(person_id=1, n_queued=1, newest_at=NOW, last_job_at=None, n_today=2)
    assert isinstance(decide((had_two,), NOW, rules), Wait)
    had_one = Waiting(person_id=1, n_queued=1, newest_at=NOW, last_job_at=None, n_today=1)
    assert isinstance(decide((had_two, had_one), NOW, rules), Train)
