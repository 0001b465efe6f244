"""The cookie that carries a session's token. Over TLS its name binds it to this host (RFC 6265bis, 4.1.3.2)."""

from __future__ import annotations

from datetime import timedelta

from aiohttp import web

from claasbot.web.arrival import is_tls

COOKIE = "claasbot_session"
HOST_COOKIE = f"__Host-{COOKIE}"


def _name(request: web.Request) -> str:
    return HOST_COOKIE if is_tls(request) else COOKIE


def session_token(request: web.Request) -> str:
    """Empty without one. By TLS the other name counts for nothing: a plain page could have set it."""
    return request.cookies.get(_name(request), "")


def set_session_token(request: web.Request, response: web.StreamResponse, token: str, lifetime: timedelta) -> None:
    response.set_cookie(
        _name(request),
        token,
        max_age=int(lifetime.total_seconds()),
        httponly=True,
        samesite="Strict",
        secure=is_tls(request),
        path="/",
    )


def drop_session_token(request: web.Request, response: web.StreamResponse) -> None:
    response.del_cookie(_name(request), path="/", secure=is_tls(request), httponly=True, samesite="Strict")
