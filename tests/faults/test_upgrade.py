"""R-24: databases and adapters of earlier releases open and go on where they stood, also after a kill in the migration.

`tests/storage/fixtures/<last migration>/` was written by the release that had it: Ada has learned, undone, and waits
with feedback; Bob has learned and waits for an answer; Cy asked; Dee agreed. A release with new migrations adds one.
"""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from claasbot.settings import Settings
from claasbot.storage.rows import rows
from claasbot.storage.store import Store
from tests.faults import durable
from tests.faults.conftest import scaled
from tests.faults.durable import Fault
from tests.services.world import running_world

SEED = 24
FIXTURES = Path(__file__).parents[1] / "storage" / "fixtures"
RELEASES = sorted(path.name for path in FIXTURES.iterdir())


@pytest.fixture(params=RELEASES)
def old(request, tmp_path):
    """The data folder of that release."""
    return laid_out(request.param, tmp_path / "data")


def laid_out(release, data):
    shutil.copytree(FIXTURES / release / "adapters", data / "adapters")
    with closing(sqlite3.connect(data / "claasbot.db")) as connection:
        connection.executescript((FIXTURES / release / "claasbot.sql").read_text())
    return data


def content(database):
    """Every row of every table, by table and column."""
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {
            name: [dict(row) for row in connection.execute(f"SELECT * FROM {name} ORDER BY rowid")] for name in names
        }


def test_each_database_is_of_the_release_that_its_folder_names():
    assert RELEASES[:2] == ["m001", "m002"]
    for release in RELEASES:
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.executescript((FIXTURES / release / "claasbot.sql").read_text())
            *_, (last,) = connection.execute("SELECT name FROM _sqlite_migrations ORDER BY id")
        assert last.startswith(f"{release}_")


async def opened(database):
    store = Store(database)
    await store.open()
    return store


async def test_every_row_of_an_earlier_release_is_there_after_the_migration(old):
    before = content(old / "claasbot.db")
    store = await opened(old / "claasbot.db")
    assert await store.run(rows, "PRAGMA foreign_key_check") == []
    assert await store.run(rows, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    await store.close()
    after = content(old / "claasbot.db")
    for table, found in before.items():
        if table.startswith(("sqlite_", "_sqlite_")) or table not in after or not found:
            continue
        kept = [column for column in found[0] if column in after[table][0]]
        assert len(kept) >= len(found[0]) - 1, table
        assert [[row[column] for column in kept] for row in after[table]] == [
            [row[column] for column in kept] for row in found
        ], table


async def test_who_was_taught_by_an_earlier_release_is_answered_and_taught_on(old):
    store = await opened(old / "claasbot.db")
    async with running_world(old, Settings(learning={"debounce_s": 0.0}), store) as world:
        await world.cycle.settled()
        assert (await world.chat.say("ada", "Still?")).version_name == "p1.v3"  # what waited was learned from p1.v1
        assert world.chat.said_to("bob", "reply")[0].text.endswith("heard: Are you there?")
    states = await store.run(rows, "SELECT state, count(*) AS n FROM experience GROUP BY state ORDER BY state")
    assert states == [{"state": "consumed", "n": 3}, {"state": "withdrawn", "n": 1}]
    await store.close()


async def test_a_migration_that_is_killed_anywhere_is_ended_by_the_next_start(tmp_path, totals):
    log, whole = tmp_path / "calls", laid_out("m001", tmp_path / "whole")
    assert open_in_a_process(whole, Fault(log=log)) == 0
    expected, n_calls = without_times(content(whole / "claasbot.db")), durable.n_calls(log)
    chosen = random.Random(SEED).sample(range(1, n_calls + 1), scaled(n_calls, 5))
    for at in sorted(chosen):
        data = laid_out("m001", tmp_path / f"at{at}")
        status = open_in_a_process(data, Fault(do="tear" if at % 2 else "kill", at=at))
        totals["kills"] += status == -9
        assert status == -9
        await (await opened(data / "claasbot.db")).close()
        assert without_times(content(data / "claasbot.db")) == expected
    print(f"seed {SEED}: {len(chosen)} kills in the {n_calls} calls of all migrations")


_OPEN = """
import asyncio, sys
from pathlib import Path
from claasbot.storage.store import Store
async def main():
    store = Store(Path(sys.argv[1]))
    await store.open()
    await store.close()
asyncio.run(main())
"""


def open_in_a_process(data, fault):
    environment = os.environ | fault.environment(data)
    command = [sys.executable, "-c", _OPEN, str(data / "claasbot.db")]
    return subprocess.run(command, env=environment, cwd=durable.ROOT, capture_output=True, check=False).returncode


def without_times(found):
    migrated = [(row["name"],) for row in found.pop("_sqlite_migrations")]
    return found | {"migrated": migrated}
