"""More messages than can be answered soon, of everybody or of one person: those beyond are turned away, with a sentence
and not with silence.

What waits is bounded, and so is the memory for it. Each chat is told once a minute: telling costs the platform too.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from claasbot.domain.conversation import ChatAddress, Reply
from claasbot.errors import ClaasbotError
from claasbot.ports import ChatClient
from claasbot.services.clock import Clock
from claasbot.services.hearing import own_key
from claasbot.storage.inbox import Update

log = logging.getLogger(__name__)

CROWDED = Reply(
    text="More people write than I can answer right now, so I leave that out. Please say it again in a few minutes.",
    notice=True,
    data={"problem": True},
)
TOO_MANY = Reply(
    text="You write faster than I can answer, so I leave that out. Please say it again when I have caught up.",
    notice=True,
    data={"problem": True},
)
_TELL_AGAIN = timedelta(minutes=1)


class Crowding:
    """`max_waiting`: most updates of everybody together that wait at once; `max_each`: of one account, 0: no limit."""

    def __init__(
        self, clients: dict[tuple[str, str], ChatClient], clock: Clock, max_waiting: int, max_each: int
    ) -> None:
        self._clients = clients
        self._clock = clock
        self._max_waiting = max_waiting
        self._max_each = max_each
        self._of_account: Counter[tuple[str, str]] = Counter()
        self._told_at: dict[ChatAddress, datetime] = {}

    def takes(self, update: Update) -> None:
        """It waits from now on."""
        self._of_account[_account(update)] += 1

    def is_done_with(self, updates: Sequence[Update]) -> None:
        self._of_account -= Counter(map(_account, updates))

    def refusal(self, update: Update) -> Reply | None:
        """What its sender is told instead of an answer, as things stand now; None when it may wait."""
        if self._is_too_many(update):
            return TOO_MANY
        return CROWDED if self._is_full() else None

    def _is_full(self) -> bool:
        return self._of_account.total() >= self._max_waiting

    def _is_too_many(self, update: Update) -> bool:
        return 0 < self._max_each <= self._of_account[_account(update)]

    async def tell(self, turned_away: Sequence[tuple[Update, Reply]]) -> None:
        """One sentence for each chat among them that has not heard it lately. What cannot be told is logged."""
        now = self._clock()
        self._told_at = {chat: at for chat, at in self._told_at.items() if now - at < _TELL_AGAIN}
        news = {one.event.address: (one, why) for one, why in turned_away if one.event.address not in self._told_at}
        self._told_at |= dict.fromkeys(news, now)
        log.warning("%d updates turned away: %d wait already", len(turned_away), self._of_account.total())
        await asyncio.gather(*(self._tell(one, why) for one, why in news.values()))

    async def _tell(self, update: Update, why: Reply) -> None:
        event = update.event
        client = self._clients.get((event.address.platform, event.address.bot_account))
        if client is None:
            return
        try:
            await client.send(event.address, why, own_key(event))
        except ClaasbotError as error:
            log.info("update %d: that it is turned away could not be told: %s", update.inbox_id, error)


def _account(update: Update) -> tuple[str, str]:
    return update.event.address.platform, update.event.account
