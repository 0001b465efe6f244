"""Templates and their static files. Everything is escaped, nothing is inline."""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from aiohttp import web

from claasbot.errors import NotFound
from claasbot.own_command import own_command
from claasbot.resources import templates_dir
from claasbot.web.visitor import NOBODY, VISITOR

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticFile:
    body: bytes
    content_type: str
    etag: str


TEMPLATES = web.AppKey("templates", jinja2.Environment)
STATIC = web.AppKey("static", dict[str, StaticFile])


@functools.cache
def environment() -> jinja2.Environment:
    """Compiled once per process."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates_dir()),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"number": number, "seconds": seconds, "when": when}
    found.globals["own_command"] = own_command
    return found


def static_files() -> dict[str, StaticFile]:
    """Read once: a request names a key of this table, never a path."""
    return {path.name: _static(path) for path in (templates_dir() / "static").iterdir() if path.suffix in _TYPES}


def _static(path: Path) -> StaticFile:
    body = path.read_bytes()
    return StaticFile(body=body, content_type=_TYPES[path.suffix], etag=hashlib.sha256(body).hexdigest()[:16])


async def serve_static(request: web.Request) -> web.StreamResponse:
    found = request.app[STATIC].get(request.match_info["name"])
    if found is None:
        raise NotFound("There is no such file.")
    response = web.Response(body=found.body, content_type=found.content_type, charset="utf-8")
    response.etag = found.etag
    response.headers["Cache-Control"] = "no-cache"
    if any(tag.value == found.etag for tag in request.if_none_match or ()):
        return web.Response(status=304, headers={"ETag": f'"{found.etag}"', "Cache-Control": "no-cache"})
    return response


def render(request: web.Request, template: str, *, http_status: int = 200, **facts: Any) -> web.Response:
    """A page with what every page knows: who is looking, and the token for changes."""
    visitor = request.get(VISITOR, NOBODY)
    text = (
        request.app[TEMPLATES]
        .get_template(template)
        .render(visitor=visitor, path=request.path, http_status=http_status, **facts)
    )
    return web.Response(text=text, content_type="text/html", status=http_status)


def number(value: float | None, digits: int = 3) -> str:
    """A measured number, or a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def when(text: str | None) -> str:
    """A stored instant as people read it; always UTC."""
    return "–" if not text else datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S")
