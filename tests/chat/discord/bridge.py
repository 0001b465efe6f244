"""The simulated platform behind a real HTTP server and a real WebSocket gateway, for clients in other processes.

Follows `chat-platforms.md` §3.3: routes and events are simcord's, the transport is ours. Speaks as much of the
gateway as a client needs: hello, identify, resume with what was missed, heartbeats, close codes.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import discord
import simcord
from aiohttp import WSMsgType, web
from simcord.backend import serializers
from simcord.backend.errors import BackendError
from simcord.gateway import FakeGateway
from simcord.http.router import dispatch, parse_form

NOT_APPROVED = 4014


@dataclass
class Session:
    """One identified client: its events, numbered, also while it is away."""

    intents: discord.Intents
    sent: list[str] = field(default_factory=list)
    socket: web.WebSocketResponse | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, event: str, payload: Mapping[str, Any]) -> None:
        number = len(self.sent) + 1
        self.sent.append(json.dumps({"op": 0, "t": event, "s": number, "d": payload}))
        self.news.set()


class _Parsers:
    """Where simcord's gateway looks up what to do with an event: send it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __getitem__(self, event: str) -> Any:
        return lambda payload: self._session.note(event, payload)


class Bridge:
    """`api_base` and `gateway` are what the client is pointed at."""

    def __init__(self, env: simcord.Env, token: str, *, message_content_approved: bool = True) -> None:
        self.env = env
        self.token = token
        self.message_content_approved = message_content_approved
        self.sessions: list[Session] = []
        self.n_identified = 0
        self.retry_after_s = 0.01
        """What an injected 429 asks for."""
        self.gates: dict[str, asyncio.Event] = {}
        """Requests of a method wait here before they are handled."""
        self.api_base = ""
        self.gateway = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/api/v10/{path:.*}", self._rest)
        app.router.add_get("/gateway", self._gateway)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host = self._runner.addresses[0]
        self.api_base = f"http://{host[0]}:{host[1]}/api/v10"
        self.gateway = f"ws://{host[0]}:{host[1]}/gateway"

    async def stop(self) -> None:
        self.env.backend.subscribers[:] = [one for one in self.env.backend.subscribers if not hasattr(one, "session")]
        await self.hang_up(1001)
        assert self._runner is not None
        await self._runner.cleanup()

    async def hang_up(self, code: int = 4000) -> None:
        """End every connection, as Discord does now and then."""
        for session in self.sessions:
            if session.socket is not None:
                await session.socket.close(code=code)

    async def _rest(self, request: web.Request) -> web.Response:
        path = "/" + request.match_info["path"]
        if path.startswith(("/users/@me", "/oauth2")) and request.headers.get("Authorization") != f"Bot {self.token}":
            return _answer(401, {"message": "401: Unauthorized", "code": 0})
        if (request.method, path) == ("GET", "/users/@me"):
            return _answer(200, serializers.user_payload(self.env.backend.bot_user))
        if request.method in self.gates:
            await self.gates[request.method].wait()
        try:
            body, files = await _body(request)
            path = quote(path, safe="/@%") if "reactions" in path else path
            found = dispatch(self.env.backend, request.method, path, json=body, params=dict(request.query), files=files)
        except BackendError as error:
            return self._refusal(error)
        return web.Response(status=204) if found is None else _answer(200, found)

    def _refusal(self, error: BackendError) -> web.Response:
        if error.status != 429:
            return _answer(error.status, error.to_json())
        facts = {"message": "You are being rate limited.", "retry_after": self.retry_after_s, "global": False}
        return _answer(429, facts, {"Via": "1.1 simulated"})

    async def _gateway(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"op": 10, "d": {"heartbeat_interval": 45_000}})
        sending: asyncio.Task[None] | None = None
        session: Session | None = None
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            said = json.loads(message.data)
            if said["op"] == 1:
                await socket.send_json({"op": 11})
            elif said["op"] in (2, 6):
                begun = await self._begin(socket, said)
                if begun is not None:
                    session, n_known = begun
                    sending = asyncio.create_task(_send(session, socket, n_known))
        if sending is not None:
            sending.cancel()
        if session is not None and session.socket is socket:
            session.socket = None
        return socket

    async def _begin(self, socket: web.WebSocketResponse, said: dict[str, Any]) -> tuple[Session, int] | None:
        """The session, and how many of its events the client has."""
        facts = said["d"]
        if facts["token"] != self.token:
            await socket.close(code=4004)
            return None
        if said["op"] == 6:
            session = self.sessions[int(facts["session_id"])]
            session.socket = socket
            session.note("RESUMED", {})
            return session, facts["seq"]
        intents = discord.Intents._from_value(facts["intents"])
        if intents.message_content and not self.message_content_approved:
            await socket.close(code=NOT_APPROVED)
            return None
        return self._identified(intents, socket), 0

    def _identified(self, intents: discord.Intents, socket: web.WebSocketResponse) -> Session:
        self.n_identified += 1
        backend = self.env.backend
        session = Session(intents=intents, socket=socket)
        ready = {
            "v": 10,
            "user": dict(serializers.user_payload(backend.bot_user)),
            "guilds": [{"id": str(guild.id), "unavailable": True} for guild in backend.guilds.values()],
            "session_id": str(len(self.sessions)),
            "resume_gateway_url": self.gateway,
            "application": {"id": str(backend.application_id), "flags": 0},
        }
        self.sessions.append(session)
        feed = FakeGateway(backend, SimpleNamespace(intents=intents, parsers=_Parsers(session))).feed
        session.note("READY", ready)
        for guild in list(backend.guilds.values()):
            feed("GUILD_CREATE", serializers.guild_create_payload(backend, guild))

        def subscriber(event: str, payload: Mapping[str, Any]) -> None:
            feed(event, payload)

        subscriber.session = session  # type: ignore[attr-defined]
        backend.subscribers.append(subscriber)
        return session


async def _send(session: Session, socket: web.WebSocketResponse, n_known: int) -> None:
    while not socket.closed:
        session.news.clear()
        while n_known < len(session.sent):
            await socket.send_str(session.sent[n_known])
            n_known += 1
        await session.news.wait()


def _answer(status: int, body: Any, headers: dict[str, str] | None = None) -> web.Response:
    # discord.py compares the header as a string: a charset behind it would leave the body unread
    content = json.dumps(body).encode()
    return web.Response(status=status, body=content, headers={"Content-Type": "application/json"} | (headers or {}))


async def _body(request: web.Request) -> tuple[Any, list[Any]]:
    if not request.content_type.startswith("multipart/"):
        content = await request.read()
        return (json.loads(content) if content else None), []
    form, files = [], []
    async for part in await request.multipart():
        assert hasattr(part, "filename")
        content = await part.read()
        if part.filename is None:
            form.append({"name": part.name, "value": content.decode()})
        else:
            files.append(SimpleNamespace(filename=part.filename, fp=io.BytesIO(content), description=None))
    return parse_form(form, files)


@asynccontextmanager
async def bridged(token: str) -> AsyncIterator[Bridge]:
    """An empty platform that takes this token; an error that it met at the end fails whoever used it."""
    env = simcord.Env(discord.Client(intents=discord.Intents.all()))
    await env.start()
    bridge = Bridge(env, token)
    await bridge.start()
    yield bridge
    await bridge.stop()
    await env.shutdown()
    env.raise_errors()
