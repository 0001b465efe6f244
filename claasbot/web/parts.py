"""What the web needs from the rest of claasbot, as one value: made in `app.py`, or by a test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from aiohttp import web

from claasbot.services.backing_up import Contents
from claasbot.services.clock import Clock
from claasbot.services.comparing import Compared
from claasbot.services.exporting import Export
from claasbot.services.health import Status
from claasbot.services.passwords import Passwords
from claasbot.services.revoking import Revoked
from claasbot.storage.accounts import Stranger
from claasbot.storage.store import Store
from claasbot.web.playground import Playground


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """How a platform brings a bot account its updates, where it calls us."""

    receive: Callable[[Mapping[str, Any], str | None], Awaitable[bool]]
    """(update, secret) → whether it was taken."""
    secret_header: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebParts:
    """The callables are the services' own methods: the web asks, it does not decide."""

    store: Store
    clock: Clock
    playground: Playground
    """Who signs in by browser."""
    console: Playground
    """Who comes over the Unix socket."""
    status: Callable[[], Awaitable[Status]]
    compare: Callable[[int, str], Awaitable[tuple[Compared, Compared]]]
    """(person id, question) → (before, now)."""
    export: Callable[[int], AbstractAsyncContextManager[Export]]
    """All that is stored about a person, as a file that is there while the block runs."""
    undo: Callable[[int, str], Awaitable[str]]
    roll_back: Callable[[int, int, str], Awaitable[str]]
    """(person id, who did it): takes back the last lesson; returns the name of the version that answers now."""
    revoke: Callable[[int, str, str], Awaitable[Revoked]]
    """(person id, job id, who did it): takes back that lesson."""
    set_paused: Callable[[bool, str], Awaitable[None]]
    """(paused, who did it)."""
    train_now: Callable[[str], Awaitable[None]]
    """(who did it): start what waits without debounce or cooldown."""
    let_in: Callable[[str, str], Awaitable[tuple[Stranger, bool]]]
    """(code, who let them in) → the stranger, and whether they could be told."""
    requeue: Callable[[int, int, str], Awaitable[None]]
    """(person id, experience id, who did it): parked feedback waits for a lesson again."""
    backup: Callable[[Path], Awaitable[Contents]]
    """Copies database and versions into a new folder."""
    session_hours: float
    session_idle_minutes: float = 30
    passwords: Passwords = field(default_factory=Passwords)
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Whose word we take for how a browser reached them."""
    writes_per_minute: int = 120
    """Most changes by one session."""
    n_adapters: Callable[[], int] = lambda: 0
    """How many the server holds for us."""
    webhooks: Mapping[tuple[str, str], Webhook] = field(default_factory=dict)
    """By (platform, bot account)."""
    host_names: tuple[str, ...] = ()
    """Names besides localhost and IP addresses under which a browser may reach us."""


PARTS = web.AppKey("parts", WebParts)
