"""The Bot API over HTTP: reads calls as clients send them, has them judged and carried out, and answers.

Every call passes the referee first, and so does every answer. The methods themselves live elsewhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.chat.telegram import referee
from tests.chat.telegram.bot_methods import METHODS, Request, chat_for
from tests.chat.telegram.faults import LIMITED, Fault, Hold, RateLimit
from tests.chat.telegram.refusal import Refused, bad_request
from tests.chat.telegram.update_methods import UPDATE_METHODS
from tests.chat.telegram.world import BotAccount, Json, World

MAX_UPLOAD_BYTES = 50 * 2**20
OPTIONAL = frozenset({"sendrichmessage", "sendrichmessagedraft"})
"""Methods that a client may try and do without: refusing them is no problem."""


@dataclass(kw_only=True)
class Call:
    """One call of the bot. `status` is 0 until it is answered, and stays 0 when the connection broke."""

    method: str
    arguments: Json
    bot: BotAccount
    at: float
    status: int = 0
    result: Any = None
    description: str = ""

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def __repr__(self) -> str:
        shown = {name: value if not isinstance(value, bytes) else "…" for name, value in self.arguments.items()}
        return f"{self.method}({shown}) → {self.status} {self.description}".rstrip()


@dataclass
class BotApiServer:
    """One server for all bots of a world, at a port of its own."""

    world: World = field(default_factory=World)
    calls: list[Call] = field(default_factory=list)
    """All but getUpdates."""
    polls: list[Call] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What no correct client and no correct simulation does."""
    rate_limit: RateLimit | None = None
    port: int = 0
    _faults: list[Fault] = field(default_factory=list)
    _holds: list[Hold] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=MAX_UPLOAD_BYTES + 2**20)
        app.router.add_route("*", "/bot{token}/{method}", self._handle)
        app.router.add_get("/file/bot{token}/{path:.+}", self._serve_file)
        # A poll whose client is gone must not count as the first of two pollers.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        for hold in self._holds:
            hold.release()
        for bot in self.world.bots:
            await bot.updates.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What python-telegram-bot takes: the token is put behind it."""
        return f"{self.url}/bot"

    @property
    def base_file_url(self) -> str:
        return f"{self.url}/file/bot"

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        try:
            bot = self._bot_of(http.match_info["token"])
        except Refused as refusal:
            return web.json_response(refusal.body(), status=refusal.status)
        raw, files = await _read(http)
        name = referee.official_name(http.match_info["method"]) or http.match_info["method"]
        call = Call(method=name, arguments=raw, bot=bot, at=self.world.now())
        (self.polls if name == "getUpdates" else self.calls).append(call)
        self.world.changed()
        try:
            call.result = await self._carry_out(call, files)
            call.status = 200
            return web.json_response({"ok": True, "result": call.result})
        except Refused as refusal:
            call.status, call.description = refusal.status, refusal.description
            return web.json_response(refusal.body(), status=refusal.status)
        except ConnectionAbortedError:
            assert http.transport is not None
            http.transport.abort()
            return web.Response()
        except Exception as error:
            self.problems.append(f"the simulation broke in {name}: {error!r}")
            raise
        finally:
            self.world.changed()

    def _bot_of(self, token: str) -> BotAccount:
        if ":" not in token:
            raise Refused(401, "Unauthorized: invalid token specified")
        for bot in self.world.bots:
            if bot.token == token and not bot.is_revoked:
                return bot
        raise Refused(401, "Unauthorized")

    async def _carry_out(self, call: Call, files: dict[str, tuple[str, bytes]]) -> Any:
        await self._held(call.method)
        fault = next((one for one in self._faults if one.befalls(call.method)), None)
        if fault is not None:
            fault.times -= 1
            if not fault.is_after:
                _raise(fault)
        result = await self._answer(call, files)
        if fault is not None:
            _raise(fault)
        return result

    async def _held(self, method: str) -> None:
        hold = next((one for one in self._holds if one.method == method and not one.reached.is_set()), None)
        if hold is not None:
            await hold.wait()

    async def _answer(self, call: Call, files: dict[str, tuple[str, bytes]]) -> Any:
        name = call.method.lower()
        if referee.official_name(name) is None or (name not in METHODS and name not in UPDATE_METHODS):
            if name not in OPTIONAL:
                self.problems.append(f"{call.method}: no method of this server")
            raise Refused(404, "Not Found: method not found")
        call.arguments = referee.arguments_of(name, call.arguments)
        faults, is_readable = referee.faults_of_call(call.method, call.arguments)
        self.problems.extend(faults)
        if not is_readable:
            raise bad_request(faults[0])
        request = Request(world=self.world, bot=call.bot, arguments=call.arguments, files=files)
        if name in LIMITED and self.rate_limit is not None:
            self.rate_limit.check(chat_for(request, "read"), self.world.now())
        result = await UPDATE_METHODS[name](request) if name in UPDATE_METHODS else METHODS[name](request)
        self.problems.extend(
            f"the simulation answers wrongly: {one}" for one in referee.faults_of_result(call.method, result)
        )
        return result

    async def _serve_file(self, http: web.Request) -> web.StreamResponse:
        try:
            self._bot_of(http.match_info["token"])
        except Refused as refusal:
            return web.json_response(refusal.body(), status=refusal.status)
        path = http.match_info["path"]
        for file in self.world.files.values():
            if file.path == path and path in self.world.served_paths:
                return web.Response(body=file.data, content_type="application/octet-stream")
        return web.json_response(Refused(404, "Not Found").body(), status=404)


def _raise(fault: Fault) -> None:
    if fault.refusal is None:
        raise ConnectionAbortedError
    raise fault.refusal


async def _read(http: web.Request) -> tuple[Json, dict[str, tuple[str, bytes]]]:
    """Arguments from the query and from JSON, a form or multipart; files by the name of their part."""
    raw: Json = dict(http.query)
    files: dict[str, tuple[str, bytes]] = {}
    if http.content_type == "application/json":
        body = await http.read()
        raw |= json.loads(body) if body else {}
        return raw, files
    for name, value in (await http.post()).items():
        if isinstance(value, web.FileField):
            files[name] = (value.filename, value.file.read())
        else:
            raw[name] = value
    # A file that no argument refers to by attach:// is the argument of its name.
    attached = {value.removeprefix("attach://") for value in raw.values() if isinstance(value, str)}
    raw |= {name: data for name, (_, data) in files.items() if name not in attached}
    return raw, files
