"""Who may do what: one rule for every route, and the checks that hold for all of them.

A route without a rule answers nobody. Requests over the Unix socket are the owner's: the file's mode says so.
"""

from __future__ import annotations

from typing import Literal

from aiohttp import web
from aiohttp.typedefs import Handler

from claasbot.domain.admin import AdminRole, scope_for
from claasbot.own_command import own_command
from claasbot.web.arrival import is_tls
from claasbot.web.own_site import check_csrf_token, check_host, check_origin
from claasbot.web.visitor import NOBODY, VISITOR, Visitor, by_key_or_session, over_socket

Access = Literal["public", "metrics", "owner-socket", "webhook"] | AdminRole
"""A role: whoever has it or a higher one. `webhook`: a platform calls, with a secret that the handler checks.
`metrics`: people who are signed in, and programs with a key for it.
"""

ACCESS: dict[tuple[str, str], Access] = {
    ("GET", "/static/{name}"): "public",
    ("GET", "/sign-in"): "public",
    ("GET", "/healthz"): "public",
    ("GET", "/readyz"): "public",
    ("GET", "/metrics"): "metrics",
    ("POST", "/sign-in"): "public",
    ("POST", "/sign-out"): "viewer",
    ("GET", "/"): "viewer",
    ("GET", "/playground"): "admin",
    ("GET", "/people"): "viewer",
    ("GET", "/people/{person_id}"): "viewer",
    ("GET", "/feedback"): "viewer",
    ("GET", "/lessons"): "viewer",
    ("GET", "/lessons/{job_id}"): "viewer",
    ("POST", "/api/events"): "admin",
    ("GET", "/api/stream"): "viewer",
    ("GET", "/api/transcript"): "viewer",
    ("POST", "/api/compare"): "admin",
    ("GET", "/api/export"): "viewer",
    ("GET", "/api/status"): "viewer",
    ("GET", "/api/openapi.json"): "viewer",
    ("POST", "/api/learning"): "admin",
    ("POST", "/api/train-now"): "admin",
    ("POST", "/api/people/{person_id}/undo"): "admin",
    ("POST", "/api/people/{person_id}/versions/{n}/roll-back"): "admin",
    ("POST", "/api/people/{person_id}/lessons/{job_id}/revoke"): "admin",
    ("POST", "/api/people/{person_id}/feedback/{experience_id}/requeue"): "admin",
    ("GET", "/door"): "viewer",
    ("GET", "/errors"): "viewer",
    ("GET", "/audit"): "viewer",
    ("GET", "/api/errors"): "viewer",
    ("GET", "/api/errors/{error_id}"): "viewer",
    ("GET", "/api/audit"): "viewer",
    ("GET", "/api/strangers"): "viewer",
    ("POST", "/api/pair"): "admin",
    ("POST", "/webhooks/{platform}/{account}"): "webhook",
    ("POST", "/api/sign-in-link"): "owner-socket",
    ("POST", "/api/backup"): "owner-socket",
    ("POST", "/api/people/{person_id}/export"): "owner-socket",
    ("GET", "/security"): "viewer",
    ("POST", "/security/password"): "viewer",
    ("POST", "/security/second-factor"): "viewer",
    ("POST", "/security/second-factor/confirm"): "viewer",
    ("POST", "/security/second-factor/off"): "viewer",
    ("POST", "/security/sessions/{session_id}/end"): "viewer",
    ("POST", "/security/sessions/end-others"): "viewer",
    ("GET", "/api/admins"): "owner",
    ("POST", "/api/admins"): "owner",
    ("POST", "/api/admins/{admin}/role"): "owner",
    ("POST", "/api/admins/{admin}/link"): "owner",
    ("POST", "/api/admins/{admin}/remove"): "owner",
    ("POST", "/api/admins/{admin}/password"): "owner-socket",
    ("GET", "/api/keys"): "owner",
    ("POST", "/api/keys"): "owner",
    ("POST", "/api/keys/{key_id}/revoke"): "owner",
}

_NO_CSRF_TOKEN = {("POST", "/sign-in"), ("POST", "/webhooks/{platform}/{account}")}
"""Nobody has a session there: a secret in the body stands in for it, or the webhook's."""
_NO_SESSION = ("public", "webhook")
_ANY_HOST = {("POST", "/webhooks/{platform}/{account}")}
"""Reached under the public name of a proxy."""
_FOR_KEYS = ("/api/", "/metrics")
"""Keys are for programs: no page answers them."""

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: browsers then hide the origin of our own forms too (Fetch, "append a request Origin header").
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "claasbot",
}
_HSTS = "max-age=31536000; includeSubDomains"


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """On every response, streams and errors included."""
    for name, value in _HEADERS.items():
        response.headers[name] = value
    if is_tls(request):
        response.headers["Strict-Transport-Security"] = _HSTS
    response.headers.setdefault("Cache-Control", "no-store")


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Host, visitor, rule, origin, CSRF: in this order, before any handler runs."""
    rule = _rule_of(request)
    visitor = over_socket(request)
    if visitor is None:
        if rule not in _ANY_HOST:
            request[VISITOR] = NOBODY
            check_host(request)
        visitor = NOBODY if ACCESS.get(rule) in _NO_SESSION else await by_key_or_session(request)
    request[VISITOR] = visitor
    if request.match_info.http_exception is None:  # 404 and 405 have no rule and change nothing
        _check_rule(visitor, rule)
        if request.method not in ("GET", "HEAD") and visitor.kind in ("browser", "nobody"):
            check_origin(request)
            if rule not in _NO_CSRF_TOKEN:
                await check_csrf_token(request, visitor.csrf_token)
    return await handler(request)


def _rule_of(request: web.Request) -> tuple[str, str]:
    resource = request.match_info.route.resource
    return request.method, "" if resource is None else resource.canonical


def _check_rule(visitor: Visitor, rule: tuple[str, str]) -> None:
    access = ACCESS.get(rule)
    if access == "public" or access == "webhook" or (visitor.kind == "socket" and access is not None):
        return
    if access is None or access == "owner-socket":
        raise web.HTTPForbidden(text="This is answered over the bot's Unix socket only.")
    if visitor.kind == "nobody":
        text = f"Sign in first: run `{own_command('sign-in')}` and open the link that it prints."
        raise web.HTTPUnauthorized(text=text, headers={"WWW-Authenticate": "Bearer"})
    if visitor.kind == "key":
        _check_scope(visitor, rule, access)
    elif not visitor.may("viewer" if access == "metrics" else access):
        raise web.HTTPForbidden(text=f"Your role is {visitor.role}; this needs the role {access}.")


def _check_scope(visitor: Visitor, rule: tuple[str, str], access: AdminRole | Literal["metrics"]) -> None:
    method, path = rule
    if not path.startswith(_FOR_KEYS):
        raise web.HTTPForbidden(text="An API key opens the API, and no pages.")
    needed = scope_for(access, is_read=method == "GET")
    if needed not in visitor.scopes:
        lacks = "no key may do this" if needed is None else f"this needs the scope {needed!r}"
        raise web.HTTPForbidden(text=f"The key {visitor.display_name!r} does not open this: {lacks}.")
