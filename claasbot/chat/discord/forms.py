"""The form with one text field. Its id says what it is about, so that it can be handed in after a restart too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import discord

from claasbot.chat.discord.custom_ids import form_id

_FIELD = "text"
_MAX_CHARS = 4000
TITLES = {"correct": "The answer you wanted", "feedback": "What was wrong?"}


def form(command: str, message_key: str, prefilled: str = "") -> discord.ui.Modal:
    modal = discord.ui.Modal(title=TITLES.get(command, f"/{command}"[:45]), custom_id=form_id(command, message_key))
    field = discord.ui.TextInput[discord.ui.Modal](
        custom_id=_FIELD,
        style=discord.TextStyle.paragraph,
        default=prefilled[:_MAX_CHARS] or None,
        max_length=_MAX_CHARS,
    )
    modal.add_item(discord.ui.Label(text="Only your own words teach me", component=field))
    modal.stop()  # a finished form is not kept in memory
    return modal


def text_in_form(data: Any) -> str:
    """What was written into the field."""
    return next((str(one["value"]) for one in _fields(data) if one.get("custom_id") == _FIELD and "value" in one), "")


def _fields(data: Any) -> Iterator[dict[str, Any]]:
    """Every component, however deep: Discord nests fields in rows or in labels."""
    if isinstance(data, list):
        for one in data:
            yield from _fields(one)
    elif isinstance(data, dict):
        yield data
        yield from _fields(data.get("components"))
        yield from _fields(data.get("component"))
