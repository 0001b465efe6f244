"""How often one session may change something: a bucket of tokens for each, refilled evenly. Reading is free."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from aiohttp import web
from aiohttp.typedefs import Handler

from claasbot.web.parts import PARTS
from claasbot.web.visitor import VISITOR

_MOST_BUCKETS = 1_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: datetime


class Pace:
    """A bucket holds what one minute refills."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._buckets: dict[str, _Bucket] = {}

    def wait_s(self, key: str, now: datetime) -> float:
        """Take a token and return 0, or the seconds to the next one. A clock that goes back refills nothing."""
        bucket = self._buckets.setdefault(key, _Bucket(float(self._per_minute), now))
        passed_s = max(0.0, (now - bucket.at).total_seconds())
        bucket.tokens = min(float(self._per_minute), bucket.tokens + passed_s * self._per_minute / 60)
        bucket.at = now
        if len(self._buckets) > _MOST_BUCKETS:
            self._drop_oldest()
        if bucket.tokens < 1:
            return (1 - bucket.tokens) * 60 / self._per_minute
        bucket.tokens -= 1
        return 0.0

    def _drop_oldest(self) -> None:
        del self._buckets[min(self._buckets, key=lambda key: self._buckets[key].at)]


PACE = web.AppKey("pace", Pace)


@web.middleware
async def paced(request: web.Request, handler: Handler) -> web.StreamResponse:
    """After the rules: only whom they let in has a bucket. The owner at the machine needs none."""
    visitor = request[VISITOR]
    if request.method not in ("GET", "HEAD") and visitor.kind not in ("nobody", "socket"):
        wait_s = request.app[PACE].wait_s(visitor.ticket, request.app[PARTS].clock())
        if wait_s > 0:
            seconds = math.ceil(wait_s)
            raise web.HTTPTooManyRequests(
                text=f"That was too much at once: try again in {seconds} s.", headers={"Retry-After": str(seconds)}
            )
    return await handler(request)
