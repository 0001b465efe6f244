"""Discord as a chat client: stays connected, sends replies, and says what is wrong. Decides nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route

from claasbot.chat.discord.connection import Connection, RecentMessages, Wishes
from claasbot.chat.discord.delivery import (
    NETWORK_ERRORS,
    ChannelPlace,
    Place,
    PublicPlace,
    as_chat_errors,
    deliver,
    pieces_of,
)
from claasbot.chat.discord.inlet import Inlet
from claasbot.chat.discord.marks import Marks
from claasbot.chat.discord.pace import Pace
from claasbot.chat.discord.tokens import account_of
from claasbot.chat.discord.whereabouts import PLATFORM, channel_id_of
from claasbot.chat.discord.writer import DiscordWriter
from claasbot.domain.conversation import Attachment, ChatAddress, Reply
from claasbot.errors import ChatError
from claasbot.ports import Accept, ClientHealth, Mark

log = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 600.0
_MAX_ATTACHMENT_BYTES = 256 * 1024
_REFUSED = (
    "Discord refuses the token; make a new one in the developer portal (Bot → Reset Token) and set "
    "CLAASBOT_DISCORD_TOKEN. It is tried again every ten minutes"
)
_HUNG_UP = "Discord ended the connection for good; it is tried again every ten minutes"
_PACE = Pace()
_PORTAL_NOTE = "Discord has not approved the message content intent for this bot; going on without it"


class DiscordChat:
    """One bot account. Its name is the user id inside the token, which outlives the token."""

    platform = PLATFORM
    max_file_bytes = 10 * 2**20
    """What Discord takes without a boosted server."""

    def __init__(
        self,
        token: str,
        *,
        commands: Mapping[str, str],
        with_argument: frozenset[str] = frozenset(),
        synced_path: Path | None = None,
        recent_messages: RecentMessages | None = None,
        message_content: bool = True,
        api_base: str | None = None,
        gateway: str | None = None,
        pace: Pace = _PACE,
    ) -> None:
        """`commands`: name → description. `synced_path`: remembers which commands Discord was told of.

        `recent_messages`: chats and keys of recent answers, for the reactions that were missed. `api_base` and
        `gateway` point the whole process elsewhere. Raises SettingsError for a token that is none.
        """
        self.bot_account = account_of(token)
        self._token = token
        self._wishes = Wishes(
            bot_account=self.bot_account,
            commands=commands,
            with_argument=with_argument,
            synced_path=synced_path,
            recent_messages=recent_messages,
            message_content=message_content,
        )
        self._pace = pace
        self._marks = Marks()
        self._previews: set[asyncio.Task[None]] = set()
        self._connection: Connection | None = None
        self._health = ClientHealth(state="down", detail="not connected to Discord yet")
        _point_at(api_base, gateway)

    async def run(self, accept: Accept) -> None:
        pause_s = 0.0
        while True:
            connection = self.connect(accept)
            try:
                await connection.start(self._token)
            except (discord.DiscordException, *NETWORK_ERRORS) as error:
                first = pause_s == 0.0 or connection.has_been_ready
                pause_s = self._pause_after(error, self._pace.retry_s if first else 2 * pause_s)
            finally:
                self._connection = None
                await connection.close()
                self._end_previews()
            await asyncio.sleep(pause_s)

    def connect(self, accept: Accept) -> Connection:
        """A connection that is not started yet; from now on replies go through it."""
        self._connection = Connection(self._wishes, Inlet(accept, self._pace.retry_s), self._tell)
        return self._connection

    async def open_reply(self, address: ChatAddress, reply_to: str | None) -> DiscordWriter:
        place = await self._place(self._connected(), address, reply_to)
        writer = DiscordWriter(place, self._pace)
        self._previews.add(writer.previews)
        writer.previews.add_done_callback(self._previews.discard)
        return writer

    async def send(self, address: ChatAddress, reply: Reply, reply_to: str | None = None) -> tuple[str, ...]:
        """Gives up soon: a pause that Discord asks for here must not hold up what is told elsewhere."""
        connection = self._connected()
        with as_chat_errors():
            async with asyncio.timeout(self._pace.notice_s):
                place = await self._place(connection, address, reply_to, is_personal=reply.personal)
                return await deliver(place, pieces_of(reply), self._pace)

    async def mark(self, address: ChatAddress, message_key: str, mark: Mark | None) -> None:
        connection, channel_id = self._connection, channel_id_of(address)
        if connection is not None and connection.user is not None and channel_id > 0 and message_key.isdecimal():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace.notice_s):
                    await self._marks.set(connection, channel_id, int(message_key), mark)

    async def read(self, attachment: Attachment) -> str:
        name = attachment.name
        if attachment.n_bytes > _MAX_ATTACHMENT_BYTES:
            raise ChatError(
                f"{name!r} has {attachment.n_bytes:,} bytes; I read at most {_MAX_ATTACHMENT_BYTES:,}. "
                "Send the part that matters."
            )
        parts = attachment.reference.split("/")
        if len(parts) != 3 or not all(part.isdecimal() for part in parts):
            raise ChatError(f"there is no file {name!r} on Discord")
        channel_id, message_id, attachment_id = map(int, parts)
        with as_chat_errors():
            message = await self._connected().get_partial_messageable(channel_id).fetch_message(message_id)
            found = next((one for one in message.attachments if one.id == attachment_id), None)
            if found is None:
                raise ChatError(f"the file {name!r} is gone; send it again")
            content = await found.read()
        return _text(name, content)

    async def sweep(self, recent: list[tuple[str, str]]) -> None:
        """Look at the reactions on these messages (chat, key); one that was told before is the same event."""
        await self._connected().sweep(recent)

    def health(self) -> ClientHealth:
        return self._health

    def forget(self, account: str) -> None:
        if self._connection is not None:
            self._connection.seen.forget(account)

    async def _place(
        self, connection: Connection, address: ChatAddress, reply_to: str | None, *, is_personal: bool = False
    ) -> Place:
        """The interaction that is answered, while it can be; else the channel, as a reply where others talk too."""
        channel_id = channel_id_of(address)
        is_group = False
        if is_personal or reply_to is not None:
            with as_chat_errors():
                is_group = (await connection.whereabouts.of(channel_id)).is_group
        replied = int(reply_to) if is_group and reply_to is not None and reply_to.isdecimal() else None
        kind = PublicPlace if is_personal and is_group else ChannelPlace
        channel = kind(connection, channel_id, replied)
        return connection.open_interactions.place(reply_to, channel, is_personal=is_personal and is_group) or channel

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.user is None:
            raise ChatError(f"Discord is not connected: {self._health.detail}; try again later")
        return self._connection

    def _tell(self, health: ClientHealth) -> None:
        self._health = health

    def _refused(self, detail: str) -> None:
        log.error("discord account %s: %s", self.bot_account, detail)
        self._health = ClientHealth(state="down", detail=detail)

    def _pause_after(self, error: Exception, pause_s: float) -> float:
        """How long to leave Discord alone after this. What cannot pass by itself is tried rarely."""
        match error:
            case discord.PrivilegedIntentsRequired() if self._wishes.message_content:
                log.error(_PORTAL_NOTE)
                self._wishes = replace(self._wishes, message_content=False)
                return 0.0
            case discord.LoginFailure() | discord.ConnectionClosed(code=4004):
                self._refused(_REFUSED)
                return _LONGEST_PAUSE_S
            case discord.ConnectionClosed():
                self._refused(f"{_HUNG_UP} (code {error.code})")
                return _LONGEST_PAUSE_S
        self._refused(f"Discord cannot be reached ({type(error).__name__}); is this machine online?")
        return min(_LONGEST_PAUSE_S, pause_s)

    def _end_previews(self) -> None:
        for preview in self._previews:
            preview.cancel()


def _point_at(api_base: str | None, gateway: str | None) -> None:
    """The library keeps both for the whole process."""
    if api_base is not None:
        Route.BASE = api_base
    if gateway is not None:
        DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(gateway)


def _text(name: str, content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ChatError(f"{name!r} is no text file in UTF-8; I read nothing else")
    return text
