"""Conversations, turns and completions. Token ids and logprobs are kept exactly as they came."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from sqlite_utils import Database

from claasbot.domain.completion import Completion, Sampling, SentCompletion
from claasbot.domain.conversation import ChatAddress, Message, Part, Turn, text_of_parts
from claasbot.errors import NotFound
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
        *_chat_of(address),
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
        *_chat_of(address),
        message_key,
        *_chat_of(address),
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
        *_chat_of(address),
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


def read_by(db: Database, completion_id: int) -> tuple[Turn, ...]:
    """The person's turns that stood before an answer when it was given, whatever became of them since."""
    turn_id = turn_of_completion(db, completion_id)
    turn = the(db, f"turn {turn_id}", "SELECT conversation_id, created_at FROM turn WHERE id = ?", turn_id)
    then = turns(db, turn["conversation_id"], before=turn_id, as_of=turn["created_at"])
    return tuple(
        # What was deleted before the answer was given, the answer has not read.
        replace(one, deleted_at=None) if (one.deleted_at or "") < turn["created_at"] else one
        for one in then
        if one.role == "user"
    )


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


def _chat_of(address: ChatAddress) -> tuple[str, str, str]:
    return address.platform, address.bot_account, address.chat


def end_conversation(db: Database, person_id: int, address: ChatAddress, now: datetime) -> None:
    change(
        db,
        f"UPDATE conversation SET ended_at = ? WHERE person_id = ? AND {_OF_CHAT} AND ended_at IS NULL",  # noqa: S608
        text_of(now),
        person_id,
        *_chat_of(address),
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


def add_completion(db: Database, sent: SentCompletion, inbox_id: int | None, now: datetime) -> SentCompletion:
    """Keep a completion and its turn; a retried answer is replaced in the conversation, and both stay."""
    completion = sent.completion
    completion_id = insert(
        db,
        "completion",
        person_id=sent.person_id,
        conversation_id=sent.conversation_id,
        platform=sent.address.platform,
        bot_account=sent.address.bot_account,
        chat=sent.address.chat,
        text=completion.text,
        messages_json=json.dumps([asdict(message) for message in sent.messages]),
        prompt_ids_json=json.dumps(completion.prompt_ids),
        token_ids_json=json.dumps(completion.token_ids),
        logprobs_json=json.dumps(completion.logprobs),
        finish_reason=completion.finish_reason,
        sampling_json=json.dumps(asdict(sent.sampling)),
        template_options_json=json.dumps(sent.template_options),
        template_hash=sent.template_hash,
        base_revision=sent.base_revision,
        version_id=sent.version_id,
        version_name=sent.version_name,
        retry_of=sent.retry_of,
        first_token_s=completion.first_token_s,
        total_s=completion.total_s,
        created_at=text_of(now),
    )
    if sent.retry_of is not None:
        change(db, "UPDATE turn SET replaced_at = ? WHERE completion_id = ?", text_of(now), sent.retry_of)
    insert(
        db,
        "turn",
        conversation_id=sent.conversation_id,
        role="assistant",
        text=completion.text,
        completion_id=completion_id,
        inbox_id=inbox_id,
        created_at=text_of(now),
    )
    return replace(sent, completion_id=completion_id)


def set_message_keys(db: Database, completion_id: int, message_keys: tuple[str, ...]) -> None:
    """All of an answer's messages name it; marks go on the last, which stands nearest to what people write next."""
    change(db, "UPDATE completion SET message_key = ? WHERE id = ?", message_keys[-1], completion_id)
    for key in message_keys:
        change(
            db,
            "INSERT OR IGNORE INTO shown_message (platform, bot_account, chat, message_key, completion_id)"
            " SELECT platform, bot_account, chat, ?, id FROM completion WHERE id = ?",
            key,
            completion_id,
        )


def completion(db: Database, completion_id: int) -> SentCompletion:
    """Raises NotFound."""
    found = one(db, "SELECT * FROM completion WHERE id = ?", completion_id)
    if found is None:
        raise NotFound(f"There is no answer number {completion_id}; it may have been forgotten.")
    return _sent(found)


def completion_at(db: Database, address: ChatAddress, message_key: str) -> SentCompletion:
    """The completion shown as that message. Raises NotFound."""
    found = one(
        db,
        "SELECT completion.* FROM completion JOIN shown_message ON shown_message.completion_id = completion.id"
        " WHERE shown_message.platform = ? AND shown_message.bot_account = ? AND shown_message.chat = ?"
        " AND shown_message.message_key = ?",
        *_chat_of(address),
        message_key,
    )
    if found is None:
        raise NotFound("That message is not one of my answers, so there is nothing to learn from it.")
    return _sent(found)


def recent_messages(db: Database, platform: str, bot_account: str, limit: int = 100) -> list[tuple[str, str]]:
    """(chat, message key) of the latest answers of a bot account, newest first."""
    found = rows(
        db,
        "SELECT chat, message_key FROM shown_message WHERE platform = ? AND bot_account = ?"
        " ORDER BY completion_id DESC LIMIT ?",
        platform,
        bot_account,
        limit,
    )
    return [(row["chat"], row["message_key"]) for row in found]


def chat_of_message(db: Database, platform: str, bot_account: str, room: str, message_key: str) -> str | None:
    """In which chat of that room an answer was shown as that message; reactions do not name the topic."""
    row = one(
        db,
        "SELECT chat FROM shown_message WHERE platform = ? AND bot_account = ? AND message_key = ?"
        " AND (chat = ? OR chat LIKE ? || '/%')",
        platform,
        bot_account,
        message_key,
        room,
        room,
    )
    return None if row is None else str(row["chat"])


def last_completion(db: Database, person_id: int, address: ChatAddress) -> SentCompletion | None:
    """The latest answer in the conversation that goes on in this chat."""
    found = one(
        db,
        "SELECT completion.* FROM completion JOIN conversation ON conversation.id = completion.conversation_id"
        " WHERE completion.person_id = ? AND completion.platform = ? AND completion.bot_account = ?"
        " AND completion.chat = ? AND conversation.ended_at IS NULL ORDER BY completion.id DESC LIMIT 1",
        person_id,
        *_chat_of(address),
    )
    return None if found is None else _sent(found)


def completion_of_update(db: Database, inbox_id: int) -> SentCompletion | None:
    """The answer that this update already got, before a crash."""
    found = one(
        db,
        "SELECT completion.* FROM completion JOIN turn ON turn.completion_id = completion.id"
        " WHERE turn.inbox_id = ? ORDER BY completion.id DESC LIMIT 1",
        inbox_id,
    )
    return None if found is None else _sent(found)


def n_answers_since(db: Database, person_id: int, since: datetime) -> int:
    """A comparison is two answers."""
    sql = (
        "SELECT (SELECT count(*) FROM completion WHERE person_id = ? AND created_at >= ?)"
        " + 2 * (SELECT count(*) FROM comparison WHERE person_id = ? AND created_at >= ?) AS n"
    )
    return int(the(db, "count", sql, person_id, text_of(since), person_id, text_of(since))["n"])


def turn_of_completion(db: Database, completion_id: int) -> int:
    found = one(db, "SELECT id FROM turn WHERE completion_id = ?", completion_id)
    if found is None:
        raise NotFound(f"There is no turn of answer number {completion_id}.")
    return int(found["id"])


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
        *_chat_of(address),
        limit,
    )
    return found[::-1]


def _sent(row: Row) -> SentCompletion:
    return SentCompletion(
        completion_id=row["id"],
        person_id=row["person_id"],
        conversation_id=row["conversation_id"],
        address=ChatAddress(platform=row["platform"], bot_account=row["bot_account"], chat=row["chat"]),
        message_key=row["message_key"],
        messages=tuple(Message(**message) for message in json.loads(row["messages_json"])),
        completion=Completion(
            text=row["text"],
            prompt_ids=tuple(json.loads(row["prompt_ids_json"])),
            token_ids=tuple(json.loads(row["token_ids_json"])),
            logprobs=tuple(json.loads(row["logprobs_json"])),
            finish_reason=row["finish_reason"],
            model=row["version_name"],
            first_token_s=row["first_token_s"],
            total_s=row["total_s"],
        ),
        sampling=Sampling(**json.loads(row["sampling_json"])),
        template_options=json.loads(row["template_options_json"]),
        template_hash=row["template_hash"],
        base_revision=row["base_revision"],
        version_id=row["version_id"],
        version_name=row["version_name"],
        retry_of=row["retry_of"],
    )
