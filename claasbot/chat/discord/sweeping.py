"""Reactions that were given while nobody listened: Discord repeats none, so the messages themselves are looked at."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import discord

from claasbot.chat.discord import events
from claasbot.chat.discord.delivery import TROUBLES
from claasbot.chat.discord.inlet import Inlet
from claasbot.chat.discord.whereabouts import Whereabouts, channel_id_of
from claasbot.domain.conversation import ChatAddress

log = logging.getLogger(__name__)


class Sweep:
    """One pass over recent answers. A reaction that was taken off meanwhile is not found."""

    def __init__(self, client: discord.Client, inlet: Inlet, whereabouts: Whereabouts) -> None:
        self._client = client
        self._inlet = inlet
        self._whereabouts = whereabouts

    async def run(self, recent: Iterable[tuple[str, str]]) -> None:
        """`recent`: chats and keys of the bot's messages. What is gone or hidden by now is passed over."""
        for chat, message_key in recent:
            if not message_key.isdecimal():
                continue
            try:
                await self._look_at(chat, message_key)
            except TROUBLES as error:
                log.info("message %s cannot be looked at: %s", message_key, type(error).__name__)

    async def _look_at(self, chat: str, message_key: str) -> None:
        address = ChatAddress(platform="discord", bot_account="", chat=chat)
        where = await self._whereabouts.of(channel_id_of(address))
        message = await self._client.get_partial_messageable(channel_id_of(address)).fetch_message(int(message_key))
        for reaction in message.reactions:
            if not isinstance(reaction.emoji, str):
                continue
            async for person in reaction.users():
                if not person.bot:
                    event = events.found_reaction(message_key, person, reaction.emoji, where)
                    await self._inlet.commit(event)
