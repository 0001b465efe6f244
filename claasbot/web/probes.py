"""/healthz and /readyz: for whatever restarts or routes. They say which part is down, and nothing about people."""

from __future__ import annotations

from aiohttp import web

from claasbot.web.parts import PARTS


async def healthz(request: web.Request) -> web.StreamResponse:
    """The process answers."""
    return web.json_response({"ok": True})


async def readyz(request: web.Request) -> web.StreamResponse:
    """200 when a message would be answered now; 503 with the names of the parts that are down."""
    status = await request.app[PARTS].status()
    down = sorted({light.name for light in status.lights if light.state == "down"})
    return web.json_response({"ready": not down, "down": down}, status=503 if down else 200)
