"""What is old enough to go, in small units: each is one transaction, and the next begins where it ended.

Refuses to touch what a lesson needs: one that waits, and one that was learned and may still be learned again without
another (`lessons_before`). Of a lesson that is older only the skeleton stays, without a word: versions stand on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlite_utils import Database

from claasbot.storage.rows import change, rows

FOR_EVER = ""
"""A time before every time: nothing is older."""

_NEEDED = """EXISTS (
    SELECT 1 FROM experience WHERE completion_id = completion.id AND (
        state IN ('received', 'queued', 'leased', 'quarantined') OR (state = 'consumed' AND changed_at >= ?4)
    )
)"""
_TEXT_OF_EMPTIED = (
    "text = '', messages_json = '[]', prompt_ids_json = '[]', token_ids_json = '[]', logprobs_json = '[]'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ages:
    """Everything from before these times may go, as stored text; FOR_EVER: nothing."""

    messages_before: str
    lessons_before: str
    inbox_before: str
    now: str


Unit = Callable[[Database, Ages, str, int], tuple[int, str | None]]
"""(database, ages, key, most rows) → how many went, and the key to go on after; None at the end."""


def drop_answers(db: Database, ages: Ages, after: str, limit: int) -> tuple[int, str | None]:
    """Answers with their prompts, their feedback and what it made; oldest first."""
    found = rows(
        db,
        f"""
        SELECT id, created_at, EXISTS (
            SELECT 1 FROM experience WHERE completion_id = completion.id AND consumed_by IS NOT NULL
        ) AS has_taught
        FROM completion WHERE emptied_at IS NULL AND created_at >= ?1 AND created_at < ?2 AND NOT {_NEEDED}
        ORDER BY created_at LIMIT ?3
        """,  # noqa: S608
        after,
        ages.messages_before,
        limit,
        ages.lessons_before,
    )
    for row in found:
        _drop_turns(db, "completion_id = ?", row["id"])
        change(
            db,
            "DELETE FROM outbox WHERE experience_id IN (SELECT id FROM experience WHERE completion_id = ?)",
            row["id"],
        )
        if row["has_taught"]:
            change(db, f"UPDATE completion SET {_TEXT_OF_EMPTIED}, emptied_at = ? WHERE id = ?", ages.now, row["id"])  # noqa: S608
            change(db, "UPDATE feedback_event SET text = '' WHERE completion_id = ?", row["id"])
            continue
        for table in ("experience", "feedback_event", "shown_message"):
            change(db, f"DELETE FROM {table} WHERE completion_id = ?", row["id"])  # noqa: S608
        change(db, "UPDATE completion SET retry_of = NULL WHERE retry_of = ?", row["id"])
        change(db, "DELETE FROM completion WHERE id = ?", row["id"])
    return len(found), found[-1]["created_at"] if len(found) == limit else None


def drop_questions(db: Database, ages: Ages, after: str, limit: int) -> tuple[int, str | None]:
    """People's turns to which no answer stands any more: a prompt never begins with an answer."""
    found = rows(
        db,
        """
        SELECT id, created_at FROM turn
        WHERE role = 'user' AND created_at >= ? AND created_at < ? AND 'user' = coalesce(
            (SELECT later.role FROM turn AS later
             WHERE later.conversation_id = turn.conversation_id AND later.id > turn.id ORDER BY later.id LIMIT 1),
            'user'
        )
        ORDER BY created_at LIMIT ?
        """,
        after,
        ages.messages_before,
        limit,
    )
    for row in found:
        _drop_turns(db, "id = ?", row["id"])
    return len(found), found[-1]["created_at"] if len(found) == limit else None


def drop_conversations(db: Database, ages: Ages, after: str, limit: int) -> tuple[int, str | None]:
    """Those of which nothing is left."""
    n = change(
        db,
        """
        DELETE FROM conversation WHERE id IN (
            SELECT id FROM conversation WHERE started_at < ?
                AND NOT EXISTS (SELECT 1 FROM turn WHERE conversation_id = conversation.id)
                AND NOT EXISTS (SELECT 1 FROM completion WHERE conversation_id = conversation.id)
            LIMIT ?
        )
        """,
        ages.messages_before,
        limit,
    )
    return n, after if n == limit else None


def drop_notices(db: Database, ages: Ages, after: str, limit: int) -> tuple[int, str | None]:
    """What people were told of their lessons: it quotes them."""
    sql = "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE told_at < ? LIMIT ?)"
    n = change(db, sql, ages.messages_before, limit)
    return n, after if n == limit else None


def drop_comparisons(db: Database, ages: Ages, after: str, limit: int) -> tuple[int, str | None]:
    sql = "DELETE FROM comparison WHERE id IN (SELECT id FROM comparison WHERE created_at < ? LIMIT ?)"
    n = change(db, sql, ages.messages_before, limit)
    return n, after if n == limit else None


def drop_updates(db: Database, ages: Ages, after: str, limit: int) -> tuple[int, str | None]:
    """Updates that are long done, also of strangers who never became anybody."""
    sql = "DELETE FROM inbox WHERE id IN (SELECT id FROM inbox WHERE handled_at < ? LIMIT ?)"
    n = change(db, sql, ages.inbox_before, limit)
    return n, after if n == limit else None


def drop_codes(db: Database, ages: Ages, after: str, limit: int) -> tuple[int, str | None]:
    """Codes that are over; those of strangers hold a name."""
    n = change(db, "DELETE FROM pairing WHERE expires_at <= ?", ages.now)
    return n + change(db, "DELETE FROM link_code WHERE expires_at <= ?", ages.now), None


UNITS: dict[str, Unit] = {
    "answers": drop_answers,
    "messages": drop_questions,
    "conversations": drop_conversations,
    "notices": drop_notices,
    "comparisons": drop_comparisons,
    "updates": drop_updates,
    "codes": drop_codes,
}
"""In this order: questions go after the answers to them, conversations when nothing is left."""


def _drop_turns(db: Database, which: str, key: int) -> None:
    """A branch that grew from such a turn begins with itself from now on."""
    change(
        db,
        f"UPDATE conversation SET parent_turn_id = NULL WHERE parent_turn_id IN (SELECT id FROM turn WHERE {which})",  # noqa: S608
        key,
    )
    change(db, f"DELETE FROM turn WHERE {which}", key)  # noqa: S608
