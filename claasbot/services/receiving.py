"""Inbox → whoever hears it. Committed first, handled once, in order per chat."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from dataclasses import replace
from functools import partial

from sqlite_utils import Database

from claasbot.domain.conversation import (
    ChatEvent,
    Commanded,
    Deleted,
    Edited,
    Moved,
    Pressed,
    Reply,
    Said,
    Stopped,
    belongs_with,
)
from claasbot.errors import BadInput, ChatGone, ClaasbotError, NotFound, NotYours, ServerDown, StoreError
from claasbot.ports import ChatClient
from claasbot.services.answering import Answering
from claasbot.services.clock import Clock
from claasbot.services.hearing import Hearing, NotYet, own_key
from claasbot.services.stage import keep_doing, news_or_time
from claasbot.storage import chats, inbox, people
from claasbot.storage.inbox import Update
from claasbot.storage.store import Store

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_AT_ONCE = 500
"""Most updates that are read at once, besides those that wait in lanes already."""
_REST_OF_TEXT_S = 1.5
"""How long the rest of a text that the platform cut is waited for."""
_MAX_ATTEMPTS = 60
"""About eight minutes with the pauses between: longer than a server takes to start."""

_LaneKey = tuple[object, bool]


class _Lane:
    """What waits in one chat, in order."""

    def __init__(self) -> None:
        self.waiting: deque[Update] = deque()
        self.news = asyncio.Event()

    def put(self, update: Update) -> None:
        self.waiting.append(update)
        self.news.set()

    async def take(self) -> tuple[Update, ...]:
        """The next update, with the messages after it that one answer should serve too."""
        taken = [self.waiting.popleft()]
        while isinstance(last := taken[-1].event, Said) and not taken[-1].is_begun:
            if not self.waiting and last.may_continue:
                self.news.clear()
                await news_or_time(self.news, _REST_OF_TEXT_S)
            if not self.waiting or self.waiting[0].is_begun or not belongs_with(last, self.waiting[0].event):
                break
            taken.append(self.waiting.popleft())
        return tuple(taken)

    def put_back(self, updates: tuple[Update, ...]) -> None:
        """To be tried again before everything else; what they became so far is found in the store."""
        self.waiting.extendleft(replace(update, is_begun=True) for update in reversed(updates))


class Receiving:
    """The loop that hands updates out. Talk is in order per chat; feedback does not wait for an answer."""

    def __init__(
        self,
        store: Store,
        clients: dict[tuple[str, str], ChatClient],
        answering: Answering,
        hearing: Hearing,
        clock: Clock,
        retry_s: float = 0.5,
    ) -> None:
        """`retry_s`: first pause before an update that found the server down is tried again."""
        self._store = store
        self._retry_s = retry_s
        self._clients = clients
        self._answering = answering
        self._hearing = hearing
        self._clock = clock
        self._lanes: dict[_LaneKey, _Lane] = {}
        self._taken: set[int] = set()

    async def accept(self, event: ChatEvent) -> None:
        """Commit an update; returns when it cannot be lost any more. A stop is obeyed at once and never stored."""
        if isinstance(event, Stopped):
            await self._stop(event)
            return
        if isinstance(event, Commanded):
            event = replace(event, command=event.command.lower().lstrip("/"))
            if event.command == "stop":
                await self._stop(event)  # and it is answered like every command
        if isinstance(event, Moved):  # at once: what is said in the new chat must find the old one's rows
            await self._store.run(chats.moved, event.address, event.to_chat)
            return
        if not event.update_key:
            event = replace(event, update_key=secrets.token_hex(8))
        if await self._store.run(inbox.add, event, self._clock()) is not None:
            self._store.stages.inbox.set()

    async def _stop(self, event: ChatEvent) -> None:
        person = await self._store.run(people.known, event.address.platform, event.account)
        if person is not None:
            self._answering.stop(event.address, person.person_id)

    def is_idle(self) -> bool:
        return not self._taken

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            await keep_doing("receiving", partial(self._hand_out, group), self._store.stages.inbox)

    async def _hand_out(self, group: asyncio.TaskGroup) -> float:
        for update in await self._store.run(inbox.waiting, self._clock(), _AT_ONCE + len(self._taken)):
            if update.inbox_id not in self._taken:
                self._taken.add(update.inbox_id)
                self._lane_of(update, group).put(update)
        return _LOOK_S

    def _lane_of(self, update: Update, group: asyncio.TaskGroup) -> _Lane:
        key = (update.event.address, update.is_late or _waits_its_turn(update.event))
        if key not in self._lanes:
            lane = self._lanes[key] = _Lane()
            group.create_task(self._work(key, lane, group))
        return self._lanes[key]

    async def _work(self, key: _LaneKey, lane: _Lane, group: asyncio.TaskGroup) -> None:
        """One chat's updates, one after another; the lane ends when it is empty."""
        while lane.waiting:
            updates = await lane.take()
            try:
                await self._handle_safely(updates)
            except StoreError as error:  # the rows still wait, and so does everything behind them
                log.error("update %d is tried again: %s", updates[0].inbox_id, error)
                lane.put_back(updates)
                await asyncio.sleep(_LOOK_S)
                continue
            except NotYet:
                late = replace(updates[0], is_late=True)
                self._lane_of(late, group).put(late)
                continue
            except Exception:  # the outermost loop of a chat: one update's trouble must not end the bot
                log.exception("update %d could not be ended", updates[0].inbox_id)
            self._taken.difference_update(update.inbox_id for update in updates)
        del self._lanes[key]

    async def _handle_safely(self, updates: tuple[Update, ...]) -> None:
        """The outermost loop of one update: nobody gets silence or a stack trace."""
        first = updates[0]
        client = self._clients.get((first.event.address.platform, first.event.address.bot_account))
        if client is None:
            await self._end(updates, "no such chat client runs")
            return
        try:
            while not await self._handled(client, updates):
                pass
        except (StoreError, NotYet):
            raise
        except ChatGone as error:
            log.info("update %d: %s", first.inbox_id, error)
            await self._store.run(chats.gone, first.event.address, self._clock())
            await self._end(updates, str(error))
        except ClaasbotError as error:
            expected = isinstance(error, BadInput | NotFound | NotYours)
            if not expected:
                log.error("update %d failed: %s", first.inbox_id, error)
            await self._give_up(client, updates, str(error) if expected else f"That went wrong: {error}.")
        except Exception:
            error_id = secrets.token_hex(4)
            log.exception("update %d failed, error %s", first.inbox_id, error_id)
            await self._give_up(client, updates, f"Something broke; the admin finds it as error {error_id}.")

    async def _handled(self, client: ChatClient, updates: tuple[Update, ...]) -> bool:
        """Whether it is done. A server that is down is waited for, longer than it takes to start."""
        first = updates[0]
        if first.is_begun and not await self._store.run(inbox.is_open, first.inbox_id):
            return True  # it was merged into the one before
        try:
            await self._hearing.handle(client, updates)
        except ServerDown as error:
            attempts = await self._store.run(inbox.failed, first.inbox_id, str(error))
            log.warning("update %d waits for the server (attempt %d): %s", first.inbox_id, attempts, error)
            if attempts >= _MAX_ATTEMPTS:
                await self._give_up(client, updates, "My model does not come back. Please try again later.")
                return True
            if attempts == 1:
                notice = Reply(text="My model is starting again: I answer as soon as it is back.", notice=True)
                await self._tell(client, first, notice)
            await asyncio.sleep(min(10.0, self._retry_s * attempts))
            return False
        await self._end(updates)
        return True

    async def _give_up(self, client: ChatClient, updates: tuple[Update, ...], text: str) -> None:
        await self._mark_handled(updates, text)
        problem = Reply(text=text, notice=True, data={"problem": True})
        try:
            was_told = await self._answering.give_up(updates[0].inbox_id, problem)
        except ClaasbotError as error:
            log.info("update %d: its reply could not be closed: %s", updates[0].inbox_id, error)
            return
        if not was_told:
            await self._tell(client, updates[0], problem)

    async def _end(self, updates: tuple[Update, ...], error: str = "") -> None:
        """Handled; a reply that was opened for it and never used is closed."""
        await self._mark_handled(updates, error)
        try:
            await self._answering.give_up(updates[0].inbox_id, Reply(text="(This answer broke off.)", notice=True))
        except ClaasbotError as problem:
            log.info("update %d: its reply could not be closed: %s", updates[0].inbox_id, problem)

    async def _mark_handled(self, updates: tuple[Update, ...], error: str) -> None:
        def unit(db: Database) -> None:
            for update in updates:
                inbox.handled(db, update.inbox_id, self._clock(), error)

        await self._store.run(unit)

    async def _tell(self, client: ChatClient, update: Update, reply: Reply) -> None:
        try:
            await client.send(update.event.address, reply, own_key(update.event))
        except ClaasbotError as error:
            log.info("update %d: the problem could not be told: %s", update.inbox_id, error)


def _waits_its_turn(event: ChatEvent) -> bool:
    """What changes the conversation waits for the answer before it; feedback does not."""
    match event:
        case Said() | Edited() | Deleted():
            return True
        case Commanded():
            return event.command in ("ask", "retry", "reset", "new", "forget", "link")
        case Pressed():
            return event.action.partition(":")[0] in ("retry", "forget", "link")
    return False
