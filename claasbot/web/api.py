"""The routes behind the page and the terminal: events in, frames out, and what an admin may do."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from aiohttp import web
from pydantic import StringConstraints

from claasbot.errors import NotFound, StoreError
from claasbot.storage import accounts, audit, people
from claasbot.web import reading
from claasbot.web.bodies import FORM, Body, Flag, body_of, json_of
from claasbot.web.events import AnyEvent, Sender
from claasbot.web.frames import Frame, Subscription
from claasbot.web.open_streams import OPEN_STREAMS
from claasbot.web.parts import PARTS
from claasbot.web.playground import Playground
from claasbot.web.visitor import VISITOR, Visitor, is_still_good

_HEARTBEAT_S = 15.0
_WRITE_S = 30.0
_CHUNK_BYTES = 256 * 1024
_STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "X-Accel-Buffering": "no",  # nginx would hold frames back
}


class Question(Body):
    """Two versions answer it."""

    question: Annotated[str, StringConstraints(min_length=1)]


class Pause(Body):
    """Whether all learning rests."""

    paused: Flag


class PairingCode(Body):
    """What a stranger was told."""

    code: Annotated[str, StringConstraints(min_length=1, max_length=80)]


class BackupTo(Body):
    """A folder that does not exist yet, as an absolute path."""

    to: Annotated[str, StringConstraints(pattern=r"^/[^\x00]*$", max_length=4_000)]


async def post_event(request: web.Request) -> web.StreamResponse:
    """202 once the event is committed."""
    playground, visitor = _chat_of(request)
    sender = Sender(
        address=playground.address_of(visitor.account),
        account=visitor.account,
        display_name=visitor.display_name,
        at=request.app[PARTS].clock(),
    )
    event = (await json_of(request, AnyEvent)).root.event(sender)
    await playground.receive(event)
    return web.json_response({"accepted": event.update_key}, status=202)


async def get_stream(request: web.Request) -> web.StreamResponse:
    """Server-sent events until the tab leaves, is too slow, or its session ends."""
    playground, visitor = _chat_of(request)
    response = web.StreamResponse(headers=_STREAM_HEADERS)
    with (
        playground.subscribed(playground.address_of(visitor.account)) as tab,
        request.app[OPEN_STREAMS].held_by(visitor.ticket, tab),
    ):
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
            if not await is_still_good(request):
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
    address = playground.address_of(visitor.account)
    facts = await parts.store.run(reading.chat, address, visitor.account)
    return web.json_response({**facts, "notices": playground.notices(address)})


async def post_compare(request: web.Request) -> web.StreamResponse:
    """The version before and the current one, on the same question."""
    question = (await json_of(request, Question)).question
    before, now = await request.app[PARTS].compare(await _person_id(request), question)
    return web.json_response({"question": question.strip(), "before": asdict(before), "now": asdict(now)})


async def get_export(request: web.Request) -> web.StreamResponse:
    return await _hand_out(request, await _person_id(request))


async def post_export_of(request: web.Request) -> web.StreamResponse:
    """For the host, whom a person asked for it."""
    parts, person_id = request.app[PARTS], reading.person_number(request.match_info["person_id"])
    await parts.store.run(people.person, person_id)
    await parts.store.run(audit.add, who(request), f"exported p{person_id}", parts.clock())
    return await _hand_out(request, person_id)


async def _hand_out(request: web.Request, person_id: int) -> web.StreamResponse:
    """The zip, read from the disk while it is sent."""
    async with request.app[PARTS].export(person_id) as made:
        headers = {"Content-Disposition": f'attachment; filename="{made.name}"', "Content-Type": "application/zip"}
        response = web.StreamResponse(headers=headers)
        response.content_length = made.path.stat().st_size
        await response.prepare(request)
        with made.path.open("rb") as file:  # not FileResponse: it looks for the file once more when it is gone
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                await response.write(chunk)
        return response


async def get_status(request: web.Request) -> web.StreamResponse:
    return web.json_response(asdict(await request.app[PARTS].status()))


async def post_learning(request: web.Request) -> web.StreamResponse:
    """Pause or resume all learning."""
    paused = (await body_of(request, Pause)).paused
    await request.app[PARTS].set_paused(paused, who(request))
    return done(request, "/", {"paused": paused})


async def post_train_now(request: web.Request) -> web.StreamResponse:
    await request.app[PARTS].train_now(who(request))
    return done(request, "/", {"started": True})


async def post_revoke(request: web.Request) -> web.StreamResponse:
    """One lesson taken back: done at once, or as soon as those after it are learned again."""
    person_id = reading.person_number(request.match_info["person_id"])
    revoked = await request.app[PARTS].revoke(person_id, request.match_info["job_id"], who(request))
    facts = {"is_rebuilding": revoked.is_rebuilding, "version": revoked.version_name}
    return done(request, f"/people/{person_id}", facts)


async def post_undo(request: web.Request) -> web.StreamResponse:
    person_id = reading.person_number(request.match_info["person_id"])
    name = await request.app[PARTS].undo(person_id, who(request))
    return done(request, f"/people/{person_id}", {"version": name})


async def post_roll_back(request: web.Request) -> web.StreamResponse:
    person_id = reading.person_number(request.match_info["person_id"])
    n = reading.version_number(request.match_info["n"])
    name = await request.app[PARTS].roll_back(person_id, n, who(request))
    return done(request, f"/people/{person_id}", {"version": name})


async def get_strangers(request: web.Request) -> web.StreamResponse:
    """Who waits to be let in."""
    parts = request.app[PARTS]
    found = await parts.store.run(accounts.strangers, parts.clock())
    return web.json_response(
        [{"code": one.code, "name": one.display_name, "platform": one.address.platform} for one in found]
    )


async def post_pair(request: web.Request) -> web.StreamResponse:
    code = (await body_of(request, PairingCode)).code
    stranger, is_told = await request.app[PARTS].let_in(code, who(request))
    facts = {
        "name": stranger.display_name,
        "platform": stranger.address.platform,
        "is_told": is_told,
        "is_admin": stranger.is_admin,
    }
    return done(request, "/door", facts)


async def post_backup(request: web.Request) -> web.StreamResponse:
    """Into a folder of the owner's choice, as an absolute path."""
    to, parts = (await json_of(request, BackupTo)).to, request.app[PARTS]
    contents = await parts.backup(Path(to))
    await parts.store.run(audit.add, who(request), "made a backup", parts.clock())
    return web.json_response(asdict(contents))


async def post_requeue(request: web.Request) -> web.StreamResponse:
    """Parked feedback waits for a lesson again."""
    person_id = reading.person_number(request.match_info["person_id"])
    experience_id = reading.person_number(request.match_info["experience_id"])
    await request.app[PARTS].requeue(person_id, experience_id, who(request))
    return done(request, "/feedback", {"queued": experience_id})


def who(request: web.Request) -> str:
    """Who does something, for the record: `playground:admin`, `console:local:name`."""
    playground, visitor = _chat_of(request)
    return f"{playground.platform}:{visitor.account}"


def done(request: web.Request, page: str, facts: dict[str, Any]) -> web.StreamResponse:
    """A form goes back to its page, everybody else gets JSON."""
    if request.content_type == FORM:
        raise web.HTTPSeeOther(page)
    return web.json_response(facts)


def _chat_of(request: web.Request) -> tuple[Playground, Visitor]:
    parts, visitor = request.app[PARTS], request[VISITOR]
    return (parts.console if visitor.kind == "socket" else parts.playground), visitor


async def _person_id(request: web.Request) -> int:
    playground, visitor = _chat_of(request)
    person = await request.app[PARTS].store.run(reading.person_at, playground.platform, visitor.account)
    if person is None:
        raise NotFound("Nothing is stored about you yet: say something first.")
    return person.person_id
