"""Everything that belongs to one person: to be handed out, and to be deleted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from sqlite_utils import Database

from claasbot.storage import people, versions
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
    **dict.fromkeys(
        (
            *("outbox", "experience", "feedback_event", "completion", "adapter_version"),
            *("job", "conversation", "consent", "link_code", "comparison", "account"),
        ),
        "person_id = ?",
    ),
    "person": "id = ?",
}
"""Every table with rows of people, and which rows are one person's; in the order in which they can be deleted."""

NOBODYS = {
    "admin_session": "the dashboard's one admin, by the hash of a token",
    "sign_in_token": "the same",
    "switch": "of the whole bot",
    "erasure": "says that somebody was forgotten, with ids and folders: it outlives them",
    "audit": "what admins did, with the name taken out of it by `finish`",
}
"""Tables of which an erasure leaves the rows, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What must go besides the rows. Kept until it is done, so that a crash resumes it."""

    erasure_id: int
    person_id: int
    folder: str
    server_names: list[str]
    job_ids: list[str]
    restart_witness: str | None
    """A name that was left loaded in a server that cannot forget: once it is gone, the server was restarted."""


def ask(db: Database, person_id: int, folder: str, now: datetime) -> Erasure:
    """Block the person and write down what will go."""
    people.block(db, person_id)
    erasure_id = insert(
        db, "erasure", person_id=person_id, state="asked", folders_json=json.dumps([folder]), asked_at=text_of(now)
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


def finish(db: Database, asked: Erasure, now: datetime) -> dict[str, int]:
    """Delete every row of the person, one transaction; returns how many of each table."""
    db.conn.execute("PRAGMA defer_foreign_keys = ON")
    _hand_over(db, asked.person_id)
    _take_name_out_of_audit(db, asked.person_id)
    counts = {
        table: change(db, f"DELETE FROM {table} WHERE {which}", asked.person_id)  # noqa: S608
        for table, which in _OWNED.items()
    }
    change(db, "UPDATE erasure SET state = 'done', done_at = ? WHERE id = ?", text_of(now), asked.erasure_id)
    return counts


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


def prune_inbox(db: Database, handled_before: datetime) -> int:
    """Updates that are long done, also of strangers who never became anybody; returns how many went."""
    return change(db, "DELETE FROM inbox WHERE handled_at < ?", text_of(handled_before))


def _take_name_out_of_audit(db: Database, person_id: int) -> None:
    theirs = "(SELECT platform || ':' || account FROM account WHERE person_id = ?2)"
    for column in ("who", "whom"):
        change(
            db,
            f"UPDATE audit SET {column} = ?1 WHERE {column} IN {theirs}",  # noqa: S608
            f"p{person_id}, forgotten",
            person_id,
        )


def export(db: Database, person_id: int) -> dict[str, list[dict[str, object]]]:
    """Every row that an erasure would delete, by table. Weights stay files: their rows name the folders."""
    return {
        table: [
            _readable(row)
            for row in rows(db, f"SELECT * FROM {table} WHERE {which} ORDER BY rowid", person_id)  # noqa: S608
        ]
        for table, which in _OWNED.items()
    }


def _readable(row: Row) -> dict[str, object]:
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
        person_id=person_id,
        folder=json.loads(row["folders_json"])[0],
        server_names=server_names,
        job_ids=job_ids,
        restart_witness=row["restart_witness"],
    )
