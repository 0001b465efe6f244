"""Ends a stream at the person's word, also while it is silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

Item = TypeVar("Item")


async def until(stop: asyncio.Event | None, items: AsyncGenerator[Item, None]) -> AsyncGenerator[Item, None]:
    """`items` up to their end or to `stop`, whichever comes first; closes them in any case."""
    async with aclosing(items):
        if stop is None:
            async for item in items:
                yield item
            return
        stopped = asyncio.ensure_future(stop.wait())
        following: asyncio.Future[Item | None] | None = None
        try:
            while not stop.is_set():
                following = asyncio.ensure_future(anext(items, None))
                await asyncio.wait({following, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    return
                found = following.result()
                if found is None:
                    return
                yield found
        finally:
            stopped.cancel()
            if following is not None and not following.done():
                following.cancel()
                await asyncio.wait({following})
