"""Chat for people who come by HTTP: frames to every tab of a chat, bounded, so that nobody holds up an answer.

Keeps only what the store does not: answers that are being written, and notices since the start. A tab that was
away reads the transcript from the store and goes on from `hello`.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from claasbot.domain.admin import FIRST_OWNER
from claasbot.domain.conversation import Attachment, ChatAddress, ChatEvent, Pressed, Reply, Said
from claasbot.errors import ChatError
from claasbot.ports import Accept, ClientHealth, Mark
from claasbot.services.clock import Clock, utc_now
from claasbot.storage.rows import text_of
from claasbot.web.frames import Frame, FrameKind, Subscription

QUEUE_FRAMES = 1_024
"""What a tab may be behind before it must reload: a long answer has a few hundred."""
_KEPT_NOTICES = 30
_SEEN_KEYS = 200
CHAT = "main"


@dataclass(slots=True, kw_only=True)
class _OpenReply:
    reply_id: str
    reply_to: str | None
    text: str = ""


@dataclass(slots=True, kw_only=True)
class _Chat:
    """What is going on in one chat."""

    clock: Clock
    subscriptions: set[Subscription] = field(default_factory=set)
    waiting: dict[str, dict[str, str]] = field(default_factory=dict)
    """Said and not yet being answered, by message key."""
    seen: deque[str] = field(default_factory=lambda: deque(maxlen=_SEEN_KEYS))
    """A page that lost the connection says the same again under the same key: shown once."""
    open_reply: _OpenReply | None = None
    """A chat is answered one message at a time."""
    notices: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_KEPT_NOTICES))
    n_frames: int = 0

    def publish(self, kind: FrameKind, **data: Any) -> None:
        self.n_frames += 1
        frame = Frame(frame_id=self.n_frames, kind=kind, data=data)
        self.subscriptions -= {tab for tab in self.subscriptions if not tab.put(frame)}

    def hello(self) -> Frame:
        data = {
            "open": None if self.open_reply is None else asdict(self.open_reply),
            "waiting": list(self.waiting.values()),
        }
        return Frame(frame_id=self.n_frames, kind="hello", data=data)

    def start(self, reply_to: str | None) -> _OpenReply:
        if reply_to in self.waiting:
            _drop_until(self.waiting, reply_to)
        self.open_reply = _OpenReply(reply_id=secrets.token_hex(8), reply_to=reply_to)
        self.publish("reply-started", reply_id=self.open_reply.reply_id, reply_to=reply_to)
        return self.open_reply

    def shown(self, reply: Reply) -> dict[str, Any]:
        """The reply as the page reads it, under the key that feedback will name."""
        return {
            "message_key": secrets.token_hex(8) if reply.completion_id is None else str(reply.completion_id),
            "at": text_of(self.clock()),
            "completion_id": reply.completion_id,
            "version_name": reply.version_name,
            "text": reply.text,
            "buttons": [asdict(button) for button in reply.buttons],
            "pressed": None,
            "notice": reply.notice,
            "finish_reason": reply.data.get("finish_reason"),
            "fell_back": bool(reply.data.get("fell_back")),
            "data": {name: _json_safe(value) for name, value in reply.data.items()},
        }

    def keep(self, reply: Reply, shown: dict[str, Any]) -> None:
        """Notices are in no transcript: the latest stay here, until a new conversation or an erasure."""
        if reply.data.get("forgotten") or reply.data.get("reset"):
            self.notices.clear()
        if reply.data.get("problem"):
            self.waiting.clear()
            if self.open_reply is not None and not self.open_reply.text:
                self.open_reply = None
        self.notices.append(shown)

    def pressed(self, event: Pressed) -> None:
        for notice in self.notices:
            if notice["message_key"] == event.message_key:
                notice["pressed"] = event.action


class Playground:
    """A chat client for the browser page (`playground`) or the terminal (`console`)."""

    def __init__(
        self, platform: str, bot_account: str, *, clock: Clock = utc_now, queue_frames: int = QUEUE_FRAMES
    ) -> None:
        self.platform = platform
        self.bot_account = bot_account
        self.max_file_bytes = 0
        self._clock = clock
        self._queue_frames = queue_frames
        self._chats: dict[str, _Chat] = {}
        self._accept: Accept | None = None

    @property
    def address(self) -> ChatAddress:
        """The first owner's chat, and that of everybody at the terminal."""
        return ChatAddress(platform=self.platform, bot_account=self.bot_account, chat=CHAT)

    def address_of(self, account: str) -> ChatAddress:
        """Everybody's chat is their own: what is written there goes to no tab of anybody else."""
        if self.platform == "console" or account == FIRST_OWNER:
            return self.address
        # An admin may have the name of that chat: theirs is another all the same. No name has a colon.
        chat = f"{CHAT}:{account}" if account == CHAT else account
        return ChatAddress(platform=self.platform, bot_account=self.bot_account, chat=chat)

    async def run(self, accept: Accept) -> None:
        self._accept = accept
        try:
            await asyncio.Event().wait()
        finally:
            self._accept = None

    async def receive(self, event: ChatEvent) -> None:
        """Hand an event in; returns when it is committed. Raises ChatError while the bot starts or stops."""
        if self._accept is None:
            raise ChatError("claasbot is starting or stopping; try again in a moment")
        chat = self._chat(event.address)
        if isinstance(event, Said) and event.message_key not in chat.seen:
            await self._receive_said(chat, event)
            return
        await self._accept(event)
        if isinstance(event, Pressed):
            chat.pressed(event)

    async def _receive_said(self, chat: _Chat, event: Said) -> None:
        assert self._accept is not None
        chat.seen.append(event.message_key)
        shown = {"message_key": event.message_key, "text": event.text, "at": text_of(self._clock())}
        chat.waiting[event.message_key] = shown
        try:
            await self._accept(event)
        except BaseException:
            chat.seen.remove(event.message_key)
            chat.waiting.pop(event.message_key, None)
            raise
        chat.publish("said", **shown)

    async def open_reply(self, address: ChatAddress, reply_to: str | None) -> PlaygroundWriter:
        chat = self._chat(address)
        return PlaygroundWriter(chat, chat.start(reply_to))

    async def send(self, address: ChatAddress, reply: Reply, reply_to: str | None = None) -> tuple[str, ...]:
        chat = self._chat(address)
        shown = chat.shown(reply)
        chat.keep(reply, shown)
        chat.publish("notice", **shown)
        return (str(shown["message_key"]),)

    async def mark(self, address: ChatAddress, message_key: str, mark: Mark | None) -> None:
        self._chat(address).publish("mark", message_key=message_key, mark=mark)

    async def read(self, attachment: Attachment) -> str:
        raise ChatError(f"the page attaches no files, so there is no {attachment.name!r}")

    def health(self) -> ClientHealth:
        return ClientHealth(state="ok", detail="in this process")

    @contextmanager
    def subscribed(self, address: ChatAddress) -> Iterator[Subscription]:
        """One tab's frames, `hello` first: what is being written now and what waits to be answered."""
        chat = self._chat(address)
        tab = Subscription(self._queue_frames)
        tab.put(chat.hello())
        chat.subscriptions.add(tab)
        try:
            yield tab
        finally:
            chat.subscriptions.discard(tab)
            tab.close()

    def forget(self, account: str) -> None:
        """Whoever comes here reads the same chat: what anybody said in it and was told goes."""
        for chat in self._chats.values():
            chat.notices.clear()
            chat.waiting.clear()

    def notices(self, address: ChatAddress) -> list[dict[str, Any]]:
        """The latest notices, oldest first."""
        return list(self._chat(address).notices)

    def n_tabs(self) -> int:
        return sum(len(chat.subscriptions) for chat in self._chats.values())

    def close(self) -> None:
        """End every stream, so that the server can stop."""
        for chat in self._chats.values():
            for tab in chat.subscriptions:
                tab.close()

    def _chat(self, address: ChatAddress) -> _Chat:
        if address.chat not in self._chats:
            self._chats[address.chat] = _Chat(clock=self._clock)
        return self._chats[address.chat]


class PlaygroundWriter:
    """One answer that every tab sees grow."""

    def __init__(self, chat: _Chat, reply: _OpenReply) -> None:
        self._chat = chat
        self._reply = reply

    async def write(self, delta: str) -> None:
        self._reply.text += delta
        self._chat.publish("delta", reply_id=self._reply.reply_id, text=delta)

    async def finish(self, reply: Reply) -> tuple[str, ...]:
        if self._chat.open_reply is self._reply:
            self._chat.open_reply = None
        shown = self._chat.shown(reply)
        if reply.notice:
            self._chat.keep(reply, shown)
        self._chat.publish("reply-finished", reply_id=self._reply.reply_id, reply_to=self._reply.reply_to, **shown)
        return (str(shown["message_key"]),)


def _json_safe(value: object) -> object:
    """JSON has no NaN and no infinity: a browser refuses the whole frame."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _drop_until(waiting: dict[str, dict[str, str]], last: str | None) -> None:
    """Remove `last` and what was said before it: messages are answered in order."""
    for key in list(waiting):
        del waiting[key]
        if key == last:
            return
