"""vLLM's routes over real HTTP, answered by the scripted server: what our client asks is what it gets.

`start` and `stop` are the server coming up and going down; `ScriptedServer.restart` is its memory going.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from claasbot.domain.completion import Completion, CompletionRequest, Sampling
from claasbot.domain.conversation import Message
from claasbot.errors import AdapterNotLoaded, ServerDown, ServerRefused
from claasbot.inference.scripted import ScriptedServer, encode, render
from claasbot.inference.vllm import CHECKSUM, FORGET, REPORT, BaseFacts, VllmServer

Json = dict[str, Any]


class VllmFront:
    """One address for one scripted server; the port stays the same over a stop and a start."""

    def __init__(self, scripted: ScriptedServer) -> None:
        self.scripted = scripted
        self.port = 0
        self.refuses: tuple[int, str] | None = None
        """Status and body of every answer, where set."""
        self.n_asked = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def client(self, url: str = "", **more: Any) -> VllmServer:
        """Our client, at this address or at that of a proxy before it."""
        info = await self.scripted.info()
        facts = BaseFacts(name=info.base_model, revision=info.base_revision, template_hash=info.template_hash)
        return VllmServer(facts, url=url or self.url, **more)

    async def start(self) -> None:
        app = web.Application(middlewares=[self._answered])
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._logprobs)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        app.router.add_post("/collective_rpc", self._rpc)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _answered(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """What the scripted server raises, in vLLM's statuses."""
        self.n_asked += 1
        if self.refuses is not None:
            status, text = self.refuses
            return web.Response(status=status, text=text)
        try:
            return await handler(request)
        except AdapterNotLoaded as error:
            return _error(404, str(error))
        except ServerRefused as error:
            return _error(400, str(error))
        except ServerDown as error:
            return _error(503, str(error))

    async def _health(self, request: web.Request) -> web.StreamResponse:
        await self.scripted.info()
        return web.Response()

    async def _models(self, request: web.Request) -> web.StreamResponse:
        info = await self.scripted.info()
        card = {"id": info.base_model, "parent": None, "root": "", "max_model_len": info.max_model_len + 1}
        loaded = [{**card, "id": name, "parent": info.base_model} for name in await self.scripted.loaded()]
        return web.json_response({"data": [card, *loaded]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        names = ("temperature", "top_p", "max_tokens", "seed")
        wanted = CompletionRequest(
            messages=_messages(asked),
            model=asked["model"],
            sampling=Sampling(**{name: asked[name] for name in names if name in asked}),
        )
        events = self._events(wanted)
        held = await anext(events)  # what it refuses, it refuses before the headers are out
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            await response.write(_data(held))
            async for event in events:
                await response.write(_data(event))
        except ServerDown:  # in the middle of a stream there is nothing left to say
            assert request.transport is not None
            request.transport.abort()
        else:
            await response.write(b"data: [DONE]\n\n")
        return response

    async def _events(self, wanted: CompletionRequest) -> AsyncGenerator[Json, None]:
        """Text with the ids and logprobs of its bytes; the end of turn comes with the end."""
        prompt_ids, ids = render(wanted.messages), tuple[int, ...]()
        async with aclosing(self.scripted.complete(wanted)) as parts:
            async for part in parts:
                new = part.token_ids[len(ids) :] if isinstance(part, Completion) else encode(part)
                values = await self.scripted.logprobs(wanted.model, prompt_ids, ids + new)
                rows = [{"token": str(i), "logprob": value} for i, value in zip(new, values[len(ids) :], strict=True)]
                choice: Json = {"delta": {"content": part}, "token_ids": new, "logprobs": {"content": rows}}
                if isinstance(part, Completion):
                    choice |= {"delta": {}, "finish_reason": part.finish_reason}
                yield {"choices": [choice], **({} if ids else {"prompt_token_ids": prompt_ids})}
                ids += new

    async def _logprobs(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        first, *rest = asked["prompt"]
        values = await self.scripted.logprobs(asked["model"], (first,), tuple(rest))
        rows = [None, *({str(token): {"logprob": value}} for token, value in zip(rest, values, strict=True))]
        return web.json_response({"choices": [{"prompt_logprobs": rows}]})

    async def _tokenize(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"count": await self.scripted.count_tokens(_messages(await request.json()), {})})

    async def _load(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        await self.scripted.load(asked["lora_name"], Path(asked["lora_path"]))
        return web.Response(text="loaded")

    async def _unload(self, request: web.Request) -> web.StreamResponse:
        name = (await request.json())["lora_name"]
        if name not in await self.scripted.loaded():
            return _error(404, f"The lora adapter '{name}' cannot be found.")
        await self.scripted.unload(name)
        return web.Response(text="unloaded")

    async def _rpc(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        match asked["method"]:
            case x if x == REPORT:
                result: Json = {"cpu_lora": True, "version": "0.32.0"}
            case x if x == FORGET:
                result = {} if await self.scripted.forget(*asked["args"]) else {"error": "it is in use"}
            case x if x == CHECKSUM:
                result = {"checksum": await self.scripted.checksum(*asked["args"])}
            case unknown:
                return _error(404, f"no method {unknown!r}")
        return web.json_response({"results": [result]})


def _error(status: int, message: str) -> web.StreamResponse:
    return web.json_response({"error": {"message": message}}, status=status)


def _messages(asked: Json) -> tuple[Message, ...]:
    return tuple(Message(role=one["role"], content=one["content"]) for one in asked["messages"])


def _data(event: Json) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()


@asynccontextmanager
async def fronted(scripted: ScriptedServer) -> AsyncIterator[VllmFront]:
    front = VllmFront(scripted)
    await front.start()
    try:
        yield front
    finally:
        await front.stop()
