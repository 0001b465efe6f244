"""Who is told that the server is down, and who waits for its end."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from claasbot.chat.console import ConsoleChat, Shown
from claasbot.services.outage import Outage
from claasbot.services.receiving import Receiving
from claasbot.storage.rows import one
from claasbot.storage.store import Store
from tests.services.world import World, running_world


def test_each_chat_is_told_once_in_each_outage() -> None:
    outage = Outage()
    assert [outage.is_news_to(chat) for chat in ("ada", "bob", "ada")] == [True, True, False]
    assert outage.is_on
    outage.ended()
    assert not outage.is_on
    assert outage.is_news_to("ada")


async def test_the_end_of_the_outage_wakes_everybody_at_once() -> None:
    outage = Outage()
    waiting = [asyncio.create_task(outage.wait(20)) for _ in range(100)]
    await asyncio.sleep(0)
    outage.ended()
    await asyncio.wait_for(asyncio.gather(*waiting), 1)


class LockedAfterShowing(ConsoleChat):
    """Another program takes the database right after an answer was shown, for a third of a second."""

    def __init__(self, database: Path) -> None:
        super().__init__()
        self.other = sqlite3.connect(database, isolation_level=None)

    async def record(self, shown: Shown) -> None:
        await super().record(shown)
        if shown.kind == "reply":
            self.other.execute("BEGIN IMMEDIATE")
            asyncio.get_running_loop().call_later(0.3, self.other.rollback)


async def test_an_answer_that_was_shown_and_could_not_be_saved_as_such_is_not_shown_again(tmp_path, settings):
    store = Store(tmp_path / "claasbot.db", lock_wait_ms=20)
    await store.open()
    chat = LockedAfterShowing(tmp_path / "claasbot.db")
    try:
        async with running_world(tmp_path, settings, store, client=chat) as world:
            await chat.say("ada", "What is rain?")
            await world.cycle.settled()
            row = await store.run(one, "SELECT message_key FROM completion")
    finally:
        chat.other.close()
        await store.close()
    assert [reply.text for reply in chat.said_to("ada", "reply")] == ["scripted heard: What is rain?"]
    assert row is not None
    assert row["message_key"] is not None


async def test_what_is_being_answered_is_finished_and_nothing_else_is_begun(world: World) -> None:
    receiving: Receiving = world.cycle.receiving
    gate, begun = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        begun.set()
        await gate.wait()

    world.server.faults.before_token = hold
    first = asyncio.create_task(world.chat.say("ada", "What is rain?"))
    await begun.wait()
    finishing = asyncio.create_task(receiving.finish(5.0))
    await asyncio.sleep(0)
    later = asyncio.create_task(world.chat.say("bob", "And snow?"))
    gate.set()
    await finishing
    assert (await first).text.endswith("What is rain?")
    row = await world.store.run(one, "SELECT count(*) AS n FROM inbox WHERE handled_at IS NULL")
    assert row is not None
    assert row["n"] == 1
    assert not world.chat.said_to("bob", "reply")
    later.cancel()
