"""Experiences, made of feedback, and the jobs that consume them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from sqlite_utils import Database

from claasbot.domain.conversation import ChatAddress
from claasbot.domain.experience import ExperienceState, moved
from claasbot.domain.feedback import FeedbackEvent
from claasbot.domain.job import Recipe, TrainingResult, result_from_json, result_to_json
from claasbot.domain.schedule import LONGEST_BACK_OFF, Waiting
from claasbot.errors import BadInput, ImpossibleTransition, NotFound, NotYours
from claasbot.storage.rows import LARGEST_ID, Row, change, insert, one, rows, text_of, the, time_of

_END_OF_TIME = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredExperience:
    experience_id: int
    person_id: int
    completion_id: int
    feedback: FeedbackEvent
    state: ExperienceState
    reason: str
    n_refusals: int
    max_batch: int | None
    """Most experiences in a job with this one, which stood in a job that failed for good; None: no suspicion."""
    address: ChatAddress
    mark_key: str | None
    """The message on which the person sees what became of it."""
    is_interaction: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredJob:
    job_id: str
    person_id: int
    version_n: int
    parent_version_id: int | None
    recipe: Recipe
    state: str
    attempts: int
    is_rebuild: bool
    """It goes through lessons again that were learned already (`storage.revocations`)."""
    result: TrainingResult | None
    seconds: dict[str, float]
    created_at: datetime


def add_experience(db: Database, feedback: FeedbackEvent, now: datetime) -> StoredExperience:
    """One experience per feedback event, at most."""
    known = one(db, "SELECT id FROM experience WHERE feedback_event_id = ?", feedback.feedback_id)
    if known is None:
        experience_id = insert(
            db,
            "experience",
            person_id=feedback.person_id,
            completion_id=feedback.completion_id,
            feedback_event_id=feedback.feedback_id,
            state="received",
            created_at=text_of(now),
            changed_at=text_of(now),
        )
    else:
        experience_id = int(known["id"])
    return experience(db, experience_id)


_EXPERIENCE = """
    SELECT experience.*, feedback_event.kind AS kind, feedback_event.text AS text,
        feedback_event.is_interaction, completion.platform, completion.bot_account, completion.chat,
        coalesce(feedback_event.mark_key, completion.message_key) AS shown_key
    FROM experience JOIN feedback_event ON feedback_event.id = experience.feedback_event_id
    JOIN completion ON completion.id = experience.completion_id
"""


def experience(db: Database, experience_id: int) -> StoredExperience:
    """Raises NotFound."""
    row = the(db, f"experience {experience_id}", _EXPERIENCE + " WHERE experience.id = ?", experience_id)
    return _stored(row)


def queued(db: Database, person_id: int, limit: int) -> list[StoredExperience]:
    """What waits for a lesson, oldest first."""
    sql = _EXPERIENCE + " WHERE experience.person_id = ? AND experience.state = 'queued' ORDER BY experience.id LIMIT ?"
    return [_stored(row) for row in rows(db, sql, person_id, limit)]


def unsettled(db: Database, person_id: int) -> list[StoredExperience]:
    """What waits for a lesson, is in one, or was parked by one that failed."""
    sql = _EXPERIENCE + " WHERE experience.person_id = ? AND experience.state IN ('queued', 'leased', 'quarantined')"
    return [_stored(row) for row in rows(db, sql, person_id)]


def of_job(db: Database, job_id: str) -> list[StoredExperience]:
    sql = _EXPERIENCE + " WHERE experience.job_id = ? ORDER BY experience.id"
    return [_stored(row) for row in rows(db, sql, job_id)]


def consumed(db: Database, person_id: int, limit: int) -> list[StoredExperience]:
    """What the person's current weights learned from, newest first."""
    sql = _EXPERIENCE + (
        " WHERE experience.person_id = ? AND experience.state = 'consumed' AND feedback_event.withdrawn_at IS NULL"
        " AND completion.emptied_at IS NULL ORDER BY experience.id DESC LIMIT ?"
    )
    return [_stored(row) for row in rows(db, sql, person_id, limit)]


def consumed_by(db: Database, version_id: int) -> list[StoredExperience]:
    sql = _EXPERIENCE + " WHERE experience.consumed_by = ? AND experience.state = 'consumed' ORDER BY experience.id"
    return [_stored(row) for row in rows(db, sql, version_id)]


def move(db: Database, experience_id: int, state: ExperienceState, reason: str, now: datetime) -> None:
    """Raises ImpossibleTransition; a consumed experience is moved by `consume`."""
    row = the(db, f"experience {experience_id}", "SELECT state FROM experience WHERE id = ?", experience_id)
    moved(row["state"], state)
    change(
        db,
        "UPDATE experience SET state = ?, reason = ?, is_left_behind = 0, changed_at = ? WHERE id = ?",
        state,
        reason,
        text_of(now),
        experience_id,
    )


def consume(db: Database, experience_id: int, version_id: int, now: datetime) -> None:
    """This experience has taught that version; it never teaches as new again."""
    row = the(db, f"experience {experience_id}", "SELECT state FROM experience WHERE id = ?", experience_id)
    moved(row["state"], "consumed")
    change(
        db,
        "UPDATE experience SET state = 'consumed', consumed_by = ?, reason = '', changed_at = ? WHERE id = ?",
        version_id,
        text_of(now),
        experience_id,
    )


def requeue(db: Database, person_id: int, experience_id: int, now: datetime) -> None:
    """Let what a failed job parked teach after all. Raises NotFound, NotYours, BadInput, ImpossibleTransition."""
    found = experience(db, experience_id)
    if found.person_id != person_id:
        raise NotYours(f"experience {experience_id} belongs to another person than p{person_id}")
    if found.state != "quarantined":
        raise ImpossibleTransition(f"only parked feedback is queued again; this one is {found.state!r}")
    event = the(db, "feedback", "SELECT withdrawn_at FROM feedback_event WHERE id = ?", found.feedback.feedback_id)
    if event["withdrawn_at"] is not None:
        raise BadInput("This feedback was taken back, so it teaches nothing.")
    move(db, experience_id, "queued", "", now)


def halve(db: Database, batch: list[StoredExperience], reason: str, now: datetime) -> None:
    """Queue what no attempt could train again, in jobs of half the size: so the row that breaks them ends up alone."""
    for row in batch:
        move(db, row.experience_id, "queued", reason, now)
        change(db, "UPDATE experience SET max_batch = ? WHERE id = ?", len(batch) // 2, row.experience_id)


def count_refusal(db: Database, experience_id: int) -> None:
    change(db, "UPDATE experience SET n_refusals = n_refusals + 1 WHERE id = ?", experience_id)


def n_lessons_since(db: Database, person_id: int, since: datetime, now: datetime) -> int:
    """As the schedule counts them: what came to nothing costs nobody a lesson."""
    row = the(
        db,
        "count",
        "SELECT count(*) AS n FROM job WHERE person_id = ? AND created_at >= ? AND created_at <= ?"
        " AND state NOT IN ('dead', 'abandoned')",
        person_id,
        text_of(since),
        text_of(now),
    )
    return int(row["n"])


def waiting(db: Database, now: datetime) -> tuple[Waiting, ...]:
    """Everybody with queued experiences, no open job and no lesson that is being taken back, for the schedule."""
    found = rows(
        db,
        """
        SELECT experience.person_id, count(*) AS n, max(experience.changed_at) AS newest,
            min(experience.id) AS first_queued,
            (SELECT coalesce(max(rowid), 0) FROM job WHERE job.person_id = experience.person_id) AS last_job,
            (SELECT max(coalesce(finished_at, created_at)) FROM job
             WHERE job.person_id = experience.person_id) AS last_job_at,
            (SELECT count(*) FROM job WHERE job.person_id = experience.person_id
             AND created_at >= ? AND created_at <= ? AND NOT is_rebuild
             AND job.state NOT IN ('dead', 'abandoned')) AS n_today
        FROM experience JOIN person ON person.id = experience.person_id
        WHERE experience.state = 'queued' AND person.is_blocked = 0
            AND NOT EXISTS (SELECT 1 FROM job WHERE job.person_id = experience.person_id
                            AND job.state IN ('leased', 'trained'))
            AND NOT EXISTS (SELECT 1 FROM revocation WHERE revocation.person_id = experience.person_id
                            AND done_at IS NULL)
        GROUP BY experience.person_id
        """,
        text_of(now - timedelta(days=1)),
        text_of(now),
    )
    return tuple(
        Waiting(
            person_id=row["person_id"],
            n_queued=row["n"],
            first_queued=row["first_queued"],
            newest_at=time_of(row["newest"]),
            last_job=row["last_job"],
            last_job_at=None if row["last_job_at"] is None else time_of(row["last_job_at"]),
            n_today=row["n_today"],
        )
        for row in found
    )


def add_job(
    db: Database,
    *,
    job_id: str,
    person_id: int,
    version_n: int,
    parent_version_id: int | None,
    recipe: Recipe,
    reason: str,
    experience_ids: tuple[int, ...],
    now: datetime,
) -> None:
    """A job row and its lease: the experiences are this job's until it ends."""
    insert(
        db,
        "job",
        id=job_id,
        person_id=person_id,
        version_n=version_n,
        parent_version_id=parent_version_id,
        recipe_json=json.dumps(asdict(recipe)),
        reason=reason,
        state="leased",
        created_at=text_of(now),
    )
    for experience_id in experience_ids:
        move(db, experience_id, "leased", "", now)
        change(db, "UPDATE experience SET job_id = ? WHERE id = ?", job_id, experience_id)


def job(db: Database, job_id: str) -> StoredJob:
    """Raises NotFound."""
    return _job(the(db, f"job {job_id}", "SELECT * FROM job WHERE id = ?", job_id))


def open_jobs(db: Database, now: datetime) -> list[StoredJob]:
    """Jobs that a crash or a back-off left open and that may go on now, oldest first; of nobody who is being erased.

    A clock that was set back makes nobody wait longer than the longest back-off.
    """
    found = rows(
        db,
        "SELECT job.* FROM job JOIN person ON person.id = job.person_id"
        " WHERE job.state IN ('leased', 'trained') AND person.is_blocked = 0"
        " AND (job.not_before IS NULL OR job.not_before <= ? OR job.not_before > ?) ORDER BY job.rowid",
        text_of(now),
        text_of(min(now, _END_OF_TIME - LONGEST_BACK_OFF) + LONGEST_BACK_OFF),
    )
    return [_job(row) for row in found]


def n_open(db: Database) -> int:
    """Experiences, jobs and lessons taken back that are not settled yet."""
    row = the(
        db,
        "count",
        "SELECT (SELECT count(*) FROM experience WHERE state IN ('received', 'queued', 'leased')) +"
        " (SELECT count(*) FROM job WHERE state IN ('leased', 'trained')) +"
        " (SELECT count(*) FROM revocation WHERE done_at IS NULL) AS n",
    )
    return int(row["n"])


def job_failed(db: Database, job_id: str, error: str, not_before: datetime) -> int:
    """Count a failed attempt; returns how many there were."""
    change(
        db,
        "UPDATE job SET attempts = attempts + 1, error = ?, not_before = ? WHERE id = ?",
        error[:500],
        text_of(not_before),
        job_id,
    )
    return job(db, job_id).attempts


def job_waits(db: Database, job_id: str, error: str, not_before: datetime) -> None:
    """Try again then; it was not the job's fault, so no attempt is counted."""
    sql = "UPDATE job SET error = ?, not_before = ? WHERE id = ?"
    change(db, sql, error[:500], text_of(not_before), job_id)


def job_trained(db: Database, job_id: str, result: TrainingResult, seconds: dict[str, float]) -> None:
    change(
        db,
        "UPDATE job SET state = 'trained', result_json = ?, seconds_json = ?, error = '' WHERE id = ?",
        result_to_json(result),
        json.dumps(seconds),
        job_id,
    )


def job_ended(
    db: Database, job_id: str, state: str, reasons: tuple[str, ...], seconds: dict[str, float], now: datetime
) -> None:
    """`promoted`, `rejected`, `dead` or `abandoned`, with why."""
    n_changed = change(
        db,
        "UPDATE job SET state = ?, verdict_json = ?, seconds_json = ?, finished_at = ?"
        " WHERE id = ? AND state IN ('leased', 'trained')",
        state,
        json.dumps(list(reasons)),
        json.dumps(seconds),
        text_of(now),
        job_id,
    )
    if n_changed != 1:
        raise NotFound(f"job {job_id} is not open, so it cannot end as {state!r}")


_LESSON = """
    SELECT job.*, version.state AS version_state, version.weights_sha256,
        coalesce(nullif(
            (SELECT group_concat(feedback_event.text, ' · ') FROM experience
             JOIN feedback_event ON feedback_event.id = experience.feedback_event_id
             WHERE experience.job_id = job.id), ''
        ), '(not kept any more)') AS said,
        (SELECT count(*) FROM experience WHERE experience.job_id = job.id AND experience.state = 'consumed') AS n_taught
    FROM job LEFT JOIN adapter_version AS version ON version.job_id = job.id
"""


def lesson_list(db: Database, person_id: int | None = None, limit: int = 200, before: str | None = None) -> list[Row]:
    """Jobs with their numbers, newest first; older than the job `before`. Raises NotFound where that is none."""
    last = LARGEST_ID
    if before is not None:
        last = the(db, f"lesson {before}", "SELECT rowid AS n FROM job WHERE id = ?", before)["n"]
    of_person, params = ("job.person_id = ?", (person_id,)) if person_id is not None else ("1", ())
    return rows(
        db, f"{_LESSON} WHERE {of_person} AND job.rowid < ? ORDER BY job.rowid DESC LIMIT ?", *params, last, limit
    )


def lesson_row(db: Database, job_id: str) -> Row:
    """One of them. Raises NotFound."""
    return the(db, f"lesson {job_id}", f"{_LESSON} WHERE job.id = ?", job_id)


def _stored(row: Row) -> StoredExperience:
    return StoredExperience(
        experience_id=row["id"],
        person_id=row["person_id"],
        completion_id=row["completion_id"],
        feedback=FeedbackEvent(
            feedback_id=row["feedback_event_id"],
            person_id=row["person_id"],
            completion_id=row["completion_id"],
            kind=row["kind"],
            text=row["text"],
        ),
        state=row["state"],
        reason=row["reason"],
        n_refusals=row["n_refusals"],
        max_batch=row["max_batch"],
        address=ChatAddress(platform=row["platform"], bot_account=row["bot_account"], chat=row["chat"]),
        mark_key=row["shown_key"],
        is_interaction=bool(row["is_interaction"]),
    )


def _job(row: Row) -> StoredJob:
    recipe = json.loads(row["recipe_json"])
    return StoredJob(
        job_id=row["id"],
        person_id=row["person_id"],
        version_n=row["version_n"],
        parent_version_id=row["parent_version_id"],
        recipe=Recipe(**{**recipe, "target_modules": tuple(recipe["target_modules"])}),
        state=row["state"],
        attempts=row["attempts"],
        is_rebuild=bool(row["is_rebuild"]),
        result=None if row["result_json"] is None else result_from_json(row["result_json"]),
        seconds=json.loads(row["seconds_json"]),
        created_at=time_of(row["created_at"]),
    )
