"""The commands that Discord offers to people, told to Discord when they changed and not otherwise."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import discord
from discord import app_commands

from claasbot.chat.discord.delivery import TROUBLES
from claasbot.chat.discord.events import ASK
from claasbot.chat.discord.interactions import Interactions

log = logging.getLogger(__name__)

Handlers = Callable[[], Interactions]
"""Asked at every use: they exist once the bot has signed in."""

AnyCommand = app_commands.Command[Any, ..., Any]

_MAX_DESCRIPTION = 100


class Tree(app_commands.CommandTree[discord.Client]):
    """A command that fails is logged by its number; one that Discord still offers from before is no error."""

    async def on_error(self, interaction: discord.Interaction, error: app_commands.AppCommandError, /) -> None:
        log.error("interaction %d failed", interaction.id, exc_info=error)


def command_tree(
    client: discord.Client, commands: Mapping[str, str], with_argument: frozenset[str], handlers: Handlers
) -> Tree:
    tree = Tree(client)
    for name, description in commands.items():
        tree.add_command(_slash(name, description, handlers, takes_argument=name in with_argument or name == ASK))
    for label, command in (("👍 Good", "good"), ("👎 Bad", "bad")):
        tree.add_command(_judging(label, command, handlers))
    for label, command in (("Correct…", "correct"), ("Say what was wrong…", "feedback")):
        tree.add_command(_wording(label, command, handlers))
    return tree


async def sync_if_changed(tree: Tree, application_id: int, synced_path: Path | None) -> None:
    """Discord allows few such calls a day. Failing does not stop the bot: old commands go on to work."""
    told = [command.to_dict(tree) for kind in discord.AppCommandType for command in tree.get_commands(type=kind)]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    stamp = f"{application_id} {digest}\n"
    if synced_path is not None and await asyncio.to_thread(_reads, synced_path, stamp):
        return
    try:
        await tree.sync()
    except (app_commands.AppCommandError, *TROUBLES) as error:
        log.error("Discord does not take the commands (%s); they are told again at the next start", error)
        return
    if synced_path is not None:
        await asyncio.to_thread(_write_aside, synced_path, stamp)


def _reads(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


def _write_aside(path: Path, text: str) -> None:
    aside = path.with_suffix(".new")
    with aside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)


def _slash(name: str, description: str, handlers: Handlers, *, takes_argument: bool) -> AnyCommand:
    async def plain(interaction: discord.Interaction) -> None:
        await handlers().slash(interaction, name, "")

    async def with_text(interaction: discord.Interaction, text: str = "") -> None:
        await handlers().slash(interaction, name, text)

    async def with_question(interaction: discord.Interaction, text: str) -> None:
        await handlers().slash(interaction, name, text)

    callback: Any = plain if not takes_argument else with_question if name == ASK else with_text
    return app_commands.Command(name=name, description=_short(description), callback=callback)


def _judging(label: str, command: str, handlers: Handlers) -> app_commands.ContextMenu:
    async def judge(interaction: discord.Interaction, message: discord.Message) -> None:
        await handlers().judged(interaction, command, message)

    return app_commands.ContextMenu(name=label, callback=judge)


def _wording(label: str, command: str, handlers: Handlers) -> app_commands.ContextMenu:
    async def word(interaction: discord.Interaction, message: discord.Message) -> None:
        await handlers().worded(interaction, command, message)

    return app_commands.ContextMenu(name=label, callback=word)


def _short(description: str) -> str:
    fits = len(description) <= _MAX_DESCRIPTION
    return description if fits else description[: _MAX_DESCRIPTION - 1] + "…"
