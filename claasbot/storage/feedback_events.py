"""What people said about answers, as events; what is asked of them, and what is taken back."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlite_utils import Database

from claasbot.domain.conversation import ChatAddress
from claasbot.domain.feedback import FeedbackEvent, FeedbackKind, NewFeedback
from claasbot.storage.lessons import move
from claasbot.storage.rows import LARGEST_ID, Row, change, insert, one, rows, text_of

_WHY_LASTS = timedelta(minutes=5)
_UNSETTLED = ("received", "queued", "leased", "quarantined")


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
            AND thumb.created_at >= ? AND thumb.created_at <= ?
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
        text_of(now),
        address.platform,
        address.bot_account,
        address.chat,
    )
    return None if row is None else int(row["completion_id"])


def feedback_list(db: Database, person_id: int | None = None, limit: int = 200, before: int | None = None) -> list[Row]:
    """Feedback with what became of it, newest first; older than the feedback `before`."""
    of_person, params = ("feedback_event.person_id = ?", (person_id,)) if person_id is not None else ("1", ())
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
        WHERE {of_person} AND feedback_event.id < ? ORDER BY feedback_event.id DESC LIMIT ?
        """,  # noqa: S608
        *params,
        LARGEST_ID if before is None else before,
        limit,
    )


def _feedback(row: Row) -> FeedbackEvent:
    return FeedbackEvent(
        feedback_id=row["id"],
        person_id=row["person_id"],
        completion_id=row["completion_id"],
        kind=row["kind"],
        text=row["text"],
    )
