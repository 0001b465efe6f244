"""Outbox → what people see of their lessons. A mark that fails blocks nothing."""

from __future__ import annotations

import logging
from datetime import datetime

from claasbot.domain.conversation import Button, Reply
from claasbot.domain.quiet import QuietHours
from claasbot.errors import ChatGone, ClaasbotError
from claasbot.ports import ChatClient
from claasbot.services.clock import Clock
from claasbot.services.stage import keep_doing
from claasbot.storage import chats, outbox
from claasbot.storage.outbox import Notice
from claasbot.storage.store import Store

log = logging.getLogger(__name__)

_LOOK_S = 5.0
_MAX_ATTEMPTS = 3


class Telling:
    """The loop that empties the outbox."""

    def __init__(
        self,
        store: Store,
        clients: dict[tuple[str, str], ChatClient],
        clock: Clock,
        quiet: QuietHours | None = None,
    ) -> None:
        """`clients` by (platform, bot account)."""
        self._store = store
        self._clients = clients
        self._clock = clock
        self._quiet = quiet

    async def run(self) -> None:
        """Until cancelled."""
        await keep_doing("telling", self.step, self._store.stages.outbox)

    async def step(self) -> float:
        for notice in await self._store.run(outbox.waiting, self._clock()):
            try:
                until = await self._tell(notice)
            except ChatGone:
                await self._store.run(chats.gone, notice.address, self._clock())
                continue
            except ClaasbotError as error:
                log.info("notice %d was not told: %s", notice.notice_id, error)
                await self._store.run(outbox.failed, notice.notice_id)
                if notice.attempts + 1 < _MAX_ATTEMPTS:
                    continue
                until = None
            if until is not None:
                await self._store.run(outbox.postpone, notice.notice_id, until)
            else:
                await self._store.run(outbox.told, notice.notice_id, self._clock())
        return _LOOK_S

    async def _tell(self, notice: Notice) -> datetime | None:
        """Mark the message at once; the words wait for the end of the quiet hours, which is returned."""
        client = self._clients.get((notice.address.platform, notice.address.bot_account))
        room = await self._store.run(chats.room, notice.address)
        if client is None or room.is_gone:
            return None
        if notice.message_key is not None:
            mark = None if notice.kind == "cleared" else notice.kind
            await client.mark(notice.address, notice.message_key, mark)
        reply = words_of(notice)
        if reply is None or not room.tells_lessons:
            return None
        until = None if self._quiet is None else self._quiet.ends_at(self._clock().astimezone())
        if until is None:
            await client.send(notice.address, reply, notice.message_key)
        return until


def words_of(notice: Notice) -> Reply | None:
    """The sentence that goes with a mark, where one is worth reading."""
    if notice.kind == "learned" and notice.data:
        return Reply(
            text=f"Learned from your {'correction' if notice.data.get('kind') == 'correction' else 'note'} "
            f"“{_short(str(notice.data['said']))}”: {notice.data['version']} answers now.",
            notice=True,
            buttons=(
                Button(label="See difference", action="compare"),
                Button(label="Undo", action=f"undo:{notice.data['version_id']}"),
            ),
            data=dict(notice.data),
        )
    if notice.kind == "refused":
        return Reply(text=f"I did not learn from that: {notice.data['reason']}.", notice=True, data=dict(notice.data))
    return None


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"
