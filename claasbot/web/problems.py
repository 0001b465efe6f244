"""Errors as people see them: one line and a status. Unknown ones get an id, and the log gets the rest."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from aiohttp import web
from aiohttp.typedefs import Handler

from claasbot.errors import (
    BadInput,
    Busy,
    ChatError,
    ClaasbotError,
    ImpossibleTransition,
    NotFound,
    NotYours,
    ServerDown,
    ServerError,
    StoreError,
)
from claasbot.logs import new_error_id
from claasbot.masking import keep_secret_here, masked, masked_for_its_sender, one_request
from claasbot.own_command import own_command
from claasbot.web.pages import render

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 256 * 1024

_STATUS: tuple[tuple[type[ClaasbotError], int], ...] = (
    (BadInput, 400),
    (NotYours, 404),  # the same as for a missing row: ids tell nothing
    (NotFound, 404),
    (ImpossibleTransition, 409),
    (Busy, 503),
    (ServerDown, 503),
    (StoreError, 503),
    (ChatError, 503),
    (ServerError, 502),
)
_LINES = {
    404: "There is nothing at this address.",
    405: "This address does not answer to that method.",
    413: f"The request is larger than {MAX_BODY_BYTES // 1024} KiB; shorten it.",
}
_KEPT_HEADERS = ("Allow", "Retry-After", "WWW-Authenticate")
"""RFC 9110, 15.5.6: a 405 must say what is allowed."""

_ASKED_BY_THEMSELVES = ("GET /static/{name}", "GET /api/status", "GET /healthz", "GET /readyz", "GET /metrics")
"""By open pages, probes and Prometheus, every few seconds: shown at `log.level = "debug"`, or when they fail."""


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost loop of one request."""
    try:
        return await handler(request)
    except web.HTTPRedirection:
        raise
    except web.HTTPException as error:
        problem = _problem(request, error.status, _LINES.get(error.status) or error.text or error.reason)
        problem.headers.update({name: error.headers[name] for name in _KEPT_HEADERS if name in error.headers})
        return problem
    except ConnectionError:
        raise
    except Exception as error:
        if isinstance(error, ClaasbotError) and (status := _status_of(error)) != 500:
            return _problem(request, status, str(error))
        error_id = new_error_id()
        log.exception("%s failed, error %s", _route_of(request), error_id)
        look_up = own_command(f"errors {error_id}")
        return _problem(request, 500, f"Something broke (error {error_id}): `{look_up}` says more.")


@web.middleware
async def access_log(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Method, route, status, milliseconds. Never the address itself: it may carry a token."""
    started = time.perf_counter()
    with one_request():
        keep_secret_here(*_secrets_of(request))
        response = await handler(request)
        milliseconds = (time.perf_counter() - started) * 1_000
        route = _route_of(request)
        level = logging.DEBUG if route in _ASKED_BY_THEMSELVES and response.status < 400 else logging.INFO
        log.log(level, "%s %d in %.0f ms", route, response.status, milliseconds)
    return response


@web.middleware
async def withheld(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Nothing that this process keeps secret leaves it in an answer, wherever it came from."""
    response = await handler(request)
    if isinstance(response, web.Response) and isinstance(response.body, bytes) and response.charset:
        text = response.body.decode(response.charset, errors="surrogateescape")
        if (clean := masked_for_its_sender(text)) != text:
            log.warning("%s: a secret was taken out of the answer", _route_of(request))
            response.body = clean.encode(response.charset, errors="surrogateescape")
    return response


def _secrets_of(request: web.Request) -> Iterator[str]:
    """What proves who somebody is, as far as a request shows it outside of its body."""
    yield from request.cookies.values()
    yield request.query.get("token", "")
    for name, value in request.headers.items():
        if name.lower() == "authorization" or any(part in name.lower() for part in ("token", "secret", "api-key")):
            yield value.rpartition(" ")[2]


def _status_of(error: ClaasbotError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def _problem(request: web.Request, status: int, line: str) -> web.Response:
    line = masked(line)
    is_form = request.content_type == "application/x-www-form-urlencoded"
    if request.path.startswith("/api/") and not is_form:
        return web.json_response({"error": line}, status=status)
    return render(request, "problem.html", http_status=status, line=line)


def _route_of(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return f"{request.method} {'(unknown)' if resource is None else resource.canonical}"
