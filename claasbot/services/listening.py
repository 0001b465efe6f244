"""What a person says about an answer, kept first and judged second: feedback event → experience."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlite_utils import Database

from claasbot.domain.completion import SentCompletion
from claasbot.domain.conversation import Button, Deleted, Reply
from claasbot.domain.experience import Trainable, why_not
from claasbot.domain.feedback import FeedbackKind, NewFeedback, checked_text, signal_of
from claasbot.domain.person import Person
from claasbot.errors import NotYours
from claasbot.services.clock import Clock
from claasbot.services.platform_modes import PlatformModes
from claasbot.storage import chats, completions, conversations, feedback_events, lessons, outbox, people, versions
from claasbot.storage.conversations import StoredTurn
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

    def __init__(self, store: Store, clock: Clock, limits: Trainable, modes: PlatformModes) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits
        self._modes = modes

    async def note(self, person: Person, feedback: NewFeedback) -> Noted:
        """Commit feedback and what follows from it. Raises BadInput, NotFound, NotYours."""
        words = checked_text(feedback.kind, feedback.text)
        noted = await self._store.run(self._note, person, feedback, words)
        self._store.stages.experience.set()
        self._store.stages.outbox.set()
        return noted

    async def withdraw(
        self, person: Person, completion_id: int, kind: FeedbackKind, mark_key: str | None = None
    ) -> Reply | None:
        """Take back a reaction, its mark, and what it said why. Where it has taught already: an offer to unlearn it."""

        def unit(db: Database) -> bool:
            sent = _owned(db, person, completion_id)
            taught = feedback_events.withdraw_feedback(db, person.person_id, completion_id, kind, self._clock())
            outbox.clear(db, sent, mark_key or sent.message_key, self._clock())
            return bool(taught)

        has_taught = await self._store.run(unit)
        self._store.stages.outbox.set()
        if not has_taught:
            return None
        return Reply(
            text="You took that back, but I have learned from it already. Shall I unlearn it?",
            notice=True,
            buttons=(Button(label="Unlearn", action=f"unlearn:yes:those:{person.person_id}"),),
        )

    async def deleted(self, event: Deleted) -> None:
        """The person deleted a message of theirs: it leaves the conversation, and what waits of it teaches nothing.

        That is the feedback that it was, and the feedback on every answer that has read it.
        """

        def unit(db: Database) -> None:
            for turn in conversations.user_turns_at(db, event.address, event.message_key, with_replaced=True):
                self._withdraw_what_read(db, turn)
                conversations.note_deletion(db, turn.turn_id, self._clock())
                if not turn.is_replaced:
                    self._take_out(db, turn, event.message_key)

        await self._store.run(unit)
        self._store.stages.outbox.set()

    def _withdraw_what_read(self, db: Database, turn: StoredTurn) -> None:
        """The feedback that the turn was, and the feedback on every answer that had it in its prompt."""
        read_by = conversations.completions_reading(db, turn)
        for row in lessons.unsettled(db, turn.person_id):
            if row.completion_id in read_by or row.mark_key in turn.keys:
                lessons.move(db, row.experience_id, "withdrawn", "you deleted a message of it", self._clock())
                outbox.clear_dropped(db, row, self._clock())

    def _take_out(self, db: Database, turn: StoredTurn, message_key: str) -> None:
        """The message leaves the conversation; with the last of a turn, the turn and its answer go."""
        left = tuple(part for part in turn.new.parts if part.key != message_key)
        if any(part.key for part in left):
            conversations.rewrite_turn(db, turn.turn_id, left)
            return
        for answer in conversations.turns_after(db, turn.turn_id)[:1]:
            if answer["completion_id"] is not None:
                conversations.replace_turn(db, answer["id"], self._clock())
        conversations.replace_turn(db, turn.turn_id, self._clock())

    def _note(self, db: Database, person: Person, feedback: NewFeedback, text: str) -> Noted:
        now, kind, completion_id = self._clock(), feedback.kind, feedback.completion_id
        sent = _owned(db, person, completion_id)
        known = feedback_events.standing_thumb(db, person.person_id, completion_id, kind)
        if feedback.is_reaction and known is not None:
            # A look at what stands there finds again what was told when it came.
            return Noted(feedback_id=known, completion_id=completion_id, will_teach=False, reason="it is noted already")
        opposite = _OPPOSITE.get(kind)
        if opposite is not None:
            feedback_events.withdraw_feedback(db, person.person_id, completion_id, opposite, now)
        event = feedback_events.add_feedback(db, person.person_id, replace(feedback, text=text), now)
        signal = signal_of(kind, text)
        if not signal.teaches:
            return Noted(
                feedback_id=event.feedback_id,
                completion_id=completion_id,
                will_teach=False,
                reason=signal.reason,
                asks_why=signal.asks_why and self._may_ask_why(db, sent, feedback),
            )
        experience = lessons.add_experience(db, event, now)
        reason = experience.reason or None
        if experience.state == "received":
            reason = self._why_not(db, sent, feedback)
            lessons.move(db, experience.experience_id, "rejected" if reason else "queued", reason or "", now)
            if reason is None:  # a refusal is told by the reply
                outbox.add(db, experience, "noted", {}, now)
        return Noted(
            feedback_id=event.feedback_id,
            completion_id=completion_id,
            will_teach=reason is None,
            reason=reason or signal.reason,
        )

    def _may_ask_why(self, db: Database, sent: SentCompletion, feedback: NewFeedback) -> bool:
        """A question that the person did not ask for is only put where the answer could teach."""
        if not feedback.is_reaction:
            return True
        consent = people.consent_of(db, sent.person_id, sent.address)
        return consent.allows_learning and chats.room(db, sent.address).learns_from == "everything"

    def _why_not(self, db: Database, sent: SentCompletion, feedback: NewFeedback) -> str | None:
        read = completions.read_by(db, sent.completion_id)
        if any(turn.deleted_at for turn in read):
            return "you deleted a message that the answer had read"
        if any(turn.is_forwarded for turn in read):
            return "the conversation holds a forwarded message, and other people's words teach nothing (/reset)"
        not_there = self._modes.why_not(
            db, sent.address.platform, sent.completion_id, is_interaction=feedback.is_interaction
        )
        return not_there or why_not(
            consent=people.consent_of(db, sent.person_id, sent.address),
            kind=feedback.kind,
            is_whole=sent.completion.is_whole,
            n_tokens=len(sent.completion.token_ids),
            n_prompt_tokens=len(sent.completion.prompt_ids),
            staleness=versions.n_promoted_since(db, sent.person_id, sent.version_id),
            limits=self._limits,
        )


def _owned(db: Database, person: Person, completion_id: int) -> SentCompletion:
    sent = completions.completion(db, completion_id)
    if sent.person_id != person.person_id:
        raise NotYours("That answer was given to somebody else: only the person who asked can teach from it.")
    return sent
