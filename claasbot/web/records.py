"""What was written down: the failures that nobody expected, and what admins did. Pages, and the same for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from aiohttp import web
from pydantic import StringConstraints
from sqlite_utils import Database

from claasbot.storage import audit, error_rows
from claasbot.storage.audit import Chain
from claasbot.storage.rows import Row
from claasbot.web.bodies import query_of
from claasbot.web.pages import render
from claasbot.web.paging import Older, older
from claasbot.web.parts import PARTS

MOST = 100
"""Rows on one page."""


class OlderOrSeen(Older):
    """`seen`: a head of the audit that somebody kept."""

    seen: Annotated[str, StringConstraints(max_length=64)] | None = None


async def errors_page(request: web.Request) -> web.StreamResponse:
    before = query_of(request, Older).before
    rows = await request.app[PARTS].store.run(error_rows.latest, MOST, before)
    return render(request, "errors.html", errors=rows, older=older(rows, MOST))


async def audit_page(request: web.Request) -> web.StreamResponse:
    rows, chain = await request.app[PARTS].store.run(_acts, query_of(request, Older).before, "")
    return render(request, "audit.html", rows=rows, chain=chain, older=older(rows, MOST))


async def get_errors(request: web.Request) -> web.StreamResponse:
    rows = await request.app[PARTS].store.run(error_rows.latest, MOST, query_of(request, Older).before)
    return web.json_response(rows)


async def get_error(request: web.Request) -> web.StreamResponse:
    return web.json_response(await request.app[PARTS].store.run(error_rows.found, request.match_info["error_id"]))


async def get_audit(request: web.Request) -> web.StreamResponse:
    asked = query_of(request, OlderOrSeen)
    rows, chain = await request.app[PARTS].store.run(_acts, asked.before, asked.seen or "")
    return web.json_response({"rows": rows, "chain": asdict(chain)})


def _acts(db: Database, before: int | None, seen: str) -> tuple[list[Row], Chain]:
    return audit.latest(db, MOST, before), audit.verify(db, seen)
