"""A chat in the same process: no hardware, no network, everything recorded. For tests and `claasbot demo`.

Every account has a chat of its own, named like the account. Helpers wait for what the bot shows, never for time.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from claasbot.domain.conversation import (
    Attachment,
    ChatAddress,
    ChatEvent,
    Commanded,
    Pressed,
    Reacted,
    Reply,
    Said,
    Stopped,
)
from claasbot.domain.person import CONSENT_TEXT
from claasbot.errors import ChatError
from claasbot.ports import Accept, ClientHealth, Mark

PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One thing that a person saw, in the order in which it came."""

    address: ChatAddress
    kind: Literal["started", "delta", "reply", "notice", "mark"]
    message_key: str = ""
    """Of the reply or notice, or of the marked message; of a delta, that of the message it answers."""
    reply_to: str | None = None
    text: str = ""
    reply: Reply | None = None
    mark: Mark | None = None


class ConsoleChat:
    """A chat client whose people are the caller's own lines of code."""

    def __init__(self, platform: str = "console", bot_account: str = "console") -> None:
        self.platform = platform
        self.bot_account = bot_account
        self.max_file_bytes = 1 << 30
        self.received: dict[str, bytes] = {}
        """Files that replies brought, by name: the latest of each."""
        self.forgotten: list[str] = []
        """Accounts, in the order in which they were forgotten."""
        self.shown: list[Shown] = []
        self.files: dict[str, str] = {}
        """What people may attach, by reference."""
        self._accept: Accept | None = None
        self._runs = asyncio.Event()
        self._news = asyncio.Condition()
        self._n_notices = 0

    async def run(self, accept: Accept) -> None:
        self._accept = accept
        self._runs.set()
        try:
            await asyncio.Event().wait()
        finally:
            self._accept = None
            self._runs.clear()

    async def open_reply(self, address: ChatAddress, reply_to: str | None) -> ConsoleWriter:
        await self.record(Shown(address=address, kind="started", reply_to=reply_to))
        return ConsoleWriter(self, address, reply_to)

    async def send(self, address: ChatAddress, reply: Reply, reply_to: str | None = None) -> tuple[str, ...]:
        key = self.key_of(reply)
        name, path = reply.data.get("file_name"), reply.data.get("file_path")
        if isinstance(name, str) and isinstance(path, str):
            self.received[name] = await asyncio.to_thread(Path(path).read_bytes)
        await self.record(
            Shown(address=address, kind="notice", message_key=key, reply_to=reply_to, text=reply.text, reply=reply)
        )
        return (key,)

    async def mark(self, address: ChatAddress, message_key: str, mark: Mark | None) -> None:
        await self.record(Shown(address=address, kind="mark", message_key=message_key, mark=mark))

    async def read(self, attachment: Attachment) -> str:
        try:
            return self.files[attachment.reference]
        except KeyError:
            raise ChatError(f"there is no file {attachment.name!r} here") from None

    def health(self) -> ClientHealth:
        return ClientHealth(state="ok", detail="in this process")

    def forget(self, account: str) -> None:
        self.forgotten.append(account)

    async def record(self, shown: Shown) -> None:
        async with self._news:
            self.shown.append(shown)
            self._news.notify_all()

    def key_of(self, reply: Reply) -> str:
        if reply.completion_id is not None:
            return str(reply.completion_id)
        self._n_notices += 1
        return f"n{self._n_notices}"

    # What people do.

    def chat_of(self, account: str) -> ChatAddress:
        return ChatAddress(platform=self.platform, bot_account=self.bot_account, chat=account)

    async def say(self, account: str, text: str) -> Reply:
        """The answer, or the notice that says why there is none."""
        key, since = secrets.token_hex(8), len(self.shown)
        address = self.chat_of(account)
        await self.post(Said(address=address, account=account, update_key=key, text=text, message_key=key))

        def answers(shown: Shown) -> bool:
            if shown.kind == "reply":
                return shown.reply_to == key and shown.reply is not None and not shown.reply.notice
            return _is_problem(shown)

        return await self._reply(address, answers, since)

    async def command(
        self, account: str, name: str, argument: str = "", message_key: str | None = None, *, update_key: str = ""
    ) -> Reply:
        """The reply to `/name argument`; `message_key` is the answer that it is about."""
        since, address = len(self.shown), self.chat_of(account)
        await self.post(
            Commanded(
                address=address,
                account=account,
                update_key=update_key or secrets.token_hex(8),
                command=name,
                argument=argument,
                message_key=message_key,
            )
        )
        return await self._reply(address, _is_asked_for, since)

    async def press(self, account: str, action: str, message_key: str | None = None) -> Reply:
        since, address = len(self.shown), self.chat_of(account)
        key = secrets.token_hex(8)
        await self.post(
            Pressed(address=address, account=account, update_key=key, action=action, message_key=message_key)
        )
        return await self._reply(address, _is_asked_for, since)

    async def react(self, account: str, message_key: str, reaction: str, *, removed: bool = False) -> None:
        """Committed when this returns; a thumbs-down is answered by a notice, a thumbs-up by nothing."""
        await self.post(
            Reacted(
                address=self.chat_of(account),
                account=account,
                update_key=secrets.token_hex(8),
                message_key=message_key,
                reaction=reaction,
                removed=removed,
            )
        )

    async def stop(self, account: str) -> None:
        await self.post(Stopped(address=self.chat_of(account), account=account, update_key=secrets.token_hex(8)))

    async def post(self, event: ChatEvent, within_s: float = PATIENCE_S) -> None:
        """Any event; waits until the bot runs."""
        async with asyncio.timeout(within_s):
            await self._runs.wait()
        assert self._accept is not None
        await self._accept(event)

    async def wait_mark(self, message_key: str, *marks: Mark, within_s: float = PATIENCE_S) -> Mark:
        """Until that message carries one of the marks; at once if it did before. Returns the first such mark."""
        shown = await self.wait_for(lambda one: one.mark in marks and one.message_key == message_key, within_s=within_s)
        assert shown.mark is not None
        return shown.mark

    def said_to(self, account: str, kind: Literal["reply", "notice"]) -> list[Reply]:
        """Every answer, or every notice, that this person saw."""
        address = self.chat_of(account)
        return [one.reply for one in self.shown if one.address == address and one.kind == kind and one.reply]

    async def wait_for(
        self, matches: Callable[[Shown], bool], *, since: int = 0, within_s: float = PATIENCE_S
    ) -> Shown:
        """The first thing shown, from number `since` on, that matches. Raises TimeoutError naming what came instead."""

        def found() -> Shown | None:
            return next((shown for shown in self.shown[since:] if matches(shown)), None)

        try:
            async with asyncio.timeout(within_s), self._news:
                await self._news.wait_for(lambda: found() is not None)
        except TimeoutError:
            seen = ", ".join(f"{shown.kind} {shown.message_key or shown.text!r}" for shown in self.shown[since:][-8:])
            raise TimeoutError(f"waited {within_s:.0f} s in vain; shown meanwhile: {seen or 'nothing'}") from None
        match = found()
        assert match is not None
        return match

    async def _reply(self, address: ChatAddress, matches: Callable[[Shown], bool], since: int) -> Reply:
        shown = await self.wait_for(lambda one: one.address == address and matches(one), since=since)
        assert shown.reply is not None
        return shown.reply


class ConsoleWriter:
    """One answer in the making."""

    def __init__(self, chat: ConsoleChat, address: ChatAddress, reply_to: str | None) -> None:
        self._chat = chat
        self._address = address
        self._reply_to = reply_to

    async def write(self, delta: str) -> None:
        await self._chat.record(Shown(address=self._address, kind="delta", reply_to=self._reply_to, text=delta))

    async def finish(self, reply: Reply) -> tuple[str, ...]:
        key = self._chat.key_of(reply)
        await self._chat.record(
            Shown(
                address=self._address,
                kind="reply",
                message_key=key,
                reply_to=self._reply_to,
                text=reply.text,
                reply=reply,
            )
        )
        return (key,)


def is_unasked(text: str, data: Mapping[str, object]) -> bool:
    """A notice that comes by itself: the consent card after an answer, or what became of feedback."""
    return text == CONSENT_TEXT or "said" in data or "reason" in data


def _is_problem(shown: Shown) -> bool:
    return shown.kind == "notice" and shown.reply is not None and bool(shown.reply.data.get("problem"))


def _is_asked_for(shown: Shown) -> bool:
    if shown.reply is None:
        return False
    if shown.kind == "reply":
        return not shown.reply.notice
    return shown.kind == "notice" and not is_unasked(shown.reply.text, shown.reply.data)
