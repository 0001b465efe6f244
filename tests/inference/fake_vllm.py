"""A few routes of a vLLM server, answering as the test says. Shapes are those of 0.32.0, seen on the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeVllm:
    """`answers[path]` is a handler, or (status, JSON) to answer with; `seen` are the bodies by path."""

    def __init__(self) -> None:
        self.answers: dict[str, Handler | tuple[int, Any]] = {
            "/v1/models": (200, {"data": [card("base")]}),
            "/collective_rpc": (404, {"detail": "Not Found"}),
            "/version": (200, {"version": "0.33.0"}),
            "/health": (200, None),
        }
        self.seen: dict[str, list[Any]] = {}
        self.headers: list[dict[str, str]] = []
        self.n_cut = 0
        """Streams that the client left before their end."""
        self.url = ""

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.setdefault(request.path, []).append(await request.json() if request.can_read_body else None)
        self.headers.append(dict(request.headers))
        answer = self.answers.get(request.path, (404, {"detail": "Not Found"}))
        if callable(answer):
            return await answer(request)
        status, data = answer
        return web.json_response(data, status=status)

    def streams(self, *events: Any, ends: bool = True, then: Callable[[], Awaitable[None]] | None = None) -> Handler:
        """A handler that streams these events, waits for `then`, and ends its stream properly or not."""

        async def handle(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            try:
                for event in events:
                    data = event if isinstance(event, str) else json.dumps(event)
                    await response.write(f"data: {data}\n\n".encode())
                if then is not None:
                    await then()
            except (asyncio.CancelledError, ConnectionResetError):
                self.n_cut += 1
                raise
            if ends:
                await response.write(b"data: [DONE]\n\n")
            elif request.transport is not None:
                request.transport.close()
            return response

        return handle


def card(name: str, *, parent: str | None = None, root: str = "") -> dict[str, Any]:
    return {"id": name, "parent": parent, "root": root, "max_model_len": 4096}


def first(prompt_ids: list[int]) -> dict[str, Any]:
    return {"prompt_token_ids": prompt_ids, "choices": [{"delta": {"role": "assistant", "content": ""}}]}


def token(text: str | None, *ids: int, logprob: float = -0.5, finish: str | None = None) -> dict[str, Any]:
    return {
        "choices": [
            {
                "delta": {"content": text},
                "token_ids": list(ids),
                "logprobs": {"content": [{"token": "x", "logprob": logprob} for _ in ids]},
                "finish_reason": finish,
            }
        ]
    }


@asynccontextmanager
async def serving(fake: FakeVllm, *, socket: Path | None = None) -> AsyncIterator[FakeVllm]:
    app = web.Application(handler_args={"handler_cancellation": True})
    app.router.add_route("*", "/{tail:.*}", fake._handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.UnixSite(runner, str(socket)) if socket else web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    if socket is None:
        fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()
