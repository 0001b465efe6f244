"""One reply while it is written. Previews come when the platform has room for them; the final text always comes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from typing import Protocol, TypeVar

from telegram.error import TelegramError

from claasbot.chat.telegram.formatting import Piece, rendered, units
from claasbot.chat.telegram.limiter import Urgency
from claasbot.chat.telegram.outgoing import PATIENT, Outgoing
from claasbot.chat.telegram.places import Place
from claasbot.chat.telegram.previews import DraftPreview, DraftSupport, MessagePreview, Outcome
from claasbot.chat.telegram.sending import deliver_reply, shown_in
from claasbot.domain.conversation import Reply

log = logging.getLogger(__name__)

_FIRST_UNITS = 20
_SOON_S = 0.2
"""After a preview for which our own limits left no room: nothing was sent, so nothing need be spaced out."""
_TYPING_S = 4.0  # it shows for five seconds
_MOST_TYPING_S = 600.0

_T = TypeVar("_T")


class Start(Protocol):
    """Starts a task that its client owns."""

    def __call__(self, work: Coroutine[object, object, _T], /) -> asyncio.Task[_T]: ...


class TelegramWriter:
    """The growing text is shown by a task of its own: `write` waits for nobody."""

    def __init__(
        self, out: Outgoing, place: Place, reply_to: int | None, drafts: DraftSupport, username: str, start: Start
    ) -> None:
        self._out = out
        self._place = place
        self._reply_to = reply_to
        self._username = username
        self._preview: DraftPreview | MessagePreview = (
            DraftPreview(out, place, drafts)
            if place.is_private and drafts.is_offered
            else MessagePreview(out, place, reply_to)
        )
        self._text = ""
        self._news = asyncio.Event()
        self._in_flight: asyncio.Task[Outcome] | None = None
        self._start = start
        self._tasks = [start(self._keep_typing()), start(self._keep_showing())]

    async def write(self, delta: str) -> None:
        self._text += delta
        self._news.set()

    async def finish(self, reply: Reply) -> tuple[str, ...]:
        await self._end_previews()
        return await deliver_reply(
            self._out,
            self._place,
            shown_in(self._place, reply, self._username),
            reply_to=self._reply_to,
            haste=PATIENT,
            preview_id=self._preview.message_id,
        )

    async def _end_previews(self) -> None:
        """A request that is on its way is waited for: cut off, it might leave a message that nobody knows."""
        for task in self._tasks:
            task.cancel()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                log.error("previews broke off: %s", type(ended).__name__)
        if self._in_flight is not None:
            await asyncio.wait([self._in_flight])

    async def _keep_typing(self) -> None:
        began = self._out.timing.now()
        while self._out.timing.now() < began + _MOST_TYPING_S:
            with suppress(TelegramError):
                await self._out.attempt(self._place, Urgency.TYPING, self._out.typing(self._place))
            await self._out.timing.sleep(_TYPING_S)

    async def _keep_showing(self) -> None:
        shown = Piece(text="")
        while True:
            await self._news.wait()
            self._news.clear()
            if units(self._text.strip()) < _FIRST_UNITS:
                continue
            piece = rendered(self._text)[-1]  # of a long answer, what is being written now
            if piece == shown:
                continue
            outcome = await self._show(piece)
            if outcome == "over":
                return
            if outcome == "shown":
                self._tasks[0].cancel()
                shown = piece
            else:
                self._news.set()
            if outcome != "no drafts":
                pause_s = self._preview.pause_s(piece)
                await self._out.timing.sleep(min(_SOON_S, pause_s) if outcome == "no room" else pause_s)

    async def _show(self, piece: Piece) -> Outcome:
        self._in_flight = self._start(self._preview.show(piece))
        outcome = await asyncio.shield(self._in_flight)
        if outcome == "no drafts":
            self._preview = MessagePreview(self._out, self._place, self._reply_to)
        return outcome
