"""When to train whom. Pure: reads what waits and the time, returns a person or a moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

LONGEST_BACK_OFF = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One person's experiences that wait, as the store counts them."""

    person_id: int
    n_queued: int
    newest_at: datetime
    last_job_at: datetime | None
    first_queued: int = 0
    """Number of the oldest of them. Who is next is a matter of numbers: clocks can be set back."""
    last_job: int = 0
    """Number of the person's last job; 0: none yet."""
    n_today: int = 0
    """Lessons in the last 24 hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the host decides about the schedule."""

    debounce_s: float = 0.5
    """Wait this long after the last feedback: a second remark may follow."""
    cooldown_s: float = 0.0
    """Least time between two lessons of one person."""
    lessons_per_day: int = 0
    """Most lessons of one person in 24 hours; 0: as many as feedback asks for."""
    is_paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    person_id: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    until: datetime | None
    """None: until something happens."""
    reason: str


def decide(waiting: tuple[Waiting, ...], now: datetime, rules: Rules) -> Train | Wait:
    """Whom to train now, or how long nothing can be done.

    Fair: of those who are ready, the one whose last lesson is longest ago goes first. No wait is longer than its rule,
    whatever the clock does: a moment that has not come yet is no reason to wait.
    """
    if rules.is_paused:
        return Wait(until=None, reason="learning is paused by an admin")
    waits = [person for person in waiting if person.n_queued > 0]
    candidates = [person for person in waits if not rules.lessons_per_day or person.n_today < rules.lessons_per_day]
    if not candidates:
        return Wait(until=None, reason="nobody may have another lesson today" if waits else "nothing waits")
    ready_at = {person.person_id: _ready_at(person, now, rules) for person in candidates}
    ready = [person for person in candidates if ready_at[person.person_id] <= now]
    if not ready:
        return Wait(until=min(ready_at.values()), reason="debounce or cooldown")
    chosen = min(ready, key=lambda person: (person.last_job, person.first_queued, person.person_id))
    return Train(person_id=chosen.person_id, reason=f"{chosen.n_queued} waiting")


def _ready_at(person: Waiting, now: datetime, rules: Rules) -> datetime:
    moments = [now]
    if person.newest_at <= now:
        moments.append(person.newest_at + timedelta(seconds=rules.debounce_s))
    if person.last_job_at is not None and person.last_job_at <= now:
        moments.append(person.last_job_at + timedelta(seconds=rules.cooldown_s))
    return max(moments)


def back_off_s(attempts: int) -> float:
    """Seconds before a job that failed `attempts` times is tried again: 1, 2, 4 … 60."""
    return min(LONGEST_BACK_OFF.total_seconds(), 2.0 ** max(0, attempts - 1))
