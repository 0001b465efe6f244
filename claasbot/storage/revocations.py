"""Lessons that were taken back: what was asked, what the line of versions was taught, and which versions must go."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from sqlite_utils import Database

from claasbot.domain.adapter import AdapterVersion
from claasbot.domain.rebuild import Again, Standing
from claasbot.storage import lessons, versions
from claasbot.storage.lessons import StoredExperience
from claasbot.storage.rows import Row, change, insert, one, rows, text_of, the

_LINE = """
    WITH RECURSIVE line (id, parent_id) AS (
        SELECT id, parent_id FROM adapter_version WHERE id = ?1
        UNION SELECT version.id, version.parent_id FROM adapter_version AS version
        JOIN line ON line.parent_id = version.id
    )
"""
"""A version and all that it grew from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaughtRow:
    """One experience in the line's weights, with what decides whether it can be learned again."""

    experience: StoredExperience
    job_id: str
    lesson_n: int
    version_id: int
    learned_at: str
    base_revision: str
    is_emptied: bool
    is_taken_back: bool

    @property
    def is_standing(self) -> bool:
        """A preference that later teachers read (`storage.lessons.consumed`)."""
        return not (self.is_emptied or self.is_taken_back)


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingLesson:
    """One lesson that the version which answers stands on."""

    lesson_n: int
    job_id: str
    said: str
    """Empty where the words are not kept any more."""
    learned_at: str


def line(db: Database, version_id: int | None) -> list[Standing]:
    """Of that version, oldest first; empty for the base model."""
    found = rows(
        db,
        f"""{_LINE}
        SELECT version.id, files_removed_at IS NULL AND NOT is_leaving AND state IN ('promoted', 'retired') AS has_files
        FROM line JOIN adapter_version AS version USING (id) ORDER BY version.n
        """,  # noqa: S608
        version_id,
    )
    return [Standing(version_id=row["id"], has_files=bool(row["has_files"])) for row in found]


def taught(db: Database, version_id: int | None) -> list[TaughtRow]:
    """What its line learned, in the order of the lessons; what was taken back is `withdrawn`, and in the weights."""
    found = rows(
        db,
        f"""{_LINE}
        SELECT experience.id, experience.job_id, job.version_n, experience.consumed_by, job.finished_at,
            completion.base_revision, completion.emptied_at IS NOT NULL AS is_emptied,
            feedback_event.withdrawn_at IS NOT NULL AS is_taken_back
        FROM line JOIN experience ON experience.consumed_by = line.id
        JOIN job ON job.id = experience.job_id
        JOIN completion ON completion.id = experience.completion_id
        JOIN feedback_event ON feedback_event.id = experience.feedback_event_id
        WHERE experience.state IN ('consumed', 'withdrawn') ORDER BY job.version_n, experience.id
        """,  # noqa: S608
        version_id,
    )
    return [_taught(db, row) for row in found]


def _taught(db: Database, row: Row) -> TaughtRow:
    return TaughtRow(
        experience=lessons.experience(db, row["id"]),
        job_id=row["job_id"],
        lesson_n=row["version_n"],
        version_id=row["consumed_by"],
        learned_at=row["finished_at"] or "",
        base_revision=row["base_revision"],
        is_emptied=bool(row["is_emptied"]),
        is_taken_back=bool(row["is_taken_back"]),
    )


def standing_lessons(db: Database, person_id: int) -> list[StandingLesson]:
    """Oldest first."""
    current = versions.current(db, person_id)
    found = taught(db, None if current is None else current.version_id)
    rows_of_lessons = groupby((row for row in found if row.experience.state == "consumed"), key=lambda row: row.job_id)
    return [_standing_lesson(list(group)) for _, group in rows_of_lessons]


def _standing_lesson(group: list[TaughtRow]) -> StandingLesson:
    first = group[0]
    return StandingLesson(
        lesson_n=first.lesson_n,
        job_id=first.job_id,
        said=" · ".join(row.experience.feedback.text for row in group if not row.is_emptied),
        learned_at=first.learned_at,
    )


def n_lessons(db: Database, version_id: int) -> int:
    """How many the version itself was taught: one, or all that a rebuild went through."""
    sql = "SELECT count(DISTINCT job_id) AS n FROM experience WHERE consumed_by = ? AND state = 'consumed'"
    return int(the(db, "count", sql, version_id)["n"])


def ask(db: Database, person_id: int, experience_ids: tuple[int, ...], now: datetime) -> None:
    """They never teach again, from this commit on; the weights follow."""
    revocation_id = insert(db, "revocation", person_id=person_id, asked_at=text_of(now))
    for experience_id in experience_ids:
        lessons.move(db, experience_id, "withdrawn", "you took the lesson back", now)
        insert(db, "revoked_experience", experience_id=experience_id, revocation_id=revocation_id)


def is_asked(db: Database, person_id: int) -> bool:
    """Whether the version that answers stands on something that was taken back."""
    return one(db, "SELECT 1 FROM revocation WHERE person_id = ? AND done_at IS NULL", person_id) is not None


def waiting(db: Database) -> list[int]:
    """Whose weights are to follow now: nothing of theirs is being trained or judged, and nobody erases them."""
    found = rows(
        db,
        """
        SELECT DISTINCT person_id FROM revocation JOIN person ON person.id = revocation.person_id
        WHERE done_at IS NULL AND is_blocked = 0 AND NOT EXISTS (SELECT 1 FROM job
            WHERE job.person_id = revocation.person_id AND job.state IN ('leased', 'trained'))
        ORDER BY person_id
        """,
    )
    return [row["person_id"] for row in found]


def end(db: Database, person_id: int, now: datetime) -> list[StoredExperience]:
    """All that was asked so far is done; returns what was taken back."""
    sql = (
        "SELECT experience_id FROM revoked_experience JOIN revocation ON revocation.id = revocation_id"
        " WHERE person_id = ? AND done_at IS NULL ORDER BY experience_id"
    )
    found = [lessons.experience(db, row["experience_id"]) for row in rows(db, sql, person_id)]
    sql = "UPDATE revocation SET done_at = ? WHERE person_id = ? AND done_at IS NULL"
    change(db, sql, text_of(now), person_id)
    return found


def add_replay(db: Database, job_id: str, again: tuple[Again, ...]) -> None:
    """Make a job that leases nothing a rebuild: what it reads was learned already, and stays so until the new version
    is promoted.
    """
    change(db, "UPDATE job SET is_rebuild = 1 WHERE id = ?", job_id)
    for position, lesson in enumerate(again):
        for experience_id in lesson.experience_ids:
            insert(
                db,
                "replay",
                job_id=job_id,
                position=position,
                lesson_job_id=lesson.job_id,
                experience_id=experience_id,
            )


def replayed(db: Database, job_id: str) -> list[tuple[str, list[StoredExperience]]]:
    """The lessons of a rebuild in order: the job that each was, and its experiences."""
    sql = "SELECT position, lesson_job_id, experience_id FROM replay WHERE job_id = ? ORDER BY position, experience_id"
    found = groupby(rows(db, sql, job_id), key=lambda row: (row["position"], row["lesson_job_id"]))
    return [
        (lesson_job_id, [lessons.experience(db, row["experience_id"]) for row in group])
        for (_, lesson_job_id), group in found
    ]


def relearned(db: Database, job_id: str, version_id: int) -> None:
    """The rebuilt version stands for those that learned this first: none of them is in its line (promise 2)."""
    change(
        db,
        "UPDATE experience SET consumed_by = ? WHERE state = 'consumed'"
        " AND id IN (SELECT experience_id FROM replay WHERE job_id = ?)",
        version_id,
        job_id,
    )


def queue_again(db: Database, experience_id: int, now: datetime) -> None:
    """From `consumed`, so past the table: the version that learned it leaves the line for good with this commit."""
    change(
        db,
        "UPDATE experience SET state = 'queued', reason = '', consumed_by = NULL, changed_at = ?"
        " WHERE id = ? AND state = 'consumed'",
        text_of(now),
        experience_id,
    )


def let_all_others_go(db: Database, person_id: int, now: datetime) -> None:
    """Every version outside the line of the one that answers now may hold what was taken back: its files go.

    Rejected candidates too: which feedback they had tried is not kept. No undo and no rollback finds them again.
    """
    current = versions.current(db, person_id)
    in_line = {standing.version_id for standing in line(db, None if current is None else current.version_id)}
    for version in versions.of_person(db, person_id):
        if version.version_id not in in_line and version.state != "quarantined":
            versions.move(db, version.version_id, "quarantined", now)
            change(
                db,
                "UPDATE adapter_version SET is_leaving = 1 WHERE id = ? AND files_removed_at IS NULL",
                version.version_id,
            )


def leaving(db: Database) -> list[AdapterVersion]:
    """Whose files are still to be deleted; of nobody who is being erased."""
    sql = (
        "SELECT version.id FROM adapter_version AS version JOIN person ON person.id = version.person_id"
        " WHERE is_leaving AND is_blocked = 0 ORDER BY version.id"
    )
    return [versions.version(db, row["id"]) for row in rows(db, sql)]


def left(db: Database, version_id: int, now: datetime) -> None:
    """Its files are gone."""
    change(db, "UPDATE adapter_version SET is_leaving = 0, files_removed_at = ? WHERE id = ?", text_of(now), version_id)
