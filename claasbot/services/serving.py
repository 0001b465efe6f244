"""Keeps what the server holds equal to what the store wants, and lets no load evict an adapter in use."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from claasbot import adapter_files, tensor_check
from claasbot.domain.adapter import AdapterVersion
from claasbot.domain.completion import BASE
from claasbot.errors import AdapterDamaged, AdapterNotLoaded, NotFound, ServerError, ServerRefused
from claasbot.ports import InferenceServer, ServerInfo
from claasbot.storage import people, versions
from claasbot.storage.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Who answers: the model name to ask for, and the version behind it."""

    model: str
    version: AdapterVersion | None
    fell_back: bool = False
    """The person has a version, but it could not be loaded in time: the base model answers, marked so."""

    @property
    def version_name(self) -> str:
        return BASE if self.version is None else self.version.name


class Serving:
    """The bank as the server sees it. One instance per server."""

    def __init__(self, store: Store, server: InferenceServer, data: Path, *, load_wait_s: float) -> None:
        self._store = store
        self._server = server
        self._data = data
        self._load_wait_s = load_wait_s
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._loaded: dict[str, int] = {}
        self._in_use: Counter[str] = Counter()
        self._leaving: set[str] = set()
        self._freed = asyncio.Condition()

    async def info(self) -> ServerInfo:
        return await self._server.info()

    def n_loaded(self) -> int:
        """As far as we know: a server that was restarted holds fewer until it is asked."""
        return len(self._loaded)

    async def policy_of(self, person_id: int) -> Policy:
        """The person's current version, or the base model; never an older or undone version."""
        current = await self._store.run(versions.current, person_id)
        info = await self._server.info()
        if current is None:
            return Policy(model=info.base_model, version=None)
        try:
            async with asyncio.timeout(self._load_wait_s):
                await self.ensure_loaded(current)
        except (TimeoutError, ServerRefused, AdapterDamaged, NotFound) as error:
            log.warning("version %s is not ready (%s): the base model answers", current.name, type(error).__name__)
            return Policy(model=info.base_model, version=None, fell_back=True)
        return Policy(model=current.server_name, version=current)

    async def base_policy(self) -> Policy:
        """The base model, whatever the person has learned."""
        return Policy(model=(await self._server.info()).base_model, version=None)

    async def ensure_loaded(self, version: AdapterVersion) -> None:
        """Load a version unless this generation of the server holds it. Verifies its files and their tensors first.

        A caller that gives up does not stop the load: the next answer finds it done.
        Raises NotFound for a version of somebody who is being erased or gone.
        """
        info = await self._server.info()
        name = version.server_name
        if self._loaded.get(name) == info.generation:
            return
        if name not in self._loads:
            self._loads[name] = asyncio.create_task(self._load(version, info))
            self._loads[name].add_done_callback(lambda task: self._load_ended(name, task))
        await asyncio.shield(self._loads[name])

    async def _load(self, version: AdapterVersion, info: ServerInfo) -> None:
        if (await self._store.run(people.person, version.person_id)).is_blocked:
            raise NotFound(f"{version.name} is being deleted; the base model answers")
        folder = self._data / version.folder
        manifest = await asyncio.to_thread(adapter_files.verify, folder)
        if manifest.base_revision != info.base_revision:
            raise AdapterDamaged(
                f"{version.name} was trained on base {manifest.base_revision[:12]!r}, the server has "
                f"{info.base_revision[:12]!r}; go back to that model or undo to the base"
            )
        if (manifest.version_name, manifest.weights_sha256) != (version.name, version.weights_sha256):
            raise AdapterDamaged(f"{version.folder} holds {manifest.version_name!r} with other weights; roll back")
        await asyncio.to_thread(tensor_check.check, folder, weights_only=True)
        await self._server.load(version.server_name, folder)  # listed already or not: it also checks that none mix
        self._loaded[version.server_name] = info.generation

    def _load_ended(self, name: str, task: asyncio.Task[None]) -> None:
        self._loads.pop(name, None)
        if not task.cancelled():
            task.exception()  # seen by whoever waits; a load that nobody waits for any more is tried again

    def lost(self, version: AdapterVersion) -> None:
        """The server answered that it does not hold this version: load it at the next need."""
        self._loaded.pop(version.server_name, None)

    @asynccontextmanager
    async def holding(self, version: AdapterVersion | None) -> AsyncIterator[None]:
        """A place among the adapters that answer at once: one slot stays free for a load."""
        if version is None:
            yield
            return
        name = version.server_name
        limit = (await self._server.info()).max_loras - 1
        async with self._freed:
            await self._freed.wait_for(lambda: name in self._in_use or len(self._in_use) < limit)
            if name in self._leaving:
                raise AdapterNotLoaded(f"{name!r} is being deleted; ask the base model")
            self._in_use[name] += 1
        try:
            yield
        finally:
            self._in_use[name] -= 1
            if self._in_use[name] == 0:
                del self._in_use[name]
            async with self._freed:
                self._freed.notify_all()

    async def retire(self, leaving: list[AdapterVersion]) -> None:
        """Take versions that no longer answer from the server; one that fails stays listed. Their folders stay.

        Those that are being forgotten are left to `forget`, or stay listed to show when the server was restarted.
        """
        names = [version.server_name for version in leaving if version.server_name not in self._leaving]
        for name in names:
            self._loaded.pop(name, None)
        try:
            held = await self._server.loaded() if names else frozenset()
        except ServerError as error:
            log.info("versions that answer no more stay loaded: %s", error)
            return
        for name in filter(held.__contains__, names):
            try:
                await self._server.unload(name)
            except ServerError as error:
                log.info("version %s stays loaded: %s", name, error)

    async def let_go(self, server_names: list[str]) -> None:
        """Return when nobody is answered by these names and no load of them runs; no answer begins again."""
        async with self._freed:
            self._leaving.update(server_names)
            await self._freed.wait_for(lambda: not any(name in self._in_use for name in server_names))
        loads = [self._loads[name] for name in server_names if name in self._loads]
        if loads:
            await asyncio.wait(loads)
        for name in server_names:
            self._loaded.pop(name, None)

    async def forget(self, server_names: list[str]) -> bool:
        """Let go of these names, unload them and drop the worker's copies: it has one of all that was ever loaded.

        False when the server could not drop one: it must be restarted before the folder goes. A server that never can
        is not asked to unload either: what it lists shows when it was restarted (`leave_witness`).
        """
        await self.let_go(server_names)
        if not (await self._server.info()).forgets_adapters:
            return False
        held = await self._server.loaded()
        dropped = True
        for name in server_names:
            if name in held:
                await self._server.unload(name)
            dropped = await self._server.forget(name) and dropped
        return dropped

    async def delete_files(self, version: AdapterVersion) -> None:
        """Of a version that never answers again. They stay where the server may still read them."""
        folder = self._data / version.folder
        if await asyncio.to_thread(folder.exists) and await self.forget([version.server_name]):
            await asyncio.to_thread(adapter_files.remove, folder)

    async def leave_witness(self, leaving: list[AdapterVersion]) -> str:
        """The name of one of these versions that the server lists, loaded for that if need be.

        Nobody unloads it, so once it is listed no more the server was restarted, and every copy is gone.
        """
        held = await self._server.loaded()
        for version in sorted(leaving, key=lambda version: version.server_name not in held):
            if version.server_name not in held:
                try:
                    await self._server.load(version.server_name, self._data / version.folder)
                except ServerRefused as error:
                    log.info("version %s cannot be the witness: %s", version.name, error)
                    continue
            return version.server_name
        raise ServerRefused("the server loads no version of the person; restart it and ask once more")

    async def lists(self, server_name: str) -> bool:
        return server_name in await self._server.loaded()

    async def close(self) -> None:
        for task in list(self._loads.values()):
            task.cancel()
        await asyncio.gather(*self._loads.values(), return_exceptions=True)
