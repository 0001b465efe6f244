"""Where a channel stands: private or in a server, and which room a thread belongs to. Asks Discord where it must."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass

import discord

from claasbot.chat.discord.delivery import NETWORK_ERRORS
from claasbot.domain.conversation import ChatAddress

log = logging.getLogger(__name__)

PLATFORM = "discord"
_MOST = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """One stream of talk."""

    address: ChatAddress
    is_group: bool


def channel_id_of(address: ChatAddress) -> int:
    """The channel or thread itself, without the room. -1 for what was never a Discord chat."""
    channel = address.chat.rpartition("/")[2]
    return int(channel) if channel.isdecimal() else -1


class Whereabouts:
    """Addresses of channels; a thread is written `room/thread`."""

    def __init__(self, client: discord.Client, bot_account: str) -> None:
        self._client = client
        self._bot_account = bot_account
        self._known: OrderedDict[int, Where] = OrderedDict()

    async def of(self, channel_id: int, *, is_group: bool | None = None) -> Where:
        """`is_group` where the event says so. Only a thread that is not in memory costs a request."""
        if channel_id in self._known:
            return self._known[channel_id]
        try:
            room = "" if is_group is False else await self._room(channel_id)
        except (discord.DiscordException, *NETWORK_ERRORS) as error:
            # Nothing is known but that it is somebody's: what was said is not lost for it, and the next one asks again.
            log.info("channel %d cannot be looked up: %s", channel_id, type(error).__name__)
            return Where(address=self._address(channel_id, ""), is_group=True)
        if room is None:
            room, is_group = "", False
        where = Where(address=self._address(channel_id, room), is_group=is_group is not False)
        self._known[channel_id] = where
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
        return where

    async def _room(self, channel_id: int) -> str | None:
        """What stands before a thread's own id; None for a private chat. Raises what discord.py raises."""
        channel = self._client.get_channel(channel_id) or await self._client.fetch_channel(channel_id)
        if isinstance(channel, discord.abc.PrivateChannel):
            return None
        return f"{channel.parent_id}/" if isinstance(channel, discord.Thread) else ""

    def _address(self, channel_id: int, room: str) -> ChatAddress:
        return ChatAddress(platform=PLATFORM, bot_account=self._bot_account, chat=f"{room}{channel_id}")
