"""One HTTP session to one server, and what its failures mean to us.

No answer is ServerDown, half of one ServerBroke; an answer that says no is ServerRefused. After failures in a row
nothing is asked for a while (`breaker.py`), but for `look`. Refuses to know what is asked: paths and bodies are vLLM's
business (`vllm.py`).
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from claasbot.errors import ServerBroke, ServerDown, ServerRefused
from claasbot.inference.breaker import Breaker

_KEEP_ALIVE_S = 3.0  # vLLM's own end is 5 s: a connection that it just closed must not be used again
_LINE_BYTES = 64 * 1024 * 1024  # one line carries the ids of a whole prompt
_DOWN = frozenset({429, 502, 503, 504})
_ENGINE_DIED = ("EngineDead", "EngineCore")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long silence may last, in seconds. `silence_s` covers queueing, a hand-over and the gap between tokens."""

    connect_s: float = 5.0
    call_s: float = 30.0
    load_s: float = 60.0
    forget_s: float = 5.0
    silence_s: float = 120.0
    n_failures: int = 5
    """Calls in a row without an answer, after which the server is left alone for `pause_s`."""
    pause_s: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status and body. `data` is the parsed JSON, or the text where it is none."""

    status: int
    data: Any

    @property
    def is_ok(self) -> bool:
        return self.status < 300

    @property
    def message(self) -> str:
        """What the server says is wrong, in one line: vLLM's shape, FastAPI's, or the beginning of the text."""
        found = self.data
        for name in ("error", "message", "detail"):
            if isinstance(found, dict) and name in found:
                found = found[name]
        return " ".join(str(found).split())[:300]

    def refusal(self, what: str) -> ServerDown | ServerRefused:
        """The error to raise for an answer that says no."""
        said = f"{what}: the server answered {self.status} {self.message!r}"
        if self.status in (401, 403):
            return ServerRefused(f"{said}; set server.api_key to the key it was started with")
        if self.status in _DOWN or (self.status >= 500 and any(word in self.message for word in _ENGINE_DIED)):
            return ServerDown(f"{said}; try again when it is ready")
        return ServerRefused(said)


class Connection:
    """Lazy: the session belongs to the loop that uses it first."""

    def __init__(self, *, url: str, socket: Path | None, api_key: str | None, patience: Patience) -> None:
        self.url = url.rstrip("/")
        self.patience = patience
        self._socket = socket
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session: aiohttp.ClientSession | None = None
        self.breaker = Breaker(n_failures=patience.n_failures, open_s=patience.pause_s)

    @property
    def where(self) -> str:
        return f"the server at {self._socket or self.url}"

    async def ask(self, method: str, path: str, body: object = None, *, within_s: float | None = None) -> Answer:
        """One whole answer, whatever its status. Raises ServerDown when there is none, or is not asked for now."""
        with self.breaker.call():
            answer = await self.look(method, path, body, within_s=within_s)
        if answer.status in _DOWN:
            self.breaker.failed(f"{self.where} answered {answer.status}")
        return answer

    async def look(self, method: str, path: str, body: object = None, *, within_s: float | None = None) -> Answer:
        """As `ask`, also while the server is given a pause: for what finds out whether it is back."""
        timeout = aiohttp.ClientTimeout(
            total=within_s or self.patience.call_s, sock_connect=min(within_s or 1e9, self.patience.connect_s)
        )
        with _as_server_down(self.where, path, timeout.total):
            async with await self._send(method, path, body, timeout) as response:
                answer = Answer(status=response.status, data=_parsed(await response.read()))
        if answer.status not in _DOWN:
            self.breaker.succeeded()
        return answer

    async def expect(
        self, what: str, method: str, path: str, body: object = None, *, within_s: float | None = None
    ) -> Any:
        """The JSON of an answer that must be a success. Raises ServerRefused otherwise."""
        answer = await self.ask(method, path, body, within_s=within_s)
        if not answer.is_ok:
            raise answer.refusal(what)
        if not isinstance(answer.data, dict):
            raise ServerRefused(f"{what}: {self.where} answered {answer.message!r}, expected JSON; is this vLLM?")
        return answer.data

    async def stream(
        self, path: str, body: object, refusal: Callable[[Answer], Exception]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The events of a streamed answer; raises what `refusal` makes of one that says no.

        Closing this generator cuts the connection, and so aborts on the server.
        """
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self.patience.connect_s, sock_read=self.patience.silence_s
        )
        with self.breaker.call(), _as_server_down(self.where, path, self.patience.silence_s):
            response = await self._send("POST", path, body, timeout)
            try:
                if response.status not in _DOWN:
                    self.breaker.succeeded()
                if response.status >= 300:
                    raise refusal(Answer(status=response.status, data=_parsed(await response.read())))
                with _as_server_down(self.where, path, self.patience.silence_s, ServerBroke):
                    async for event in self._events(response, path):
                        yield event
            finally:
                response.close()

    async def _events(self, response: aiohttp.ClientResponse, path: str) -> AsyncIterator[dict[str, Any]]:
        """The JSON after each `data:`, up to `[DONE]`. Comments (`: keep-alive`) and blank lines are skipped."""
        async for line in _lines(response.content):
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            event = _parsed(data)
            if not isinstance(event, dict):
                raise ServerRefused(f"{path}: {self.where} streamed {data[:80]!r}, expected JSON; is this vLLM?")
            yield event
        raise ServerBroke(f"{path}: {self.where} ended its stream early; ask again")

    async def _send(
        self, method: str, path: str, body: object, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """Once more when a kept connection turns out to be closed: uvicorn closes it after an exception, unannounced.

        Whatever we ask for may be asked twice, so that a request that arrived after all does no harm.
        """
        try:
            return await self._once(method, path, body, timeout)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            return await self._once(method, path, body, timeout)

    async def _once(
        self, method: str, path: str, body: object, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """A redirect is an answer that says no: nobody else names the addresses that we ask."""
        return await self._open().request(method, self.url + path, json=body, timeout=timeout, allow_redirects=False)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = (
                aiohttp.UnixConnector(str(self._socket), limit=0, keepalive_timeout=_KEEP_ALIVE_S)
                if self._socket
                else aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S)  # the server queues, not we
            )
            self._session = aiohttp.ClientSession(connector=connector, headers=self._headers)
        return self._session

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


@contextmanager
def _as_server_down(
    where: str, path: str, within_s: float | None, kind: type[ServerDown] = ServerDown
) -> Iterator[None]:
    """What aiohttp raises when there is no answer, in our words."""
    try:
        yield
    except TimeoutError as error:
        raise kind(f"{path}: {where} was silent for {within_s:g} s; ask again") from error
    except (aiohttp.ClientError, OSError) as error:
        raise kind(f"{path}: no answer from {where} ({str(error) or type(error).__name__})") from error


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines of any length: `readline` gives up at 128 KiB, which a long prompt's ids exceed."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r")
        if len(rest) > _LINE_BYTES:
            raise ServerRefused(f"a line of more than {_LINE_BYTES} bytes was streamed; is this vLLM?")


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")
