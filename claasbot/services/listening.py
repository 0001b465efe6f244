"""What a person says about an answer, kept first and judged second: feedback event → experience."""

from __future__ import annotations

from dataclasses import dataclass

from sqlite_utils import Database

from claasbot.domain.completion import SentCompletion
from claasbot.domain.experience import Trainable, why_not
from claasbot.domain.feedback import FeedbackKind, checked_text, signal_of
from claasbot.domain.person import Person
from claasbot.errors import NotYours
from claasbot.services.clock import Clock
from claasbot.storage import conversations, lessons, outbox, people, versions
from claasbot.storage.store import Store

_OPPOSITE: dict[FeedbackKind, FeedbackKind] = {"thumbs_up": "thumbs_down", "thumbs_down": "thumbs_up"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """What became of feedback, after it was committed."""

    feedback_id: int
    completion_id: int
    will_teach: bool
    reason: str
    """Why it teaches, or why not, in words for the person."""
    asks_why: bool = False


class Listening:
    """Everything a person says about answers goes through here, whatever the surface."""

    def __init__(self, store: Store, clock: Clock, limits: Trainable) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits

    async def note(self, person: Person, completion_id: int, kind: FeedbackKind, text: str, source_key: str) -> Noted:
        """Commit feedback and what follows from it. Raises BadInput, NotFound, NotYours."""
        words = checked_text(kind, text)
        noted = await self._store.run(self._note, person, completion_id, kind, words, source_key)
        self._store.stages.experience.set()
        self._store.stages.outbox.set()
        return noted

    async def withdraw(self, person: Person, completion_id: int, kind: FeedbackKind) -> int:
        """Take back a reaction; returns how many events that were not consumed it took with it."""

        def unit(db: Database) -> int:
            _owned(db, person, completion_id)
            return lessons.withdraw_feedback(db, person.person_id, completion_id, kind, self._clock())

        return await self._store.run(unit)

    def _note(
        self, db: Database, person: Person, completion_id: int, kind: FeedbackKind, text: str, source_key: str
    ) -> Noted:
        now = self._clock()
        sent = _owned(db, person, completion_id)
        opposite = _OPPOSITE.get(kind)
        if opposite is not None:
            lessons.withdraw_feedback(db, person.person_id, completion_id, opposite, now)
        event = lessons.add_feedback(db, person.person_id, completion_id, kind, text, source_key, now)
        signal = signal_of(kind, text)
        if not signal.teaches:
            return Noted(
                feedback_id=event.feedback_id,
                completion_id=completion_id,
                will_teach=False,
                reason=signal.reason,
                asks_why=signal.asks_why,
            )
        experience = lessons.add_experience(db, event, now)
        reason = experience.reason or None
        if experience.state == "received":
            reason = self._why_not(db, sent, kind)
            lessons.move(db, experience.experience_id, "rejected" if reason else "queued", reason or "", now)
            if reason is None:  # a refusal is told by the reply
                outbox.add(db, experience, "noted", {}, now)
        return Noted(
            feedback_id=event.feedback_id,
            completion_id=completion_id,
            will_teach=reason is None,
            reason=reason or signal.reason,
        )

    def _why_not(self, db: Database, sent: SentCompletion, kind: FeedbackKind) -> str | None:
        return why_not(
            consent=people.consent_of(db, sent.person_id, sent.address),
            kind=kind,
            is_whole=sent.completion.is_whole,
            n_tokens=len(sent.completion.token_ids),
            n_prompt_tokens=len(sent.completion.prompt_ids),
            staleness=versions.n_promoted_since(db, sent.person_id, sent.version_id),
            limits=self._limits,
        )


def _owned(db: Database, person: Person, completion_id: int) -> SentCompletion:
    sent = conversations.completion(db, completion_id)
    if sent.person_id != person.person_id:
        raise NotYours("That answer was given to somebody else: only the person who asked can teach from it.")
    return sent
