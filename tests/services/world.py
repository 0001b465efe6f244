"""The cycle without hardware, for tests: a store in memory, the scripted server, the dry-run engine, the console."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from claasbot.adapter_files import WEIGHTS, sha256_of
from claasbot.app import cycle_rules
from claasbot.chat.console import ConsoleChat
from claasbot.domain.adapter import AdapterVersion
from claasbot.engines.dry_run import DryRunEngine
from claasbot.inference.scripted import ScriptedServer, toy_logprobs
from claasbot.ports import ChatClient, InferenceServer, TrainingEngine
from claasbot.services.clock import Clock, utc_now
from claasbot.services.cycle import Cycle, Outside
from claasbot.services.health import Light
from claasbot.settings import Settings
from claasbot.storage.store import Store


@dataclass(slots=True, kw_only=True)
class World:
    """Everything that a test looks at."""

    chat: ConsoleChat
    server: ScriptedServer
    engine: DryRunEngine
    store: Store
    cycle: Cycle
    data: Path
    n_restarts: int = 0

    async def taught(self, account: str = "ada", said: str = "Shorter, please.") -> str:
        """Agree, ask, say what was wrong, and wait until it is learned; returns the new version's name."""
        await self.chat.command(account, "optin")
        reply = await self.chat.say(account, "What is rain?")
        await self.chat.command(account, "feedback", said, str(reply.completion_id))
        await self.chat.wait_mark(str(reply.completion_id), "learned")
        return (await self.chat.say(account, "And snow?")).version_name


@pytest.fixture
def settings() -> Settings:
    return Settings(learning={"debounce_s": 0.0})


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    store = Store(None)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def world(tmp_path: Path, settings: Settings, store: Store) -> AsyncIterator[World]:
    async with running_world(tmp_path, settings, store) as world:
        yield world


async def _no_lights() -> tuple[Light, ...]:
    return ()


class running_world:
    """A world whose stages run. Ends them as a crash would: without a word."""

    def __init__(
        self,
        data: Path,
        settings: Settings,
        store: Store,
        platform: str = "console",
        *,
        client: ChatClient | None = None,
        base_model: str = "scripted",
        clock: Clock = utc_now,
        engine: TrainingEngine | None = None,
        server: ScriptedServer | None = None,
        reached: InferenceServer | None = None,
    ) -> None:
        """`client`: instead of the console, which then is of no use. `reached`: the way to `server`, if not by hand."""
        chat, server = ConsoleChat(platform), server or ScriptedServer(base_model=base_model)
        dry_run = engine if isinstance(engine, DryRunEngine) else DryRunEngine(toy_logprobs)

        async def restart() -> None:
            self.world.n_restarts += 1
            server.restart()

        async def expected(version: AdapterVersion) -> str | None:
            return sha256_of(data / version.folder / WEIGHTS)

        outside = Outside(
            store=store, server=reached or server, engine=engine or dry_run, clients=(client or chat,), data=data,
            restart_server=restart, expected_checksum=expected, lights=_no_lights,
        )  # fmt: skip
        cycle = Cycle(outside, cycle_rules(settings), clock)
        self.world = World(chat=chat, server=server, engine=dry_run, store=store, cycle=cycle, data=data)

    async def __aenter__(self) -> World:
        self._task = asyncio.create_task(self.world.cycle.run())
        return self.world

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.world.cycle.close()
