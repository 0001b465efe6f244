"""People, their accounts and their consent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlite_utils import Database

from claasbot.domain.conversation import ChatAddress
from claasbot.domain.person import Consent, ConsentState, Person
from claasbot.storage.rows import LARGEST_ID, Row, change, insert, one, rows, text_of, the


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a person has cost."""

    n_answers: int
    n_tokens: int
    answering_s: float
    n_lessons: int
    lessons_s: float


def person_of(db: Database, platform: str, account: str, display_name: str, now: datetime) -> Person:
    """The person behind an account, made at first contact."""
    there = known(db, platform, account)
    if there is not None:
        return there
    name = display_name.strip()[:80] or account[:80]
    person_id = insert(db, "person", display_name=name, created_at=text_of(now))
    insert(db, "account", person_id=person_id, platform=platform, account=account)
    return person(db, person_id)


def known(db: Database, platform: str, account: str) -> Person | None:
    """Whoever is behind an account; looking makes nobody."""
    row = one(db, "SELECT person_id FROM account WHERE platform = ? AND account = ?", platform, account)
    return None if row is None else person(db, row["person_id"])


def known_person(db: Database, person_id: int) -> Person | None:
    """None for somebody who is forgotten."""
    row = one(db, "SELECT id FROM person WHERE id = ?", person_id)
    return None if row is None else person(db, person_id)


def person(db: Database, person_id: int) -> Person:
    """Raises NotFound."""
    row = the(db, f"person p{person_id}", "SELECT * FROM person WHERE id = ?", person_id)
    return Person(
        person_id=row["id"],
        display_name=row["display_name"],
        current_version_id=row["current_version_id"],
        is_blocked=bool(row["is_blocked"]),
    )


def block(db: Database, person_id: int) -> None:
    change(db, "UPDATE person SET is_blocked = 1 WHERE id = ?", person_id)


def consent_of(db: Database, person_id: int, address: ChatAddress) -> Consent:
    """In the room of that address: its topics share one answer."""
    row = one(
        db,
        "SELECT state, text_version FROM consent WHERE person_id = ? AND platform = ? AND bot_account = ? AND chat = ?"
        " ORDER BY id DESC LIMIT 1",
        person_id,
        address.platform,
        address.bot_account,
        address.room.chat,
    )
    if row is None:
        return Consent(state="unasked")
    return Consent(state=row["state"], text_version=row["text_version"])


def record_consent(
    db: Database, person_id: int, address: ChatAddress, state: ConsentState, text_version: str, now: datetime
) -> None:
    """Consent is a log: what somebody agreed to, and when, stays readable."""
    insert(
        db,
        "consent",
        person_id=person_id,
        platform=address.platform,
        bot_account=address.bot_account,
        chat=address.room.chat,
        text_version=text_version,
        state=state,
        at=text_of(now),
    )


def consent_history(db: Database, person_id: int) -> list[Row]:
    """Everything that the person ever agreed to or not, oldest first."""
    return rows(db, "SELECT * FROM consent WHERE person_id = ? ORDER BY id", person_id)


def overview(db: Database, limit: int = 200, before: int | None = None) -> list[Row]:
    """Everybody with counts, newest first; whoever came earlier than the person `before`."""
    return rows(
        db,
        """
        SELECT person.id, person.display_name, person.created_at, version.n AS current_n,
            (SELECT group_concat(platform, ', ') FROM account WHERE person_id = person.id) AS platforms,
            EXISTS (SELECT 1 FROM account WHERE person_id = person.id AND role = 'blocked') AS is_kept_out,
            (SELECT count(*) FROM completion WHERE person_id = person.id) AS n_answers,
            (SELECT coalesce(sum(json_array_length(token_ids_json)), 0) FROM completion
             WHERE person_id = person.id) AS n_tokens,
            (SELECT count(*) FROM feedback_event WHERE person_id = person.id) AS n_feedback,
            (SELECT count(*) FROM job
             WHERE person_id = person.id AND state = 'promoted' AND NOT is_rebuild) AS n_lessons,
            (SELECT count(*) FROM adapter_version WHERE person_id = person.id) AS n_versions
        FROM person LEFT JOIN adapter_version AS version ON version.id = person.current_version_id
        WHERE person.id < ? ORDER BY person.id DESC LIMIT ?
        """,
        LARGEST_ID if before is None else before,
        limit,
    )


def usage(db: Database, person_id: int) -> Usage:
    found = the(
        db,
        f"person p{person_id}",
        """
        SELECT count(*) AS n_answers, coalesce(sum(json_array_length(token_ids_json)), 0) AS n_tokens,
            coalesce(sum(total_s), 0) AS answering_s,
            (SELECT count(*) FROM job WHERE person_id = ? AND state = 'promoted' AND NOT is_rebuild) AS n_lessons,
            (SELECT coalesce(sum(json_extract(seconds_json, '$.train')), 0) FROM job WHERE person_id = ?) AS lessons_s
        FROM completion WHERE person_id = ?
        """,
        person_id,
        person_id,
        person_id,
    )
    return Usage(**found)
