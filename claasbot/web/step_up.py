"""That it is still the admin who sits there, before anything opens the door for good: a password, a factor, a link, a
role, a key. A session that somebody left open must not become theirs for good.

By the password, or with a session that a link from the terminal opened, which is the way back for those who lost
everything. The terminal itself needs neither.
"""

from __future__ import annotations

from aiohttp import web

from claasbot.web.arrival import household_of
from claasbot.web.bodies import Body, body_of
from claasbot.web.sign_in import SIGNING_IN
from claasbot.web.visitor import VISITOR


class Confirmation(Body):
    """That it is still the admin who asks."""

    password: str = ""


def is_free_to_change(request: web.Request) -> bool:
    visitor = request[VISITOR]
    here = visitor.session
    return visitor.kind == "socket" or (here is not None and (here.is_by_link or not here.admin.has_password))


async def show_it_is_them(request: web.Request, password: str) -> None:
    """Raises 403 for a wrong password."""
    if is_free_to_change(request):
        return
    here = request[VISITOR].session
    assert here is not None
    if not await request.app[SIGNING_IN].is_still(here.admin, password, household_of(request)):
        raise web.HTTPForbidden(text="Your password is wrong, or was tried too often in the last minutes.")


async def confirmed(request: web.Request) -> None:
    """Of a request that brings nothing else. Raises 403 for a wrong password."""
    await show_it_is_them(request, (await body_of(request, Confirmation)).password)
