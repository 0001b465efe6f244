"""Whether a server that failed is worth asking now. Pure but for the clock that it is given.

Closed, it only counts. After so many failures in a row it opens: nobody waits for a server that does not answer, and
it is left in peace. When the pause is over one call goes through to look; its outcome closes or opens it again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from claasbot.errors import ServerDown


class Breaker:
    """One server."""

    def __init__(
        self,
        *,
        n_failures: int,
        open_s: float,
        clock: Callable[[], float] = time.monotonic,
        drawn: random.Random | None = None,
    ) -> None:
        self._most = n_failures
        self._open_s = open_s
        self._clock = clock
        self._drawn = drawn or random.Random()
        self._n_failures = 0
        self._pause_until = 0.0
        self._is_looking = False
        self._why = ""

    @property
    def why_open(self) -> str | None:
        """The last failure; None while it is closed."""
        return self._why if self._n_failures >= self._most else None

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around one call: what raises ServerDown is a failure, what calls `succeeded` is none.

        Raises ServerDown at once while it is open. A call that is broken off says nothing about the server.
        """
        is_look = self._admit()
        try:
            yield
        except ServerDown as error:
            self.failed(str(error))
            raise
        finally:
            if is_look:
                self._is_looking = False

    def succeeded(self) -> None:
        """The server answered, whatever it said."""
        self._n_failures = 0

    def failed(self, why: str) -> None:
        self._n_failures += 1
        self._why = why
        self._pause_until = self._clock() + self._open_s * self._drawn.uniform(0.5, 1.0)

    def _admit(self) -> bool:
        """Whether this call is the one that looks."""
        if self._n_failures < self._most:
            return False
        if self._is_looking or self._clock() < self._pause_until:
            raise ServerDown(f"the server is given a pause after {self._n_failures} failures: {self._why}")
        self._is_looking = True
        return True
