"""What is left of an adapter when a lesson is taken back: where its line still stands, and what is learned again.

Pure: reads the line of versions and what each of them was taught. Refuses to guess: what cannot be learned again is
named with its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from claasbot.errors import NotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """One experience in the weights of the version that answers."""

    experience_id: int
    job_id: str
    """Its lesson, which stays what it was when a rebuilt version holds it."""
    lesson_n: int
    """The number that people know the lesson by: of the version that it made first."""
    version_id: int
    """The version in the line that learned it."""
    is_revoked: bool
    why_not: str | None
    """Why it must not or cannot be learned again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A version in the line of the one that answers."""

    version_id: int
    has_files: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """One lesson that is gone through again."""

    job_id: str
    experience_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`start`, and the lessons after it in their order. No lessons: `start` answers as it is."""

    start: int | None
    """The version that the line still stands on; None: the base model."""
    lessons: tuple[Again, ...]
    lost: tuple[Taught, ...]
    """What goes with the lesson although nobody took it back."""

    @property
    def experience_ids(self) -> tuple[int, ...]:
        return tuple(experience_id for lesson in self.lessons for experience_id in lesson.experience_ids)


def plan(line: Sequence[Standing], taught: Sequence[Taught]) -> Plan:
    """The newest version that holds nothing revoked, and the rest of what came after it.

    `line` is the ancestry of the version that answers, oldest first. From the base model or from a version in between:
    the weights that come out are the same bytes, because a version holds all that the next lesson begins with.
    """
    revoked_in = {row.version_id for row in taught if row.is_revoked}
    start, n_kept = None, 0
    for number, version in enumerate(line, start=1):
        if version.version_id in revoked_in:
            break
        if version.has_files:
            start, n_kept = version.version_id, number
    after = {version.version_id for version in line[n_kept:]}
    rest = sorted(
        (row for row in taught if row.version_id in after and not row.is_revoked),
        key=lambda row: (row.lesson_n, row.experience_id),
    )
    lessons: dict[str, list[int]] = {}
    for row in rest:
        if row.why_not is None:
            lessons.setdefault(row.job_id, []).append(row.experience_id)
    return Plan(
        start=start,
        lessons=tuple(Again(job_id=job_id, experience_ids=tuple(ids)) for job_id, ids in lessons.items()),
        lost=tuple(row for row in rest if row.why_not is not None),
    )


def of_lesson(taught: Sequence[Taught], lesson_n: int) -> tuple[int, ...]:
    """What that lesson taught and still teaches. Raises NotFound when the version that answers does not stand on it."""
    found = tuple(row.experience_id for row in taught if row.lesson_n == lesson_n and not row.is_revoked)
    if not found:
        raise NotFound(f"Lesson {lesson_n} is not one that I stand on. /unlearn lists them.")
    return found
