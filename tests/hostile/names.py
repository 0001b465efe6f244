"""Names and addresses that are meant to be taken for something else: a path, a host, a command."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

MARK = "zqhostile"
"""In every name that can hold it: a path with it in it was made from a name."""

_SHAPES = (
    "../{m}",
    "../../../../../../tmp/{m}",
    "..\\..\\{m}",
    "/tmp/{m}",
    "//tmp/{m}",
    "{m}/../../x",
    "{m}\x00.json",
    "{m}%00.json",
    "%2e%2e%2f{m}",
    "..%2f{m}",
    "%252e%252e%252f{m}",
    "..%c0%af{m}",
    "\uff0e\uff0e\uff0f{m}",  # full-width look-alikes
    "\u2025/{m}",
    "..\u2215{m}",
    "~/{m}",
    "$HOME/{m}",
    "`touch {m}`",
    "$(touch {m})",
    "; touch {m}",
    "| touch {m}",
    "{m}\n/etc/passwd",
    "CON.{m}",
    "aux.{m}.",
    "{m}:stream",
    ".stage_{m}",
    ".{m}.staged",
    "{m}.bak",
    "{m}.doomed",
    "p1.v1/../{m}",
    "p1.v1-{m}",
    "file:///tmp/{m}",
    "claasbot.db-{m}",
    "{m} " * 100,
    "{m}" + "a" * 4_000,
    "\u202e{m}",
    "{{{{ {m} }}}}",
    "' OR '{m}'='{m}",
    '{m}"; DROP TABLE person; --',
    "-{m}",
    "--to={m}",
    "*{m}*",
    "[{m}]",
    "{m}\ud7ff",
    "İ{m}",
)
_BARE = ("", ".", "..", "...", "/", "\\", "~", "%", "%00", "0", "-1", "1e9", "9" * 400, "NUL", "\u0661", "null", "true")


def names(n: int, seed: int) -> list[str]:
    """The shapes as they are, then mixed."""
    chance = random.Random(seed)
    whole = [*_BARE, *(shape.format(m=MARK) for shape in _SHAPES)]
    mixed = ("".join(chance.choices(whole, k=2)) for _ in itertools.count())
    return list(itertools.islice(itertools.chain(whole, mixed), n))


def addresses(port: int) -> Iterator[str]:
    """Ways to spell an address that only the machine itself should reach; `port` is where somebody listens."""
    hosts = (
        *("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "2130706433", "0x7f000001"),
        *("0177.0.0.1", "127.1", "0", "[::]", "127.0.0.1.nip.io", "7f000001.c0a80001.rbndr.us", "localtest.me"),
        *("169.254.169.254", "[fe80::1]", "metadata.google.internal", "ａ.example", "user:pw@127.0.0.1"),
    )
    for host in hosts:
        yield f"http://{host}:{port}/{MARK}"
        yield f"![x](http://{host}:{port}/{MARK}.png) <img src='//{host}:{port}/{MARK}'>"
    yield from (
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_x",
        "ftp://127.0.0.1/x",
        "data:text/html,x",
        "javascript:0",
    )
    yield f"http://example.org@127.0.0.1:{port}/#{MARK}"
