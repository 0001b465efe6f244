"""What became of feedback, as the bot's reaction on that message: one at a time. Never in the way of anything."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from weakref import WeakValueDictionary

import discord

from claasbot.chat.discord.delivery import TROUBLES
from claasbot.ports import Mark

log = logging.getLogger(__name__)

EMOJI: dict[Mark, str] = {"noted": "👀", "queued": "✍️", "learned": "🎓", "refused": "🤔"}
_MOST = 5_000


class Marks:
    """The marks that stand; those from before a restart are found on the message itself."""

    def __init__(self) -> None:
        self._standing: OrderedDict[int, Mark | None] = OrderedDict()
        self._turns: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        """Marks of one message are set one after another; a lock lives as long as somebody needs it."""

    async def set(self, client: discord.Client, channel_id: int, message_id: int, mark: Mark | None) -> None:
        turn = self._turns.setdefault(message_id, asyncio.Lock())
        async with turn:
            await self._set(client, client.get_partial_messageable(channel_id).get_partial_message(message_id), mark)

    async def _set(self, client: discord.Client, message: discord.PartialMessage, mark: Mark | None) -> None:
        try:
            if mark is not None and self._standing.get(message.id) != mark:
                await message.add_reaction(EMOJI[mark])
            assert client.user is not None
            for emoji in await self._stale(message, mark):
                await message.remove_reaction(emoji, client.user)
        except TROUBLES as error:
            log.info("the mark %s of message %d is not shown: %s", mark, message.id, type(error).__name__)
            self._standing.pop(message.id, None)
            return
        self._remember(message.id, mark)

    async def _stale(self, message: discord.PartialMessage, mark: Mark | None) -> list[str]:
        """The bot's own marks that must go."""
        if message.id in self._standing:
            standing = self._standing[message.id]
            return [EMOJI[standing]] if standing is not None and standing != mark else []
        ours = {emoji.replace("\ufe0f", ""): emoji for name, emoji in EMOJI.items() if name != mark}
        found = (await message.fetch()).reactions
        return [ours[bare] for one in found if one.me and (bare := str(one.emoji).replace("\ufe0f", "")) in ours]

    def _remember(self, message_id: int, mark: Mark | None) -> None:
        self._standing[message_id] = mark
        self._standing.move_to_end(message_id)
        if len(self._standing) > _MOST:
            self._standing.popitem(last=False)
