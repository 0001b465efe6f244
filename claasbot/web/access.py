"""Who may do what: one rule for every route, and the checks that hold for all of them.

A route without a rule answers nobody. Requests over the Unix socket are the owner's: the file's mode says so.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import pwd
import socket
import struct
from dataclasses import dataclass
from typing import Literal

from aiohttp import web
from aiohttp.typedefs import Handler

from claasbot.own_command import own_command
from claasbot.storage import sessions
from claasbot.web.parts import PARTS

Access = Literal["public", "signed-in", "owner-socket", "webhook"]
"""`webhook`: a platform calls, with a secret that the handler checks."""

ACCESS: dict[tuple[str, str], Access] = {
    ("GET", "/static/{name}"): "public",
    ("GET", "/sign-in"): "public",
    ("GET", "/healthz"): "public",
    ("GET", "/readyz"): "public",
    ("POST", "/sign-in"): "public",
    ("POST", "/sign-out"): "signed-in",
    ("GET", "/"): "signed-in",
    ("GET", "/playground"): "signed-in",
    ("GET", "/people"): "signed-in",
    ("GET", "/people/{person_id}"): "signed-in",
    ("GET", "/feedback"): "signed-in",
    ("GET", "/lessons"): "signed-in",
    ("GET", "/lessons/{job_id}"): "signed-in",
    ("POST", "/api/events"): "signed-in",
    ("GET", "/api/stream"): "signed-in",
    ("GET", "/api/transcript"): "signed-in",
    ("POST", "/api/compare"): "signed-in",
    ("GET", "/api/export"): "signed-in",
    ("GET", "/api/status"): "signed-in",
    ("POST", "/api/learning"): "signed-in",
    ("POST", "/api/train-now"): "signed-in",
    ("POST", "/api/people/{person_id}/undo"): "signed-in",
    ("POST", "/api/people/{person_id}/feedback/{experience_id}/requeue"): "signed-in",
    ("GET", "/door"): "signed-in",
    ("GET", "/api/strangers"): "signed-in",
    ("POST", "/api/pair"): "signed-in",
    ("POST", "/webhooks/{platform}/{account}"): "webhook",
    ("POST", "/api/sign-in-link"): "owner-socket",
    ("POST", "/api/backup"): "owner-socket",
}

COOKIE = "claasbot_session"
ADMIN_ACCOUNT = "admin"
_NO_CSRF_TOKEN = {("POST", "/sign-in"), ("POST", "/webhooks/{platform}/{account}")}
"""Nobody has a session there: the single-use token of the link stands in for it, or the webhook's secret."""
_NO_SESSION = ("public", "webhook")
_ANY_HOST = {("POST", "/webhooks/{platform}/{account}")}
"""Reached under the public name of a proxy."""

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "claasbot",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Who sent a request."""

    kind: Literal["nobody", "admin", "owner"]
    account: str = ""
    display_name: str = ""
    csrf_token: str = ""


VISITOR = web.RequestKey("visitor", Visitor)


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """On every response, streams and errors included."""
    for name, value in _HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-store")


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Host, visitor, rule, CSRF: in this order, before any handler runs."""
    visitor = await _visitor(request)
    request[VISITOR] = visitor
    if visitor.kind != "owner" and _rule_of(request) not in _ANY_HOST:
        _check_host(request)
    if request.match_info.http_exception is None:  # 404 and 405 have no rule and change nothing
        rule = _rule_of(request)
        _check_rule(visitor, rule)
        if request.method not in ("GET", "HEAD") and visitor.kind != "owner":
            await _check_origin(request, visitor)
    return await handler(request)


def _rule_of(request: web.Request) -> tuple[str, str]:
    resource = request.match_info.route.resource
    return request.method, "" if resource is None else resource.canonical


def _check_rule(visitor: Visitor, rule: tuple[str, str]) -> None:
    access = ACCESS.get(rule)
    if access in ("public", "webhook") or (visitor.kind == "owner" and access is not None):
        return
    if access is None or access == "owner-socket":
        raise web.HTTPForbidden(text="This is answered over the bot's Unix socket only.")
    if visitor.kind != "admin":
        raise web.HTTPUnauthorized(
            text=f"Sign in first: run `{own_command('sign-in')}` and open the link that it prints."
        )


async def _check_origin(request: web.Request, visitor: Visitor) -> None:
    """A change comes from our own page: the browser says so, and the page proves it with its token."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise web.HTTPForbidden(text="The request came from another site.")
    if _rule_of(request) in _NO_CSRF_TOKEN:
        return
    given = request.headers.get("X-CSRF-Token", "")
    if not given and request.content_type == "application/x-www-form-urlencoded":
        given = str((await request.post()).get("csrf_token", ""))
    if not hmac.compare_digest(given.encode(), visitor.csrf_token.encode()):
        raise web.HTTPForbidden(text="The page is out of date: reload it and try again.")


def _check_host(request: web.Request) -> None:
    """A name that an attacker's DNS points at us is not ours. Addresses cannot be rebound."""
    name = _host_name(request.host)
    if name in ("localhost", *request.app[PARTS].host_names) or _is_address(name):
        return
    raise web.HTTPForbidden(text=f"This claasbot does not answer as {name[:80]!r}; open it as localhost.")


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


async def _visitor(request: web.Request) -> Visitor:
    peer = request.transport.get_extra_info("socket") if request.transport is not None else None
    if peer is not None and peer.family == socket.AF_UNIX:
        name = _unix_user(peer)
        return Visitor(kind="owner", account=f"local:{name}", display_name=name)
    token = request.cookies.get(COOKIE, "") if ACCESS.get(_rule_of(request)) not in _NO_SESSION else ""
    parts = request.app[PARTS]
    csrf_token = await parts.store.run(sessions.csrf_of_session, token, parts.clock()) if token else None
    if csrf_token is None:
        return Visitor(kind="nobody")
    return Visitor(kind="admin", account=ADMIN_ACCOUNT, display_name="Admin", csrf_token=csrf_token)


def _unix_user(peer: socket.socket) -> str:
    """Who is at the other end; where the kernel does not say, whoever may open our socket."""
    uid = os.getuid()
    if hasattr(socket, "SO_PEERCRED"):
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", credentials)
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
