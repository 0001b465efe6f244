"""Feedback, the experiences made of it, and the jobs that consume them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlite_utils import Database

from claasbot.domain.conversation import ChatAddress
from claasbot.domain.experience import ExperienceState, moved
from claasbot.domain.feedback import FeedbackEvent, FeedbackKind, NewFeedback
from claasbot.domain.job import Recipe, TrainingResult, result_from_json, result_to_json
from claasbot.domain.schedule import Waiting
from claasbot.errors import BadInput, ImpossibleTransition, NotFound, NotYours
from claasbot.storage.rows import Row, change, insert, one, rows, text_of, the, time_of

_WHY_LASTS = timedelta(minutes=5)
_UNSETTLED = ("received", "queued", "leased", "quarantined")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredExperience:
    experience_id: int
    person_id: int
    completion_id: int
    feedback: FeedbackEvent
    state: ExperienceState
    reason: str
    n_refusals: int
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
    result: TrainingResult | None
    seconds: dict[str, float]
    created_at: datetime


def add_feedback(db: Database, person_id: int, new: NewFeedback, now: datetime) -> FeedbackEvent:
    """The same source twice is one event; a reason that came to nothing may be given again."""
    known = one(db, "SELECT * FROM feedback_event WHERE source_key = ?", new.source_key)
    if known is not None and new.is_reason and _came_to_nothing(db, known["id"]):
        change(db, "UPDATE feedback_event SET source_key = source_key || ':' || id WHERE id = ?", known["id"])
    elif known is not None:
        return _feedback(known)
    feedback_id = insert(
        db,
        "feedback_event",
        person_id=person_id,
        completion_id=new.completion_id,
        kind=new.kind,
        text=new.text,
        source_key=new.source_key,
        mark_key=new.mark_key,
        is_interaction=int(new.is_interaction),
        is_reason=int(new.is_reason),
        created_at=text_of(now),
    )
    return FeedbackEvent(
        feedback_id=feedback_id,
        person_id=person_id,
        completion_id=new.completion_id,
        kind=new.kind,
        text=new.text,
    )


def _came_to_nothing(db: Database, feedback_id: int) -> bool:
    """Taken back, or refused: not waiting, and not learned."""
    made = one(db, "SELECT state FROM experience WHERE feedback_event_id = ?", feedback_id)
    return made is not None and made["state"] in ("withdrawn", "rejected")


def standing_thumb(db: Database, person_id: int, completion_id: int, kind: FeedbackKind) -> int | None:
    """The thumb of that kind which the person has on the answer already."""
    row = one(
        db,
        "SELECT id FROM feedback_event WHERE person_id = ? AND completion_id = ? AND kind = ? AND withdrawn_at IS NULL",
        person_id,
        completion_id,
        kind,
    )
    return None if row is None else int(row["id"])


def withdraw_feedback(db: Database, person_id: int, completion_id: int, kind: FeedbackKind, now: datetime) -> set[int]:
    """Take back feedback of one kind on one answer, and what it has not taught yet; a thumbs-down takes its reasons.

    Returns the versions that have learned from it already.
    """
    sql = (
        "SELECT id FROM feedback_event WHERE person_id = ? AND completion_id = ? AND kind = ? AND withdrawn_at IS NULL"
    )
    taught = _withdraw(db, rows(db, sql, person_id, completion_id, kind), now)
    return taught | withdraw_reasons(db, person_id, completion_id, now) if kind == "thumbs_down" else taught


def withdraw_reasons(db: Database, person_id: int, completion_id: int, now: datetime) -> set[int]:
    """Take back what the person said when they were asked why."""
    sql = (
        "SELECT id FROM feedback_event WHERE person_id = ? AND completion_id = ? AND is_reason AND withdrawn_at IS NULL"
    )
    return _withdraw(db, rows(db, sql, person_id, completion_id), now)


def _withdraw(db: Database, found: list[Row], now: datetime) -> set[int]:
    taught = set()
    for row in found:
        change(db, "UPDATE feedback_event SET withdrawn_at = ? WHERE id = ?", text_of(now), row["id"])
        made = one(db, "SELECT id, state, consumed_by FROM experience WHERE feedback_event_id = ?", row["id"])
        if made is not None and made["state"] in _UNSETTLED:
            move(db, made["id"], "withdrawn", "you took the feedback back", now)
        elif made is not None and made["state"] == "consumed":
            taught.add(int(made["consumed_by"]))
    return taught


def asked_why(db: Database, person_id: int, address: ChatAddress, now: datetime) -> int | None:
    """The answer about which this person was asked “What was wrong?” in this chat, if their next message may say it.

    That is: within five minutes, before they say anything else there, and while they have given no reason yet.
    """
    row = one(
        db,
        """
        SELECT thumb.completion_id, thumb.created_at FROM feedback_event AS thumb
        JOIN completion ON completion.id = thumb.completion_id
        WHERE thumb.person_id = ? AND thumb.kind = 'thumbs_down' AND thumb.withdrawn_at IS NULL
            AND thumb.created_at >= ?
            AND completion.platform = ? AND completion.bot_account = ? AND completion.chat = ?
            AND NOT EXISTS (SELECT 1 FROM feedback_event AS reason
                WHERE reason.completion_id = thumb.completion_id AND reason.person_id = thumb.person_id
                AND reason.kind IN ('text', 'correction') AND reason.withdrawn_at IS NULL AND reason.id > thumb.id)
            AND NOT EXISTS (SELECT 1 FROM turn JOIN conversation ON conversation.id = turn.conversation_id
                WHERE conversation.person_id = thumb.person_id AND conversation.platform = completion.platform
                AND conversation.bot_account = completion.bot_account AND conversation.chat = completion.chat
                AND turn.role = 'user' AND turn.created_at > thumb.created_at)
        ORDER BY thumb.id DESC
        """,
        person_id,
        text_of(now - _WHY_LASTS),
        address.platform,
        address.bot_account,
        address.chat,
    )
    return None if row is None else int(row["completion_id"])


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
        " ORDER BY experience.id DESC LIMIT ?"
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


def count_refusal(db: Database, experience_id: int) -> None:
    change(db, "UPDATE experience SET n_refusals = n_refusals + 1 WHERE id = ?", experience_id)


def waiting(db: Database, now: datetime) -> tuple[Waiting, ...]:
    """Everybody with queued experiences and no open job, for the schedule."""
    found = rows(
        db,
        """
        SELECT experience.person_id, count(*) AS n, max(experience.changed_at) AS newest,
            (SELECT max(coalesce(finished_at, created_at)) FROM job
             WHERE job.person_id = experience.person_id) AS last_job,
            (SELECT count(*) FROM job
             WHERE job.person_id = experience.person_id AND created_at >= ?) AS n_today
        FROM experience JOIN person ON person.id = experience.person_id
        WHERE experience.state = 'queued' AND person.is_blocked = 0
            AND NOT EXISTS (SELECT 1 FROM job WHERE job.person_id = experience.person_id
                            AND job.state IN ('leased', 'trained'))
        GROUP BY experience.person_id
        """,
        text_of(now - timedelta(days=1)),
    )
    return tuple(
        Waiting(
            person_id=row["person_id"],
            n_queued=row["n"],
            newest_at=time_of(row["newest"]),
            last_job_at=None if row["last_job"] is None else time_of(row["last_job"]),
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
    """Jobs that a crash or a back-off left open and that may go on now, oldest first; of nobody who is being erased."""
    found = rows(
        db,
        "SELECT job.* FROM job JOIN person ON person.id = job.person_id"
        " WHERE job.state IN ('leased', 'trained') AND (job.not_before IS NULL OR job.not_before <= ?)"
        " AND person.is_blocked = 0 ORDER BY job.created_at",
        text_of(now),
    )
    return [_job(row) for row in found]


def n_open(db: Database) -> int:
    """Experiences and jobs that are not settled yet."""
    row = the(
        db,
        "count",
        "SELECT (SELECT count(*) FROM experience WHERE state IN ('received', 'queued', 'leased')) +"
        " (SELECT count(*) FROM job WHERE state IN ('leased', 'trained')) AS n",
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


def feedback_list(db: Database, person_id: int | None = None, limit: int = 200) -> list[Row]:
    """Feedback with what became of it, newest first."""
    where, params = ("WHERE feedback_event.person_id = ?", (person_id,)) if person_id is not None else ("", ())
    return rows(
        db,
        f"""
        SELECT feedback_event.id, feedback_event.person_id, feedback_event.kind, feedback_event.text,
            feedback_event.created_at, feedback_event.withdrawn_at, feedback_event.completion_id,
            completion.version_name, completion.text AS answer, experience.id AS experience_id, experience.state,
            experience.reason, experience.job_id, version.n AS learned_n,
            EXISTS (SELECT 1 FROM feedback_event AS words WHERE words.completion_id = feedback_event.completion_id
                AND words.person_id = feedback_event.person_id AND words.kind IN ('text', 'correction')
                AND words.withdrawn_at IS NULL) AS has_words
        FROM feedback_event JOIN completion ON completion.id = feedback_event.completion_id
        LEFT JOIN experience ON experience.feedback_event_id = feedback_event.id
        LEFT JOIN adapter_version AS version ON version.id = experience.consumed_by
        {where} ORDER BY feedback_event.id DESC LIMIT ?
        """,  # noqa: S608
        *params,
        limit,
    )


_LESSON = """
    SELECT job.*, version.state AS version_state, version.weights_sha256,
        (SELECT group_concat(feedback_event.text, ' · ') FROM experience
         JOIN feedback_event ON feedback_event.id = experience.feedback_event_id
         WHERE experience.job_id = job.id) AS said
    FROM job LEFT JOIN adapter_version AS version ON version.job_id = job.id
"""


def lesson_list(db: Database, person_id: int | None = None, limit: int = 200) -> list[Row]:
    """Jobs with their numbers, newest first."""
    where, params = ("WHERE job.person_id = ?", (person_id,)) if person_id is not None else ("", ())
    return rows(db, f"{_LESSON} {where} ORDER BY job.created_at DESC LIMIT ?", *params, limit)


def lesson_row(db: Database, job_id: str) -> Row:
    """One of them. Raises NotFound."""
    return the(db, f"lesson {job_id}", f"{_LESSON} WHERE job.id = ?", job_id)


def _feedback(row: Row) -> FeedbackEvent:
    return FeedbackEvent(
        feedback_id=row["id"],
        person_id=row["person_id"],
        completion_id=row["completion_id"],
        kind=row["kind"],
        text=row["text"],
    )


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
        result=None if row["result_json"] is None else result_from_json(row["result_json"]),
        seconds=json.loads(row["seconds_json"]),
        created_at=time_of(row["created_at"]),
    )
