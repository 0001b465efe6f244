"""One raw update → the inbox. What cannot be understood is skipped by its number; what cannot be stored is not."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import telegram
from telegram import Update

from claasbot.chat.telegram.addressing import Identity
from claasbot.chat.telegram.attachments import attachments_of
from claasbot.chat.telegram.memory import Memory
from claasbot.chat.telegram.updates import message_in_question, translate
from claasbot.domain.conversation import ChatEvent
from claasbot.ports import Accept

log = logging.getLogger(__name__)

ChatOfMessage = Callable[[str, str], Awaitable[str | None]]
"""(chat id, message key) → the chat, with its topic, in which the bot wrote that message; None: it did not."""


class Intake:
    """Knows what is needed beside the update itself: who the bot is, and where it wrote what."""

    def __init__(self, bot: telegram.Bot, memory: Memory, chat_of_message: ChatOfMessage | None) -> None:
        self._bot = bot
        self._memory = memory
        self._chat_of_message = chat_of_message

    async def take(self, raw: Mapping[str, Any], me: Identity, accept: Accept) -> str | None:
        """Accept what the update means; the id of the press that waits for an answer. Raises what `accept` raises."""
        update = _parsed(raw, self._bot)
        if update is None:
            return None
        self._note(update)
        if not self._is_rest_of_album(update):
            for event in _events(update, me, await self._known_chat(update)):
                await accept(event)
        return None if update.callback_query is None else update.callback_query.id

    def _note(self, update: Update) -> None:
        chat = update.effective_chat
        if chat is not None and chat.is_forum:
            self._memory.saw_forum(chat.id)
        if update.my_chat_member is not None and update.my_chat_member.chat.id < 0:
            self._memory.became(update.my_chat_member.chat.id, update.my_chat_member.new_chat_member.status)

    async def _known_chat(self, update: Update) -> str | None:
        asked = message_in_question(update)
        if asked is None:
            return None
        known = self._memory.chat_of(*asked)
        if known is None and self._chat_of_message is not None:
            known = await self._chat_of_message(str(asked[0]), str(asked[1]))
        return known

    def _is_rest_of_album(self, update: Update) -> bool:
        """A picture of an album that brings neither the first notice nor a text."""
        message = update.message
        if message is None or message.media_group_id is None:
            return False
        is_new = self._memory.is_new_album(message.media_group_id)
        return not (is_new or message.caption or attachments_of(message.document))


def _parsed(raw: Mapping[str, Any], bot: telegram.Bot) -> Update | None:
    try:
        return Update.de_json(dict(raw), bot)
    except Exception as error:  # its message may hold people's text
        log.error("update %r cannot be read (%s) and is skipped", raw.get("update_id"), type(error).__name__)
        return None


def _events(update: Update, me: Identity, known_chat: str | None) -> tuple[ChatEvent, ...]:
    try:
        return translate(update, me, known_chat)
    except Exception as error:
        log.error("update %d is not understood (%s) and is skipped", update.update_id, type(error).__name__)
        return ()
