"""Errors as people see them: one line and a status. Unknown ones get an id, and the log gets the rest."""

from __future__ import annotations

import logging
import secrets
import time

from aiohttp import web
from aiohttp.typedefs import Handler

from claasbot.errors import (
    BadInput,
    ChatError,
    ClaasbotError,
    ImpossibleTransition,
    NotFound,
    NotYours,
    ServerDown,
    ServerError,
    StoreError,
)
from claasbot.web.pages import render

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 256 * 1024

_STATUS: tuple[tuple[type[ClaasbotError], int], ...] = (
    (BadInput, 400),
    (NotYours, 404),  # the same as for a missing row: ids tell nothing
    (NotFound, 404),
    (ImpossibleTransition, 409),
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


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost loop of one request."""
    try:
        return await handler(request)
    except web.HTTPRedirection:
        raise
    except web.HTTPException as error:
        return _problem(request, error.status, _LINES.get(error.status) or error.text or error.reason)
    except ClaasbotError as error:
        return _problem(request, _status_of(error), str(error))
    except ConnectionError:
        raise
    except Exception:
        error_id = secrets.token_hex(4)
        log.exception("%s failed, error %s", _route_of(request), error_id)
        return _problem(request, 500, f"Something broke; the log tells more under error {error_id}.")


@web.middleware
async def access_log(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Method, route, status, milliseconds. Never the address itself: it may carry a token."""
    started = time.perf_counter()
    response = await handler(request)
    milliseconds = (time.perf_counter() - started) * 1_000
    log.info("%s %d in %.0f ms", _route_of(request), response.status, milliseconds)
    return response


def _status_of(error: ClaasbotError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def _problem(request: web.Request, status: int, line: str) -> web.Response:
    is_form = request.content_type == "application/x-www-form-urlencoded"
    if request.path.startswith("/api/") and not is_form:
        return web.json_response({"error": line}, status=status)
    return render(request, "problem.html", http_status=status, line=line)


def _route_of(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return f"{request.method} {'(unknown)' if resource is None else resource.canonical}"
