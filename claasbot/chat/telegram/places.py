"""Where a Telegram message stands: a chat and, in a forum, a topic. Pure: names to numbers and back."""

from __future__ import annotations

from dataclasses import dataclass

GENERAL_TOPIC = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """`chat_id` is negative for groups, positive for private chats."""

    chat_id: int
    topic: int | None = None

    @property
    def is_private(self) -> bool:
        return self.chat_id > 0


def chat_name(chat_id: int, topic: int | None = None) -> str:
    """`-100123/7` for a topic; the General topic is the group itself, as it is before topics are switched on."""
    return str(chat_id) if topic in (None, GENERAL_TOPIC) else f"{chat_id}/{topic}"


def place_of(chat: str) -> Place:
    """The inverse of `chat_name`. Raises ValueError for a name that is not Telegram's."""
    chat_id, _, topic = chat.partition("/")
    return Place(chat_id=int(chat_id), topic=int(topic) if topic else None)
