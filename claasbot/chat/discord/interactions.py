"""Slash commands, menus of a message, buttons and forms: acknowledged within three seconds, then events."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

import discord

from claasbot.chat.discord import events
from claasbot.chat.discord.custom_ids import action_of, form_of
from claasbot.chat.discord.delivery import TROUBLES, ChannelPlace, InteractionPlace, OpenInteraction
from claasbot.chat.discord.forms import form, text_in_form
from claasbot.chat.discord.inlet import Inlet
from claasbot.chat.discord.whereabouts import Where, Whereabouts
from claasbot.domain.conversation import ChatEvent

log = logging.getLogger(__name__)

_PUBLIC = frozenset({events.ASK, "retry"})
"""Their answers are part of the talk; what other commands say is for the person alone."""
_FORM_ACTION = "modal:"
_MOST_OPEN = 10_000
_OPEN_S = 15 * 60.0
_LONGEST_PREFILLED = 1_500
"""A longer answer may be one of several messages, and half an answer is no start for a correction."""
_NOT_STORED = "I could not note that: my storage does not answer. Please try again in a minute."


class OpenInteractions:
    """The interactions that can still be answered as such. Lost with a restart: then the channel has to do."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, OpenInteraction] = OrderedDict()

    def add(self, interaction: discord.Interaction, *, is_ephemeral: bool) -> None:
        now_s = asyncio.get_running_loop().time()  # the machine's date may be wrong
        while self._open and (
            len(self._open) >= _MOST_OPEN or next(iter(self._open.values())).since_s < now_s - _OPEN_S
        ):
            self._open.popitem(last=False)
        opened = OpenInteraction(interaction=interaction, is_ephemeral=is_ephemeral, since_s=now_s)
        self._open[events.key_of(interaction)] = opened

    def __contains__(self, key: object) -> bool:
        return key in self._open

    def place(self, key: str | None, channel: ChannelPlace, *, is_personal: bool) -> InteractionPlace | None:
        """Where the answer to that interaction goes; None when it is none, or is forgotten."""
        opened = self._open.get(key or "")
        return None if opened is None else InteractionPlace(opened, channel, is_personal=is_personal)


class Interactions:
    """From Discord's interactions to events. What is said in private is answered in private."""

    def __init__(self, inlet: Inlet, whereabouts: Whereabouts, open_ones: OpenInteractions, bot_id: int) -> None:
        self._inlet = inlet
        self._whereabouts = whereabouts
        self._open = open_ones
        self._bot_id = bot_id

    async def slash(self, interaction: discord.Interaction, command: str, argument: str) -> None:
        await self._acknowledge(interaction, is_public=command in _PUBLIC, is_thinking=True)
        where = await self._where(interaction)
        if command == events.ASK:
            await self._commit(interaction, events.asked(interaction, where, argument))
        else:
            await self._commit(interaction, events.commanded(interaction, where, command, argument.strip()))

    async def judged(self, interaction: discord.Interaction, command: str, message: discord.Message) -> None:
        """A menu of a message that needs no words."""
        if not await self._is_answer(interaction, message):
            return
        await self._acknowledge(interaction, is_thinking=True)
        where = await self._where(interaction)
        await self._commit(interaction, events.commanded(interaction, where, command, message_key=str(message.id)))

    async def worded(self, interaction: discord.Interaction, command: str, message: discord.Message) -> None:
        """A menu of a message that opens a form; a correction starts from the answer."""
        if not await self._is_answer(interaction, message):
            return
        is_short = command == "correct" and len(message.content) <= _LONGEST_PREFILLED
        await self._open_form(interaction, command, str(message.id), message.content if is_short else "")

    async def component(self, interaction: discord.Interaction, custom_id: str) -> None:
        """A button, of this run or of an earlier one."""
        action = action_of(custom_id)
        if action is None:
            return
        if action.startswith(_FORM_ACTION) and interaction.message is not None:
            command = action.removeprefix(_FORM_ACTION).partition(":")[0]
            await self._open_form(interaction, command, str(interaction.message.id))
            return
        await self._acknowledge(interaction)
        await self._commit(interaction, events.pressed(interaction, await self._where(interaction), action))

    async def submitted(self, interaction: discord.Interaction, custom_id: str) -> None:
        """A form that was handed in."""
        about = form_of(custom_id)
        if about is None:
            return
        command, message_key = about
        text = text_in_form(dict(interaction.data or {}).get("components"))
        await self._acknowledge(interaction, is_thinking=True)
        where = await self._where(interaction)
        await self._commit(interaction, events.commanded(interaction, where, command, text.strip(), message_key))

    async def _where(self, interaction: discord.Interaction) -> Where:
        assert interaction.channel_id is not None  # only the pings that webhooks get have none
        return await self._whereabouts.of(interaction.channel_id, is_group=interaction.guild_id is not None)

    async def _acknowledge(
        self, interaction: discord.Interaction, *, is_public: bool = False, is_thinking: bool = False
    ) -> None:
        """`is_thinking`: shows that an answer comes; a press may have none, and shows nothing."""
        is_ephemeral = interaction.guild_id is not None and not is_public
        try:
            await interaction.response.defer(ephemeral=is_ephemeral, thinking=is_thinking)
        except TROUBLES as error:  # it is an event all the same; the answer goes into the channel
            log.warning("interaction %d came too late or not through: %s", interaction.id, type(error).__name__)
            return
        self._open.add(interaction, is_ephemeral=is_ephemeral)

    async def _commit(self, interaction: discord.Interaction, event: ChatEvent) -> None:
        if await self._inlet.commit(event) or event.update_key not in self._open:
            return
        try:
            await interaction.followup.send(_NOT_STORED, ephemeral=True)
        except TROUBLES as error:
            log.info("interaction %d could not be told: %s", interaction.id, type(error).__name__)

    async def _is_answer(self, interaction: discord.Interaction, message: discord.Message) -> bool:
        if message.author.id == self._bot_id:
            return True
        try:
            await interaction.response.send_message("That is not one of my answers.", ephemeral=True)
        except TROUBLES as error:
            log.info("interaction %d could not be told: %s", interaction.id, type(error).__name__)
        return False

    async def _open_form(
        self, interaction: discord.Interaction, command: str, message_key: str, prefilled: str = ""
    ) -> None:
        try:
            await interaction.response.send_modal(form(command, message_key, prefilled))
        except TROUBLES as error:
            log.warning("the form of interaction %d does not open: %s", interaction.id, type(error).__name__)
