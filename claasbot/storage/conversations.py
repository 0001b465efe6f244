"""Conversations and their turns: what stands, what was replaced or deleted, and where a branch began."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from sqlite_utils import Database

from claasbot.domain.conversation import ChatAddress, Part, Turn, text_of_parts
from claasbot.storage.rows import Row, change, insert, one, rows, text_of, the

_OF_CHAT = "platform = ? AND bot_account = ? AND chat = ?"
_END_OF_TIME = "9999"
"""Later than every instant, as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTurn:
    """What a person said, as one or several messages."""

    parts: tuple[Part, ...]
    inbox_id: int | None
    message_key: str | None
    is_interaction: bool = False
    is_forwarded: bool = False

    @property
    def text(self) -> str:
        return text_of_parts(self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTurn:
    turn_id: int
    conversation_id: int
    person_id: int
    new: NewTurn
    is_replaced: bool = False

    @property
    def keys(self) -> frozenset[str]:
        """Every message that it was written as."""
        return frozenset({self.new.message_key or "", *(part.key for part in self.new.parts)} - {""})

    def edited(self, parts: tuple[Part, ...], inbox_id: int) -> NewTurn:
        """The same turn as it reads after an edit."""
        return replace(self.new, parts=parts, inbox_id=inbox_id)


def open_conversation(
    db: Database, person_id: int, address: ChatAddress, now: datetime, *, idle_since: datetime | None = None
) -> int:
    """The conversation that goes on in this chat; a new one if there is none, or if it was idle since then."""
    row = one(
        db,
        f"""
        SELECT conversation.id, coalesce(max(turn.created_at), started_at) AS last FROM conversation
        LEFT JOIN turn ON turn.conversation_id = conversation.id
        WHERE person_id = ? AND {_OF_CHAT} AND ended_at IS NULL
        GROUP BY conversation.id ORDER BY conversation.id DESC
        """,  # noqa: S608
        person_id,
        *chat_of(address),
    )
    if row is not None and (idle_since is None or row["last"] >= text_of(idle_since)):
        return int(row["id"])
    end_conversation(db, person_id, address, now)
    return _start(db, person_id, address, None, now)


def branch(db: Database, person_id: int, address: ChatAddress, message_key: str, now: datetime) -> int | None:
    """The conversation that a reply to this message goes on in; None when it is no message of that person's talk.

    A reply to the last message goes on; a reply to an older one begins a branch that reads up to there.
    """
    turn = turn_at(db, person_id, address, message_key)
    if turn is None:
        return None
    last = one(
        db,
        "SELECT turn.id, conversation.ended_at FROM turn JOIN conversation ON conversation.id = turn.conversation_id"
        " WHERE conversation_id = ? AND replaced_at IS NULL ORDER BY turn.id DESC LIMIT 1",
        turn["conversation_id"],
    )
    if last is not None and last["id"] == turn["id"] and last["ended_at"] is None:
        return int(turn["conversation_id"])
    end_conversation(db, person_id, address, now)
    return _start(db, person_id, address, turn["id"], now)


def turn_at(db: Database, person_id: int, address: ChatAddress, message_key: str) -> Row | None:
    """The person's turn, or the answer to them, that was shown as that message."""
    return one(
        db,
        f"""
        SELECT turn.* FROM turn JOIN conversation ON conversation.id = turn.conversation_id
        WHERE conversation.person_id = ? AND conversation.{_OF_CHAT.replace(" AND ", " AND conversation.")}
            AND (turn.message_key = ? OR turn.completion_id IN
                (SELECT completion_id FROM shown_message WHERE {_OF_CHAT} AND message_key = ?))
        ORDER BY turn.id DESC
        """,  # noqa: S608
        person_id,
        *chat_of(address),
        message_key,
        *chat_of(address),
        message_key,
    )


def user_turns_at(
    db: Database, address: ChatAddress, message_key: str, *, with_replaced: bool = False
) -> list[StoredTurn]:
    """Turns of which somebody wrote a part as that message: those that stand, or all that ever were."""
    standing = "" if with_replaced else "AND turn.replaced_at IS NULL"
    found = rows(
        db,
        f"""
        SELECT turn.*, conversation.person_id FROM turn JOIN conversation ON conversation.id = turn.conversation_id
        WHERE conversation.{_OF_CHAT.replace(" AND ", " AND conversation.")}
            AND turn.role = 'user' {standing} AND (turn.message_key = ? OR EXISTS
                (SELECT 1 FROM json_each(turn.parts_json) WHERE json_extract(json_each.value, '$.key') = ?))
        """,  # noqa: S608
        *chat_of(address),
        message_key,
        message_key,
    )
    return [_stored_turn(row) for row in found]


def completions_reading(db: Database, turn: StoredTurn) -> set[int]:
    """Every answer that had this turn in its prompt, in branches too."""
    found: set[int] = set()
    waiting = [(turn.conversation_id, turn.turn_id)]
    while waiting:
        conversation_id, since = waiting.pop()
        for row in rows(db, "SELECT * FROM turn WHERE conversation_id = ? AND id >= ?", conversation_id, since):
            if row["completion_id"] is not None:
                found.add(int(row["completion_id"]))
            for child in rows(db, "SELECT id FROM conversation WHERE parent_turn_id = ?", row["id"]):
                waiting.append((child["id"], 0))
    return found


def _start(db: Database, person_id: int, address: ChatAddress, parent_turn_id: int | None, now: datetime) -> int:
    return insert(
        db,
        "conversation",
        person_id=person_id,
        platform=address.platform,
        bot_account=address.bot_account,
        chat=address.chat,
        parent_turn_id=parent_turn_id,
        started_at=text_of(now),
    )


def shorten(db: Database, conversation_id: int) -> bool:
    """Note that the oldest part is not read any more; True the first time."""
    return change(db, "UPDATE conversation SET is_shortened = 1 WHERE id = ? AND is_shortened = 0", conversation_id) > 0


def chat_of(address: ChatAddress) -> tuple[str, str, str]:
    return address.platform, address.bot_account, address.chat


def end_conversation(db: Database, person_id: int, address: ChatAddress, now: datetime) -> None:
    change(
        db,
        f"UPDATE conversation SET ended_at = ? WHERE person_id = ? AND {_OF_CHAT} AND ended_at IS NULL",  # noqa: S608
        text_of(now),
        person_id,
        *chat_of(address),
    )


def user_turn_of_update(db: Database, inbox_id: int) -> Row | None:
    """What an update became, when it was met before a crash."""
    return one(db, "SELECT * FROM turn WHERE inbox_id = ? AND role = 'user'", inbox_id)


def add_user_turn(db: Database, conversation_id: int, new: NewTurn, now: datetime) -> int:
    return insert(
        db,
        "turn",
        conversation_id=conversation_id,
        role="user",
        text=new.text,
        parts_json=json.dumps([asdict(part) for part in new.parts]),
        inbox_id=new.inbox_id,
        message_key=new.message_key,
        is_interaction=int(new.is_interaction),
        is_forwarded=int(new.is_forwarded),
        created_at=text_of(now),
    )


def note_deletion(db: Database, turn_id: int, now: datetime) -> None:
    """The person deleted the turn or a part of it: answers that had read it teach nothing."""
    change(db, "UPDATE turn SET deleted_at = ? WHERE id = ?", text_of(now), turn_id)


def rewrite_turn(db: Database, turn_id: int, parts: tuple[Part, ...]) -> None:
    """What is left of a turn when the person deleted a part of it."""
    change(
        db,
        "UPDATE turn SET text = ?, parts_json = ? WHERE id = ?",
        text_of_parts(parts),
        json.dumps([asdict(part) for part in parts]),
        turn_id,
    )


def replace_turn(db: Database, turn_id: int, now: datetime) -> None:
    """Leave a turn out of the conversation; its row and its completion stay."""
    change(db, "UPDATE turn SET replaced_at = ? WHERE id = ? AND replaced_at IS NULL", text_of(now), turn_id)


def turns_after(db: Database, turn_id: int) -> list[Row]:
    """Standing turns of the same conversation that came later, oldest first."""
    return rows(
        db,
        "SELECT later.* FROM turn AS later JOIN turn ON turn.conversation_id = later.conversation_id"
        " WHERE turn.id = ? AND later.id > turn.id AND later.replaced_at IS NULL ORDER BY later.id",
        turn_id,
    )


def drop_user_turn(db: Database, inbox_id: int, now: datetime) -> None:
    """Leave a message that was refused out of the conversation."""
    change(db, "UPDATE turn SET replaced_at = ? WHERE inbox_id = ? AND role = 'user'", text_of(now), inbox_id)


def turns(
    db: Database, conversation_id: int, *, before: int | None = None, as_of: str = _END_OF_TIME
) -> tuple[Turn, ...]:
    """Turns that stand, or stood at a time, oldest first, from the root of the branch.

    `before`: a turn id, exclusive.
    """
    until = before if before is not None else 1 << 62
    found: list[Row] = []
    branched_at: int | None = None
    while True:
        found[:0] = rows(
            db,
            "SELECT * FROM turn WHERE conversation_id = ? AND id < ?"
            " AND (replaced_at IS NULL OR replaced_at > ? OR (id = ? AND deleted_at IS NULL)) ORDER BY id",
            conversation_id,
            until,
            as_of,
            branched_at,
        )
        branched_at = _parent_turn(db, conversation_id)
        if branched_at is None:
            return tuple(_turn(row) for row in found)
        parent = the(db, f"turn {branched_at}", "SELECT conversation_id FROM turn WHERE id = ?", branched_at)
        conversation_id, until = parent["conversation_id"], branched_at + 1


def _parent_turn(db: Database, conversation_id: int) -> int | None:
    sql = "SELECT parent_turn_id FROM conversation WHERE id = ?"
    found: int | None = the(db, f"conversation {conversation_id}", sql, conversation_id)["parent_turn_id"]
    return found


def _stored_turn(row: Row) -> StoredTurn:
    parts = tuple(Part(**part) for part in json.loads(row["parts_json"]))
    return StoredTurn(
        turn_id=row["id"],
        conversation_id=row["conversation_id"],
        person_id=row["person_id"],
        is_replaced=row["replaced_at"] is not None,
        new=NewTurn(
            parts=parts or (Part(text=row["text"], key=row["message_key"] or ""),),
            inbox_id=row["inbox_id"],
            message_key=row["message_key"],
            is_interaction=bool(row["is_interaction"]),
            is_forwarded=bool(row["is_forwarded"]),
        ),
    )


def _turn(row: Row) -> Turn:
    return Turn(
        turn_id=row["id"],
        role=row["role"],
        text=row["text"],
        is_interaction=bool(row["is_interaction"]),
        is_forwarded=bool(row["is_forwarded"]),
        deleted_at=row["deleted_at"],
    )


def transcript(db: Database, person_id: int, address: ChatAddress, limit: int = 100) -> list[Row]:
    """The latest turns of the conversation that goes on, oldest first, with their answers' facts."""
    found = rows(
        db,
        f"""
        SELECT turn.id, turn.role, turn.text, turn.created_at, turn.completion_id,
            completion.version_name, completion.finish_reason, completion.message_key,
            (SELECT group_concat(kind) FROM feedback_event
             WHERE completion_id = turn.completion_id AND withdrawn_at IS NULL) AS feedback
        FROM turn JOIN conversation ON conversation.id = turn.conversation_id
        LEFT JOIN completion ON completion.id = turn.completion_id
        WHERE conversation.person_id = ? AND conversation.{_OF_CHAT.replace(" AND ", " AND conversation.")}
            AND conversation.ended_at IS NULL AND turn.replaced_at IS NULL
        ORDER BY turn.id DESC LIMIT ?
        """,  # noqa: S608
        person_id,
        *chat_of(address),
        limit,
    )
    return found[::-1]
