"""Who said what to whom, and what of it the model gets to read.

Pure values: platforms are translated into these at the edge, models are fed from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from claasbot.domain.markers import plain

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message as the chat template sees it."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatAddress:
    """Where a message stands: platform, the bot's account there, the chat.

    `chat` is the platform's name for one stream of talk. A forum topic or thread is a stream of its own inside a
    room, written `room/topic`: consent and settings belong to the room.
    """

    platform: str
    bot_account: str
    chat: str

    @property
    def room(self) -> ChatAddress:
        return replace(self, chat=self.chat.partition("/")[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message of a conversation, as it was shown."""

    turn_id: int
    role: Role
    text: str
    is_interaction: bool = False
    """Typed into the bot's own command or form."""
    is_forwarded: bool = False
    """Somebody else's words, passed on."""
    deleted_at: str | None = None
    """When the person deleted it, or a part of it, as stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Button:
    """A choice under a reply. `action` comes back in `Pressed`."""

    label: str
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the bot says, as data: platforms render it, they do not decide."""

    text: str
    buttons: tuple[Button, ...] = ()
    notice: bool = False
    """Said by claasbot itself, not sampled from a policy."""
    personal: bool = False
    """For the person who asked alone: in a group, the platform shows it to nobody else where it can."""
    completion_id: int | None = None
    version_name: str | None = None
    """Which version answered: `base`, `p1.v3`; None for notices."""
    data: dict[str, object] = field(default_factory=dict)
    """What a surface may show beside the text, such as the lesson list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    address: ChatAddress
    account: str
    """Who did it, as the platform names them."""
    display_name: str = ""
    update_key: str = ""
    """Unique per platform and bot account: the same update twice is one event."""
    at: datetime | None = None
    is_group: bool = False
    """Others read along."""
    roles: tuple[str, ...] = ()
    """What the platform says the person is there, such as a Discord server's role ids."""
    is_interaction: bool = False
    """Typed into the bot's own command, button or form; False: part of a chat message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A text file that hangs on a message; the client reads it when it is needed."""

    name: str
    reference: str
    """How the platform finds it."""
    n_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Said(_Event):
    text: str
    message_key: str = ""
    reply_to: str | None = None
    """The message it replies to, of the bot or of the same person."""
    quote: str = ""
    """The part of that message that was picked out."""
    attachments: tuple[Attachment, ...] = ()
    may_continue: bool = False
    """As long as the platform allows: a longer text was cut here, and its rest follows at once."""
    is_forwarded: bool = False
    """Somebody else's words: they are answered and teach nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reacted(_Event):
    """A reaction now stands on (or was taken off) a message of the bot."""

    message_key: str
    reaction: str
    removed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressed(_Event):
    action: str
    message_key: str | None = None
    """The bot's message that the button stands under."""
    own_key: str | None = None
    """What a reply may refer to: the platform's name for this press."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commanded(_Event):
    command: str
    argument: str = ""
    message_key: str | None = None
    """The bot's message that the command is about, where the platform says so."""
    own_key: str | None = None
    """What a reply may refer to: the person's own message, or the platform's name for this command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited(_Event):
    message_key: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted(_Event):
    message_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(_Event):
    """The person stopped the answer that is being written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved(_Event):
    """The chat goes on under another name, as when a group becomes a supergroup."""

    to_chat: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Left(_Event):
    """The person blocked the bot, or it was put out of the chat: nothing can be said there any more."""


ChatEvent = Said | Reacted | Pressed | Commanded | Edited | Deleted | Stopped | Moved | Left


def belongs_with(said: Said, later: ChatEvent) -> bool:
    """True when one answer should serve both: the same person goes on talking, about the same message."""
    return (
        isinstance(later, Said)
        and later.account == said.account
        and later.is_interaction == said.is_interaction
        and later.is_forwarded == said.is_forwarded
        and later.reply_to in (None, said.reply_to)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a turn: what was written as one message, or a file or quote, which has no key."""

    text: str
    key: str = ""
    is_file: bool = False


def parts_of(saids: tuple[Said, ...]) -> tuple[Part, ...]:
    """One part a message; a text that the platform cut is one part again, under its last key."""
    parts: list[Part] = []
    is_cut = False
    for said in saids:
        text = parts.pop().text + said.text if is_cut else said.text
        parts.append(Part(text=text, key=said.message_key))
        is_cut = said.may_continue
    return tuple(part for part in parts if part.text.strip())


def text_of_parts(parts: tuple[Part, ...]) -> str:
    return "\n\n".join(part.text.strip() for part in parts)


def joined(saids: tuple[Said, ...]) -> Said:
    """Messages as one, under the last one's key."""
    attachments = tuple(attachment for said in saids for attachment in said.attachments)
    text = text_of_parts(parts_of(saids))
    return replace(saids[0], text=text, message_key=saids[-1].message_key, attachments=attachments)


def prompt_messages(system_prompt: str, turns: tuple[Turn, ...]) -> tuple[Message, ...]:
    """The turns as the chat template gets them; an empty system prompt leaves the template's own."""
    system = (Message(role="system", content=plain(system_prompt)),) if system_prompt else ()
    return system + tuple(Message(role=turn.role, content=plain(turn.text)) for turn in turns)


def surely_fits(messages: tuple[Message, ...], budget_tokens: int) -> bool:
    """True when no tokenizer is needed to know: a token covers at least one byte.

    Eight tokens a message stand for the template's own markers, 64 for its default system message.
    """
    n_bytes = sum(len(message.content.encode()) + 8 for message in messages) + 64
    return n_bytes <= budget_tokens


def ever_fewer(turns: tuple[Turn, ...]) -> list[tuple[Turn, ...]]:
    """The turns, then without the oldest exchange, and so on down to the last turn alone."""
    begins = [index for index in range(1, len(turns)) if turns[index].role == "user"]
    shorter = [turns[index:] for index in begins]
    if not shorter or len(shorter[-1]) > 1:
        shorter.append(turns[-1:])
    return [turns, *shorter] if len(turns) > 1 else [turns]
