"""What people are still to be told about their feedback."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlite_utils import Database

from claasbot.domain.completion import SentCompletion
from claasbot.domain.conversation import ChatAddress
from claasbot.ports import Mark
from claasbot.storage.lessons import StoredExperience
from claasbot.storage.rows import Row, change, insert, one, rows, text_of, the

NoticeKind = Mark | Literal["cleared"]
"""`cleared`: the mark is taken off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    notice_id: int
    person_id: int
    address: ChatAddress
    kind: NoticeKind
    message_key: str | None
    data: dict[str, object]
    attempts: int
    is_marked: bool
    """Its mark is set, and its words wait for the end of the quiet hours."""
    is_standing: bool
    """What it says is still so: of something learned, that it was not undone since."""
    is_answering: bool
    """Of something learned: that version answers the person now."""


def add(db: Database, experience: StoredExperience, kind: NoticeKind, data: dict[str, object], now: datetime) -> int:
    return insert(
        db,
        "outbox",
        person_id=experience.person_id,
        platform=experience.address.platform,
        bot_account=experience.address.bot_account,
        chat=experience.address.chat,
        kind=kind,
        message_key=experience.mark_key,
        experience_id=experience.experience_id,
        data_json=json.dumps(data),
        created_at=text_of(now),
    )


def clear(db: Database, sent: SentCompletion, message_key: str | None, now: datetime) -> None:
    """Take the mark off that message, if it ever got one."""
    _clear(db, sent.person_id, sent.address, message_key, now)


def clear_dropped(db: Database, experience: StoredExperience, now: datetime) -> None:
    """Nothing will come of this experience any more: what its message was marked with is taken off."""
    _clear(db, experience.person_id, experience.address, experience.mark_key, now)


def _clear(db: Database, person_id: int, address: ChatAddress, message_key: str | None, now: datetime) -> None:
    where = (address.platform, address.bot_account, address.chat, message_key)
    marked = one(
        db,
        "SELECT kind FROM outbox WHERE platform = ? AND bot_account = ? AND chat = ? AND message_key = ?"
        " ORDER BY id DESC LIMIT 1",
        *where,
    )
    if marked is not None and marked["kind"] != "cleared":
        insert(
            db,
            "outbox",
            person_id=person_id,
            platform=address.platform,
            bot_account=address.bot_account,
            chat=address.chat,
            kind="cleared",
            message_key=message_key,
            created_at=text_of(now),
        )


_DUE = "told_at IS NULL AND (not_before IS NULL OR not_before <= ?)"


def waiting_chats(db: Database, now: datetime) -> list[ChatAddress]:
    """Where something is to be told, longest waiting first."""
    found = rows(
        db,
        f"SELECT platform, bot_account, chat FROM outbox WHERE {_DUE}"  # noqa: S608
        " GROUP BY platform, bot_account, chat ORDER BY min(id)",
        text_of(now),
    )
    return [ChatAddress(**row) for row in found]


def waiting(db: Database, address: ChatAddress, now: datetime, limit: int = 50) -> list[Notice]:
    """What is to be told in one chat, in order."""
    found = rows(
        db,
        f"""
        SELECT outbox.*, experience.state AS became, adapter_version.state AS version_state FROM outbox
        LEFT JOIN experience ON experience.id = outbox.experience_id
        LEFT JOIN adapter_version ON adapter_version.id = experience.consumed_by
        WHERE {_DUE} AND platform = ? AND bot_account = ? AND chat = ? ORDER BY outbox.id LIMIT ?
        """,  # noqa: S608
        text_of(now),
        address.platform,
        address.bot_account,
        address.chat,
        limit,
    )
    return [_notice(row) for row in found]


def _notice(row: Row) -> Notice:
    is_learned = row["kind"] == "learned"
    return Notice(
        notice_id=row["id"],
        person_id=row["person_id"],
        address=ChatAddress(platform=row["platform"], bot_account=row["bot_account"], chat=row["chat"]),
        kind=row["kind"],
        message_key=row["message_key"],
        data=json.loads(row["data_json"]),
        attempts=row["attempts"],
        is_marked=bool(row["is_marked"]),
        is_standing=not is_learned or row["became"] == "consumed",
        is_answering=is_learned and row["version_state"] == "promoted",
    )


def told(db: Database, notice_id: int, now: datetime) -> None:
    """Done; what the notice quoted of the person goes."""
    change(db, "UPDATE outbox SET told_at = ?, data_json = '{}' WHERE id = ?", text_of(now), notice_id)


def postpone(db: Database, notice_id: int, until: datetime) -> None:
    """Its mark is set; its words wait."""
    change(db, "UPDATE outbox SET not_before = ?, is_marked = 1 WHERE id = ?", text_of(until), notice_id)


def failed(db: Database, notice_id: int, again_at: datetime) -> None:
    change(db, "UPDATE outbox SET attempts = attempts + 1, not_before = ? WHERE id = ?", text_of(again_at), notice_id)


def n_waiting(db: Database) -> int:
    """Without those that wait for the end of the quiet hours."""
    return int(the(db, "count", "SELECT count(*) AS n FROM outbox WHERE told_at IS NULL AND NOT is_marked")["n"])
