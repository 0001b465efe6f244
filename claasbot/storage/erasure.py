"""Everything that belongs to one person: to be handed out, and to be deleted."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlite_utils import Database

from claasbot.storage import audit, inbox, people, versions
from claasbot.storage.rows import Row, change, insert, one, rows, text_of, the

_THEIR_ROOM = """is_group = 0 AND id IN (
    SELECT room.id FROM chat AS room JOIN (
        SELECT platform, bot_account, chat FROM consent WHERE person_id = ?1
        UNION SELECT platform, bot_account, chat FROM conversation WHERE person_id = ?1
        UNION SELECT platform, bot_account, chat FROM inbox JOIN account USING (platform, account) WHERE person_id = ?1
    ) AS there USING (platform, bot_account)
    WHERE there.chat = room.chat OR there.chat LIKE room.chat || '/%'
)
AND id NOT IN (
    SELECT room.id FROM chat AS room JOIN conversation USING (platform, bot_account)
    WHERE person_id != ?1 AND (conversation.chat = room.chat OR conversation.chat LIKE room.chat || '/%')
)"""
"""Private chats in which nobody else has talked: their persona is this person's own words."""

_OWNED = {
    "chat": _THEIR_ROOM,
    "shown_message": "completion_id IN (SELECT id FROM completion WHERE person_id = ?)",
    "pairing": "(platform, account) IN (SELECT platform, account FROM account WHERE person_id = ?)",
    "inbox": "(platform, account) IN (SELECT platform, account FROM account WHERE person_id = ?)",
    "turn": "conversation_id IN (SELECT id FROM conversation WHERE person_id = ?)",
    "replay": "job_id IN (SELECT id FROM job WHERE person_id = ?)",
    "revoked_experience": "revocation_id IN (SELECT id FROM revocation WHERE person_id = ?)",
    **dict.fromkeys(
        (
            *("error", "outbox", "experience", "feedback_event", "completion", "adapter_version"),
            *("revocation", "job", "conversation", "consent", "link_code", "comparison", "account"),
        ),
        "person_id = ?",
    ),
    "person": "id = ?",
}
"""Every table with rows of people, and which rows are one person's; in the order in which they can be deleted."""

NOBODYS = {
    "admin": "who runs the bot: an owner removes them, by name",
    "recovery_code": "of an admin's second factor, as a hash",
    "admin_session": "of an admin, by the hash of a token",
    "sign_in_token": "the same",
    "api_key": "a program's, by the hash of the key",
    "switch": "of the whole bot",
    "erasure": "says that somebody was forgotten; its receipt outlives them, their number does not",
    "audit": "what admins did, with the name taken out of it by `finish`",
}
"""Tables of which an erasure leaves the rows, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What must go besides the rows. Kept until it is done, so that a crash resumes it."""

    erasure_id: int
    receipt: str
    """What the person may quote later. Nothing in it leads back to them."""
    person_id: int
    person_made_at: str
    folder: str
    server_names: list[str]
    job_ids: list[str]
    restart_witness: str | None
    """A name that was left loaded in a server that cannot forget: once it is gone, the server was restarted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """Somebody who was forgotten, as a restored database would know them: by number and first contact alone."""

    person_id: int
    made_at: str


def ask(db: Database, person_id: int, folder: str, now: datetime, *, joined_into: int | None = None) -> Erasure:
    """Block the person and write down what will go. `joined_into`: who they are from now on; they are not forgotten."""
    people.block(db, person_id)
    there = the(db, f"person p{person_id}", "SELECT created_at FROM person WHERE id = ?", person_id)
    change(db, "UPDATE erasure SET joined_into = ? WHERE joined_into = ?", joined_into or person_id, person_id)
    erasure_id = insert(
        db,
        "erasure",
        person_id=person_id,
        person_made_at=there["created_at"],
        joined_into=joined_into,
        receipt=secrets.token_hex(4),
        state="asked",
        folders_json=json.dumps([folder]),
        asked_at=text_of(now),
    )
    return _collected(db, the(db, "erasure", "SELECT * FROM erasure WHERE id = ?", erasure_id))


def unfinished(db: Database) -> list[int]:
    return [row["id"] for row in rows(db, "SELECT id FROM erasure WHERE state = 'asked' ORDER BY id")]


def collect(db: Database, erasure_id: int) -> Erasure | None:
    """All that was written down, and what a job that was running has made since; None when it is done already."""
    row = one(db, "SELECT * FROM erasure WHERE id = ? AND state = 'asked'", erasure_id)
    return None if row is None else _collected(db, row)


def leave_witness(db: Database, erasure_id: int, server_name: str) -> None:
    change(db, "UPDATE erasure SET restart_witness = ? WHERE id = ?", server_name, erasure_id)


def tombstones(db: Database, erasure_id: int) -> list[Tombstone]:
    """The person, and everybody who was joined into them: a backup may hold each. Empty where nobody is forgotten."""
    found = rows(
        db,
        """
        SELECT person_id, person_made_at AS made_at FROM erasure WHERE id = ?1 AND joined_into IS NULL AND person_id > 0
        UNION SELECT person_id, person_made_at FROM erasure
        WHERE joined_into = (SELECT person_id FROM erasure WHERE id = ?1 AND joined_into IS NULL)
        """,
        erasure_id,
    )
    return [Tombstone(**row) for row in found]


def returned(db: Database, buried: Sequence[Tombstone]) -> list[int]:
    """Who of them is in this database all the same, and is not being erased: a backup brought them back.

    The first contact is compared too: a database that was put back gives the numbers of later people out again.
    """
    found = []
    for one_of_them in buried:
        sql = "SELECT 1 FROM person WHERE id = ? AND created_at = ? AND is_blocked = 0"
        if one(db, sql, one_of_them.person_id, one_of_them.made_at) is not None:
            found.append(one_of_them.person_id)
    return found


def finish(db: Database, asked: Erasure, now: datetime) -> dict[str, int]:
    """Delete every row of the person, one transaction; returns how many of each table."""
    db.conn.execute("PRAGMA defer_foreign_keys = ON")
    _claim_nameless_updates(db, asked.person_id)
    inbox.forget(db, asked.person_id, now)
    _hand_over(db, asked.person_id)
    audit.take_names_out(db, asked.person_id)
    counts = {
        table: change(db, f"DELETE FROM {table} WHERE {which}", asked.person_id)  # noqa: S608
        for table, which in _OWNED.items()
    }
    change(
        db,
        "UPDATE erasure SET state = 'done', done_at = ?, folders_json = '[]', server_names_json = '[]',"
        " job_ids_json = '[]', restart_witness = NULL WHERE id = ?",
        text_of(now),
        asked.erasure_id,
    )
    change(
        db,
        "UPDATE erasure SET person_id = 0, person_made_at = '', joined_into = NULL"
        " WHERE state = 'done' AND coalesce(joined_into, person_id) NOT IN (SELECT id FROM person)",
    )
    return counts


def keep_receipt(db: Database, erasure_id: int, counts: dict[str, int]) -> None:
    change(db, "UPDATE erasure SET counts_json = ? WHERE id = ?", json.dumps(counts), erasure_id)


def receipt(db: Database, number: str) -> Row:
    """What went under that number, and when; whose it was, nobody knows any more. Raises NotFound."""
    sql = "SELECT counts_json, done_at FROM erasure WHERE receipt = ? AND state = 'done'"
    return the(db, f"receipt {number!r}", sql, number)


def _claim_nameless_updates(db: Database, person_id: int) -> None:
    """Of a deletion, a platform may not say who it was: in a private chat there is one person only."""
    change(
        db,
        f"""
        UPDATE inbox SET account =
            (SELECT account FROM account WHERE person_id = ?1 AND account.platform = inbox.platform)
        WHERE account = '' AND platform IN (SELECT platform FROM account WHERE person_id = ?1)
            AND (platform, bot_account, chat) IN (SELECT platform, bot_account, chat FROM chat WHERE {_THEIR_ROOM})
        """,  # noqa: S608
        person_id,
    )


def _hand_over(db: Database, person_id: int) -> None:
    """Answers belong to whoever has the conversation: a join may have moved it while they were written."""
    change(
        db,
        "UPDATE completion SET version_id = NULL, person_id ="
        " (SELECT person_id FROM conversation WHERE conversation.id = completion.conversation_id)"
        " WHERE person_id = ?1 AND conversation_id IN (SELECT id FROM conversation WHERE person_id != ?1)",
        person_id,
    )
    # The versions go: what they answered keeps their names only.
    change(
        db,
        "UPDATE completion SET version_id = NULL WHERE person_id != ?1"
        " AND version_id IN (SELECT id FROM adapter_version WHERE person_id = ?1)",
        person_id,
    )


def owned_tables() -> tuple[str, ...]:
    return tuple(_OWNED)


def page(db: Database, person_id: int, table: str, after: int, limit: int) -> tuple[list[dict[str, Any]], int | None]:
    """Rows of one table that an erasure would delete, and the key to go on after; None after the last."""
    theirs = _OWNED[table]
    found = rows(
        db,
        f"SELECT {table}.rowid AS row_key, {table}.* FROM {table}"  # noqa: S608
        f" WHERE ({theirs}) AND {table}.rowid > ?2 ORDER BY {table}.rowid LIMIT ?3",
        person_id,
        after,
        limit,
    )
    last = found[-1]["row_key"] if len(found) == limit else None
    return [_readable({name: value for name, value in row.items() if name != "row_key"}) for row in found], last


def _readable(row: Row) -> dict[str, Any]:
    """JSON columns as values: text in them is escaped, which nobody can read. Emptied ones stay empty."""
    return {name: json.loads(value) if name.endswith("_json") and value else value for name, value in row.items()}


def _collected(db: Database, row: Row) -> Erasure:
    """Names are only ever added: the rows that they come from may be gone after a crash."""
    person_id = row["person_id"]
    server_names = [version.server_name for version in versions.of_person(db, person_id)]
    job_ids = [str(job["id"]) for job in rows(db, "SELECT id FROM job WHERE person_id = ?", person_id)]
    server_names = list(dict.fromkeys([*json.loads(row["server_names_json"]), *server_names]))
    job_ids = list(dict.fromkeys([*json.loads(row["job_ids_json"]), *job_ids]))
    change(
        db,
        "UPDATE erasure SET server_names_json = ?, job_ids_json = ? WHERE id = ?",
        json.dumps(server_names),
        json.dumps(job_ids),
        row["id"],
    )
    return Erasure(
        erasure_id=row["id"],
        receipt=row["receipt"],
        person_id=person_id,
        person_made_at=row["person_made_at"],
        folder=json.loads(row["folders_json"])[0],
        server_names=server_names,
        job_ids=job_ids,
        restart_witness=row["restart_witness"],
    )
