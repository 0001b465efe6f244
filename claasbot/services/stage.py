"""One stage of the cycle as a loop: look at the rows, do what is due, wait for news or for the time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from claasbot.errors import ClaasbotError

log = logging.getLogger(__name__)


async def keep_doing(
    name: str, step: Callable[[], Awaitable[float]], news: asyncio.Event, *, after_failure_s: float = 1.0
) -> None:
    """Until cancelled. `step` returns the seconds until it wants to look again, 0 for at once.

    The outermost loop of a stage: whatever goes wrong is logged once, and the loop goes on after a pause,
    whatever the news: a step that fails at once must not keep the event loop busy.
    """
    while True:
        news.clear()
        try:
            wait_s = await step()
        except Exception as error:
            if isinstance(error, ClaasbotError):
                log.warning("%s: %s", name, error)
            else:
                log.exception("%s failed", name)
            await asyncio.sleep(after_failure_s)
            continue
        if wait_s > 0:
            await news_or_time(news, wait_s)


async def news_or_time(news: asyncio.Event, at_most_s: float) -> None:
    """Return when something happened, or when the time is over."""
    try:
        async with asyncio.timeout(at_most_s):
            await news.wait()
    except TimeoutError:
        return
