"""Everything that belongs to one person: to be handed out, and to be deleted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from sqlite_utils import Database

from claasbot.storage import people, versions
from claasbot.storage.rows import Row, change, insert, rows, text_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What must go besides the rows. Kept until it is done, so that a crash resumes it."""

    erasure_id: int
    person_id: int
    folder: str
    server_names: list[str]
    job_ids: list[str]


def ask(db: Database, person_id: int, folder: str, now: datetime) -> Erasure:
    """Block the person and write down what will go."""
    people.block(db, person_id)
    server_names = [version.server_name for version in versions.of_person(db, person_id)]
    job_ids = [str(row["id"]) for row in rows(db, "SELECT id FROM job WHERE person_id = ?", person_id)]
    erasure_id = insert(
        db,
        "erasure",
        person_id=person_id,
        state="asked",
        folders_json=json.dumps([folder]),
        server_names_json=json.dumps(server_names),
        job_ids_json=json.dumps(job_ids),
        asked_at=text_of(now),
    )
    return Erasure(
        erasure_id=erasure_id, person_id=person_id, folder=folder, server_names=server_names, job_ids=job_ids
    )


def unfinished(db: Database) -> list[Erasure]:
    return [
        Erasure(
            erasure_id=row["id"],
            person_id=row["person_id"],
            folder=json.loads(row["folders_json"])[0],
            server_names=json.loads(row["server_names_json"]),
            job_ids=json.loads(row["job_ids_json"]),
        )
        for row in rows(db, "SELECT * FROM erasure WHERE state = 'asked' ORDER BY id")
    ]


def done(db: Database, erasure_id: int, now: datetime) -> None:
    change(db, "UPDATE erasure SET state = 'done', done_at = ? WHERE id = ?", text_of(now), erasure_id)


def delete_rows(db: Database, person_id: int) -> dict[str, int]:
    """Delete every row of a person, one transaction; returns the counts for the receipt."""
    db.conn.execute("PRAGMA defer_foreign_keys = ON")
    counts = {
        "inbox": change(
            db,
            "DELETE FROM inbox WHERE (platform, account) IN"
            " (SELECT platform, account FROM account WHERE person_id = ?)",
            person_id,
        ),
        "turn": change(
            db,
            "DELETE FROM turn WHERE conversation_id IN (SELECT id FROM conversation WHERE person_id = ?)",
            person_id,
        ),
    }
    for table in (
        "outbox", "experience", "feedback_event", "completion", "adapter_version", "job", "conversation", "consent",
        "account",
    ):  # fmt: skip
        counts[table] = change(db, f"DELETE FROM {table} WHERE person_id = ?", person_id)  # noqa: S608
    counts["person"] = change(db, "DELETE FROM person WHERE id = ?", person_id)
    return counts


_EXPORTED = {
    "accounts": "SELECT platform, account FROM account WHERE person_id = ? ORDER BY id",
    "consent": "SELECT platform, chat, text_version, state, at FROM consent WHERE person_id = ? ORDER BY id",
    "turns": (
        "SELECT turn.role, turn.text, turn.created_at, turn.completion_id, turn.replaced_at FROM turn"
        " JOIN conversation ON conversation.id = turn.conversation_id WHERE conversation.person_id = ? ORDER BY turn.id"
    ),
    "answers": (
        "SELECT id, version_name, text, finish_reason, sampling_json, token_ids_json, logprobs_json, created_at"
        " FROM completion WHERE person_id = ? ORDER BY id"
    ),
    "feedback": (
        "SELECT id, completion_id, kind, text, created_at, withdrawn_at FROM feedback_event"
        " WHERE person_id = ? ORDER BY id"
    ),
    "experiences": (
        "SELECT id, completion_id, feedback_event_id, state, reason, job_id, changed_at FROM experience"
        " WHERE person_id = ? ORDER BY id"
    ),
    "versions": (
        "SELECT n, state, folder, weights_sha256, created_at, changed_at FROM adapter_version"
        " WHERE person_id = ? ORDER BY n"
    ),
    "lessons": (
        "SELECT id, version_n, state, reason, recipe_json, result_json, verdict_json, created_at, finished_at"
        " FROM job WHERE person_id = ? ORDER BY created_at"
    ),
}


def export(db: Database, person_id: int) -> dict[str, list[Row]]:
    """All that is stored about a person, by kind."""
    return {kind: rows(db, sql, person_id) for kind, sql in _EXPORTED.items()}
