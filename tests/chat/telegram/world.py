"""What exists on the simulated platform: accounts, chats, messages, drafts, files. State and clock, no rules."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tests.chat.telegram.formatting import Text

if TYPE_CHECKING:
    from tests.chat.telegram.updates import UpdateQueue

Json = dict[str, Any]
ChatKind = Literal["private", "group", "supergroup"]
Status = Literal["creator", "administrator", "member", "left", "kicked"]

DRAFT_LASTS_S = 30
TYPING_LASTS_S = 5
QUERY_LASTS_S = 60


@dataclass(eq=False, kw_only=True)
class Account:
    """A person or a bot, as Telegram knows them."""

    id: int
    first_name: str
    username: str | None = None
    is_bot: bool = False
    is_premium: bool = False
    language_code: str | None = None


@dataclass(eq=False, kw_only=True)
class BotAccount(Account):
    token: str
    updates: UpdateQueue
    has_privacy_mode: bool = True
    """In groups where it is no administrator, the bot gets only what is meant for it."""
    is_revoked: bool = False
    """The token no longer counts: every call answers 401."""
    commands: dict[tuple[str, str], list[Json]] = field(default_factory=dict)
    """By scope (as JSON text) and language."""
    message_ids: itertools.count[int] = field(default_factory=lambda: itertools.count(101))
    """Private chats and basic groups share one row of ids per account; supergroups count for themselves."""


@dataclass(frozen=True, kw_only=True)
class File:
    file_id: str
    name: str
    data: bytes
    mime_type: str
    path: str


@dataclass(eq=False, kw_only=True)
class Message:
    """A message as a person sees it."""

    id: int
    chat: Chat
    sender: Account
    date: int
    shown: Text
    thread: int | None = None
    reply_to: Message | None = None
    quote: str | None = None
    keyboard: list[list[Json]] = field(default_factory=list)
    file: File | None = None
    service: Json = field(default_factory=dict)
    """What a message of Telegram's own says, such as `new_chat_members`."""
    extra: Json = field(default_factory=dict)
    """Content that the simulation does not look into, such as a sticker."""
    edit_date: int | None = None
    is_deleted: bool = False
    history: list[Text] = field(default_factory=list)
    """The texts that edits replaced, oldest first."""
    n_edits: int = 0
    reactions_by: dict[int, list[Json]] = field(default_factory=dict)
    """By account id; an anonymous administrator is the chat's id."""

    @property
    def text(self) -> str:
        """The text, or the caption of a file."""
        return self.shown.text

    @property
    def entities(self) -> tuple[Json, ...]:
        return self.shown.entities

    @property
    def buttons(self) -> list[str]:
        return [button["text"] for row in self.keyboard for button in row]

    def reactions_of(self, account: Account) -> list[str]:
        """Emoji; the id of a custom one."""
        given = self.reactions_by.get(account.id, [])
        return [one.get("emoji") or one.get("custom_emoji_id") or one["type"] for one in given]

    @property
    def reactions(self) -> list[str]:
        """Everybody's, in the order in which people came."""
        every = itertools.chain.from_iterable(self.reactions_by.values())
        return [one.get("emoji") or one.get("custom_emoji_id") or one["type"] for one in every]

    def __repr__(self) -> str:
        edits = f" (edited {self.n_edits}x)" if self.n_edits else ""
        buttons = f" {self.buttons}" if self.keyboard else ""
        marks = f" {''.join(self.reactions)}" if self.reactions else ""
        gone = " DELETED" if self.is_deleted else ""
        what = self.text or (self.file.name if self.file else str(self.service or self.extra))
        return f"<{self.id} {self.sender.first_name}: {what!r}{buttons}{marks}{edits}{gone}>"


@dataclass(eq=False, kw_only=True)
class Draft:
    """A text that the bot is still writing, shown under the chat for half a minute."""

    draft_id: int
    shown: Text
    shown_at: float
    thread: int | None = None
    can_stop: bool = False
    keep_on_stop: bool = False
    is_stopped: bool = False
    n_updates: int = 1

    @property
    def text(self) -> str:
        return self.shown.text


@dataclass(eq=False, kw_only=True)
class Press:
    """A pressed button. The person's client spins until the bot answers."""

    query_id: str
    by: Account
    message: Message
    data: str
    pressed_at: float
    is_answered: bool = False
    text: str | None = None
    """The notice that the answer shows."""
    is_alert: bool = False


@dataclass(eq=False, kw_only=True)
class Chat:
    """A private chat of one person with one bot, a group, or a supergroup."""

    world: World
    id: int
    kind: ChatKind
    title: str
    is_forum: bool = False
    person: Account | None = None
    bots: list[BotAccount] = field(default_factory=list)
    status_of: dict[int, Status] = field(default_factory=dict)
    accounts: dict[int, Account] = field(default_factory=dict)
    topics: dict[int, str] = field(default_factory=dict)
    """Names by thread id."""
    allowed_reactions: set[str] | None = None
    """Emoji that the administrators allow; None: all."""
    upgraded_to: Chat | None = None
    is_started: bool = True
    """Private chats: the person has written first. Bots cannot."""
    is_blocked: bool = False
    history: list[Message] = field(default_factory=list)
    drafts: dict[int | None, Draft] = field(default_factory=dict)
    """By thread."""
    previews: list[str] = field(default_factory=list)
    """Every text that a draft showed, in order."""
    actions: list[tuple[int | None, str]] = field(default_factory=list)
    """Every chat action, with its thread."""
    _action_until: dict[int | None, float] = field(default_factory=dict)
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def messages(self) -> list[Message]:
        """What is to be seen in the chat now, Telegram's own messages left out."""
        return [one for one in self.history if not one.is_deleted and not one.service]

    def in_thread(self, thread: int | None) -> list[Message]:
        return [one for one in self.messages if one.thread == thread]

    @property
    def draft(self) -> Draft | None:
        """The draft outside of topics; see `draft_in`."""
        return self.draft_in(None)

    def draft_in(self, thread: int | None) -> Draft | None:
        draft = self.drafts.get(thread)
        if draft is None or self.world.now() >= draft.shown_at + DRAFT_LASTS_S:
            return None
        return draft if draft.keep_on_stop or not draft.is_stopped else None

    @property
    def typing(self) -> bool:
        """Whether "typing…" stands in the chat or in one of its topics."""
        return any(self.typing_in(thread) for thread in self._action_until)

    def typing_in(self, thread: int | None) -> bool:
        return self.world.now() < self._action_until.get(thread, 0)

    def show_action(self, thread: int | None, action: str) -> None:
        self.actions.append((thread, action))
        self._action_until[thread] = self.world.now() + TYPING_LASTS_S

    def next_id(self) -> int:
        return next(self._ids if self.kind == "supergroup" else self.bots[0].message_ids)

    def find(self, message_id: int) -> Message | None:
        return next((one for one in self.history if one.id == message_id and not one.is_deleted), None)

    def add(self, message: Message) -> None:
        """A message puts an end to its sender's draft and "typing…"."""
        self.history.append(message)
        if message.sender.is_bot:
            self.drafts.pop(message.thread, None)
            self._action_until.pop(message.thread, None)

    def is_admin(self, account: Account) -> bool:
        return self.status_of.get(account.id) in ("creator", "administrator")

    def has(self, account: Account) -> bool:
        return self.kind == "private" or self.status_of.get(account.id, "left") not in ("left", "kicked")

    def transcript(self) -> str:
        lines = [f"{self.kind} {self.title!r} ({self.id})", *(f"  {one!r}" for one in self.history)]
        return "\n".join([*lines, *(f"  draft in {thread}: {one.text!r}" for thread, one in self.drafts.items())])


class World:
    """Everything, and the clock. Tests move the clock with `advance`; nothing here sleeps."""

    def __init__(self) -> None:
        self.bots: list[BotAccount] = []
        self.chats: list[Chat] = []
        self.files: dict[str, File] = {}
        self.served_paths: set[str] = set()
        """Files are served once getFile has named their path."""
        self.presses: dict[str, Press] = {}
        self.people: dict[int, Account] = {}
        self.numbers = itertools.count(5_000_001)
        self._ahead_s = 0.0
        self._changed = asyncio.Event()

    def now(self) -> float:
        return time.time() + self._ahead_s

    def advance(self, seconds: float) -> None:
        self._ahead_s += seconds
        self.changed()

    def changed(self) -> None:
        """Wake whoever waits for a state. Each change has an event of its own, so that none is missed."""
        event, self._changed = self._changed, asyncio.Event()
        event.set()

    async def until(self, predicate: Callable[[], Any], within_s: float) -> Any:
        """Wait until the predicate holds; a lookup that fails (no such message yet) counts as no."""
        async with asyncio.timeout(within_s):
            while True:
                event = self._changed
                try:
                    if found := predicate():
                        return found
                except LookupError:
                    pass
                await event.wait()

    def chat_of(self, bot: BotAccount, chat_id: int) -> Chat | None:
        """Two bots of one person have chats of the same id."""
        return next((one for one in self.chats if one.id == chat_id and bot in one.bots), None)
