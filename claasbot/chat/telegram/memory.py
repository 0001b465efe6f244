"""What a client remembers of the chats while it runs, bounded. The store knows the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")

_MOST = 20_000


@dataclass(slots=True)
class Memory:
    """Updates about a message tell neither its topic nor its author: what the bot wrote is kept here."""

    _written: dict[tuple[int, int], str] = field(default_factory=dict)
    _albums: dict[str, None] = field(default_factory=dict)
    _forums: dict[int, None] = field(default_factory=dict)
    _not_admin: dict[int, None] = field(default_factory=dict)

    def wrote(self, chat_id: int, message_id: int, chat: str) -> None:
        _put(self._written, (chat_id, message_id), chat)

    def chat_of(self, chat_id: int, message_id: int) -> str | None:
        """The chat (with its topic) in which the bot wrote that message."""
        return self._written.get((chat_id, message_id))

    def forget(self, chat_id: int) -> None:
        """A private chat is named like the person."""
        for key in [key for key in self._written if key[0] == chat_id]:
            del self._written[key]

    def is_new_album(self, album: str) -> bool:
        """An album arrives as several messages, of which at most one has a caption."""
        is_new = album not in self._albums
        _put(self._albums, album, None)
        return is_new

    def saw_forum(self, chat_id: int) -> None:
        _put(self._forums, chat_id, None)

    def is_forum(self, chat_id: int) -> bool:
        return chat_id in self._forums

    def became(self, chat_id: int, status: str) -> None:
        """What the bot is in a group now: reactions reach administrators only."""
        self._not_admin.pop(chat_id, None)
        if status in ("member", "restricted"):
            _put(self._not_admin, chat_id, None)

    @property
    def n_groups_without_reactions(self) -> int:
        return len(self._not_admin)


def _put(kept: dict[_K, _V], key: _K, value: _V) -> None:
    kept[key] = value
    if len(kept) > _MOST:
        del kept[next(iter(kept))]
