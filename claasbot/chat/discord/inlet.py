"""The way into the inbox: an event is committed, or tried again, or its loss is logged by its key."""

from __future__ import annotations

import asyncio
import logging

from claasbot.domain.conversation import ChatEvent
from claasbot.errors import StoreError
from claasbot.ports import Accept

log = logging.getLogger(__name__)
_N_TRIES = 5


class Inlet:
    def __init__(self, accept: Accept, retry_s: float) -> None:
        """`retry_s`: the first pause after a store that does not answer; each one doubles."""
        self._accept = accept
        self._retry_s = retry_s

    async def commit(self, event: ChatEvent) -> bool:
        """Whether the event is safe. Discord sends nothing twice: what is not committed here is gone."""
        for attempt in range(_N_TRIES):
            try:
                await self._accept(event)
                return True
            except StoreError as error:
                log.error("event %s is not stored (try %d of %d): %s", event.update_key, attempt + 1, _N_TRIES, error)
            if attempt < _N_TRIES - 1:
                await asyncio.sleep(self._retry_s * 2**attempt)
        return False
