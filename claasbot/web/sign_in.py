"""The way in: a one-time link from the terminal, or name, password and code. Tokens are stored as hashes only."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta

from aiohttp import web
from sqlite_utils import Database

from claasbot.domain.admin import Admin
from claasbot.own_command import own_command
from claasbot.services.clock import Clock
from claasbot.services.signing_in import MOST_TRIES, WINDOW, Credentials, SigningIn
from claasbot.storage import admins, audit, sessions
from claasbot.storage.sessions import NewSession
from claasbot.storage.store import Store
from claasbot.web.arrival import address_of, household_of, is_from_here
from claasbot.web.bodies import Body, body_of, json_of
from claasbot.web.cookies import drop_session_token, session_token, set_session_token
from claasbot.web.open_streams import OPEN_STREAMS
from claasbot.web.pages import render
from claasbot.web.parts import PARTS
from claasbot.web.visitor import session_ticket

LINK_HOURS = 24
_LINK_LASTS = timedelta(hours=LINK_HOURS)
_TOKEN_BYTES = 32
_MAX_BROWSER_CHARS = 120

URL = web.AppKey[Callable[[], str]]("url")
"""Where a browser finds us."""
SIGNING_IN = web.AppKey("signing_in", SigningIn)


class SignIn(Body):
    """The token of a link, or what an admin knows."""

    token: str = ""
    name: str = ""
    password: str = ""
    code: str = ""


class LinkFor(Body):
    """Whom a link signs in; nobody named: the first owner."""

    name: str = ""


async def new_sign_in_link(store: Store, clock: Clock, url: str, name: str = "") -> str:
    """A link that signs in once, within a day. `url` is where the web server listens. Raises NotFound."""
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    await store.run(_add_link, token, name, clock())
    return f"{url}/sign-in?token={token}"


def _add_link(db: Database, token: str, name: str, now: datetime) -> None:
    admin_id = admins.named(db, name).admin_id if name else None
    sessions.add_sign_in_token(db, token, now - _LINK_LASTS, now, admin_id=admin_id)


async def show(request: web.Request) -> web.StreamResponse:
    """A button, not a redirect: link previews fetch addresses, and must not spend the token."""
    return render(request, "sign_in.html", token=request.query.get("token", ""))


async def enter(request: web.Request) -> web.StreamResponse:
    """A new session whatever came before: a token that somebody planted in the browser opens nothing."""
    given = await body_of(request, SignIn)
    if given.token:
        admin = await _spend(request, given.token)
    else:
        found = await request.app[SIGNING_IN].check(
            Credentials(name=given.name, password=given.password, code=given.code),
            household_of(request),
            needs_code=not is_from_here(request),
        )
        if not isinstance(found, Admin):
            return _refused(request, is_wrong=found == "wrong")
        admin = found
    response = web.HTTPSeeOther("/playground" if admin.role != "viewer" else "/")
    await _open_session(request, response, admin, is_by_link=bool(given.token))
    raise response


async def _spend(request: web.Request, token: str) -> Admin:
    parts = request.app[PARTS]
    found = await parts.store.run(_signed_in_by_link, token, parts.clock())
    if found is None:
        raise web.HTTPForbidden(
            text=f"This link was used before or is older than {LINK_HOURS} hours: "
            f"run `{own_command('sign-in')}` for a new one."
        )
    return found


def _signed_in_by_link(db: Database, token: str, now: datetime) -> Admin | None:
    found = sessions.spend_sign_in_token(db, token, now - _LINK_LASTS, now)
    if found is not None:
        audit.add(db, f"playground:{found.name}", "sign-in: by a link", now)
    return found


def _refused(request: web.Request, *, is_wrong: bool) -> web.StreamResponse:
    """One answer for a wrong name, password or code."""
    minutes = int(WINDOW.total_seconds() // 60)
    line = "Name, password or code is wrong. From another machine a code is always needed."
    if not is_wrong:
        line = f"More than {MOST_TRIES} tries in {minutes} minutes: wait, or run `{own_command('sign-in')}` there."
    return render(request, "sign_in.html", http_status=403 if is_wrong else 429, token="", line=line)


async def _open_session(request: web.Request, response: web.StreamResponse, admin: Admin, *, is_by_link: bool) -> None:
    parts = request.app[PARTS]
    lifetime, now = timedelta(hours=parts.session_hours), parts.clock()
    new = NewSession(
        token=secrets.token_urlsafe(_TOKEN_BYTES),
        csrf_token=secrets.token_urlsafe(_TOKEN_BYTES),
        is_by_link=is_by_link,
        address=address_of(request),
        browser=request.headers.get("User-Agent", "")[:_MAX_BROWSER_CHARS],
    )
    await _end_session_before(request)
    await parts.store.run(sessions.add_session, admin.admin_id, new, now, now + lifetime)
    set_session_token(request, response, new.token, lifetime)


async def sign_out(request: web.Request) -> web.StreamResponse:
    await _end_session_before(request)
    response = web.HTTPSeeOther("/sign-in")
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    drop_session_token(request, response)
    raise response


async def _end_session_before(request: web.Request) -> None:
    ended = await request.app[PARTS].store.run(sessions.end_token, session_token(request))
    if ended is not None:
        request.app[OPEN_STREAMS].end([session_ticket(ended)])


async def link(request: web.Request) -> web.StreamResponse:
    """For `claasbot sign-in`: over the socket only."""
    parts = request.app[PARTS]
    name = (await json_of(request, LinkFor)).name if request.can_read_body else ""
    return web.json_response({"link": await new_sign_in_link(parts.store, parts.clock, request.app[URL](), name)})
