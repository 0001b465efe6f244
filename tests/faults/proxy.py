"""A TCP proxy that does what networks do: it is slow or silent, cuts, resets, trickles. All off, it passes bytes on.

Harm is done to what comes from the server. Connections that are open when a switch is turned feel it from their next
bytes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_CHUNK = 4096
_TRICKLE_S = 0.002


@dataclass(slots=True, kw_only=True)
class Trouble:
    """Switches."""

    latency_s: float = 0.0
    hangs: bool = False
    """Takes the request and says nothing."""
    cuts_after: int | None = None
    """Bytes of an answer, after which the connection ends as if all had been said."""
    resets_after: int | None = None
    """Bytes of an answer, after which the connection is reset."""
    trickles: bool = False
    """A byte at a time."""


@dataclass(slots=True)
class Proxy:
    """Stands before `port` of this machine at a port of its own."""

    behind: int
    trouble: Trouble = field(default_factory=Trouble)
    port: int = 0
    n_connections: int = 0
    _server: asyncio.Server | None = None
    _pumps: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        self.n_connections += 1
        try:
            server, to_server = await asyncio.open_connection("127.0.0.1", self.behind)
        except OSError:
            to_client.close()
            self._pumps.discard(task)
            return
        asking = asyncio.create_task(_copied(client, to_server))
        try:
            await self._answer(server, to_client)
        except (OSError, asyncio.CancelledError):  # either side went; there is nobody to tell
            pass
        finally:
            asking.cancel()
            for end in (to_client, to_server):
                end.close()
            self._pumps.discard(task)

    async def _answer(self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        n_passed = 0
        while data := await server.read(1 if self.trouble.trickles else _CHUNK):
            while self.trouble.hangs:  # noqa: ASYNC110 - a switch wakes nobody
                await asyncio.sleep(0.01)
            await asyncio.sleep(_TRICKLE_S if self.trouble.trickles else self.trouble.latency_s)
            ends = (self.trouble.cuts_after, self.trouble.resets_after)
            limit = min((end for end in ends if end is not None), default=None)
            piece = data if limit is None else data[: max(0, limit - n_passed)]
            to_client.write(piece)
            await to_client.drain()
            n_passed += len(piece)
            if limit is not None and n_passed >= limit:
                if self.trouble.resets_after is not None:
                    _reset(to_client)
                return


async def _copied(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Who goes on one side goes on the other."""
    with contextlib.suppress(OSError):
        while data := await source.read(_CHUNK):
            target.write(data)
            await target.drain()
    target.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """SO_LINGER of zero makes the close a reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def proxied(behind: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(behind)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
