"""Updates of platforms that call us instead of being polled. The secret that we gave them is the only key."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from pydantic import RootModel

from claasbot.errors import NotFound
from claasbot.web.bodies import json_of
from claasbot.web.parts import PARTS


class Update(RootModel[dict[str, Any]]):
    """As the platform documents it."""


async def receive(request: web.Request) -> web.StreamResponse:
    """200 once the update is committed; anything else makes the platform send it again."""
    hook = request.app[PARTS].webhooks.get((request.match_info["platform"], request.match_info["account"]))
    if hook is None:
        raise NotFound("No bot account takes updates here.")
    secret = request.headers.get(hook.secret_header)
    if not await hook.receive((await json_of(request, Update)).root, secret):
        raise web.HTTPForbidden(text="The secret token is wrong.")
    return web.Response()
