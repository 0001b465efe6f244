"""One answer in the making: typing, then a message that grows by edits, then the whole text for certain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import discord

from claasbot.chat.discord.delivery import TROUBLES, Piece, Place, as_chat_errors, insist, new_nonce, pieces_of
from claasbot.chat.discord.events import STOP
from claasbot.chat.discord.formatting import pieces
from claasbot.chat.discord.pace import Pace
from claasbot.domain.conversation import Button, Reply

log = logging.getLogger(__name__)
Result = TypeVar("Result")
_Do = Callable[[Callable[[], Awaitable[str | None]]], Awaitable[str | None]]

_FIRST_CHARS = 20
_TYPING_S = 8.0
"""Discord shows typing for ten seconds."""
_N_TYPINGS = 75
_SILENCE_S = 600.0
"""An answer that has not grown for so long gets no more previews."""
_CHARS_PER_INTERVAL = 2000
_STOP_BUTTON = Button(label="Stop", action=STOP)


class DiscordWriter:
    """Previews are dropped when Discord is slow; the final text is not."""

    def __init__(self, place: Place, pace: Pace) -> None:
        self._place = place
        self._pace = pace
        self._text = ""
        self._keys: list[str] = []
        self._shown: list[Piece] = []
        self._nonces: list[int] = []
        self._enough = asyncio.Event()
        self._news = asyncio.Event()
        self._final = asyncio.Event()
        self.previews = asyncio.create_task(self._preview())

    async def write(self, delta: str) -> None:
        self._text += delta
        self._news.set()
        if len(self._text) >= _FIRST_CHARS:
            self._enough.set()

    async def finish(self, reply: Reply) -> tuple[str, ...]:
        for event in (self._final, self._enough, self._news):
            event.set()
        await asyncio.wait([self.previews])
        wanted = pieces_of(reply)
        with as_chat_errors():
            await self._make(wanted, lambda act: insist(act, self._pace.retry_s))
        for key in self._keys[len(wanted) :]:
            try:
                await self._place.remove(key)
            except TROUBLES as error:
                log.info("message %s is left over: %s", key, type(error).__name__)
        return tuple(self._keys[: len(wanted)])

    async def _preview(self) -> None:
        if not await self._typing():
            return
        while not self._final.is_set():
            self._news.clear()
            if not await self._show(self._text):
                return
            await _within(self._final, self._pace.preview_s * (1 + len(self._text) / _CHARS_PER_INTERVAL))
            if not await _within(self._news, _SILENCE_S):
                return

    async def _typing(self) -> bool:
        """Until there is something to show; False when nothing came."""
        for _ in range(_N_TYPINGS):
            try:
                await self._place.show_typing()
            except TROUBLES as error:
                log.info("typing is not shown: %s", type(error).__name__)
            if await _within(self._enough, _TYPING_S):
                return True
        return False

    async def _show(self, text: str) -> bool:
        """One preview; False when there should be no more of them for this answer."""
        texts = pieces(text)
        wanted = tuple(Piece(text=one) for one in texts[:-1]) + tuple(
            Piece(text=one, buttons=(_STOP_BUTTON,)) for one in texts[-1:]
        )
        try:
            await self._make(wanted, lambda act: act(), must_exist=True)
        except (discord.RateLimited, discord.Forbidden, discord.NotFound) as error:
            log.info("no more previews: %s", type(error).__name__)
            return False
        except TROUBLES as error:
            log.info("a preview is dropped: %s", type(error).__name__)
            return not (isinstance(error, discord.HTTPException) and error.status == 429)
        return True

    async def _make(self, wanted: tuple[Piece, ...], do: _Do, *, must_exist: bool = False) -> None:
        """Post and edit until the messages are as wanted; what has not changed is left alone.

        `must_exist`: a message that somebody deleted is not posted anew.
        """
        for at, piece in enumerate(wanted):
            if at == len(self._keys):
                self._keys.append(await self._post(piece, at, do))
                self._shown.append(piece)
            elif self._shown[at] != piece:
                try:
                    await do(partial(self._place.edit, self._keys[at], piece))
                except discord.NotFound:
                    if must_exist:
                        raise
                    self._nonces[at] = new_nonce()
                    self._keys[at] = await self._post(piece, at, do)
                self._shown[at] = piece

    async def _post(self, piece: Piece, at: int, do: _Do) -> str:
        if at == len(self._nonces):
            self._nonces.append(new_nonce())
        key = await do(partial(self._place.post, piece, self._nonces[at]))
        assert key is not None
        return key


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
