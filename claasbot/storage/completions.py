"""Answers as they were sampled: token ids and logprobs exactly as they came, and the messages they were shown as."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import datetime

from sqlite_utils import Database

from claasbot.domain.completion import Completion, Sampling, SentCompletion
from claasbot.domain.conversation import ChatAddress, Message, Turn
from claasbot.errors import NotFound
from claasbot.storage.conversations import chat_of, turns
from claasbot.storage.rows import Row, change, insert, one, rows, text_of, the


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
        *chat_of(address),
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
        *chat_of(address),
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
