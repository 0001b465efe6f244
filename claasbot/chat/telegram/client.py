"""One bot account on Telegram: updates become ChatEvents, Replies become messages. It decides nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from telegram.error import TelegramError

from claasbot.chat.telegram.attachments import check_size, text_of
from claasbot.chat.telegram.bot import new_bot
from claasbot.chat.telegram.intake import ChatOfMessage, Intake
from claasbot.chat.telegram.limiter import Limiter, Urgency
from claasbot.chat.telegram.memory import Memory
from claasbot.chat.telegram.outgoing import Outgoing, Timing
from claasbot.chat.telegram.places import Place, place_of
from claasbot.chat.telegram.previews import DraftSupport
from claasbot.chat.telegram.receiving import Receiver, TelegramRules
from claasbot.chat.telegram.refusals import scrubbed
from claasbot.chat.telegram.sending import deliver_reply, shown_in
from claasbot.chat.telegram.updates import PLATFORM, moved
from claasbot.chat.telegram.writer import TelegramWriter
from claasbot.domain.conversation import Attachment, ChatAddress, Reply
from claasbot.errors import ChatError, ClaasbotError
from claasbot.ports import Accept, ClientHealth, Mark

log = logging.getLogger(__name__)

_T = TypeVar("_T")

MARKS: Mapping[Mark, str] = {"noted": "👀", "queued": "✍", "learned": "🤓", "refused": "🤔"}
"""🎓 is none of the reactions that Telegram allows."""


class TelegramChat:
    """`commands`: the menu, name → what it does; `unlisted` ones work too.

    `chat_of_message` finds what was written before the last start.
    """

    platform = PLATFORM
    max_file_bytes = 50_000_000
    """Bots may send files of up to 50 MB (Bot API, “Sending files”)."""

    def __init__(
        self,
        rules: TelegramRules,
        *,
        commands: Mapping[str, str],
        unlisted: frozenset[str] = frozenset(),
        chat_of_message: ChatOfMessage | None = None,
        limiter: Limiter | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._bot = new_bot(rules.token, rules.base_url, rules.base_file_url)
        self._timing = timing or Timing()
        self._limiter = limiter or Limiter()
        self._memory = Memory()
        self._drafts = DraftSupport()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._out = Outgoing(self._bot, self._limiter, self._timing, self._memory, self._moved)
        intake = Intake(self._bot, self._memory, chat_of_message)
        self._receiver = Receiver(self._bot, rules, commands, unlisted, intake, self._timing, self._answer_press)
        self.bot_account = self._receiver.me.account

    async def run(self, accept: Accept) -> None:
        """Until cancelled; ends what is still being previewed."""
        try:
            await self._bot.connect()
            await self._receiver.run(accept)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._bot.disconnect()

    async def receive(self, update: Mapping[str, Any], secret: str | None) -> bool:
        """A webhook's update, from the web server; see `Receiver.receive`."""
        return await self._receiver.receive(update, secret)

    async def open_reply(self, address: ChatAddress, reply_to: str | None) -> TelegramWriter:
        place = _place(address)
        username = self._receiver.me.username
        return TelegramWriter(self._out, place, _quoted(place, reply_to), self._drafts, username, self._start)

    async def send(self, address: ChatAddress, reply: Reply, reply_to: str | None = None) -> tuple[str, ...]:
        place = _place(address)
        shown = shown_in(place, reply, self._receiver.me.username)
        return await deliver_reply(self._out, place, shown, reply_to=_quoted(place, reply_to), haste=self._out.notice())

    async def mark(self, address: ChatAddress, message_key: str, mark: Mark | None) -> None:
        if not message_key.isdecimal():
            return
        try:
            call = self._out.reaction(int(message_key), None if mark is None else MARKS[mark])
            await self._out.attempt(_place(address), Urgency.REACTION, call)
        except (TelegramError, ChatError) as error:
            log.info("the mark %s on message %s was not shown: %s", mark, message_key, scrubbed(error))

    async def read(self, attachment: Attachment) -> str:
        check_size(attachment.name, attachment.n_bytes)
        try:
            file = await self._bot.get_file(attachment.reference)
            data = bytes(await file.download_as_bytearray())
        except (TelegramError, RuntimeError) as error:
            why = scrubbed(error)
            raise ChatError(f"the file {attachment.name!r} cannot be fetched ({why}): send it again") from None
        check_size(attachment.name, len(data))
        return text_of(attachment.name, data)

    def health(self) -> ClientHealth:
        health = self._receiver.health
        if health.state != "ok":
            return health
        if (cooling_s := self._limiter.cooling_s(self._timing.now())) > 0:
            return replace(health, state="busy", detail=f"Telegram asks for a pause of {cooling_s:.0f} s in a chat")
        if n_groups := self._memory.n_groups_without_reactions:
            hint = f"reactions do not reach me in {n_groups} group(s): make me an administrator there"
            return replace(health, detail=f"{health.detail}; {hint}")
        return health

    def forget(self, account: str) -> None:
        if account.isdecimal():
            self._memory.forget(int(account))

    def _answer_press(self, query_id: str) -> None:
        self._start(self._answer(query_id))

    async def _answer(self, query_id: str) -> None:
        """Stops the button's spinning. A second answer or a late one is refused, and that is fine."""
        try:
            await self._bot.answer_callback_query(query_id)
        except TelegramError as error:
            log.info("a press was not answered: %s", scrubbed(error))

    async def _moved(self, from_chat: int, to_chat: int) -> None:
        try:
            await self._receiver.accept(moved(self._receiver.me, "", from_chat, to_chat))
        except ClaasbotError as error:  # the next refused message tells it again
            log.warning("chat %d is %d now; that could not be stored: %s", from_chat, to_chat, error)

    def _start(self, work: Coroutine[object, object, _T], /) -> asyncio.Task[_T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _place(address: ChatAddress) -> Place:
    try:
        return place_of(address.chat)
    except ValueError:
        raise ChatError(f"{address.chat!r} is no chat of Telegram; expected a number, or number/topic") from None


def _quoted(place: Place, reply_to: str | None) -> int | None:
    """In a private chat the answer follows the question anyway; a press is no message."""
    return int(reply_to) if reply_to is not None and reply_to.isdecimal() and not place.is_private else None
