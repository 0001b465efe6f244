"""Who may send what now. Pure: the time is passed in, the answer is a number of seconds or no.

Telegram allows about 30 messages in a second to all, one a second to a chat and 20 a minute to a group, and answers 429
with a pause of up to minutes. Urgent things leave less urgent ones no room: of every bucket the last tokens are
kept for finals, and what is not worth waiting for is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

_IDLE_S = 600.0
"""A chat that was silent for so long has a full bucket and is forgotten."""

_GRAIN = 1e-9
"""Less than this is rounding: a wait for it would never end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    in_chat: float
    """Tokens that it takes from the chat's bucket: only what stands in the history is a message."""
    kept_in_chat: float
    """Tokens that it leaves there for what is more urgent."""
    kept_overall: float
    max_wait_s: float
    """Dropped where it would have to wait longer."""


class Urgency(Enum):
    """Most urgent first. The first text of one answer comes before more text of another."""

    FINAL = _Terms(in_chat=1, kept_in_chat=0, kept_overall=0, max_wait_s=float("inf"))
    REACTION = _Terms(in_chat=0, kept_in_chat=0, kept_overall=0.5, max_wait_s=10)
    FIRST_PREVIEW = _Terms(in_chat=1, kept_in_chat=1, kept_overall=1, max_wait_s=0)
    FIRST_DRAFT = _Terms(in_chat=0, kept_in_chat=0, kept_overall=1, max_wait_s=0)
    PREVIEW = _Terms(in_chat=1, kept_in_chat=1, kept_overall=1.5, max_wait_s=0)
    DRAFT = _Terms(in_chat=0, kept_in_chat=0, kept_overall=1.5, max_wait_s=0)
    TYPING = _Terms(in_chat=0, kept_in_chat=0, kept_overall=2, max_wait_s=0)


@dataclass(slots=True, kw_only=True)
class _Bucket:
    capacity: float
    per_s: float
    tokens: float
    at: float

    def fill(self, now: float) -> None:
        self.tokens = min(self.capacity, self.tokens + max(0.0, now - self.at) * self.per_s)
        self.at = now

    def wait_s(self, tokens: float) -> float:
        missing = tokens - self.tokens
        return missing / self.per_s if missing > _GRAIN else 0.0


@dataclass(slots=True, kw_only=True)
class _Chat:
    bucket: _Bucket
    cool_until: float = 0.0


@dataclass(slots=True)
class Limiter:
    """One bot account. `private` and `group`: the burst that a chat takes, and its messages per second after that."""

    private: tuple[float, float] = (3, 1.0)
    group: tuple[float, float] = (5, 0.25)  # 5 + 60 · 0.25 = 20 in any minute
    overall: tuple[float, float] = (3, 27.0)  # 3 + 27 = 30 in any second
    _chats: dict[int, _Chat] = field(default_factory=dict)
    _all: _Bucket | None = None

    def ask(self, chat_id: int, urgency: Urgency, now: float) -> float | None:
        """0: send now, it is counted. More: ask again after so many seconds. None: drop it."""
        terms = urgency.value
        chat, overall = self._chat(chat_id, now), self._overall(now)
        wait_s = max(self.wait_in_chat_s(chat_id, urgency, now), overall.wait_s(1 + terms.kept_overall))
        if wait_s > terms.max_wait_s:
            return None
        if wait_s > 0:
            return wait_s
        chat.bucket.tokens -= terms.in_chat
        overall.tokens -= 1
        return 0.0

    def wait_in_chat_s(self, chat_id: int, urgency: Urgency, now: float) -> float:
        """How long the chat itself makes it wait, whatever goes out elsewhere."""
        terms, chat = urgency.value, self._chat(chat_id, now)
        in_bucket_s = chat.bucket.wait_s(terms.in_chat + terms.kept_in_chat) if terms.in_chat else 0.0
        return max(0.0, chat.cool_until - now, in_bucket_s)

    def refused(self, chat_id: int, retry_after_s: float, now: float) -> None:
        """Telegram answered 429: nothing goes to that chat before the pause is over."""
        chat = self._chat(chat_id, now)
        chat.cool_until = max(chat.cool_until, now + retry_after_s)

    def cooling_s(self, now: float) -> float:
        """How long the chat that must wait longest has to."""
        return max((chat.cool_until - now for chat in self._chats.values()), default=0.0)

    def _chat(self, chat_id: int, now: float) -> _Chat:
        if chat_id not in self._chats:
            self._forget_idle(now)
            capacity, per_s = self.group if chat_id < 0 else self.private
            bucket = _Bucket(capacity=capacity, per_s=per_s, tokens=capacity, at=now)
            self._chats[chat_id] = _Chat(bucket=bucket)
        chat = self._chats[chat_id]
        chat.bucket.fill(now)
        return chat

    def _overall(self, now: float) -> _Bucket:
        if self._all is None:
            capacity, per_s = self.overall
            self._all = _Bucket(capacity=capacity, per_s=per_s, tokens=capacity, at=now)
        self._all.fill(now)
        return self._all

    def _forget_idle(self, now: float) -> None:
        idle = [name for name, chat in self._chats.items() if max(chat.bucket.at, chat.cool_until) + _IDLE_S < now]
        for name in idle:
            del self._chats[name]
