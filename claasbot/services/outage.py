"""While the server does not answer: which chats were told so, and who waits for it to come back.

Remembers nothing across a restart: rows say which updates wait, and each of them has been told already.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Hashable

from claasbot.services.stage import news_or_time

_FIRST_S = 0.5
_MOST_S = 10.0
"""The pause after a failure grows with each, from the first to the most."""


class Outage:
    """One at a time: the first answer that comes through ends it for everybody."""

    def __init__(self) -> None:
        self._told: set[Hashable] = set()
        self._over = asyncio.Event()

    @property
    def is_on(self) -> bool:
        return bool(self._told)

    def is_news_to(self, chat: Hashable) -> bool:
        """True once for each chat and outage."""
        is_news = chat not in self._told
        self._told.add(chat)
        return is_news

    async def wait(self, n_failures: int) -> None:
        """Until it is worth asking again, or the outage is over. Drawn, so that not everybody asks at once."""
        pause_s = min(_MOST_S, _FIRST_S * n_failures)
        await news_or_time(self._over, pause_s * random.uniform(0.5, 1.0))

    def ended(self) -> None:
        """Wake everybody who waits; the next failure is another outage."""
        self._told.clear()
        over, self._over = self._over, asyncio.Event()
        over.set()
