"""A backup is whole or not there, and a restored bot answers as before."""

import shutil
import sqlite3

import pytest

from claasbot.errors import AdapterDamaged, BadInput, StoreError
from claasbot.services.backing_up import CONTENTS, DATABASE, restore
from claasbot.storage.rows import rows
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
    with pytest.raises(BadInput, match="move the folder away"):
        restore(saved, data)
    assert (data / DATABASE).read_bytes() == b"precious"


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
