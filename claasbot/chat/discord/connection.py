"""One sign-in at Discord: what its gateway says goes into the inbox. Lives until it is closed; never runs a loop."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import discord

from claasbot.chat.discord import events
from claasbot.chat.discord.command_tree import command_tree, sync_if_changed
from claasbot.chat.discord.custom_ids import action_of
from claasbot.chat.discord.inlet import Inlet
from claasbot.chat.discord.interactions import Interactions, OpenInteractions
from claasbot.chat.discord.seen import Seen
from claasbot.chat.discord.sweeping import Sweep
from claasbot.chat.discord.whereabouts import Whereabouts
from claasbot.errors import ClaasbotError
from claasbot.ports import ClientHealth

log = logging.getLogger(__name__)

RecentMessages = Callable[[], Awaitable[list[tuple[str, str]]]]

_LONGEST_WAIT_S = 30.0
"""A longer rate limit is told by the library, not waited for."""
_GUILDS_WAIT_S = 0.5
"""For the list of servers, before it counts as ready. Nothing is lost by being early."""
_LOST = "the connection to Discord is lost; it is opened again by itself"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a connection is to listen for and to offer."""

    bot_account: str
    commands: Mapping[str, str]
    with_argument: frozenset[str]
    synced_path: Path | None
    recent_messages: RecentMessages | None
    message_content: bool


class Connection(discord.Client):
    """Keeps nobody's messages: the library's own cache of them is off."""

    def __init__(self, wishes: Wishes, inlet: Inlet, tell: Callable[[ClientHealth], None]) -> None:
        super().__init__(
            intents=_intents(wishes),
            max_messages=None,
            max_ratelimit_timeout=_LONGEST_WAIT_S,
            guild_ready_timeout=_GUILDS_WAIT_S,
            allowed_mentions=discord.AllowedMentions.none(),
        )
        self._wishes = wishes
        self._inlet = inlet
        self._tell = tell
        self.seen = Seen()
        self._interactions: Interactions | None = None
        self._has_been_ready = False
        self.whereabouts = Whereabouts(self, wishes.bot_account)
        self.open_interactions = OpenInteractions()
        self.tree = command_tree(self, wishes.commands, wishes.with_argument, self._desk)

    @property
    def has_been_ready(self) -> bool:
        return self._has_been_ready

    async def sweep(self, recent: list[tuple[str, str]]) -> None:
        await Sweep(self, self._inlet, self.whereabouts).run(recent)

    async def setup_hook(self) -> None:
        assert self.application_id is not None
        await sync_if_changed(self.tree, self.application_id, self._wishes.synced_path)

    async def on_ready(self) -> None:
        self._has_been_ready = True
        self._tell_connected()
        if self._wishes.recent_messages is None:
            return
        try:
            await self.sweep(await self._wishes.recent_messages())
        except ClaasbotError as error:
            log.error("missed reactions are not looked for: %s", error)

    async def on_resumed(self) -> None:
        self._tell_connected()

    async def on_disconnect(self) -> None:
        self._tell(ClientHealth(state="busy", detail=_LOST))

    async def on_message(self, message: discord.Message) -> None:
        where = await self.whereabouts.of(message.channel.id, is_group=message.guild is not None)
        event = events.said(message, where, self._account())
        self.seen.note(message.id, "" if event is None else event.account)
        if event is not None:
            await self._inlet.commit(event)

    async def on_raw_message_edit(self, payload: discord.RawMessageUpdateEvent) -> None:
        where = await self.whereabouts.of(payload.channel_id, is_group=payload.guild_id is not None)
        was_addressed = bool(self.seen.account_of(payload.message_id))
        event = events.edited(payload, where, self._account(), was_addressed=was_addressed)
        if event is not None:
            self.seen.note(payload.message_id, event.account)
            await self._inlet.commit(event)

    async def on_raw_message_delete(self, payload: discord.RawMessageDeleteEvent) -> None:
        await self._deleted(payload.channel_id, payload.message_id, payload.guild_id)

    async def on_raw_bulk_message_delete(self, payload: discord.RawBulkMessageDeleteEvent) -> None:
        for message_id in sorted(payload.message_ids):
            await self._deleted(payload.channel_id, message_id, payload.guild_id)

    async def on_raw_reaction_add(self, payload: discord.RawReactionActionEvent) -> None:
        await self._reacted(payload)

    async def on_raw_reaction_remove(self, payload: discord.RawReactionActionEvent) -> None:
        await self._reacted(payload)

    async def on_interaction(self, interaction: discord.Interaction) -> None:
        """Buttons and forms; the command tree has the others."""
        custom_id = dict(interaction.data or {}).get("custom_id")
        if interaction.type is discord.InteractionType.component and isinstance(custom_id, str):
            if action_of(custom_id) is not None:
                await self._desk().component(interaction, custom_id)
        elif interaction.type is discord.InteractionType.modal_submit and isinstance(custom_id, str):
            await self._desk().submitted(interaction, custom_id)

    async def _deleted(self, channel_id: int, message_id: int, guild_id: int | None) -> None:
        account = self.seen.account_of(message_id)
        if account == "":  # seen, and never addressed to the bot
            return
        where = await self.whereabouts.of(channel_id, is_group=guild_id is not None)
        await self._inlet.commit(events.deleted(message_id, account or "", where))

    async def _reacted(self, payload: discord.RawReactionActionEvent) -> None:
        if events.is_feedback(payload, self._account()):
            where = await self.whereabouts.of(payload.channel_id, is_group=payload.guild_id is not None)
            await self._inlet.commit(events.reacted(payload, where, secrets.token_hex(4)))

    def _account(self) -> events.Account:
        assert self.user is not None
        return events.Account(user_id=self.user.id, commands=frozenset(self._wishes.commands))

    def _desk(self) -> Interactions:
        if self._interactions is None:
            assert self.user is not None
            self._interactions = Interactions(self._inlet, self.whereabouts, self.open_interactions, self.user.id)
        return self._interactions

    def _tell_connected(self) -> None:
        detail = f"connected as {self.user}, in {len(self.guilds)} servers"
        if not self._wishes.message_content:
            detail += (
                "; without the message content intent: in servers I read only what mentions me. To change that, allow "
                "it in the developer portal under Bot → Privileged Gateway Intents, switch it on and start me again"
            )
        self._tell(ClientHealth(state="ok", detail=detail))


def _intents(wishes: Wishes) -> discord.Intents:
    intents = discord.Intents.none()
    intents.guilds = True
    intents.guild_messages = intents.dm_messages = True
    intents.guild_reactions = intents.dm_reactions = True
    intents.message_content = wishes.message_content
    return intents
