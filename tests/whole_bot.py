"""The whole bot in this process, from its composition root, with no hardware below it: asked as its owner asks it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from claasbot.app import Bot, running
from claasbot.chat.console import ConsoleChat
from claasbot.settings import Settings
from tests.dry_machines import dry_machines

NO_SERVER = "http://127.0.0.1:9"
"""Attached, not launched: so nothing depends on which ports are free."""


@dataclass(slots=True, kw_only=True)
class WholeBot:
    bot: Bot
    owner: aiohttp.ClientSession
    """Over the Unix socket."""
    chat: ConsoleChat
    data: Path

    async def get(self, path: str, status: int = 200) -> str:
        async with self.owner.get(path) as answer:
            text = await answer.text()
            assert answer.status == status, text
            return text

    async def post(self, path: str, facts: object = None, status: int = 200) -> Any:
        async with self.owner.post(path, json=facts) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    async def taught(self, account: str = "ada", said: str = "Shorter, please.") -> None:
        await self.chat.command(account, "optin")
        reply = await self.chat.say(account, "What is rain?")
        await self.chat.command(account, "feedback", said, str(reply.completion_id))
        await self.chat.wait_mark(str(reply.completion_id), "learned")

    async def settled(self) -> None:
        async with asyncio.timeout(10):
            await self.bot.cycle.settled()


@asynccontextmanager
async def whole_bot(data: Path, **settings: Any) -> AsyncIterator[WholeBot]:
    chosen = Settings(
        **{
            "data": data,
            "accelerator": "cpu",
            "server": {"url": NO_SERVER},
            "web": {"port": 0},
            "access": {"mode": "open"},
            "learning": {"debounce_s": 0.0},
        }
        | settings
    )
    chat = ConsoleChat("elsewhere")
    async with running(chosen, lambda line: None, extra_clients=(chat,), start_machines=dry_machines) as bot:
        connector = aiohttp.UnixConnector(str(data / "run" / "claasbot.sock"))
        async with aiohttp.ClientSession("http://localhost", connector=connector) as owner:
            yield WholeBot(bot=bot, owner=owner, chat=chat, data=data)
