"""Outbox → what people see of their lessons. A mark that fails, and a chat that is slow, block nobody else."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from claasbot.domain.completion import BASE
from claasbot.domain.conversation import Button, ChatAddress, Reply
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
_MAX_ATTEMPTS = 8
"""With the pauses between, 5 s to 5 min, about ten minutes: longer than most platforms ask for."""
_LONGEST_PAUSE_S = 300.0
_MOST_CHATS = 200
"""Chats that are told something at the same time."""


class Telling:
    """The loop that empties the outbox: in order in each chat, and no chat waits for another."""

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
        self._busy: set[ChatAddress] = set()
        self._left_waiting = False
        self._is_finishing = False

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            await keep_doing("telling", partial(self.step, group), self._store.stages.outbox)

    async def finish(self, within_s: float) -> None:
        """Tell nothing more; return when what is being told is told, or the time is over. The rest stays in rows."""
        self._is_finishing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._busy:  # noqa: ASYNC110 - a chat ends by itself, and nobody else waits for that
                    await asyncio.sleep(0.02)

    async def step(self, group: asyncio.TaskGroup) -> float:
        """One task for each chat in which something is to be told and nothing is being told."""
        if self._is_finishing:
            return _LOOK_S
        self._left_waiting = False
        for address in await self._store.run(outbox.waiting_chats, self._clock()):
            if address in self._busy or len(self._busy) >= _MOST_CHATS:
                self._left_waiting = True
                continue
            self._busy.add(address)
            group.create_task(self._tell_chat(address))
        return _LOOK_S

    async def _tell_chat(self, address: ChatAddress) -> None:
        """The outermost loop of one chat: what goes wrong here is nobody else's trouble."""
        try:
            while notices := await self._store.run(outbox.waiting, address, self._clock()):
                for notice in notices:
                    if self._is_finishing:
                        return
                    await self._tell(notice)
        except ClaasbotError as error:
            log.warning("telling: %s", error)
        except Exception:
            log.exception("telling failed")
        finally:
            self._busy.discard(address)
            if self._left_waiting:
                self._store.stages.outbox.set()

    async def _tell(self, notice: Notice) -> None:
        try:
            until = await self._show(notice)
        except ChatGone:
            await self._store.run(chats.gone, notice.address, self._clock())
            return
        except ClaasbotError as error:
            log.info("notice %d was not told: %s", notice.notice_id, error)
            if notice.attempts + 1 < _MAX_ATTEMPTS:
                again_at = self._clock() + timedelta(seconds=min(_LONGEST_PAUSE_S, _LOOK_S * 2**notice.attempts))
                await self._store.run(outbox.failed, notice.notice_id, again_at)
                return
            until = None
        if until is not None:
            await self._store.run(outbox.postpone, notice.notice_id, until)
        else:
            await self._store.run(outbox.told, notice.notice_id, self._clock())

    async def _show(self, notice: Notice) -> datetime | None:
        """Mark the message at once; the words wait for the end of the quiet hours, which is returned.

        What is not so any more, because it was undone meanwhile, is not shown.
        """
        client = self._clients.get((notice.address.platform, notice.address.bot_account))
        room = await self._store.run(chats.room, notice.address)
        if client is None or room.is_gone or not notice.is_standing:
            return None
        if notice.message_key is not None and not notice.is_marked:
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
    if notice.kind == "learned" and notice.data and notice.is_answering:
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
    if notice.kind == "cleared" and notice.data:
        return Reply(text=_taken_back(notice.data), notice=True, data=dict(notice.data))
    if notice.kind == "refused":
        return Reply(text=f"I did not learn from that: {notice.data['reason']}.", notice=True, data=dict(notice.data))
    return None


def _taken_back(done: dict[str, Any]) -> str:
    """A lesson that was taken back has left the weights."""
    who = "the base model" if done["version"] == BASE else done["version"]
    what = f"“{_short(done['taken_back'])}”" if done["taken_back"] else "The lesson"
    lines = [f"{what} is taken back: {who} answers now."]
    if done["n_queued"]:
        lines.append("Without it the lessons after it did not pass my checks together: I learn them again one by one.")
    if done["n_lost"]:
        lines.append(f"{done['n_lost']} later {'piece' if done['n_lost'] == 1 else 'pieces'} of feedback went with it.")
    return " ".join(lines)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"
