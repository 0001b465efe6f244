"""python-telegram-bot's Bot, with updates as Telegram sent them.

`Bot.get_updates` parses the whole batch and, when one of them cannot be parsed, logs all of their texts and loses
the rest. We parse them one by one.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import telegram
from telegram.request import HTTPXRequest

from claasbot.chat.telegram.tokens import account_of

API_URL = "https://api.telegram.org/bot"
FILE_URL = "https://api.telegram.org/file/bot"

_READ_S = 30.0
"""Telegram may think about a message for longer than the library's five seconds; trying again would double it."""


class RawBot(telegram.Bot):
    """`base_url` and `base_file_url` as in python-telegram-bot: the token is appended."""

    async def connect(self) -> None:
        """The connections alone: `initialize` asks Telegram who we are, and puts the token into its error."""
        await asyncio.gather(*(request.initialize() for request in self._request))

    async def disconnect(self) -> None:
        await asyncio.gather(*(request.shutdown() for request in self._request))

    async def raw_updates(
        self, offset: int | None, poll_s: int, allowed_updates: tuple[str, ...]
    ) -> list[dict[str, Any]]:
        data = {"offset": offset, "timeout": poll_s, "allowed_updates": list(allowed_updates)}
        updates: list[dict[str, Any]] = await self._post("getUpdates", data, read_timeout=poll_s + 20.0)
        return updates


def new_bot(token: str, base_url: str = API_URL, base_file_url: str = FILE_URL) -> RawBot:
    """Raises SettingsError for a token of the wrong form. Quietens loggers that print the token or people's text."""
    account_of(token)
    for name in ("httpx", "httpcore", "telegram"):
        logging.getLogger(name).setLevel(logging.WARNING)
    alone = {"trust_env": False, "follow_redirects": False}  # no proxy of the environment: the token is in each address
    request = HTTPXRequest(
        connection_pool_size=64, read_timeout=_READ_S, write_timeout=_READ_S, pool_timeout=_READ_S, httpx_kwargs=alone
    )
    updates = HTTPXRequest(1, httpx_kwargs=alone)
    return RawBot(token, base_url, base_file_url, request=request, get_updates_request=updates)
