"""What pages show, read from the store in one unit each. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlite_utils import Database

from claasbot.domain.adapter import AdapterVersion, version_name
from claasbot.domain.completion import BASE
from claasbot.domain.conversation import ChatAddress
from claasbot.domain.person import Person
from claasbot.domain.room import Room
from claasbot.errors import NotFound
from claasbot.storage import accounts, chats, conversations, feedback_events, lessons, people, revocations, versions
from claasbot.storage.accounts import Stranger
from claasbot.storage.revocations import StandingLesson
from claasbot.storage.rows import Row

_LATEST = 5
_HERE = ("playground", "console")
"""Their one chat is no news."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonPage:
    person: Person
    current: AdapterVersion | None
    versions: list[AdapterVersion]
    standing: list[StandingLesson]
    """What the current version learned, oldest first."""
    lessons: list[Row]
    feedback: list[Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    people: list[Row]
    lessons: list[Row]
    feedback: list[Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    strangers: list[Stranger]
    rooms: list[tuple[ChatAddress, Room]]


def door(db: Database, now: datetime) -> Door:
    return Door(
        strangers=accounts.strangers(db, now),
        rooms=[(address, room) for address, room in chats.overview(db) if address.platform not in _HERE],
    )


def person_number(text: str) -> int:
    """The id in an address. Raises NotFound for anything that is none."""
    return _number(text, "person")


def version_number(text: str) -> int:
    """The same for a version of theirs."""
    return _number(text, "version")


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 18):
        raise NotFound(f"There is no {what} {text[:20]!r}.")
    return int(text)


def person_at(db: Database, platform: str, account: str) -> Person | None:
    """Whoever is known under that account; looking makes nobody."""
    return people.known(db, platform, account)


def chat(db: Database, address: ChatAddress, account: str) -> dict[str, Any]:
    """The conversation that goes on, with what became of each piece of feedback."""
    person = person_at(db, address.platform, account)
    if person is None:
        return {"person_id": None, "version_name": BASE, "consent": "unasked", "turns": []}
    current = versions.current(db, person.person_id)
    feedback: dict[int, list[dict[str, Any]]] = {}
    for row in reversed(feedback_events.feedback_list(db, person.person_id)):
        feedback.setdefault(row["completion_id"], []).append(_became(row))
    consent = people.consent_of(db, person.person_id, address)
    found = conversations.transcript(db, person.person_id, address)
    return {
        "person_id": person.person_id,
        "version_name": BASE if current is None else current.name,
        "consent": "granted" if consent.allows_learning else consent.state,
        "turns": [{**row, "feedback": feedback.get(row["completion_id"], [])} for row in found],
    }


def _became(row: Row) -> dict[str, Any]:
    learned_n = row["learned_n"]
    return {
        "kind": row["kind"],
        "text": row["text"],
        "state": row["state"],
        "reason": row["reason"],
        "job_id": row["job_id"],
        "is_withdrawn": row["withdrawn_at"] is not None,
        "learned": None if learned_n is None else version_name(row["person_id"], learned_n),
    }


def overview(db: Database) -> Overview:
    return Overview(
        people=people.overview(db),
        lessons=lessons.lesson_list(db, limit=_LATEST),
        feedback=feedback_events.feedback_list(db, limit=_LATEST),
    )


def person_page(db: Database, person_id: int) -> PersonPage:
    """Raises NotFound."""
    return PersonPage(
        person=people.person(db, person_id),
        current=versions.current(db, person_id),
        versions=versions.of_person(db, person_id),
        standing=revocations.standing_lessons(db, person_id),
        lessons=lessons.lesson_list(db, person_id),
        feedback=feedback_events.feedback_list(db, person_id),
    )


def lesson(db: Database, job_id: str) -> tuple[Row, list[lessons.StoredExperience]]:
    """One job and the feedback in it; of a rebuild, all that it went through again. Raises NotFound."""
    again = [row for _, group in revocations.replayed(db, job_id) for row in group]
    return lessons.lesson_row(db, job_id), again or lessons.of_job(db, job_id)
