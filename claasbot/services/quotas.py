"""What a person may still have today, where the host sets a limit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlite_utils import Database

from claasbot.storage import completions, lessons

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """Most of each in 24 hours; 0: no limit."""

    answers_per_day: int = 0
    lessons_per_day: int = 0

    def left(self, db: Database, person_id: int, now: datetime) -> str:
        """In words; empty where nothing is limited."""
        since, left = now - _DAY, []
        if self.answers_per_day:
            n_had = completions.n_answers_since(db, person_id, since)
            left.append(f"{max(0, self.answers_per_day - n_had)} of {self.answers_per_day} answers")
        if self.lessons_per_day:
            n_had = lessons.n_lessons_since(db, person_id, since, now)
            left.append(f"{max(0, self.lessons_per_day - n_had)} of {self.lessons_per_day} lessons")
        return f"Left for these 24 hours: {' and '.join(left)}." if left else ""
