"""What tabs are told, and how each tab gets it: bounded, so that nobody holds up an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

FrameKind = Literal["hello", "said", "reply-started", "delta", "reply-finished", "notice", "mark", "reload"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One server-sent event."""

    frame_id: int
    kind: FrameKind
    data: dict[str, Any]


class Subscription:
    """One tab. What does not fit its queue is dropped, and the tab is told to reload."""

    def __init__(self, limit: int) -> None:
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue(limit)
        self._is_closed = False

    def put(self, frame: Frame) -> bool:
        """False when the tab was too slow: it gets `reload` and nothing more."""
        if self._is_closed:
            return False
        if not self._frames.full():
            self._frames.put_nowait(frame)
            return True
        self.close(Frame(frame_id=frame.frame_id, kind="reload", data={}))
        return False

    def close(self, last: Frame | None = None) -> None:
        """Drop what waits and end; `last` is still delivered."""
        if self._is_closed:
            return
        self._is_closed = True
        while not self._frames.empty():
            self._frames.get_nowait()
        if last is not None:
            self._frames.put_nowait(last)
        if not self._frames.full():
            self._frames.put_nowait(None)

    async def next(self) -> Frame | None:
        """The next frame; None once the subscription has ended."""
        if self._is_closed and self._frames.empty():
            return None
        return await self._frames.get()

    def left(self) -> list[Frame]:
        """What waits now."""
        found = []
        while not self._frames.empty():
            if (frame := self._frames.get_nowait()) is not None:
                found.append(frame)
        return found

    async def __aiter__(self) -> AsyncIterator[Frame]:
        while (frame := await self.next()) is not None:
            yield frame
