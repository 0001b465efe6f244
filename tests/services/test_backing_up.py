"""A backup is whole or not there, and a restored bot answers as before."""

import json
import shutil
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from claasbot import adapter_files
from claasbot.errors import AdapterDamaged, BadInput, StoreError
from claasbot.services.backing_up import CONTENTS, DATABASE, restore
from claasbot.storage import admins, api_keys, sessions
from claasbot.storage.rows import rows
from claasbot.storage.sessions import NewSession
from claasbot.storage.store import Store
from tests.services.world import running_world


@pytest.fixture
async def saved(world, tmp_path):
    """A backup of a bot that has learned twice, and undone once."""
    await world.taught()
    await world.taught(said="In verse.")
    await world.chat.command("ada", "undo")
    await world.cycle.settled()
    to = tmp_path / "saved"
    await world.cycle.backup(to)
    return to


async def test_a_restored_bot_answers_with_the_version_that_answered(saved, tmp_path, settings):
    data = tmp_path / "anew"
    data.mkdir()
    contents = restore(saved, data)
    assert len(contents.folders) == 2
    store = Store(data / DATABASE)
    await store.open()
    async with running_world(data, settings, store) as again:
        assert (await again.chat.say("ada", "Still?")).version_name == "p1.v1"
        assert await again.taught(said="Again.") == "p1.v3"
    await store.close()


async def test_the_bot_goes_on_while_it_is_backed_up(saved, world):
    assert (await world.chat.say("ada", "Still?")).version_name == "p1.v1"


async def test_a_backup_is_for_its_owner_alone(saved):
    assert (saved.stat().st_mode & 0o777, (saved / DATABASE).stat().st_mode & 0o777) == (0o700, 0o600)


async def test_nothing_is_written_over(saved, world, tmp_path):
    with pytest.raises(BadInput, match="exists already"):
        await world.cycle.backup(saved)
    data = tmp_path / "anew"
    data.mkdir()
    (data / DATABASE).write_bytes(b"precious")
    with pytest.raises(BadInput, match="--aside"):
        restore(saved, data)
    assert (data / DATABASE).read_bytes() == b"precious"


async def test_a_journal_goes_with_the_database_that_it_belongs_to(saved, tmp_path):
    data = tmp_path / "anew"
    data.mkdir()
    (data / DATABASE).write_bytes(b"damaged")
    (data / f"{DATABASE}-journal").write_bytes(b"of the damaged one")
    restore(saved, data, aside_at=datetime(2026, 11, 20, 12, tzinfo=UTC))
    kept = {path.name: path.read_bytes() for path in data.glob("*.until-*")}
    name = f"{DATABASE}.until-20261120T120000Z"
    assert kept == {name: b"damaged", f"{name}-journal": b"of the damaged one"}
    assert not (data / f"{DATABASE}-journal").exists()


@pytest.mark.parametrize("part", ["contents", "database", "weights", "a whole version"])
async def test_a_damaged_backup_is_refused_and_changes_nothing(saved, tmp_path, part):
    version = next((saved / "adapters").rglob("adapter_model.safetensors"))
    match part:
        case "contents":
            (saved / CONTENTS).unlink()
        case "database":
            with (saved / DATABASE).open("r+b") as file:
                file.seek(5000)
                file.write(b"\xff" * 100)
        case "weights":
            version.write_bytes(b"other weights")
        case _:
            shutil.rmtree(version.parent)
    data = tmp_path / "anew"
    data.mkdir()
    with pytest.raises((BadInput, AdapterDamaged)):
        restore(saved, data)
    assert list(data.iterdir()) == []


@pytest.mark.parametrize("outside", ["../stolen", "adapters/../../stolen", "{tmp_path}/stolen", 7])
async def test_a_backup_names_no_folder_outside_of_it(saved, tmp_path, outside):
    """Somebody else's backup is a file that claims to be one: what it names would be written there (S-11)."""
    outside = outside.format(tmp_path=tmp_path) if isinstance(outside, str) else outside
    facts = json.loads((saved / CONTENTS).read_text())
    [folder, *_] = facts["folders"]
    shutil.copytree(saved / folder, tmp_path / "stolen")
    (saved / CONTENTS).write_text(json.dumps(facts | {"folders": [outside]}))
    with pytest.raises(BadInput, match="is no whole backup"):
        restore(saved, tmp_path / "deep" / "data")
    assert not (tmp_path / "deep").exists()


async def test_a_copy_with_dangling_rows_is_found(saved):
    from claasbot.storage import snapshot

    connection = sqlite3.connect(saved / DATABASE)
    connection.execute("DELETE FROM person")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="dangling"):
        snapshot.check(saved / DATABASE)


async def test_what_is_forgotten_while_a_backup_is_made_is_left_out(world, tmp_path, store):
    await world.taught()
    await world.cycle.settled()
    shutil.rmtree(world.data / "adapters" / "p1" / "v1")
    contents = await world.cycle.backup(tmp_path / "saved")
    assert contents.folders == ()
    assert await store.run(rows, "SELECT id FROM adapter_version")


async def test_a_version_number_that_was_given_out_after_the_backup_is_never_given_out_again(world, tmp_path, settings):
    """Promise 3: the folders are newer than the rows, and buttons in the chats are newer too."""
    await world.taught()
    to = tmp_path / "saved"
    await world.cycle.backup(to)
    assert await world.taught(said="In verse.") == "p1.v2"
    lost = await world.chat.say("ada", "Still?")
    await world.cycle.settled()
    data = tmp_path / "anew"
    shutil.copytree(world.data / "adapters", data / "adapters")
    newer = adapter_files.verify(data / "adapters" / "p1" / "v2")

    restore(to, data)
    store = Store(data / DATABASE)
    await store.open()
    assert await store.run(rows, "SELECT next_version_n FROM person") == [{"next_version_n": 3}]
    async with running_world(data, settings, store) as again:
        assert (await again.chat.say("ada", "Still?")).version_name == "p1.v1"
        reply = await again.chat.say("ada", "And now?")
        assert reply.completion_id > 1_000_000 > lost.completion_id
        assert await again.taught(said="In prose.") == "p1.v3"
    assert adapter_files.verify(data / "adapters" / "p1" / "v2") == newer
    await store.close()


async def test_numbers_of_the_database_that_is_put_aside_are_not_given_out_again(saved, world, tmp_path):
    """Also where no folder is left to say so: a candidate that was pruned, a person who never taught."""
    data = tmp_path / "anew"
    data.mkdir()
    there = sqlite3.connect(data / DATABASE)
    there.executescript(
        "CREATE TABLE person (id INTEGER PRIMARY KEY, next_version_n INTEGER);"
        "INSERT INTO person VALUES (1, 8), (40, 1);"
    )
    there.close()
    restore(saved, data, aside_at=datetime(2026, 11, 20, 12, tzinfo=UTC))
    back = sqlite3.connect(data / DATABASE)
    assert back.execute("SELECT next_version_n FROM person WHERE id = 1").fetchone() == (8,)
    back.execute("INSERT INTO person (display_name, created_at) VALUES ('Ben', 't')")
    assert back.execute("SELECT max(id) FROM person").fetchone() == (41,)
    back.close()


async def test_another_version_of_the_same_name_is_not_taken_for_the_one_in_the_backup(saved, world, tmp_path):
    data, other = tmp_path / "anew", tmp_path / "other"
    staged = adapter_files.stage(other)
    (staged / adapter_files.WEIGHTS).write_bytes(b"others")
    adapter_files.seal(staged, other, version_name="p1.v1", parent="base", job_id="another", base_revision="b")
    (data / "adapters" / "p1").mkdir(parents=True)
    other.rename(data / "adapters" / "p1" / "v1")
    with pytest.raises(BadInput, match="another version of that name"):
        restore(saved, data)
    assert not (data / DATABASE).exists()


async def test_no_door_that_was_shut_since_the_backup_opens_again(world, store, tmp_path):
    now = datetime.now(UTC)

    def open_doors(db):
        admin = admins.first_owner(db, now)
        new = NewSession(token="s" * 32, csrf_token="c", is_by_link=True, address="::1", browser="b")
        sessions.add_session(db, admin.admin_id, new, now, now + timedelta(hours=1))
        sessions.add_sign_in_token(db, "t" * 32, now - timedelta(hours=1), now)
        api_keys.add(db, "k" * 32, "ci", frozenset({"read"}), "ada", now, now + timedelta(days=9))

    await store.run(open_doors)
    await world.cycle.backup(tmp_path / "saved")
    data = tmp_path / "anew"
    data.mkdir()
    restore(tmp_path / "saved", data)
    back = Store(data / DATABASE)
    await back.open()
    assert await back.run(rows, "SELECT * FROM admin_session") == []
    assert await back.run(rows, "SELECT * FROM sign_in_token") == []
    assert await back.run(api_keys.key_of, "k" * 32, now) is None
    assert await store.run(api_keys.key_of, "k" * 32, now) is not None
    await back.close()
