"""What goes wrong on purpose: refusals, lost answers, calls held back, and a rate limit."""

from __future__ import annotations

import asyncio
import math
import random
from collections import defaultdict, deque
from dataclasses import dataclass, field

from tests.chat.telegram.refusal import Refused, flood
from tests.chat.telegram.world import Chat

LIMITED = frozenset({"sendmessage", "senddocument", "editmessagetext", "editmessagereplymarkup"})
"""What counts. Drafts do not: nobody has published whether they do."""


@dataclass(kw_only=True)
class Fault:
    """Befalls the next `times` calls of a method, or of any method but getUpdates."""

    method: str | None
    refusal: Refused | None
    """None: the connection breaks without an answer."""
    times: int
    is_after: bool
    """The call is carried out first: the client cannot know that it was."""

    def befalls(self, method: str) -> bool:
        if self.times < 1 or method.lower() != (self.method or method).lower():
            return False
        return self.method is not None or method.lower() != "getupdates"


@dataclass(kw_only=True)
class Chance(Fault):
    """Befalls some of the calls of a method, drawn in the order in which they come."""

    share: float
    drawn: random.Random

    def befalls(self, method: str) -> bool:
        return super().befalls(method) and self.drawn.random() < self.share


class Hold:
    """The next call of a method waits until it is released."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.reached = asyncio.Event()
        self._released = asyncio.Event()

    async def wait(self) -> None:
        self.reached.set()
        await self._released.wait()

    def release(self) -> None:
        self._released.set()


@dataclass(frozen=True, kw_only=True)
class Rates:
    """At most so many messages and edits in so many seconds. Each refused call asks for the whole wait."""

    private: tuple[int, float] = (3, 3.0)
    group: tuple[int, float] = (20, 60.0)
    overall: tuple[int, float] = (30, 1.0)


@dataclass
class RateLimit:
    rates: Rates
    n_refused: int = 0
    _seen: dict[int | None, deque[float]] = field(default_factory=lambda: defaultdict(deque))

    def check(self, chat: Chat, now: float) -> None:
        """Count one call, or raise Refused with the seconds until the oldest one no longer counts."""
        limits = {None: self.rates.overall, chat.id: self.rates.private if chat.kind == "private" else self.rates.group}
        for key, (most, within_s) in limits.items():
            seen = self._seen[key]
            while seen and seen[0] <= now - within_s:
                seen.popleft()
            if len(seen) >= most:
                self.n_refused += 1
                raise flood(max(1, math.ceil(seen[0] + within_s - now)))
        for key in limits:
            self._seen[key].append(now)
