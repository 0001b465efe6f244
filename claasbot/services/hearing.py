"""One update, and the service it is for: talk is answered, feedback is noted, commands are done."""

from __future__ import annotations

import logging

from sqlite_utils import Database

from claasbot.domain import remark
from claasbot.domain.conversation import (
    ChatEvent,
    Commanded,
    Deleted,
    Edited,
    Left,
    Pressed,
    Reacted,
    Said,
    joined,
)
from claasbot.domain.feedback import NewFeedback, Reactions
from claasbot.domain.person import Person
from claasbot.errors import BadInput, ClaasbotError, NotFound, NotYours
from claasbot.ports import ChatClient
from claasbot.services.admitting import Admitting, Guest
from claasbot.services.answering import Answering
from claasbot.services.clock import Clock
from claasbot.services.commands import Commands
from claasbot.services.feedback_commands import reaction_reply
from claasbot.services.listening import Listening
from claasbot.storage import chats, completions, conversations, feedback_events, inbox
from claasbot.storage.inbox import Update
from claasbot.storage.store import Store

log = logging.getLogger(__name__)


class NotYet(Exception):
    """The update is about an answer that is still being written: hear it again after that."""


class Hearing:
    """Everything that people do goes through `handle`, and through the door first."""

    def __init__(
        self,
        store: Store,
        admitting: Admitting,
        answering: Answering,
        listening: Listening,
        commands: Commands,
        reactions: Reactions,
        clock: Clock,
    ) -> None:
        self._store = store
        self._admitting = admitting
        self._answering = answering
        self._listening = listening
        self._commands = commands
        self._reactions = reactions
        self._clock = clock

    async def handle(self, client: ChatClient, updates: tuple[Update, ...]) -> None:
        """Several updates are messages that one answer serves. Raises what the person is to be told."""
        event = updates[0].event
        match event:
            case Left():
                await self._store.run(chats.gone, event.address, self._clock())
            case Deleted():
                await self._listening.deleted(event)
            case _:
                guest = await self._admitting.enter(client, event)
                if guest is not None:
                    if guest.person.is_blocked:
                        raise BadInput("Your data is being deleted. Write again in a minute to start anew.")
                    await self._handle(client, guest, updates)

    async def _handle(self, client: ChatClient, guest: Guest, updates: tuple[Update, ...]) -> None:
        person, event = guest.person, updates[0].event
        ids = tuple(update.inbox_id for update in updates)
        match event:
            case Said():
                saids = tuple(update.event for update in updates if isinstance(update.event, Said))
                await self._answer(client, person, saids, ids)
            case Commanded(command="ask"):
                await self._answer(client, person, (_asked(event),), ids)
            case Edited():
                await self._answering.answer_edited(client, person, event, ids[0])
            case Commanded() | Pressed():
                if not self._commands.may_repeat(event) and not await self._store.run(
                    inbox.begin, ids[0], self._clock()
                ):
                    raise BadInput("I was interrupted while I did that. /status and /learned say how things stand.")
                reply = await self._commands.run(client, guest, event, ids[0])
                if reply is not None:
                    await client.send(event.address, reply, own_key(event))
            case Reacted():
                await self._react(client, person, event, is_late=updates[0].is_late)
            case _:
                log.info("update %d (%s) has no meaning here", ids[0], type(event).__name__)

    async def _answer(
        self, client: ChatClient, person: Person, saids: tuple[Said, ...], inbox_ids: tuple[int, ...]
    ) -> None:
        await self._remark(person, joined(saids), inbox_ids[0])
        await self._answering.answer(client, person, saids, inbox_ids)
        await self._admitting.ask_consent_once(client, person, saids[0].address)

    async def _remark(self, person: Person, said: Said, inbox_id: int) -> None:
        """A message that plainly speaks of the answer before it is feedback too; it is answered all the same."""
        if said.is_forwarded:  # somebody else's words
            return
        completion_id, is_reason = await self._store.run(self._spoken_of, person, said, inbox_id)
        if completion_id is None:
            return
        feedback = NewFeedback(
            completion_id=completion_id,
            kind="text",
            text=said.text,
            source_key=source_of(said),
            mark_key=said.message_key or None,
            is_interaction=said.is_interaction,
            is_reason=is_reason,
        )
        try:
            await self._listening.note(person, feedback)
        except ClaasbotError as error:  # nobody asked for it to be feedback, so nobody is told
            log.info("a remark is not noted: %s", error)

    def _spoken_of(self, db: Database, person: Person, said: Said, inbox_id: int) -> tuple[int | None, bool]:
        """Which answer the message is feedback on, if it is any, and whether it is the reason that was asked for."""
        was_met = conversations.user_turn_of_update(db, inbox_id) is not None
        if was_met or chats.room(db, said.address).learns_from != "everything":
            return None, False
        asked = None if said.reply_to else feedback_events.asked_why(db, person.person_id, said.address, self._clock())
        if asked is not None and remark.is_reason(said.text):
            return asked, True
        if not remark.is_remark(said.text):
            return None, False
        if said.reply_to is not None:
            turn = conversations.turn_at(db, person.person_id, said.address, said.reply_to)
            return None if turn is None else turn["completion_id"], False
        last = completions.last_completion(db, person.person_id, said.address)
        return None if last is None else last.completion_id, False

    async def _react(self, client: ChatClient, person: Person, event: Reacted, *, is_late: bool) -> None:
        """People react to anything, and others react too: what is no feedback passes in silence."""
        kind = self._reactions.kind_of(event.reaction)
        if kind is None:
            return
        try:
            completion_id = await self._completion_at(event)
        except NotFound:
            if not is_late and self._answering.is_writing(event.address):
                raise NotYet from None  # the message may be the answer that is being written
            return
        try:
            if event.removed:
                reply = await self._listening.withdraw(person, completion_id, kind, event.message_key)
            else:
                feedback = NewFeedback(
                    completion_id=completion_id,
                    kind=kind,
                    text="",
                    source_key=source_of(event),
                    mark_key=event.message_key,
                    is_reaction=True,
                )
                reply = reaction_reply(await self._listening.note(person, feedback))
        except NotYours:
            return
        if reply is not None:
            await client.send(event.address, reply, event.message_key)

    async def _completion_at(self, event: Reacted) -> int:
        sent = await self._store.run(completions.completion_at, event.address, event.message_key)
        return sent.completion_id


def _asked(event: Commanded) -> Said:
    """`/ask What is rain?` says it."""
    return Said(
        address=event.address,
        account=event.account,
        display_name=event.display_name,
        update_key=event.update_key,
        is_group=event.is_group,
        roles=event.roles,
        is_interaction=event.is_interaction,
        text=event.argument,
        message_key=event.own_key or "",
    )


def own_key(event: ChatEvent) -> str | None:
    """What a reply to this event refers to."""
    match event:
        case Said() | Edited():
            return event.message_key or None
        case Commanded() | Pressed():
            return event.own_key
    return None


def source_of(event: ChatEvent) -> str:
    """The same update notes the same feedback, however often it comes."""
    address = event.address
    return f"{address.platform}:{address.bot_account}:{event.update_key}"
