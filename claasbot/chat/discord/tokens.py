"""What a Discord token says by itself. Pure, and without the library: also those ask who never connect."""

from __future__ import annotations

import base64
import binascii
import re

from claasbot.errors import SettingsError

_SHAPE = re.compile(r"([\w-]+)\.[\w-]+\.[\w-]+", re.ASCII)
# View channels, send (also in threads), read history, add reactions, attach files.
_PERMISSIONS = (1 << 10) | (1 << 11) | (1 << 38) | (1 << 16) | (1 << 6) | (1 << 15)


def account_of(token: str) -> str:
    """A token begins with the bot's user id. Raises SettingsError for one of another form, without showing it."""
    found = _SHAPE.fullmatch(token)
    account = "" if found is None else _decoded(found.group(1))
    if not account.isdecimal():
        raise SettingsError(
            "one of discord.tokens is no token: copy it again from the Bot page of Discord's developer portal"
        )
    return account


def invitation(token: str) -> str:
    """Where the host adds the bot to a server: the id in the token is the application's."""
    return (
        f"https://discord.com/oauth2/authorize?client_id={account_of(token)}"
        f"&scope=bot+applications.commands&permissions={_PERMISSIONS}"
    )


def _decoded(part: str) -> str:
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        return ""
