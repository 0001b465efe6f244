"""What a Telegram token says by itself. Pure, and without the library: also those ask who never connect."""

from __future__ import annotations

import re

from claasbot.errors import SettingsError

_SHAPE = re.compile(r"(\d+):[\w-]{20,}")


def account_of(token: str) -> str:
    """A token begins with the bot's own number. Raises SettingsError for one of another form, without showing it."""
    found = _SHAPE.fullmatch(token)
    if found is None:
        raise SettingsError(
            "one of telegram.tokens is no token; it looks like 123456:ABC-DEF…: copy it again from @BotFather"
        )
    return found.group(1)
