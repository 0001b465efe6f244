"""A unit of work commits whole or leaves no trace, and says clearly why it could not."""

import asyncio
import sqlite3
import sys
from contextlib import closing

import pytest

from claasbot.domain.job import Recipe
from claasbot.errors import NotFound, StoreError
from claasbot.storage import lessons, versions
from claasbot.storage.rows import insert, one, rows
from claasbot.storage.seal import seal_of
from claasbot.storage.store import Store
from tests.storage.conftest import NOW


async def test_a_unit_that_fails_leaves_no_trace(store):
    def unit(db):
        insert(db, "person", display_name="a", created_at="t")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await store.run(unit)
    assert await store.run(rows, "SELECT * FROM person") == []


async def test_ids_are_never_given_out_twice(store):
    def unit(db):
        first = insert(db, "person", display_name="a", created_at="t")
        db.execute("DELETE FROM person")
        return first, insert(db, "person", display_name="b", created_at="t")

    first, second = await store.run(unit)
    assert second > first


async def test_the_database_is_set_up_to_survive_power_loss(tmp_path):
    store = Store(tmp_path / "claasbot.db")
    await store.open()
    settings = {
        name: next(iter((await store.run(one, f"PRAGMA {name}")).values()))
        for name in ("journal_mode", "synchronous", "secure_delete", "foreign_keys")
    }
    await store.close()
    assert settings == {"journal_mode": "truncate", "synchronous": 2, "secure_delete": 1, "foreign_keys": 1}


async def test_every_table_of_ours_is_strict(store):
    found = await store.run(rows, "SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND type = 'table'")
    loose = {row["name"] for row in found if not row["strict"] and not row["name"].startswith(("sqlite_", "_sqlite_"))}
    assert loose == set()


async def test_a_file_that_is_no_database_is_named(tmp_path):
    path = tmp_path / "claasbot.db"
    path.write_text("not a database, " * 100)
    with pytest.raises(StoreError, match=r"claasbot\.db is damaged"):
        await Store(path).open()


async def test_dangling_rows_are_noticed_at_start(tmp_path):
    path = tmp_path / "claasbot.db"
    store = Store(path)
    await store.open()
    await store.close()
    seal_of(path).unlink()
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("INSERT INTO account (person_id, platform, account) VALUES (7, 'console', 'ada')")
    with pytest.raises(StoreError, match="1 dangling rows"):
        await Store(path).open()


async def test_a_closed_database_that_another_program_wrote_to_is_refused_until_its_host_says_so(tmp_path):
    path = tmp_path / "claasbot.db"
    store = Store(path)
    await store.open()
    await store.close()
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("INSERT INTO switch VALUES ('learning', 'paused', 't')")
    with pytest.raises(StoreError, match=r"delete claasbot\.db\.sha256"):
        await Store(path).open()
    seal_of(path).unlink()
    again = Store(path)
    await again.open()
    await again.close()


async def test_a_database_from_a_newer_claasbot_is_refused(tmp_path):
    store = Store(tmp_path / "claasbot.db")
    await store.open()
    await store.run(
        lambda db: insert(db, "_sqlite_migrations", migration_set="claasbot", name="m999_later", applied_at="t")
    )
    await store.close()
    with pytest.raises(StoreError, match="'m999_later', which this claasbot does not know"):
        await Store(tmp_path / "claasbot.db").open()


async def test_a_lock_held_elsewhere_is_explained(tmp_path):
    store = Store(tmp_path / "claasbot.db", lock_wait_ms=50)
    await store.open()
    other = sqlite3.connect(tmp_path / "claasbot.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="locked by another program"):
        await store.run(lambda db: insert(db, "person", display_name="a", created_at="t"))
    other.execute("ROLLBACK")
    other.close()
    assert await store.run(lambda db: insert(db, "person", display_name="a", created_at="t")) == 1
    await store.close()


async def test_what_is_committed_survives_kill_9(tmp_path):
    """The promise behind 'noted': when run() has returned, the row is on the disk."""
    script = (
        "import asyncio, os, signal, sys\n"
        "from pathlib import Path\n"
        "from claasbot.storage.store import Store\n"
        "from claasbot.storage.rows import insert\n"
        "async def main():\n"
        "    store = Store(Path(sys.argv[1])); await store.open()\n"
        "    await store.run(lambda db: insert(db, 'person', display_name='kept', created_at='t'))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", script, str(tmp_path / "claasbot.db"))
    assert await killed.wait() == -9
    store = Store(tmp_path / "claasbot.db")
    await store.open()
    assert [row["display_name"] for row in await store.run(rows, "SELECT * FROM person")] == ["kept"]
    await store.close()


async def test_a_pointer_never_names_somebody_elses_version(store):
    def unit(db):
        ada, bob = (insert(db, "person", display_name=name, created_at="t") for name in ("ada", "bob"))
        lessons.add_job(
            db, job_id="j", person_id=bob, version_n=1, parent_version_id=None,
            recipe=Recipe(), reason="", experience_ids=(), now=NOW,
        )  # fmt: skip
        theirs = versions.add_candidate(
            db, person_id=bob, n=1, parent_id=None, job_id="j",
            folder="adapters/p2/v1", weights_sha256="0", base_revision="b", now=NOW,
        )  # fmt: skip
        versions.point_to(db, ada, theirs.version_id)

    with pytest.raises(NotFound, match="not one of p1's"):
        await store.run(unit)


async def test_a_unit_that_is_wrong_in_itself_is_no_trouble_of_the_store(store):
    """Whoever tries again after a StoreError would try that for ever."""
    with pytest.raises(sqlite3.ProgrammingError, match="type 'object' is not supported"):
        await store.run(rows, "SELECT ?", object())
    assert store.trouble == ""
    assert await store.run(rows, "SELECT 1 AS n") == [{"n": 1}]
