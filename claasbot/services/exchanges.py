"""What is answered: which conversation a message goes on with, and what the model will read of it.

Each method is one unit of work. A unit that ran before a crash is found again by its update, and not run twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlite_utils import Database

from claasbot.domain.completion import Sampling
from claasbot.domain.conversation import ChatAddress, Edited, Part, Said, Turn, text_of_parts
from claasbot.domain.person import Person
from claasbot.domain.room import Room
from claasbot.errors import BadInput, NotFound, NotYours
from claasbot.services.clock import Clock
from claasbot.storage import chats, completions, conversations, inbox, people
from claasbot.storage.conversations import NewTurn


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRules:
    """What the host decides about answers."""

    system_prompt: str
    sampling: Sampling
    template_options: dict[str, object]
    max_message_chars: int
    group_idle: timedelta = timedelta(minutes=10)
    """In a group, a message that replies to nothing begins a new conversation after this pause."""
    answers_per_day: int = 0
    """Most answers to one person in 24 hours; 0: as many as they like."""
    max_waiting: int = 1_000
    """Most updates of everybody that wait at once."""
    max_waiting_each: int = 0
    """The same of one person; 0: no limit of their own."""
    has_buttons: bool = True
    """Whether answers carry thumbs and a retry, where the surface has none of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """Where an answer belongs: the conversation, as the model will read it."""

    conversation_id: int
    turns: tuple[Turn, ...]
    reply_to: str | None
    retry_of: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One answer in the making."""

    person: Person
    address: ChatAddress
    talk: Talk
    room: Room
    inbox_id: int
    may_use_adapter: bool


def may_use_adapter(db: Database, person_id: int, address: ChatAddress) -> bool:
    """What was learned in private answers in a group only where the person agreed to learning there."""
    return not chats.room(db, address).is_group or people.consent_of(db, person_id, address).allows_learning


class Exchanges:
    """Begins answers; refuses what the host's rules refuse."""

    def __init__(self, rules: ChatRules, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock

    def begin(
        self, person: Person, said: Said, parts: tuple[Part, ...], inbox_ids: tuple[int, ...], db: Database
    ) -> Exchange:
        """The person's turn, one transaction with the end of the updates that were merged into it."""
        now, address, reply_to = self._clock(), said.address, said.message_key or None
        known = conversations.user_turn_of_update(db, inbox_ids[0])
        if known is not None:
            return self._exchange(db, person, address, self._talk(db, known["conversation_id"], reply_to), inbox_ids[0])
        self.checked(text_of_parts(parts))
        self.refuse_too_many(db, person)
        replied = said.reply_to and conversations.branch(db, person.person_id, address, said.reply_to, now)
        if replied and said.quote:
            parts = (Part(text=f"> {said.quote}"), *parts)
        idle_since = now - self._rules.group_idle if said.is_group else None
        conversation_id = replied or conversations.open_conversation(
            db, person.person_id, address, now, idle_since=idle_since
        )
        new = NewTurn(
            parts=parts,
            inbox_id=inbox_ids[0],
            message_key=reply_to,
            is_interaction=said.is_interaction,
            is_forwarded=said.is_forwarded,
        )
        conversations.add_user_turn(db, conversation_id, new, now)
        inbox.begin(db, inbox_ids[0], now)
        for merged in inbox_ids[1:]:
            inbox.handled(db, merged, now)
        return self._exchange(db, person, address, self._talk(db, conversation_id, reply_to), inbox_ids[0])

    def begin_edited(self, person: Person, edited: Edited, inbox_id: int, db: Database) -> Exchange | None:
        """The person's last message as it reads now; None where an edit changes nothing that would be read."""
        now, key = self._clock(), edited.message_key
        known = conversations.user_turn_of_update(db, inbox_id)
        if known is not None:
            return self._exchange(db, person, edited.address, self._talk(db, known["conversation_id"], key), inbox_id)
        written = conversations.user_turns_at(db, edited.address, key)
        old = next((turn for turn in written if turn.person_id == person.person_id), None)
        if old is None:
            return None
        parts = tuple(
            Part(key=key, text=edited.text.strip()) if part.key == key and not part.is_file else part
            for part in old.new.parts
        )
        later = conversations.turns_after(db, old.turn_id)
        if parts == old.new.parts or any(row["role"] == "user" for row in later):
            return None
        self.checked(text_of_parts(parts))
        self.refuse_too_many(db, person)
        for turn_id in (old.turn_id, *(row["id"] for row in later)):
            conversations.replace_turn(db, turn_id, now)
        conversations.add_user_turn(db, old.conversation_id, old.edited(parts, inbox_id), now)
        return self._exchange(db, person, edited.address, self._talk(db, old.conversation_id, key), inbox_id)

    def begin_retry(
        self, person: Person, address: ChatAddress, reply_to: str | None, message_key: str | None, inbox_id: int,
        db: Database,
    ) -> Exchange:  # fmt: skip
        """Another answer to the last message; `message_key` says which answer was meant. Raises NotFound, NotYours."""
        last = completions.last_completion(db, person.person_id, address)
        if message_key is not None:
            meant = completions.completion_at(db, address, message_key)
            if meant.person_id != person.person_id:
                raise NotYours("That answer was given to somebody else: only the person who asked gets another.")
            if last is None or meant.completion_id != last.completion_id:
                raise BadInput("Only the last answer can be written again: reply to the older one and ask anew.")
        if last is None:
            raise NotFound("There is no answer to retry in this conversation yet.")
        self.refuse_too_many(db, person)
        turn_id = completions.turn_of_completion(db, last.completion_id)
        talk = Talk(
            conversation_id=last.conversation_id,
            turns=conversations.turns(db, last.conversation_id, before=turn_id),
            reply_to=reply_to,
            retry_of=last.completion_id,
        )
        return self._exchange(db, person, address, talk, inbox_id)

    def checked(self, text: str) -> str:
        """The text without outer blanks. Raises BadInput for none, or too much."""
        said = text.strip()
        if not said:
            raise BadInput("The message is empty, or it has no text in it: write something and I answer it.")
        if len(said) > self._rules.max_message_chars:
            raise BadInput(
                f"The message has {len(said):,} characters; I read at most {self._rules.max_message_chars:,}. "
                "Send it in parts, or the part that matters."
            )
        return said

    def refuse_too_many(self, db: Database, person: Person) -> None:
        """Raises BadInput when the person had as many answers as the host gives."""
        most = self._rules.answers_per_day
        if most and completions.n_answers_since(db, person.person_id, self._clock() - timedelta(days=1)) >= most:
            raise BadInput(
                f"You had {most:,} answers in the last 24 hours, as many as the host gives. Come back later."
            )

    def _talk(self, db: Database, conversation_id: int, reply_to: str | None) -> Talk:
        turns = conversations.turns(db, conversation_id)
        return Talk(conversation_id=conversation_id, turns=turns, reply_to=reply_to)

    def _exchange(self, db: Database, person: Person, address: ChatAddress, talk: Talk, inbox_id: int) -> Exchange:
        return Exchange(
            person=person,
            address=address,
            talk=talk,
            room=chats.room(db, address),
            inbox_id=inbox_id,
            may_use_adapter=may_use_adapter(db, person.person_id, address),
        )
