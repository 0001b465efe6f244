"""Updates as they came in: committed first, handled once, in order per chat."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlite_utils import Database

from claasbot.domain.conversation import (
    Attachment,
    ChatAddress,
    ChatEvent,
    Commanded,
    Deleted,
    Edited,
    Left,
    Moved,
    Pressed,
    Reacted,
    Said,
    Stopped,
)
from claasbot.storage.rows import Row, change, insert, one, rows, text_of, time_of

_KINDS: dict[str, type[ChatEvent]] = {
    kind.__name__: kind for kind in (Said, Reacted, Pressed, Commanded, Edited, Deleted, Stopped, Moved, Left)
}

_REPEATED_FOR = timedelta(days=2)
"""Longer than any platform repeats an update."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    inbox_id: int
    event: ChatEvent
    attempts: int
    is_begun: bool = False
    """Met before: a turn may hold it already, alone."""
    is_late: bool = False
    """It was about an answer that was still being written, and waits for its end."""


def add(db: Database, event: ChatEvent, now: datetime) -> int | None:
    """The new row's id; None when this update is here already, or was when its person was forgotten."""
    address = event.address
    known = one(
        db,
        "SELECT id FROM inbox WHERE platform = ? AND bot_account = ? AND update_key IN (?, ?)",
        address.platform,
        address.bot_account,
        event.update_key,
        _digest(event.update_key),
    )
    if known is not None:
        return None
    return insert(
        db,
        "inbox",
        platform=address.platform,
        bot_account=address.bot_account,
        chat=address.chat,
        account=event.account,
        update_key=event.update_key,
        event_json=_to_json(event),
        received_at=text_of(now),
    )


def forget(db: Database, person_id: int, now: datetime) -> None:
    """Leave of somebody's updates only that they were here: one that the platform repeats must not bring them back."""
    found = rows(
        db,
        "SELECT platform, bot_account, update_key FROM inbox JOIN account USING (platform, account)"
        " WHERE person_id = ? AND received_at >= ?",
        person_id,
        text_of(now - _REPEATED_FOR),
    )
    for row in found:
        insert(
            db,
            "inbox",
            **{**row, "update_key": _digest(row["update_key"])},
            chat="",
            account="",
            event_json="",
            received_at=text_of(now),
            handled_at=text_of(now),
        )


def _digest(update_key: str) -> str:
    """A key may hold an account."""
    return f"forgotten:{hashlib.sha256(update_key.encode()).hexdigest()}"


def waiting(db: Database, now: datetime, limit: int = 500) -> list[Update]:
    """Unhandled updates, oldest first. What cannot be read any more is closed with its error, not met again."""
    updates = []
    for row in rows(
        db, "SELECT id, event_json, attempts, began_at FROM inbox WHERE handled_at IS NULL ORDER BY id LIMIT ?", limit
    ):
        try:
            event = _from_json(row["event_json"])
        except (KeyError, TypeError, ValueError) as error:
            handled(db, row["id"], now, f"not readable: {type(error).__name__}")
            continue
        updates.append(_update(row, event))
    return updates


def _update(row: Row, event: ChatEvent) -> Update:
    is_begun = row["began_at"] is not None or row["attempts"] > 0
    return Update(inbox_id=row["id"], event=event, attempts=row["attempts"], is_begun=is_begun)


def is_open(db: Database, inbox_id: int) -> bool:
    return one(db, "SELECT 1 FROM inbox WHERE id = ? AND handled_at IS NULL", inbox_id) is not None


def handled(db: Database, inbox_id: int, now: datetime, error: str = "") -> None:
    """Done, or given up with an error. The text of the update goes with it: turns hold what is needed."""
    change(
        db,
        "UPDATE inbox SET handled_at = ?, error = ?, event_json = '' WHERE id = ? AND handled_at IS NULL",
        text_of(now),
        error[:500],
        inbox_id,
    )


def begin(db: Database, inbox_id: int, now: datetime) -> bool:
    """Before something that must not be done twice; False when it was begun before a crash."""
    return change(db, "UPDATE inbox SET began_at = ? WHERE id = ? AND began_at IS NULL", text_of(now), inbox_id) > 0


def failed(db: Database, inbox_id: int, error: str) -> int:
    """Count a failed attempt; returns how many there were."""
    change(db, "UPDATE inbox SET attempts = attempts + 1, error = ? WHERE id = ?", error[:500], inbox_id)
    row = one(db, "SELECT attempts FROM inbox WHERE id = ?", inbox_id)
    return int(row["attempts"]) if row else 0


def n_waiting(db: Database) -> int:
    row = one(db, "SELECT count(*) AS n FROM inbox WHERE handled_at IS NULL")
    return int(row["n"]) if row else 0


def _to_json(event: ChatEvent) -> str:
    facts = asdict(event)
    facts["at"] = None if event.at is None else text_of(event.at)
    text = json.dumps({"kind": type(event).__name__, **facts}, ensure_ascii=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # half a character fits no UTF-8


def _from_json(text: str) -> ChatEvent:
    facts = json.loads(text)
    kind = _KINDS[facts.pop("kind")]
    facts["address"] = ChatAddress(**facts["address"])
    facts["roles"] = tuple(facts.get("roles", ()))  # rows that waited while claasbot was renewed have none
    if "attachments" in facts:
        facts["attachments"] = tuple(Attachment(**one) for one in facts["attachments"])
    facts["at"] = None if facts["at"] is None else time_of(facts["at"])
    return kind(**facts)
