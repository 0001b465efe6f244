"""A small bot in a process of its own, to be killed, starved and cut off: real store, folders and stages, the scripted
server, the dry-run engine and the console.

`python -m tests.faults.cycle_process --data DIR --lessons N --seed S`: one person (or several) agrees, asks, says what
was wrong and is taught, N times each. With one person the same arguments make the same weights, however often it was
killed: start it again, and it goes on from the rows. `--stdin` takes events from stdin besides (see `_obey`).

Each line of stdout is JSON, written when it is so: `ready`, `accepted` (the update is committed), `shown` (a reply,
notice or mark reached the person), `learned`, `refused` (nothing was stored), `done`. Exit 1 with one line: an error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from claasbot.chat.console import ConsoleChat, Shown
from claasbot.data_folder import DataFolder
from claasbot.domain.conversation import ChatEvent, Commanded, Said
from claasbot.engines.dry_run import DryRunEngine
from claasbot.errors import ClaasbotError
from claasbot.inference.scripted import toy_logprobs
from claasbot.settings import Settings
from claasbot.storage import versions
from claasbot.storage.rows import one
from claasbot.storage.store import Store
from tests.engines.fake_trainer import fake_local
from tests.services.world import World, running_world

_LOOK_S = 0.005


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


class PrintingChat(ConsoleChat):
    """Says on stdout what people see."""

    async def record(self, shown: Shown) -> None:
        await super().record(shown)
        if shown.kind not in ("delta", "started"):
            say(
                shown=shown.kind,
                account=shown.address.chat,
                message_key=shown.message_key,
                reply_to=shown.reply_to,
                mark=shown.mark,
                text=shown.text,
            )


class Driver:
    """People who can be interrupted anywhere: each step has a key, and what is in the store is not done again."""

    def __init__(self, world: World, chat: PrintingChat, seed: int) -> None:
        self.store, self.cycle, self.chat, self.seed = world.store, world.cycle, chat, seed

    async def lessons(self, account: str, n: int) -> None:
        await self._handled(account, "optin", command="optin")
        for k in range(1, n + 1):
            if k % 20 == 0:  # a longer conversation than is learned from
                await self._handled(account, f"r{k}", command="reset")
            answer = await self._handled(account, f"q{k}", text=f"What is number {self.seed + k}?")
            await self._handled(
                account, f"f{k}", command="feedback", argument=f"Shorter, by {k}.", message_key=str(answer)
            )
            settled = await self._until(_settled, answer)
            say(learned=settled["name"], account=account, state=settled["state"], weights=settled["weights"])

    async def ask_while_learning(self, account: str, n: int, text: str) -> None:
        await self._until(_done, f"{account}-f{n}")
        await self.post(account, f"{account}-still", text=text)

    async def _handled(self, account: str, key: str, **facts: Any) -> int | None:
        """Post an update until it is committed, wait until it is done; the id of the answer that it got, if any."""
        key = f"{account}-{key}"
        await self.post(account, key, **facts)
        row = await self._until(_done, key)
        return None if row["answer"] is None else int(row["answer"])

    async def post(self, account: str, key: str, **facts: Any) -> None:
        """Deliver it as a platform does: again and again, until it was taken."""
        while True:
            try:
                await self.chat.post(self._event(account, key, **facts))
            except ClaasbotError as error:
                say(refused=key, error=str(error))
                await asyncio.sleep(0.1)
            else:
                say(accepted=key)
                return

    def _event(self, account: str, key: str, text: str = "", command: str = "", **more: Any) -> ChatEvent:
        address = self.chat.chat_of(account)
        if command:
            return Commanded(address=address, account=account, update_key=key, command=command, **more)
        return Said(address=address, account=account, update_key=key, text=text, message_key=key)

    async def _until(self, unit: Any, *values: object) -> Any:
        """What the unit finds, once it finds something. A store that fails meanwhile is asked again."""
        while True:
            with contextlib.suppress(ClaasbotError):
                found = await self.store.run(unit, *values)
                if found is not None:
                    return found
            await asyncio.sleep(_LOOK_S)


def _done(db: Database, key: str) -> Any:
    """The update is handled, and its answer (if it is a message) has reached the person."""
    return one(
        db,
        "SELECT inbox.id, completion.id AS answer FROM inbox"
        " LEFT JOIN turn ON turn.inbox_id = inbox.id AND turn.role = 'assistant'"
        " LEFT JOIN completion ON completion.id = turn.completion_id"
        " WHERE update_key = ? AND handled_at IS NOT NULL",
        key,
    )


def _settled(db: Database, completion_id: int) -> Any:
    """What became of the feedback on an answer: the version that learned it, if any."""
    return one(
        db,
        "SELECT experience.state, coalesce(weights_sha256, '') AS weights,"
        " CASE WHEN consumed_by IS NULL THEN '' ELSE 'p' || adapter_version.person_id || '.v' || n END AS name"
        " FROM experience LEFT JOIN adapter_version ON adapter_version.id = consumed_by"
        " WHERE experience.completion_id = ? AND experience.state NOT IN ('received', 'queued', 'leased')",
        completion_id,
    )


async def _obey(driver: Driver) -> None:
    """Lines such as {"account": "ada", "key": "u7", "text": "Hello"} or {…, "command": "optin"}, until stdin ends."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        facts = json.loads(line)
        await driver.post(facts.pop("account"), facts.pop("key"), **facts)


async def _run(arguments: argparse.Namespace) -> None:
    began = time.perf_counter()
    data = DataFolder(root=arguments.data.absolute())
    with data.lock():
        store = Store(data.database, key=arguments.key)
        await store.open()
        try:
            async with _world(arguments, data, store) as (world, chat):
                say(ready=round(time.perf_counter() - began, 3))
                await _live(arguments, world, Driver(world, chat, arguments.seed))
        finally:
            await store.close()


@contextlib.asynccontextmanager
async def _world(
    arguments: argparse.Namespace, data: DataFolder, store: Store
) -> AsyncIterator[tuple[World, PrintingChat]]:
    settings = Settings(
        data=data.root,
        learning={"debounce_s": 0.0},
        gate={"min_explanation_words": 0},  # the scripted server explains nothing
        backup={"every_minutes": arguments.backup_minutes, "keep": 3},
    )
    chat = PrintingChat()
    engine: Any = fake_local(data.root) if arguments.trainer else DryRunEngine(toy_logprobs)
    async with contextlib.AsyncExitStack() as stack:
        if arguments.trainer:
            stack.push_async_callback(engine.close)
            await engine.start()
        yield (
            await stack.enter_async_context(running_world(data.root, settings, store, client=chat, engine=engine)),
            chat,
        )


async def _live(arguments: argparse.Namespace, world: World, driver: Driver) -> None:
    """Until everybody has had their lessons and nothing is left to do."""
    people = [f"person{n}" for n in range(1, arguments.people + 1)]
    watcher = Watcher(world)
    watching = asyncio.create_task(watcher.run()) if arguments.lights else None
    async with asyncio.TaskGroup() as group:
        for account in people:
            group.create_task(driver.lessons(account, arguments.lessons))
        if arguments.ask:
            group.create_task(driver.ask_while_learning(people[0], arguments.lessons, arguments.ask))
        if arguments.stdin:
            group.create_task(_obey(driver))
    await world.cycle.settled()
    if watching is not None:
        watching.cancel()
        await watcher.look()
    say(done=[await _weights(world.store, account) for account in people])


class Watcher:
    """Says each light that an admin sees change."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen: dict[str, str] = {}

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(0.05)

    async def look(self) -> None:
        for light in (await self._world.cycle.status()).lights:
            if self._seen.get(light.name) != light.state:
                self._seen[light.name] = light.state
                say(light=light.name, state=light.state, detail=light.detail)


async def _weights(store: Store, account: str) -> str:
    """The SHA-256 of the weights that answer this person now."""

    def unit(db: Database) -> str:
        row = one(db, "SELECT person_id FROM account WHERE account = ?", account)
        current = None if row is None else versions.current(db, int(row["person_id"]))
        return "" if current is None else current.weights_sha256

    return await store.run(unit)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.cycle_process")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--lessons", type=int, default=1)
    parser.add_argument("--people", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stdin", action="store_true")
    parser.add_argument("--key", default="", help="of an encrypted store")
    parser.add_argument("--trainer", action="store_true", help="a trainer process and its job folders")
    parser.add_argument("--backup-minutes", type=float, default=0.0)
    parser.add_argument("--ask", help="a question of the first person, as soon as the last lesson is on its way")
    parser.add_argument("--lights", action="store_true")
    parser.add_argument("--log", type=Path)
    arguments = parser.parse_args()
    if arguments.log:
        logging.basicConfig(filename=arguments.log, level=logging.INFO)
    try:
        asyncio.run(_run(arguments))
    except ClaasbotError as error:
        print(f"cycle_process: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
