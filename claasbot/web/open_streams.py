"""Which event streams a session or a key holds open: they end with it, not at their next heartbeat, and are so many
at most: each holds a connection and a queue.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from aiohttp import web

from claasbot.errors import Busy
from claasbot.web.frames import Subscription

MOST_STREAMS = 20
"""Of one session or key: tabs."""


class OpenStreams:
    def __init__(self) -> None:
        self._open: defaultdict[str, set[Subscription]] = defaultdict(set)

    @contextmanager
    def held_by(self, ticket: str, stream: Subscription) -> Iterator[None]:
        """While the block runs. `ticket`: what the visitor came in with; the terminal has none. Raises Busy."""
        if ticket and len(self._open.get(ticket, ())) >= MOST_STREAMS:
            raise Busy(f"More than {MOST_STREAMS} tabs are open here: close one and try again.")
        self._open[ticket].add(stream)
        try:
            yield
        finally:
            self._open[ticket].discard(stream)
            if not self._open[ticket]:
                del self._open[ticket]

    def end(self, tickets: Iterable[str]) -> None:
        for ticket in tickets:
            for stream in self._open.get(ticket, ()):
                stream.close()


OPEN_STREAMS = web.AppKey("open_streams", OpenStreams)
