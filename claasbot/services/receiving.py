"""Inbox → whoever hears it. Committed first, handled once, in order per chat."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter, deque
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
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
from claasbot.errors import BadInput, ChatGone, ClaasbotError, NotFound, NotYours, ServerBroke, ServerDown, StoreError
from claasbot.logs import new_error_id
from claasbot.masking import masked
from claasbot.ports import ChatClient
from claasbot.services.answering import Answering
from claasbot.services.clock import Clock
from claasbot.services.crowding import Crowding
from claasbot.services.hearing import Hearing, NotYet, own_key
from claasbot.services.not_saved import NotSaved
from claasbot.services.outage import Outage
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
_PATIENCE = timedelta(hours=1)
"""How long a message waits for a server that is down: longer than one takes to be mended by hand."""
_MOST_BREAKS = 5
"""Answers to one message that the server began and did not end: the message may be what breaks it."""

DOWN = Reply(text="My model is starting again: I answer as soon as it is back.", notice=True)

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
        crowding: Crowding,
        clock: Clock,
    ) -> None:
        """`clients` by (platform, bot account)."""
        self._store = store
        self._outage = Outage()
        self._clients = clients
        self._not_saved = NotSaved(clients)
        self._crowding = crowding
        self._answering = answering
        self._hearing = hearing
        self._clock = clock
        self._lanes: dict[_LaneKey, _Lane] = {}
        self._taken: set[int] = set()
        self._n_breaks: Counter[int] = Counter()
        self._is_finishing = False

    async def accept(self, event: ChatEvent) -> None:
        """Commit an update; returns when it cannot be lost any more. A stop is obeyed at once and never stored.

        Raises StoreError, after the person was told, when it is not saved.
        """
        try:
            await self._commit(event)
        except StoreError:
            await self._not_saved.tell(event)
            raise
        self._not_saved.is_over(event.address)

    async def _commit(self, event: ChatEvent) -> None:
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

    async def finish(self, within_s: float) -> None:
        """Begin nothing more; return when what was begun is done, or the time is over. The rest waits in the store."""
        self._is_finishing = True
        self._outage.ended()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._lanes:  # noqa: ASYNC110 - a lane ends by itself, and nobody else waits for that
                    await asyncio.sleep(0.02)

    async def _hand_out(self, group: asyncio.TaskGroup) -> float:
        turned_away = []
        for update in await self._store.run(inbox.waiting, self._clock(), _AT_ONCE + len(self._taken)):
            if update.inbox_id in self._taken:
                continue
            if (why := self._crowding.refusal(update)) is not None and _may_be_turned_away(update.event):
                turned_away.append((update, why))
                continue
            self._taken.add(update.inbox_id)
            self._crowding.takes(update)
            self._lane_of(update, group).put(update)
        if turned_away:
            await self._mark_handled(tuple(update for update, _ in turned_away), "turned away: too many wait")
            group.create_task(self._crowding.tell(turned_away))
        return _LOOK_S

    def _lane_of(self, update: Update, group: asyncio.TaskGroup) -> _Lane:
        overtakes = self._outage.is_on and _is_about_forgetting(update.event)
        key = (update.event.address, update.is_late or (_waits_its_turn(update.event) and not overtakes))
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
                await self._not_saved.tell(updates[0].event)
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
            self._crowding.is_done_with(updates)
            self._n_breaks.pop(updates[0].inbox_id, None)
        del self._lanes[key]

    async def _handle_safely(self, updates: tuple[Update, ...]) -> None:
        """The outermost loop of one update: nobody gets silence or a stack trace."""
        first = updates[0]
        client = self._clients.get((first.event.address.platform, first.event.address.bot_account))
        if client is None:
            await self._end(updates, "no such chat client runs")
            return
        try:
            await self._handle_until_done(client, updates)
        except (StoreError, NotYet):
            raise
        except ChatGone as error:
            log.info("update %d: %s", first.inbox_id, error)
            await self._store.run(chats.gone, first.event.address, self._clock())
            await self._end(updates, str(error))
        except (BadInput, NotFound, NotYours) as error:
            await self._give_up(client, updates, str(error))
        except Exception as error:
            error_id = new_error_id()
            log.exception("update %d failed, error %s", first.inbox_id, error_id)
            what = f"That went wrong: {masked(str(error))}" if isinstance(error, ClaasbotError) else "Something broke"
            await self._give_up(client, updates, f"{what} (error {error_id}). Tell the host that number.")

    async def _handle_until_done(self, client: ChatClient, updates: tuple[Update, ...]) -> None:
        """A server that is down is waited for. When claasbot ends first, the update stays open."""
        first, since, n_failures = updates[0], self._clock(), 0
        while not self._is_finishing:
            if not await self._store.run(inbox.is_open, first.inbox_id):
                return  # it was merged into the one before, or its person was forgotten meanwhile
            try:
                await self._hearing.handle(client, updates)
            except ServerDown as error:
                n_failures += 1
                if sentence := await self._why_not_again(first, error, is_late=self._clock() - since > _PATIENCE):
                    await self._give_up(client, updates, sentence)
                    return
                if n_failures == 1 and first.attempts == 0 and self._outage.is_news_to(first.event.address):
                    await self._tell(client, first, DOWN)
                await self._outage.wait(n_failures)
            else:
                if n_failures:
                    self._outage.ended()
                await self._end(updates)
                return

    async def _why_not_again(self, update: Update, error: ServerDown, *, is_late: bool) -> str:
        """What to tell the person where another attempt is in vain; empty where it is not."""
        attempts = await self._store.run(inbox.failed, update.inbox_id, str(error))
        log.warning("update %d waits for the server (attempt %d): %s", update.inbox_id, attempts, error)
        self._n_breaks[update.inbox_id] += isinstance(error, ServerBroke)
        if self._n_breaks[update.inbox_id] >= _MOST_BREAKS:
            return f"My model broke off {_MOST_BREAKS} times over that. Please say it another way."
        return "My model does not come back. Please try again later." if is_late else ""

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


def _is_about_forgetting(event: ChatEvent) -> bool:
    """To be obeyed also where answers wait for a server that is down."""
    if isinstance(event, Commanded):
        return event.command == "forget"
    return isinstance(event, Pressed) and event.action.partition(":")[0] == "forget"


def _may_be_turned_away(event: ChatEvent) -> bool:
    """What the person sees unanswered and can say again."""
    return isinstance(event, Said | Commanded) and not _is_about_forgetting(event)


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
