"""Updates of platforms that call us instead of being polled. The secret that we gave them is the only key."""

from __future__ import annotations

import json

from aiohttp import web

from claasbot.errors import BadInput, NotFound
from claasbot.web.parts import PARTS


async def receive(request: web.Request) -> web.StreamResponse:
    """200 once the update is committed; anything else makes the platform send it again."""
    hook = request.app[PARTS].webhooks.get((request.match_info["platform"], request.match_info["account"]))
    if hook is None:
        raise NotFound("No bot account takes updates here.")
    try:
        update = json.loads(await request.read())
    except ValueError:
        raise BadInput("The update is not JSON.") from None
    if not isinstance(update, dict) or not await hook.receive(update, request.headers.get(hook.secret_header)):
        raise web.HTTPForbidden(text="The secret token is wrong.")
    return web.Response()
