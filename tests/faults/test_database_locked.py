"""R-08: another program holds a lock on the database. Reads go on, people hear one sentence, nothing is lost."""

import asyncio
import sqlite3
import time
from contextlib import closing

import pytest

from claasbot.domain.conversation import Said
from claasbot.errors import StoreError
from claasbot.services.not_saved import NOT_SAVED
from claasbot.settings import Settings
from claasbot.storage.rows import insert, one, rows
from claasbot.storage.store import Store
from tests.faults.conftest import scaled
from tests.services.world import running_world

PATIENCE_MS = 300
"""Instead of 4 s; what the tests hold is that it is kept."""


@pytest.fixture
async def store(tmp_path):
    store = Store(tmp_path / "claasbot.db", lock_wait_ms=PATIENCE_MS)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def other(store):
    """Another program, on the same file."""
    with closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        yield connection


def add(db, name):
    return insert(db, "person", display_name=name, created_at="t")


async def test_reads_go_on_while_another_program_holds_the_write_lock(store, other, totals):
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    writes = [asyncio.create_task(store.run(add, str(n))) for n in range(5)]
    n_reads = 0
    while not all(write.done() for write in writes):
        await store.run(rows, "SELECT * FROM person")
        n_reads += 1
        await asyncio.sleep(0.005)
    assert time.monotonic() - began >= PATIENCE_MS / 1_000 * 0.8
    assert n_reads >= 3 * len(writes)  # behind somebody who waits to write, one would be read for each write
    assert all("locked by another program" in str(write.exception()) for write in writes)
    other.execute("ROLLBACK")
    assert await store.run(rows, "SELECT * FROM person") == []
    totals["lost"] += 0


async def test_a_write_that_waits_out_the_lock_is_done_once(store, other):
    other.execute("BEGIN IMMEDIATE")
    write = asyncio.create_task(store.run(add, "ada"))
    await asyncio.sleep(0.05)
    other.execute("COMMIT")
    await write
    assert await store.run(one, "SELECT count(*) AS n FROM person") == {"n": 1}
    assert store.trouble == ""


async def test_under_an_exclusive_lock_everybody_gets_a_clear_answer_in_time(store, other):
    other.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    asked = [store.run(rows, "SELECT * FROM person"), store.run(add, "ada"), store.run(add, "bob")]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert time.monotonic() - began < 3 * PATIENCE_MS / 1_000
    assert all(isinstance(answer, StoreError) and "locked by another program" in str(answer) for answer in answers)
    assert "locked" in store.trouble
    other.execute("ROLLBACK")
    assert await store.run(rows, "SELECT * FROM person") == []
    assert store.trouble == ""  # an idle bot is well again too


def test_the_patience_of_a_real_store_ends_within_five_seconds():
    assert Store(None)._lock_wait_s < 5


async def test_a_locked_bot_says_so_once_and_loses_nothing(tmp_path, store, other, totals):
    """Messages and feedback come in all the while; each is stored once, or was refused and comes again."""
    n_people, n_each = scaled(20, 4), 5
    settings = Settings(learning={"debounce_s": 0.0})
    async with running_world(tmp_path, settings, store) as world:
        people = [f"person{n}" for n in range(n_people)]
        for account in people:
            await world.chat.say(account, "Hello")
        other.execute("BEGIN EXCLUSIVE")
        sent = [asyncio.create_task(persist(world, account, n_each)) for account in people]
        await world.chat.wait_for(lambda shown: shown.text == NOT_SAVED.text)
        status = await world.cycle.status()
        assert {light.name: light.state for light in status.lights}["store"] == "down"
        await asyncio.sleep(3 * PATIENCE_MS / 1_000)
        other.execute("ROLLBACK")
        await asyncio.gather(*sent)
        await world.cycle.settled()
        told = [shown.address.chat for shown in world.chat.shown if shown.text == NOT_SAVED.text]
        assert {light.name: light.state for light in (await world.cycle.status()).lights}["store"] == "ok"
    expected = n_people * (n_each + 1)
    (stored,) = await store.run(
        rows, "SELECT count(*) AS n, count(DISTINCT update_key) AS keys, count(handled_at) AS handled FROM inbox"
    )
    heard = " ".join(row["text"] for row in await store.run(rows, "SELECT text FROM turn WHERE role = 'user'"))
    times = [heard.count(text_of(account, k)) for account in people for k in range(n_each)]
    totals["lost"] += times.count(0)
    totals["doubled"] += sum(n - 1 for n in times if n)
    assert stored == {"n": expected, "keys": expected, "handled": expected}
    assert set(times) == {1}
    assert sorted(told) == sorted(people)  # one sentence each, however often it was tried


def text_of(account, k):
    return f"<{account}, number {k}>"


async def persist(world, account, n):
    """A platform that delivers in order, and again what was not taken."""
    for k in range(n):
        key = f"{account}-{k}"
        address = world.chat.chat_of(account)
        event = Said(address=address, account=account, update_key=key, text=text_of(account, k), message_key=key)
        while True:
            try:
                await world.chat.post(event)
                break
            except StoreError:
                await asyncio.sleep(0.01)
