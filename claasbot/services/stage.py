"""One stage of the cycle as a loop: look at the rows, do what is due, wait for news or for the time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from claasbot.errors import ClaasbotError

log = logging.getLogger(__name__)

_AFTER_FAILURE_S = 1.0


async def keep_doing(name: str, step: Callable[[], Awaitable[float]], news: asyncio.Event) -> None:
    """Until cancelled. `step` returns the seconds until it wants to look again, 0 for at once.

    The outermost loop of a stage: whatever goes wrong is logged once, and the loop goes on.
    """
    while True:
        news.clear()
        try:
            wait_s = await step()
        except ClaasbotError as error:
            log.warning("%s: %s", name, error)
            wait_s = _AFTER_FAILURE_S
        except Exception:
            log.exception("%s failed", name)
            wait_s = _AFTER_FAILURE_S
        if wait_s > 0:
            await news_or_time(news, wait_s)


async def news_or_time(news: asyncio.Event, at_most_s: float) -> None:
    """Return when something happened, or when the time is over."""
    try:
        async with asyncio.timeout(at_most_s):
            await news.wait()
    except TimeoutError:
        return
