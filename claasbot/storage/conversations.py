"""Conversations, turns and completions. Token ids and logprobs are kept exactly as they came."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import datetime

from sqlite_utils import Database

from claasbot.domain.completion import Completion, Sampling, SentCompletion
from claasbot.domain.conversation import ChatAddress, Message, Turn
from claasbot.errors import NotFound
from claasbot.storage.rows import Row, change, insert, one, rows, text_of

_OF_CHAT = "platform = ? AND bot_account = ? AND chat = ?"


def open_conversation(db: Database, person_id: int, address: ChatAddress, now: datetime) -> int:
    """The conversation that goes on in this chat; a new one if there is none."""
    where = (address.platform, address.bot_account, address.chat)
    row = one(
        db,
        f"SELECT id FROM conversation WHERE person_id = ? AND {_OF_CHAT} AND ended_at IS NULL ORDER BY id DESC",  # noqa: S608
        person_id,
        *where,
    )
    if row is not None:
        return int(row["id"])
    return insert(
        db,
        "conversation",
        person_id=person_id,
        platform=address.platform,
        bot_account=address.bot_account,
        chat=address.chat,
        started_at=text_of(now),
    )


def end_conversation(db: Database, person_id: int, address: ChatAddress, now: datetime) -> None:
    change(
        db,
        f"UPDATE conversation SET ended_at = ? WHERE person_id = ? AND {_OF_CHAT} AND ended_at IS NULL",  # noqa: S608
        text_of(now),
        person_id,
        address.platform,
        address.bot_account,
        address.chat,
    )


def add_user_turn(db: Database, conversation_id: int, text: str, inbox_id: int | None, now: datetime) -> int:
    """The same update twice is one turn."""
    if inbox_id is not None:
        row = one(db, "SELECT id FROM turn WHERE inbox_id = ? AND role = 'user'", inbox_id)
        if row is not None:
            return int(row["id"])
    return insert(
        db,
        "turn",
        conversation_id=conversation_id,
        role="user",
        text=text,
        inbox_id=inbox_id,
        created_at=text_of(now),
    )


def drop_user_turn(db: Database, inbox_id: int, now: datetime) -> None:
    """Leave a message that was refused out of the conversation."""
    change(db, "UPDATE turn SET replaced_at = ? WHERE inbox_id = ? AND role = 'user'", text_of(now), inbox_id)


def turns(db: Database, conversation_id: int, *, before: int | None = None) -> tuple[Turn, ...]:
    """Turns that still stand, oldest first; `before` a turn id, exclusive."""
    found = rows(
        db,
        "SELECT id, role, text FROM turn WHERE conversation_id = ? AND replaced_at IS NULL AND id < ? ORDER BY id",
        conversation_id,
        before if before is not None else 1 << 62,
    )
    return tuple(Turn(turn_id=row["id"], role=row["role"], text=row["text"]) for row in found)


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
        address.platform,
        address.bot_account,
        address.chat,
        message_key,
    )
    if found is None:
        raise NotFound("That message is not one of my answers, so there is nothing to learn from it.")
    return _sent(found)


def last_completion(db: Database, person_id: int, address: ChatAddress) -> SentCompletion | None:
    """The latest answer in the conversation that goes on in this chat."""
    found = one(
        db,
        "SELECT completion.* FROM completion JOIN conversation ON conversation.id = completion.conversation_id"
        " WHERE completion.person_id = ? AND completion.platform = ? AND completion.bot_account = ?"
        " AND completion.chat = ? AND conversation.ended_at IS NULL ORDER BY completion.id DESC LIMIT 1",
        person_id,
        address.platform,
        address.bot_account,
        address.chat,
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
        address.platform,
        address.bot_account,
        address.chat,
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
