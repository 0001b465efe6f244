"""Blind comparisons of two versions, and what people chose."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlite_utils import Database

from claasbot.storage.rows import change, insert, text_of, the


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    first_version: str
    second_version: str
    choice: str | None


def add(db: Database, person_id: int, question: str, first: str, second: str, now: datetime) -> int:
    return insert(
        db,
        "comparison",
        person_id=person_id,
        question=question,
        first_version=first,
        second_version=second,
        created_at=text_of(now),
    )


def choose(db: Database, person_id: int, comparison_id: int, choice: str) -> Comparison:
    """The first choice stands. Raises NotFound for one that is not the person's."""
    change(
        db,
        "UPDATE comparison SET choice = ? WHERE id = ? AND person_id = ? AND choice IS NULL",
        choice,
        comparison_id,
        person_id,
    )
    row = the(
        db,
        f"comparison {comparison_id} of yours",
        "SELECT * FROM comparison WHERE id = ? AND person_id = ?",
        comparison_id,
        person_id,
    )
    return Comparison(first_version=row["first_version"], second_version=row["second_version"], choice=row["choice"])
