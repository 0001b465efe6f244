"""A site over a store in memory. What it asks of the services is recorded; the playground's bot is the test itself."""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from argon2 import PasswordHasher

from claasbot.domain.conversation import ChatAddress, ChatEvent
from claasbot.services.backing_up import Contents
from claasbot.services.comparing import Compared
from claasbot.services.exporting import Export
from claasbot.services.health import Light, Queues, Status
from claasbot.services.passwords import Passwords
from claasbot.services.revoking import Revoked
from claasbot.storage.accounts import Stranger
from claasbot.storage.store import Store
from claasbot.web.parts import Webhook, WebParts
from claasbot.web.playground import Playground
from claasbot.web.server import make_app
from claasbot.web.sign_in import new_sign_in_link

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""For tests: what a guess costs is argon2's business."""
NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@dataclass(slots=True, kw_only=True)
class Site:
    """The dashboard as a browser meets it."""

    parts: WebParts
    http: TestClient
    accepted: list[ChatEvent] = field(default_factory=list)
    asked: list[tuple[object, ...]] = field(default_factory=list)
    """Calls to the services."""
    failure: Exception | None = None
    """Raised by the next call to a service."""
    now: datetime = NOON
    csrf: str = ""

    async def sign_in(self) -> None:
        link = await new_sign_in_link(self.parts.store, self.parts.clock, "")
        token = link.partition("token=")[2]
        answer = await self.http.post("/sign-in", data={"token": token}, allow_redirects=False)
        assert answer.status == 303, await answer.text()
        self.csrf = re.search(r'name="csrf-token" content="([^"]+)"', await self.page("/playground")).group(1)  # type: ignore[union-attr]

    async def page(self, path: str, status: int = 200) -> str:
        answer = await self.http.get(path)
        text = await answer.text()
        assert answer.status == status, text
        return text

    async def post(self, path: str, facts: object = None, **more: Any) -> ClientResponse:
        headers = {"X-CSRF-Token": self.csrf, **more.pop("headers", {})}
        return await self.http.post(path, json=facts, headers=headers, **more)

    async def accept(self, event: ChatEvent) -> None:
        self.accepted.append(event)

    def _call(self, *call: object) -> None:
        self.asked.append(call)
        if self.failure is not None:
            raise self.failure

    async def _status(self) -> Status:
        self._call("status")
        return Status(
            lights=(
                Light(name="server", state="ok", detail="ready"),
                Light(name="trainer", state="down"),
            ),
            queues=Queues(inbox=1, lessons=2, outbox=3),
            is_learning=True,
            version="0.1.0",
        )

    async def _compare(self, person_id: int, question: str) -> tuple[Compared, Compared]:
        self._call("compare", person_id, question)
        return tuple(Compared(version_name=name, text=f"by {name}", n_tokens=2) for name in ("base", "p1.v1"))  # type: ignore[return-value]

    @asynccontextmanager
    async def _export(self, person_id: int) -> AsyncIterator[Export]:
        self._call("export", person_id)
        with tempfile.NamedTemporaryFile(suffix=".zip") as file:
            file.write(b"PK everything")
            file.flush()
            yield Export(path=Path(file.name), name=f"claasbot-p{person_id}.zip")

    async def _undo(self, person_id: int, who: str) -> str:
        self._call("undo", person_id)
        return "base"

    async def _roll_back(self, person_id: int, n: int, who: str) -> str:
        self._call("roll_back", person_id, n)
        return "base"

    async def _revoke(self, person_id: int, job_id: str, who: str) -> Revoked:
        self._call("revoke", person_id, job_id)
        return Revoked(is_rebuilding=True, version_name="p1.v1")

    async def _set_paused(self, paused: bool, who: str) -> None:
        self._call("set_paused", paused)

    async def _train_now(self, who: str) -> None:
        self._call("train_now")

    async def _let_in(self, code: str, who: str) -> tuple[Stranger, bool]:
        self._call("let_in", code, who)
        address = ChatAddress(platform="telegram", bot_account="42", chat="7")
        return Stranger(code=code, account="7", display_name="Eve", address=address), True

    async def _requeue(self, person_id: int, experience_id: int, who: str) -> None:
        self._call("requeue", person_id, experience_id)

    async def _backup(self, to: Path) -> Contents:
        self._call("backup", to)
        return Contents(made_at="", database_sha256="", folders=())

    async def _webhook(self, update: Mapping[str, Any], secret: str | None) -> bool:
        self._call("webhook", update)
        return secret == "the secret"

    def wire(self, store: Store) -> WebParts:
        def clock() -> datetime:
            return self.now

        return WebParts(
            store=store,
            clock=clock,
            playground=Playground("playground", "main", clock=clock),
            console=Playground("console", "main", clock=clock),
            status=self._status,
            compare=self._compare,
            export=self._export,
            undo=self._undo,
            roll_back=self._roll_back,
            revoke=self._revoke,
            set_paused=self._set_paused,
            train_now=self._train_now,
            let_in=self._let_in,
            requeue=self._requeue,
            backup=self._backup,
            webhooks={("somewhere", "42"): Webhook(receive=self._webhook, secret_header="X-Somewhere-Secret")},
            session_hours=10,
            session_idle_minutes=60 * 24,
            passwords=Passwords(CHEAP),
            trusted_proxies=(ip_network("127.0.0.1/32"),),
            host_names=("bot.example.org",),
        )

    def later(self, **delta: float) -> None:
        self.now += timedelta(**delta)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    store = Store(None)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def stranger(store: Store) -> AsyncIterator[Site]:
    """Nobody has signed in."""
    site = Site(parts=None, http=None)  # type: ignore[arg-type]
    site.parts = site.wire(store)
    site.http = TestClient(TestServer(make_app(site.parts)))
    async with site.http, running(site):
        yield site


@pytest.fixture
async def site(stranger: Site) -> Site:
    await stranger.sign_in()
    return stranger


class running:
    """The playground's and the console's loops, as the cycle runs them."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def __aenter__(self) -> None:
        import asyncio

        clients = (self._site.parts.playground, self._site.parts.console)
        self._tasks = [asyncio.create_task(client.run(self._site.accept)) for client in clients]
        await asyncio.sleep(0)

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
