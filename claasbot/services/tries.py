"""How often something may be tried from one place. In memory: a restart forgets it, and memory is bounded."""

from __future__ import annotations

from collections import OrderedDict, deque
from datetime import datetime, timedelta
from typing import Literal

Taken = Literal["ok", "first too many", "too many"]


class Tries:
    """At most `most` in `window` for each key; whoever tries more waits until the oldest is out of the window."""

    def __init__(self, most: int, window: timedelta, *, most_keys: int = 10_000) -> None:
        self._most = most
        self._window = window
        self._most_keys = most_keys
        self._tries: OrderedDict[str, deque[datetime]] = OrderedDict()
        self._told: set[str] = set()

    def take(self, key: str, now: datetime) -> Taken:
        """Counts this try, unless it is one too many."""
        tries = self._tries.setdefault(key, deque(maxlen=self._most))
        self._tries.move_to_end(key)
        while len(self._tries) > self._most_keys:
            self._told.discard(self._tries.popitem(last=False)[0])
        # A clock that was set back makes a time of the future: it counts no longer than any other.
        while tries and abs(now - tries[0]) >= self._window:
            tries.popleft()
        if len(tries) < self._most:
            self._told.discard(key)
            tries.append(now)
            return "ok"
        if key in self._told:
            return "too many"
        self._told.add(key)
        return "first too many"

    def forgive(self, key: str) -> None:
        """Whoever got in starts anew."""
        self._tries.pop(key, None)
        self._told.discard(key)
