"""Requests as no client sends them, over plain sockets, and what comes back. Knows nothing of claasbot's routes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import zlib
from collections import Counter
from dataclasses import dataclass, field

CANARY = b"GET /healthz?smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_ANSWER_S = 5.0
_SILENCE_S = 0.5
_READ_BYTES = 65_536


@dataclass(slots=True)
class Answers:
    statuses: Counter[str] = field(default_factory=Counter)
    smuggled: list[bytes] = field(default_factory=list)
    """Requests inside whose body a second one was answered."""


def smuggling() -> list[bytes]:
    """RFC 9112, 6.1 and 11.2: length and encoding that contradict each other, with a second request behind."""
    lengths = [f"Content-Length: {n}" for n in ("+5", "-1", "0x5", "5 5", "5,6", "1e1", "9" * 30, "٥")]
    encodings = [
        *("chunked", " chunked", "\tchunked", "xchunked", "chunked, identity", "identity, chunked", "Chunked\x0b"),
        *("chunked\r\nTransfer-Encoding: identity", "gzip", '"chunked"', "chunked;q=1", "chunked\x00"),
    ]
    found = []
    for length in [*lengths, "Content-Length: 4\r\nContent-Length: 5"]:
        found += [_post(f"{length}\r\nTransfer-Encoding: {encoding}", b"0\r\n\r\n" + CANARY) for encoding in encodings]
        found.append(_post(length, CANARY))
    for name in ("Transfer-Encoding :", "Transfer-Encoding\x00:", "Transfer-Encoding\r\n:"):
        found.append(_post(f"Content-Length: 5\r\n{name} chunked", b"0\r\n\r\n" + CANARY))
    return found


def bad_chunks() -> list[bytes]:
    chunked = "Transfer-Encoding: chunked"
    sizes = [b"zz", b"-1", b"+5", b"0x5", b"F" * 17, b"5;" + b"x" * 20_000, b" 5", b"5 ", b"", b"5\n", b"5\r", b"\x00"]
    return [_post(chunked, size + b"\r\nhello\r\n0\r\n\r\n") for size in sizes] + [
        _post(chunked, b"5\r\nhelloXX0\r\n\r\n"),
        _post(chunked, b"5\r\nhel"),
        _post(chunked, b"0\r\nTrailer: x\r\nContent-Length: 9\r\n\r\n"),
        _post(chunked, b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n"),
    ]


def large() -> list[bytes]:
    return [
        _get("X: " + "x" * 1_000_000),
        _get("\r\n".join(f"X{n}: y" for n in range(20_000))),
        _get("Cookie: " + "; ".join(f"a{n}=b" for n in range(20_000))),
        _get("Cookie: " + '"' * 7_000),
        _get("Range: bytes=" + "٣-," * 500),
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"G" * 100_000,
        _form("text/plain", b"a=b&" * 60_000),
        _form("application/x-www-form-urlencoded; charset=nonsense", b"token=x"),
        _form("application/x-www-form-urlencoded; charset=utf-16", b"\xff\xfe\x00"),
        _form("application/x-www-form-urlencoded", b"\xff\xfe=%ff%ff&" * 20_000),
        _form("multipart/form-data", b"--x"),
        _form("multipart/form-data; boundary=x", b"--x\r\n" * 40_000),
        _form("application/json", b"[" * 200_000),
        _form("application/json", b"9" * 200_000),
    ]


def bombs(mb: int = 10_000) -> list[bytes]:
    """`mb` megabytes of zeros, a thousand times smaller on the wire."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + block * mb
    deflate = b"\x78\x9c" + block * mb
    kinds = "Content-Type: application/x-www-form-urlencoded\r\nContent-Encoding"
    return [
        _post(f"{kinds}: {kind}\r\nContent-Length: {len(body)}", body, path)
        for kind, body in (("gzip", gzip), ("deflate", deflate))
        for path in ("/sign-in", "/api/events")
    ]


def mutated(request: bytes, chance: random.Random) -> bytes:
    """One to four bytes, lines or halves are not what they were."""
    for _ in range(chance.randint(1, 4)):
        request = _changed(request, chance, chance.randrange(len(request) or 1))
    return request


def _changed(request: bytes, chance: random.Random, at: int) -> bytes:
    match chance.randrange(5):
        case 0:
            return request[:at] + bytes([chance.randrange(256)]) + request[at + 1 :]
        case 1:
            return request[:at] + chance.choice([b"\r\n", b"\n", b"\r", b"\x00", b": ", b" "]) + request[at:]
        case 2:
            return request[:at] + request[at + chance.randint(1, 9) :]
        case 3:
            return request[:at] + request[max(0, at - 40) : at] + request[at:]
    return request[:at]


async def send(port: int, request: bytes, answers: Answers) -> None:
    """One connection. Adds the first status that comes back, or `none`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    try:
        async with asyncio.timeout(_ANSWER_S):
            writer.write(request)
            await writer.drain()
            while chunk := await asyncio.wait_for(reader.read(_READ_BYTES), _SILENCE_S):
                got += chunk[: _READ_BYTES - len(got)]
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    found = _STATUS.findall(got)
    answers.statuses[found[0].decode() if found else "none"] += 1
    if CANARY in request and len(found) > 1:
        answers.smuggled.append(request)


def _post(headers: str, body: bytes, path: str = "/sign-in") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n".encode() + body


def _form(kind: str, body: bytes) -> bytes:
    return _post(f"Content-Type: {kind}\r\nContent-Length: {len(body)}", body)


def _get(headers: str) -> bytes:
    return f"GET /healthz HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n".encode()
