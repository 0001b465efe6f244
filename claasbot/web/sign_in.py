"""One-time links and the sessions that they open. Tokens are stored as hashes only."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import timedelta

from aiohttp import web

from claasbot.own_command import own_command
from claasbot.services.clock import Clock
from claasbot.storage import sessions
from claasbot.storage.store import Store
from claasbot.web.access import COOKIE
from claasbot.web.pages import render
from claasbot.web.parts import PARTS

LINK_HOURS = 24
_LINK_LASTS = timedelta(hours=LINK_HOURS)
_TOKEN_BYTES = 32

URL = web.AppKey[Callable[[], str]]("url")
"""Where a browser finds us."""


async def new_sign_in_link(store: Store, clock: Clock, url: str) -> str:
    """A link that signs in once, within a day. `url` is where the web server listens."""
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    now = clock()
    await store.run(sessions.add_sign_in_token, token, now - _LINK_LASTS, now)
    return f"{url}/sign-in?token={token}"


async def show(request: web.Request) -> web.StreamResponse:
    """A button, not a redirect: link previews fetch addresses, and must not spend the token."""
    return render(request, "sign_in.html", token=request.query.get("token", ""))


async def spend(request: web.Request) -> web.StreamResponse:
    parts = request.app[PARTS]
    now = parts.clock()
    token = str((await request.post()).get("token", ""))
    is_good = await parts.store.run(sessions.spend_sign_in_token, token, now - _LINK_LASTS, now)
    if not is_good:
        raise web.HTTPForbidden(
            text=f"This link was used before or is older than {LINK_HOURS} hours: "
            f"run `{own_command('sign-in')}` for a new one."
        )
    lifetime = timedelta(hours=parts.session_hours)
    session, csrf_token = secrets.token_urlsafe(_TOKEN_BYTES), secrets.token_urlsafe(_TOKEN_BYTES)
    await parts.store.run(sessions.end_session, request.cookies.get(COOKIE, ""))
    await parts.store.run(sessions.add_session, session, csrf_token, now + lifetime, now)
    response = web.HTTPSeeOther("/playground")
    response.set_cookie(
        COOKIE,
        session,
        max_age=int(lifetime.total_seconds()),
        httponly=True,
        samesite="Strict",
        secure=request.secure or request.headers.get("X-Forwarded-Proto") == "https",
        path="/",
    )
    raise response


async def sign_out(request: web.Request) -> web.StreamResponse:
    await request.app[PARTS].store.run(sessions.end_session, request.cookies.get(COOKIE, ""))
    response = web.HTTPSeeOther("/sign-in")
    response.del_cookie(COOKIE, path="/")
    raise response


async def link(request: web.Request) -> web.StreamResponse:
    """For `claasbot sign-in`: over the socket only."""
    parts = request.app[PARTS]
    return web.json_response({"link": await new_sign_in_link(parts.store, parts.clock, request.app[URL]())})
