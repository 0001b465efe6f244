"""The routes behind the page and the terminal: events in, frames out, and what an admin may do."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiohttp import web

from claasbot.errors import BadInput, NotFound, StoreError
from claasbot.storage import accounts, sessions
from claasbot.web import reading
from claasbot.web.access import COOKIE, VISITOR, Visitor
from claasbot.web.events import event_of
from claasbot.web.frames import Frame, Subscription
from claasbot.web.parts import PARTS
from claasbot.web.playground import Playground

_HEARTBEAT_S = 15.0
_WRITE_S = 30.0
_FORM = "application/x-www-form-urlencoded"
_STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "X-Accel-Buffering": "no",  # nginx would hold frames back
}


async def post_event(request: web.Request) -> web.StreamResponse:
    """202 once the event is committed."""
    playground, visitor = _chat_of(request)
    event = event_of(
        await _json(request),
        address=playground.address,
        account=visitor.account,
        display_name=visitor.display_name,
        at=request.app[PARTS].clock(),
    )
    await playground.receive(event)
    return web.json_response({"accepted": event.update_key}, status=202)


async def get_stream(request: web.Request) -> web.StreamResponse:
    """Server-sent events until the tab leaves, is too slow, or its session ends."""
    playground, _ = _chat_of(request)
    response = web.StreamResponse(headers=_STREAM_HEADERS)
    with playground.subscribed(playground.address) as tab:
        await response.prepare(request)
        try:
            await _pump(request, response, tab)
        except (ConnectionError, TimeoutError, StoreError):  # headers are out: no error page can follow
            if request.transport is not None:
                request.transport.abort()
    return response


async def _pump(request: web.Request, response: web.StreamResponse, tab: Subscription) -> None:
    while True:
        try:
            async with asyncio.timeout(_HEARTBEAT_S):
                frame = await tab.next()
        except TimeoutError:
            if not await _is_still_signed_in(request):
                return
            chunk = b": still here\n\n"
        else:
            if frame is None:
                return
            chunk = encoded(frame)
        async with asyncio.timeout(_WRITE_S):
            await response.write(chunk)


def encoded(frame: Frame) -> bytes:
    """As in the HTML standard, 9.2.5; JSON has no line breaks, so one data line is enough."""
    return f"id: {frame.frame_id}\nevent: {frame.kind}\ndata: {json.dumps(frame.data)}\n\n".encode()


async def get_transcript(request: web.Request) -> web.StreamResponse:
    parts = request.app[PARTS]
    playground, visitor = _chat_of(request)
    facts = await parts.store.run(reading.chat, playground.address, visitor.account)
    return web.json_response({**facts, "notices": playground.notices(playground.address)})


async def post_compare(request: web.Request) -> web.StreamResponse:
    """The version before and the current one, on the same question."""
    facts = await _json(request)
    question = facts.get("question") if isinstance(facts, dict) else None
    if not isinstance(question, str):
        raise BadInput('The comparison needs a question: {"question": "…"}.')
    before, now = await request.app[PARTS].compare(await _person_id(request), question)
    return web.json_response({"question": question.strip(), "before": asdict(before), "now": asdict(now)})


async def get_export(request: web.Request) -> web.StreamResponse:
    person_id = await _person_id(request)
    text = await request.app[PARTS].export(person_id)
    headers = {"Content-Disposition": f'attachment; filename="claasbot-p{person_id}.json"'}
    return web.Response(text=text, content_type="application/json", headers=headers)


async def get_status(request: web.Request) -> web.StreamResponse:
    return web.json_response(asdict(await request.app[PARTS].status()))


async def post_learning(request: web.Request) -> web.StreamResponse:
    """Pause or resume all learning: {"paused": true}."""
    if request.content_type == _FORM:
        paused: object = {"yes": True, "no": False}.get(str((await request.post()).get("paused")))
    else:
        facts = await _json(request)
        paused = facts.get("paused") if isinstance(facts, dict) else None
    if not isinstance(paused, bool):
        raise BadInput('Say whether learning is paused: {"paused": true} or {"paused": false}.')
    await request.app[PARTS].set_paused(paused, _who(request))
    return _done(request, "/", {"paused": paused})


async def post_train_now(request: web.Request) -> web.StreamResponse:
    await request.app[PARTS].train_now(_who(request))
    return _done(request, "/", {"started": True})


async def post_undo(request: web.Request) -> web.StreamResponse:
    person_id = reading.person_number(request.match_info["person_id"])
    name = await request.app[PARTS].undo(person_id, _who(request))
    return _done(request, f"/people/{person_id}", {"version": name})


async def get_strangers(request: web.Request) -> web.StreamResponse:
    """Who waits to be let in."""
    parts = request.app[PARTS]
    found = await parts.store.run(accounts.strangers, parts.clock())
    return web.json_response(
        [{"code": one.code, "name": one.display_name, "platform": one.address.platform} for one in found]
    )


async def post_pair(request: web.Request) -> web.StreamResponse:
    given = (await request.post()).get("code") if request.content_type == _FORM else (await _json(request))
    code = given if isinstance(given, str) else given.get("code") if isinstance(given, dict) else None
    if not isinstance(code, str):
        raise BadInput('Give {"code": "…"}: the code that the stranger was told.')
    stranger, is_told = await request.app[PARTS].let_in(code, _who(request))
    facts = {
        "name": stranger.display_name,
        "platform": stranger.address.platform,
        "is_told": is_told,
        "is_admin": stranger.is_admin,
    }
    return _done(request, "/door", facts)


async def post_backup(request: web.Request) -> web.StreamResponse:
    """Into a folder of the owner's choice, as an absolute path."""
    given = await _json(request)
    to = given.get("to") if isinstance(given, dict) else None
    if not isinstance(to, str) or not Path(to).is_absolute():
        raise BadInput('Give {"to": "/an/absolute/path"}: a folder that does not exist yet.')
    return web.json_response(asdict(await request.app[PARTS].backup(Path(to))))


async def post_requeue(request: web.Request) -> web.StreamResponse:
    """Parked feedback waits for a lesson again."""
    person_id = reading.person_number(request.match_info["person_id"])
    experience_id = reading.person_number(request.match_info["experience_id"])
    await request.app[PARTS].requeue(person_id, experience_id, _who(request))
    return _done(request, "/feedback", {"queued": experience_id})


def _who(request: web.Request) -> str:
    """Who does something, for the record: `playground:admin`, `console:local:name`."""
    playground, visitor = _chat_of(request)
    return f"{playground.platform}:{visitor.account}"


def _done(request: web.Request, page: str, facts: dict[str, Any]) -> web.StreamResponse:
    """A form goes back to its page, everybody else gets JSON."""
    if request.content_type == _FORM:
        raise web.HTTPSeeOther(page)
    return web.json_response(facts)


def _chat_of(request: web.Request) -> tuple[Playground, Visitor]:
    parts, visitor = request.app[PARTS], request[VISITOR]
    return (parts.console if visitor.kind == "owner" else parts.playground), visitor


async def _person_id(request: web.Request) -> int:
    playground, visitor = _chat_of(request)
    person = await request.app[PARTS].store.run(reading.person_at, playground.platform, visitor.account)
    if person is None:
        raise NotFound("Nothing is stored about you yet: say something first.")
    return person.person_id


async def _is_still_signed_in(request: web.Request) -> bool:
    if request[VISITOR].kind == "owner":
        return True
    parts = request.app[PARTS]
    token = request.cookies.get(COOKIE, "")
    return await parts.store.run(sessions.csrf_of_session, token, parts.clock()) is not None


async def _json(request: web.Request) -> object:
    if request.content_type != "application/json":
        raise BadInput(f"The body is {request.content_type[:60]!r}; send application/json.")
    try:
        return json.loads(await request.text())
    except (ValueError, LookupError, RecursionError):
        raise BadInput("The body is not valid JSON in UTF-8.") from None
