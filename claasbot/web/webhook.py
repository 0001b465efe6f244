"""Telegram's updates, when it calls us instead of being polled. The secret that we gave it is the only key."""

from __future__ import annotations

import json

from aiohttp import web

from claasbot.errors import BadInput, NotFound
from claasbot.web.parts import PARTS

_SECRET = "X-Telegram-Bot-Api-Secret-Token"  # noqa: S105 - a header's name


async def receive(request: web.Request) -> web.StreamResponse:
    """200 once the update is committed; anything else makes Telegram send it again."""
    client = request.app[PARTS].webhooks.get(request.match_info["account"])
    if client is None:
        raise NotFound("No bot account takes updates here.")
    try:
        update = json.loads(await request.read())
    except ValueError:
        raise BadInput("The update is not JSON.") from None
    if not isinstance(update, dict) or not await client(update, request.headers.get(_SECRET)):
        raise web.HTTPForbidden(text="The secret token is wrong.")
    return web.Response()
