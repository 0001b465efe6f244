"""Inbox → the room that each update belongs in. Committed first, handled once, in order per chat."""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import replace
from functools import partial

from claasbot.domain.conversation import ChatEvent, Commanded, Pressed, Reacted, Reply, Said, Stopped
from claasbot.domain.feedback import REACTIONS
from claasbot.domain.person import Person
from claasbot.errors import BadInput, ClaasbotError, NotFound, NotYours, ServerDown, StoreError
from claasbot.ports import ChatClient
from claasbot.services.answering import Answering
from claasbot.services.clock import Clock
from claasbot.services.commands import Commands, reaction_reply
from claasbot.services.listening import Listening
from claasbot.services.stage import keep_doing
from claasbot.storage import conversations, inbox, people
from claasbot.storage.inbox import Update
from claasbot.storage.store import Store

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_MAX_ATTEMPTS = 60
"""About eight minutes with the pauses between: longer than a server takes to start."""


class Receiving:
    """The loop that hands updates out. Talk is in order per chat; feedback does not wait for an answer."""

    def __init__(
        self,
        store: Store,
        clients: dict[tuple[str, str], ChatClient],
        answering: Answering,
        listening: Listening,
        commands: Commands,
        clock: Clock,
        retry_s: float = 0.5,
    ) -> None:
        """`retry_s`: first pause before an update that found the server down is tried again."""
        self._store = store
        self._retry_s = retry_s
        self._clients = clients
        self._answering = answering
        self._listening = listening
        self._commands = commands
        self._clock = clock
        self._lanes: dict[tuple[object, bool], asyncio.Queue[Update]] = {}
        self._taken: set[int] = set()

    async def accept(self, event: ChatEvent) -> None:
        """Commit an update; returns when it cannot be lost any more. A stop is obeyed at once and never stored."""
        if isinstance(event, Stopped):
            self._answering.stop(event.address)
            return
        if not event.update_key:
            event = replace(event, update_key=secrets.token_hex(8))
        if await self._store.run(inbox.add, event, self._clock()) is not None:
            self._store.stages.inbox.set()

    def is_idle(self) -> bool:
        return not self._taken

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            await keep_doing("receiving", partial(self._hand_out, group), self._store.stages.inbox)

    async def _hand_out(self, group: asyncio.TaskGroup) -> float:
        for update in await self._store.run(inbox.waiting, self._clock()):
            if update.inbox_id not in self._taken:
                self._taken.add(update.inbox_id)
                self._lane_of(update, group).put_nowait(update)
        return _LOOK_S

    def _lane_of(self, update: Update, group: asyncio.TaskGroup) -> asyncio.Queue[Update]:
        key = (update.event.address, _waits_its_turn(update.event))
        if key not in self._lanes:
            lane = self._lanes[key] = asyncio.Queue()
            group.create_task(self._work(key, lane))
        return self._lanes[key]

    async def _work(self, key: tuple[object, bool], lane: asyncio.Queue[Update]) -> None:
        """One chat's updates, one after another; the lane ends when it is empty."""
        while not lane.empty():
            update = lane.get_nowait()
            try:
                await self._handle_safely(update)
            except StoreError as error:  # its row still waits: it is handed out again
                log.error("update %d is tried again: %s", update.inbox_id, error)
                await asyncio.sleep(_LOOK_S)
            self._taken.discard(update.inbox_id)
        del self._lanes[key]

    async def _handle_safely(self, update: Update) -> None:
        """The outermost loop of one update: nobody gets silence or a stack trace."""
        client = self._clients.get((update.event.address.platform, update.event.address.bot_account))
        if client is None:
            await self._store.run(inbox.handled, update.inbox_id, self._clock(), "no such chat client runs")
            return
        try:
            while not await self._handled(client, update):
                pass
        except StoreError:
            raise
        except ClaasbotError as error:
            expected = isinstance(error, BadInput | NotFound | NotYours)
            if not expected:
                log.error("update %d failed: %s", update.inbox_id, error)
            await self._give_up(client, update, str(error) if expected else f"That went wrong: {error}.")
        except Exception:
            error_id = secrets.token_hex(4)
            log.exception("update %d failed, error %s", update.inbox_id, error_id)
            await self._give_up(client, update, f"Something broke; the admin finds it as error {error_id}.")

    async def _handled(self, client: ChatClient, update: Update) -> bool:
        """Whether the update is done. A server that is down is waited for, longer than it takes to start."""
        try:
            await self._handle(client, update)
        except ServerDown as error:
            attempts = await self._store.run(inbox.failed, update.inbox_id, str(error))
            log.warning("update %d waits for the server (attempt %d): %s", update.inbox_id, attempts, error)
            if attempts >= _MAX_ATTEMPTS:
                await self._give_up(client, update, "My model does not come back. Please try again later.")
                return True
            if attempts == 1:
                notice = Reply(text="My model is starting again: I answer as soon as it is back.", notice=True)
                await self._tell(client, update, notice)
            await asyncio.sleep(min(10.0, self._retry_s * attempts))
            return False
        await self._store.run(inbox.handled, update.inbox_id, self._clock())
        return True

    async def _give_up(self, client: ChatClient, update: Update, text: str) -> None:
        await self._store.run(inbox.handled, update.inbox_id, self._clock(), text)
        await self._tell(client, update, Reply(text=text, notice=True, data={"problem": True}))

    async def _tell(self, client: ChatClient, update: Update, reply: Reply) -> None:
        try:
            await client.send(update.event.address, reply)
        except ClaasbotError as error:
            log.info("update %d: the problem could not be told: %s", update.inbox_id, error)

    async def _handle(self, client: ChatClient, update: Update) -> None:
        event = update.event
        person = await self._store.run(
            people.person_of, event.address.platform, event.account, event.display_name, self._clock()
        )
        if person.is_blocked:
            raise BadInput("Your data is being deleted. Write again in a minute to start anew.")
        match event:
            case Said():
                await self._answering.answer(
                    client, person, event.address, event.text, update.inbox_id, event.message_key or None
                )
            case Commanded():
                await self._reply(client, event, await self._commands.run(client, person, event))
            case Pressed():
                await self._reply(client, event, await self._commands.press(client, person, event))
            case Reacted():
                await self._reply(client, event, await self._react(person, event))
            case _:
                log.info("update %d (%s) has no meaning here", update.inbox_id, type(event).__name__)

    async def _reply(self, client: ChatClient, event: ChatEvent, reply: Reply | None) -> None:
        if reply is not None:
            await client.send(event.address, reply)

    async def _react(self, person: Person, event: Reacted) -> Reply | None:
        kind = REACTIONS.get(event.reaction)
        if kind is None:
            return None
        sent = await self._store.run(conversations.completion_at, event.address, event.message_key)
        if event.removed:
            await self._listening.withdraw(person, sent.completion_id, kind)
            return None
        key = f"{event.address.platform}:{event.address.bot_account}:{event.update_key}"
        return reaction_reply(await self._listening.note(person, sent.completion_id, kind, "", key))


def _waits_its_turn(event: ChatEvent) -> bool:
    """What changes the conversation waits for the answer before it; feedback does not."""
    match event:
        case Said():
            return True
        case Commanded():
            return event.command.lower().lstrip("/") in ("retry", "reset", "forget")
        case Pressed():
            return event.action.startswith("forget:")
    return False
