"""Rooms that the bot talks in, and what was set there. A room without a row has the defaults."""

from __future__ import annotations

from datetime import datetime

from sqlite_utils import Database

from claasbot.domain.conversation import ChatAddress
from claasbot.domain.room import Room
from claasbot.storage.rows import change, one, rows, text_of

_OF_ROOM = "platform = ? AND bot_account = ? AND chat = ?"

_WITH_CHATS = ("consent", "conversation", "completion", "shown_message", "inbox", "outbox", "chat", "pairing")
"""Every table that names a chat."""


def room(db: Database, address: ChatAddress) -> Room:
    row = one(db, f"SELECT * FROM chat WHERE {_OF_ROOM}", *_of(address))  # noqa: S608
    if row is None:
        return Room()
    return Room(
        is_group=bool(row["is_group"]),
        persona=row["persona"],
        is_streaming=bool(row["is_streaming"]),
        has_notices=None if row["has_notices"] is None else bool(row["has_notices"]),
        learns_from=row["learns_from"],
        is_gone=row["gone_at"] is not None,
    )


def visited(db: Database, address: ChatAddress, *, is_group: bool) -> None:
    """Somebody spoke there: the room exists, and if it was gone it is back."""
    change(
        db,
        "INSERT INTO chat (platform, bot_account, chat, is_group) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET is_group = excluded.is_group, gone_at = NULL"
        " WHERE is_group != excluded.is_group OR gone_at IS NOT NULL",
        *_of(address),
        int(is_group),
    )


def keep(db: Database, address: ChatAddress, now_set: Room) -> None:
    change(
        db,
        "INSERT INTO chat (platform, bot_account, chat, is_group, persona, is_streaming, has_notices, learns_from)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET persona = excluded.persona,"
        " is_streaming = excluded.is_streaming, has_notices = excluded.has_notices, learns_from = excluded.learns_from",
        *_of(address),
        int(now_set.is_group),
        now_set.persona,
        int(now_set.is_streaming),
        None if now_set.has_notices is None else int(now_set.has_notices),
        now_set.learns_from,
    )


def gone(db: Database, address: ChatAddress, now: datetime) -> None:
    """Nothing can be said there any more: what was to be told there is dropped."""
    visited(db, address, is_group=room(db, address).is_group)
    change(db, f"UPDATE chat SET gone_at = ? WHERE {_OF_ROOM}", text_of(now), *_of(address))  # noqa: S608
    change(
        db,
        "UPDATE outbox SET told_at = ?, data_json = '{}' WHERE told_at IS NULL"
        " AND platform = ? AND bot_account = ? AND (chat = ? OR chat LIKE ? || '/%')",
        text_of(now),
        *_of(address),
        address.room.chat,
    )


def moved(db: Database, address: ChatAddress, to_chat: str) -> int:
    """The chat and its topics go on under another name; returns how many rows followed."""
    change(
        db,
        f"DELETE FROM chat WHERE {_OF_ROOM}",  # noqa: S608
        address.platform,
        address.bot_account,
        to_chat,
    )
    return sum(
        change(
            db,
            f"UPDATE OR IGNORE {table} SET chat = ? || substr(chat, length(?) + 1)"  # noqa: S608
            " WHERE platform = ? AND bot_account = ? AND (chat = ? OR chat LIKE ? || '/%')",
            to_chat,
            address.room.chat,
            *_of(address),
            address.room.chat,
        )
        for table in _WITH_CHATS
    )


def overview(db: Database) -> list[tuple[ChatAddress, Room]]:
    found = rows(db, "SELECT platform, bot_account, chat FROM chat ORDER BY id DESC LIMIT 500")
    addresses = [ChatAddress(**row) for row in found]
    return [(address, room(db, address)) for address in addresses]


def _of(address: ChatAddress) -> tuple[str, str, str]:
    return address.platform, address.bot_account, address.room.chat
