"""What a person and the bot said, as it is handed out to that person: their own turns and the answers to them."""

from __future__ import annotations

from sqlite_utils import Database

from claasbot.storage.rows import Row, rows


def turns_page(
    db: Database, person_id: int, after: tuple[int, int], limit: int
) -> tuple[list[Row], tuple[int, int] | None]:
    """Turns by conversation, oldest first, and the key to go on after; None after the last."""
    found = rows(
        db,
        """
        SELECT conversation.id AS conversation_id, conversation.platform, conversation.chat, conversation.started_at,
            turn.id, turn.role, turn.text, turn.created_at, turn.replaced_at, turn.deleted_at, completion.version_name,
            (SELECT group_concat(
                CASE kind WHEN 'text' THEN '' ELSE replace(kind, '_', ' ') || iif(text = '', '', ': ') END || text, '; '
             ) FROM feedback_event WHERE completion_id = turn.completion_id AND person_id = conversation.person_id
                AND withdrawn_at IS NULL) AS feedback
        FROM turn JOIN conversation ON conversation.id = turn.conversation_id
        LEFT JOIN completion ON completion.id = turn.completion_id
        WHERE conversation.person_id = ? AND (conversation.id, turn.id) > (?, ?)
        ORDER BY conversation.id, turn.id LIMIT ?
        """,
        person_id,
        *after,
        limit,
    )
    last = (found[-1]["conversation_id"], found[-1]["id"]) if len(found) == limit else None
    return found, last
