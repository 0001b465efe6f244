"""Everything that goes to Telegram: at its pace, in order per chat, and once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

import telegram
from telegram import InputFile, LinkPreviewOptions, MessageEntity, ReplyParameters
from telegram.constants import ChatAction
from telegram.error import BadRequest, ChatMigrated, RetryAfter, TelegramError

from claasbot.chat.telegram.formatting import Piece
from claasbot.chat.telegram.keyboards import keyboard
from claasbot.chat.telegram.limiter import Limiter, Urgency
from claasbot.chat.telegram.memory import Memory
from claasbot.chat.telegram.places import GENERAL_TOPIC, Place, chat_name
from claasbot.chat.telegram.refusals import (
    as_chat_error,
    is_about_formatting,
    is_network,
    is_unchanged,
    retry_after_s,
)
from claasbot.domain.conversation import Button
from claasbot.errors import ChatError

_T = TypeVar("_T")
Call = Callable[[int], Awaitable[_T]]
"""One request to the Bot API; it gets the chat's id, which may change when a group becomes a supergroup."""

_MOST_REFUSALS = 10
_NO_LINK_PREVIEW = LinkPreviewOptions(is_disabled=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The clock and the waiting; tests pass their own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    notice_s: float = 30.0
    """The most that a notice waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Haste:
    """When something is no longer worth waiting for."""

    within_s: float
    until: float
    """The same by the clock."""


PATIENT = Haste(within_s=float("inf"), until=float("inf"))
"""Answers come, however long it takes."""


class Outgoing:
    """One bot's calls. `on_moved` hears of a group that became a supergroup: (old chat, new chat)."""

    def __init__(
        self,
        bot: telegram.Bot,
        limiter: Limiter,
        timing: Timing,
        memory: Memory,
        on_moved: Callable[[int, int], Awaitable[None]],
    ) -> None:
        self.bot = bot
        self.timing = timing
        self._limiter = limiter
        self._memory = memory
        self._on_moved = on_moved
        self._turns: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._line = asyncio.Lock()
        """Finals that all chats together leave no room for: first come, first served."""

    def notice(self) -> Haste:
        """A pause in one chat must not hold up what is told in the others."""
        return Haste(within_s=self.timing.notice_s, until=self.timing.now() + self.timing.notice_s)

    @asynccontextmanager
    async def turn(self, place: Place, haste: Haste) -> AsyncIterator[None]:
        """While the pieces of one reply are sent, no other comes between them. Raises ChatError when it is too late."""
        turn = self._turns.setdefault(place.chat_id, asyncio.Lock())
        self._check(place.chat_id, haste)
        try:
            async with asyncio.timeout(None if haste is PATIENT else haste.within_s):
                await turn.acquire()
        except TimeoutError:
            raise ChatError(f"chat {str(place.chat_id)!r} is busy with an earlier reply; try again later") from None
        try:
            yield
        finally:
            turn.release()

    async def deliver(self, place: Place, call: Call[_T], haste: Haste) -> _T:
        """Until it is there. Raises ChatError when trying again is useless, or takes too long.

        After a broken connection nobody knows whether a message arrived: better twice than never. An edit, which is
        how an answer with a preview ends, cannot come twice.
        """
        chat_id, n_refusals = place.chat_id, 0
        while True:
            await self._room(chat_id, haste)
            try:
                return await call(chat_id)
            except ChatMigrated as error:
                await self._on_moved(chat_id, error.new_chat_id)
                chat_id = error.new_chat_id
            except RetryAfter as error:
                n_refusals += 1
                if n_refusals > _MOST_REFUSALS:
                    raise as_chat_error(error, str(place.chat_id)) from None
                self._limiter.refused(chat_id, retry_after_s(error), self.timing.now())
            except TelegramError as error:
                n_refusals += 1
                pause_s = min(15.0, 0.5 * 2**n_refusals)
                is_over = n_refusals > _MOST_REFUSALS or self.timing.now() + pause_s > haste.until
                if is_over or not is_network(error):
                    raise as_chat_error(error, str(place.chat_id)) from None
                await self.timing.sleep(pause_s)

    async def _room(self, chat_id: int, haste: Haste) -> None:
        """Until it may be sent: first the chat's own pause, then one after another. Raises ChatError."""
        while True:
            if pause_s := self._check(chat_id, haste):
                await self.timing.sleep(pause_s)
                continue
            async with self._line:
                while not self._check(chat_id, haste):  # told to pause meanwhile: others need not wait for it
                    wait_s = self._limiter.ask(chat_id, Urgency.FINAL, self.timing.now())
                    assert wait_s is not None, "finals are never dropped"
                    if wait_s == 0:
                        return
                    await self.timing.sleep(wait_s)

    def _check(self, chat_id: int, haste: Haste) -> float:
        """How long the chat makes a final wait. Raises ChatError when that is too long."""
        now = self.timing.now()
        wait_s = self._limiter.wait_in_chat_s(chat_id, Urgency.FINAL, now)
        if now + wait_s > haste.until:
            pause = f"a pause of {wait_s:.0f} s" if wait_s else "patience"
            raise ChatError(f"Telegram asks for {pause} in chat {str(chat_id)!r}; try again later")
        return wait_s

    async def attempt(self, place: Place, urgency: Urgency, call: Call[_T]) -> _T | None:
        """Now, or for what may wait soon, or not at all: None. Raises TelegramError."""
        until = self.timing.now() + urgency.value.max_wait_s
        while wait_s := self._limiter.ask(place.chat_id, urgency, self.timing.now()):
            if self.timing.now() + wait_s > until:
                return None
            await self.timing.sleep(wait_s)
        if wait_s is None:
            return None
        try:
            return await call(place.chat_id)
        except RetryAfter as error:
            self._limiter.refused(place.chat_id, retry_after_s(error), self.timing.now())
            raise

    def message(
        self, place: Place, piece: Piece, *, reply_to: int | None = None, buttons: Sequence[Button] = ()
    ) -> Call[int]:
        """Sends a new message; its id."""
        markup = keyboard(buttons)

        async def call(chat_id: int) -> int:
            async def send(entities: tuple[MessageEntity, ...]) -> telegram.Message:
                return await self.bot.send_message(
                    chat_id,
                    piece.text,
                    entities=entities,
                    message_thread_id=place.topic,
                    reply_parameters=_reply(reply_to),
                    reply_markup=markup,
                    link_preview_options=_NO_LINK_PREVIEW,
                )

            message = await _formatted(piece, send)
            self._memory.wrote(chat_id, message.message_id, chat_name(chat_id, place.topic))
            return message.message_id

        return call

    def edit(self, message_id: int, piece: Piece, *, buttons: Sequence[Button] = ()) -> Call[int]:
        """Gives a message another text; its id. The text that it already has is fine too."""
        markup = keyboard(buttons)

        async def call(chat_id: int) -> int:
            async def edit(entities: tuple[MessageEntity, ...]) -> object:
                return await self.bot.edit_message_text(
                    piece.text,
                    chat_id,
                    message_id,
                    entities=entities,
                    reply_markup=markup,
                    link_preview_options=_NO_LINK_PREVIEW,
                )

            try:
                await _formatted(piece, edit)
            except BadRequest as error:
                if not is_unchanged(error):
                    raise
            return message_id

        return call

    def delete(self, message_id: int) -> Call[bool]:
        async def call(chat_id: int) -> bool:
            return await self.bot.delete_message(chat_id, message_id)

        return call

    def reaction(self, message_id: int, emoji: str | None) -> Call[bool]:
        """A bot has one reaction on a message: another replaces it, None takes it off."""

        async def call(chat_id: int) -> bool:
            return await self.bot.set_message_reaction(chat_id, message_id, [] if emoji is None else [emoji])

        return call

    def draft(self, place: Place, draft_id: int, piece: Piece) -> Call[bool]:
        """The native preview of private chats, with its Stop button."""

        async def call(chat_id: int) -> bool:
            async def send(entities: tuple[MessageEntity, ...]) -> bool:
                return await self.bot.send_message_draft(
                    chat_id,
                    draft_id,
                    piece.text,
                    entities=entities,
                    message_thread_id=place.topic,
                    api_kwargs={"can_stop": True, "keep_on_stop": True},  # Bot API 10.3
                )

            return await _formatted(piece, send)

        return call

    def file(
        self, place: Place, name: str, path: str, caption: str, *, reply_to: int | None, buttons: Sequence[Button]
    ) -> Call[int]:
        """Sends a file; the id of its message."""
        markup = keyboard(buttons)

        async def call(chat_id: int) -> int:
            content = await asyncio.to_thread(Path(path).read_bytes)
            message = await self.bot.send_document(
                chat_id,
                InputFile(content, filename=name),
                caption=caption or None,
                message_thread_id=place.topic,
                reply_parameters=_reply(reply_to),
                reply_markup=markup,
            )
            self._memory.wrote(chat_id, message.message_id, chat_name(chat_id, place.topic))
            return message.message_id

        return call

    def typing(self, place: Place) -> Call[bool]:
        """Messages to the General topic carry no topic; typing there does."""
        topic = place.topic or (GENERAL_TOPIC if self._memory.is_forum(place.chat_id) else None)

        async def call(chat_id: int) -> bool:
            return await self.bot.send_chat_action(chat_id, ChatAction.TYPING, message_thread_id=topic)

        return call


async def _formatted(piece: Piece, call: Callable[[tuple[MessageEntity, ...]], Awaitable[_T]]) -> _T:
    """With its formatting, or plain if that is what Telegram does not take."""
    try:
        return await call(piece.entities)
    except BadRequest as error:
        if not (piece.entities and is_about_formatting(error)):
            raise
    return await call(())


def _reply(message_id: int | None) -> ReplyParameters | None:
    return None if message_id is None else ReplyParameters(message_id, allow_sending_without_reply=True)
