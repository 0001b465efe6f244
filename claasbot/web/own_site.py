"""That a request was meant for us, and that a change was asked for by a page of ours."""

from __future__ import annotations

import hmac
import ipaddress

from aiohttp import web

from claasbot.web.arrival import is_tls
from claasbot.web.bodies import CSRF_FIELD, form_of
from claasbot.web.parts import PARTS


def check_host(request: web.Request) -> None:
    """A name that an attacker's DNS points at us is not ours. Addresses cannot be rebound."""
    name = _host_name(request.host)
    if name in ("localhost", *request.app[PARTS].host_names) or _is_address(name):
        return
    raise web.HTTPForbidden(text=f"This claasbot does not answer as {name[:80]!r}; open it as localhost.")


def check_origin(request: web.Request) -> None:
    """Browsers say from where a change is asked for; two ways, and either is enough to refuse."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise web.HTTPForbidden(text="The request came from another site.")
    origin = request.headers.get("Origin")
    if origin is not None and origin.lower().partition("://")[2] != request.host.lower():
        raise web.HTTPForbidden(text="The request came from another site.")
    if origin is not None and is_tls(request) and not origin.lower().startswith("https://"):
        raise web.HTTPForbidden(text="The request came from a page that anybody on the way could have written.")


async def check_csrf_token(request: web.Request, expected: str) -> None:
    """The page proves that it is ours with the token that only it was given."""
    given = request.headers.get("X-CSRF-Token", "")
    if not given:
        given = (await form_of(request)).get(CSRF_FIELD, "")
    if not hmac.compare_digest(given.encode(errors="surrogatepass"), expected.encode()):
        raise web.HTTPForbidden(text="The page is out of date: reload it and try again.")


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
