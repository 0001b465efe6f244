"""Outbox → what people see of their lessons. A mark that fails blocks nothing."""

from __future__ import annotations

import logging

from claasbot.domain.conversation import Button, Reply
from claasbot.errors import ClaasbotError
from claasbot.ports import ChatClient
from claasbot.services.clock import Clock
from claasbot.services.stage import keep_doing
from claasbot.storage import outbox
from claasbot.storage.outbox import Notice
from claasbot.storage.store import Store

log = logging.getLogger(__name__)

_LOOK_S = 5.0
_MAX_ATTEMPTS = 3


class Telling:
    """The loop that empties the outbox."""

    def __init__(self, store: Store, clients: dict[tuple[str, str], ChatClient], clock: Clock) -> None:
        """`clients` by (platform, bot account)."""
        self._store = store
        self._clients = clients
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        await keep_doing("telling", self.step, self._store.stages.outbox)

    async def step(self) -> float:
        for notice in await self._store.run(outbox.waiting):
            try:
                await self._tell(notice)
            except ClaasbotError as error:
                log.info("notice %d was not told: %s", notice.notice_id, error)
                await self._store.run(outbox.failed, notice.notice_id)
                if notice.attempts + 1 < _MAX_ATTEMPTS:
                    continue
            await self._store.run(outbox.told, notice.notice_id, self._clock())
        return _LOOK_S

    async def _tell(self, notice: Notice) -> None:
        client = self._clients.get((notice.address.platform, notice.address.bot_account))
        if client is None:
            return
        if notice.message_key is not None:
            await client.mark(notice.address, notice.message_key, notice.kind)
        reply = words_of(notice)
        if reply is not None:
            await client.send(notice.address, reply)


def words_of(notice: Notice) -> Reply | None:
    """The sentence that goes with a mark, where one is worth reading."""
    if notice.kind == "learned":
        return Reply(
            text=f"Learned from your note “{_short(str(notice.data['said']))}”: {notice.data['version']} answers now.",
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
