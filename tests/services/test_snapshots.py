"""R-26: backups that the bot makes by itself while people teach it, restored elsewhere; and their end."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from claasbot import adapter_files
from claasbot.services.backing_up import DATABASE, restore
from claasbot.services.snapshots import BackupRules, Snapshots, kept_in
from claasbot.settings import Settings
from claasbot.storage.rows import rows
from claasbot.storage.store import Store
from tests.faults.restore_drill import drill
from tests.services.world import running_world

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
CURRENT = """
SELECT person.id, folder, weights_sha256 FROM person JOIN adapter_version ON adapter_version.id = current_version_id
"""


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def snapshots(store, tmp_path, clock):
    """Of a bot whose loop does not run: the tests step."""
    return Snapshots(store, tmp_path, BackupRules(every=timedelta(minutes=1), keep=3, days=2), clock)


async def test_a_backup_is_made_every_so_often_and_the_oldest_go(snapshots, clock):
    assert await snapshots.step() == 60
    assert kept_in(snapshots.folder) == []  # a bot that has just begun has nothing to keep
    for _ in range(5):
        clock.now += timedelta(minutes=1)
        assert await snapshots.step() == 60
    names = [one.folder.name for one in kept_in(snapshots.folder)]
    assert names == ["20261120T120500Z", "20261120T120400Z", "20261120T120300Z"]


async def test_a_restart_does_not_begin_to_wait_anew(snapshots, store, tmp_path, clock):
    clock.now += timedelta(minutes=1)
    await snapshots.make(clock.now)
    clock.now += timedelta(seconds=40)
    again = Snapshots(store, tmp_path, BackupRules(every=timedelta(minutes=1)), clock)
    assert await again.step() == 20


async def test_no_backup_outlives_its_days_also_when_none_are_made_any_more(snapshots, store, tmp_path, clock):
    await snapshots.make(clock.now)
    clock.now += timedelta(days=3)
    await Snapshots(store, tmp_path, BackupRules(days=2), clock).step()
    assert list(snapshots.folder.iterdir()) == []


async def test_only_backups_of_its_own_are_removed(snapshots, clock):
    snapshots.folder.mkdir()
    (snapshots.folder / "erased.json").write_text("[]")
    (snapshots.folder / "mine").mkdir()
    clock.now += timedelta(days=3)
    await snapshots.step()
    assert {path.name for path in snapshots.folder.iterdir()} == {"erased.json", "mine", "20261123T120000Z"}


async def test_what_a_kill_left_half_made_is_no_backup_and_goes(snapshots, clock):
    half = snapshots.folder / ".20261120T115900Z.staged"
    half.mkdir(parents=True)
    assert kept_in(snapshots.folder) == []
    await snapshots.make(clock.now)
    assert [path.name for path in snapshots.folder.iterdir()] == ["20261120T120000Z"]


async def test_a_backup_that_cannot_be_made_is_said_and_tried_again_soon(snapshots, clock):
    snapshots.folder.write_text("no folder")
    clock.now += timedelta(minutes=1)
    with pytest.raises(FileExistsError):
        await snapshots.make(clock.now)
    snapshots.folder.unlink()
    (snapshots.folder / "20261120T120100Z").mkdir(parents=True)  # in the way
    assert await snapshots.step() == 60
    assert "no backup was made" in snapshots.trouble
    clock.now += timedelta(minutes=1)
    await snapshots.step()
    assert snapshots.trouble == ""


async def test_the_files_of_a_version_are_copied_once(world, clock, store):
    await world.taught()
    snapshots = Snapshots(store, world.data, BackupRules(), clock)
    first = await snapshots.make(clock.now)
    await world.taught(said="In verse.")
    second = await snapshots.make(clock.now + timedelta(minutes=1))
    inode = {
        (one.name, n): weights(one, n).stat().st_ino
        for one in (first, second)
        for n in (1, 2)
        if weights(one, n).exists()
    }
    live = weights(world.data, 1).stat().st_ino
    assert inode[first.name, 1] == inode[second.name, 1] != live
    assert len(inode) == 3
    adapter_files.remove(first)
    adapter_files.verify(weights(second, 1).parent)


def weights(folder, n):
    return folder / "adapters" / "p1" / f"v{n}" / adapter_files.WEIGHTS


async def test_backups_under_write_load_are_restored_with_the_weights_that_answered(tmp_path, settings):
    """RPO: nothing that was acknowledged before a backup began is missing from it. Prints what it saw."""
    data = tmp_path / "data"
    data.mkdir()
    store = Store(data / DATABASE)
    await store.open()
    people, made, n_before = [f"person{n}" for n in range(4)], [], []
    async with running_world(data, settings, store) as world:
        snapshots = Snapshots(store, data, BackupRules(keep=100), lambda: START)
        teaching = [asyncio.create_task(teach(world, account)) for account in people]
        while not all(task.done() for task in teaching):
            n_before.append(len(await store.run(rows, "SELECT id FROM inbox")))
            made.append(await snapshots.make(START + timedelta(minutes=len(made))))
        await asyncio.gather(*teaching)
    await store.close()
    n_versions = 0
    for n, folder in enumerate(made):
        anew = tmp_path / f"anew{n}"
        anew.mkdir()
        restore(folder, anew)
        copy = Store(anew / DATABASE)
        await copy.open()
        assert len(await copy.run(rows, "SELECT id FROM inbox")) >= n_before[n]
        for row in await copy.run(rows, CURRENT):
            assert adapter_files.verify(anew / row["folder"]).weights_sha256 == row["weights_sha256"]
            n_versions += 1
        await copy.close()
    print(f"{len(made)} backups under load, {n_versions} current versions restored, 0 with other weights")
    assert n_versions > 0


async def teach(world, account):
    for said in ("Shorter.", "In verse.", "In prose."):
        await world.taught(account, said)


async def test_a_running_bot_makes_them_by_itself(tmp_path, store):
    settings = Settings(learning={"debounce_s": 0.0}, backup={"every_minutes": 0.001})
    async with running_world(tmp_path, settings, store) as world:
        await world.chat.say("ada", "Hello")
        for _ in range(500):
            if kept_in(tmp_path / "backups"):
                return
            await asyncio.sleep(0.01)
    raise AssertionError("no backup was made")


async def test_the_restore_drill_finds_every_current_version_again(tmp_path):
    facts = await drill(4, 2, tmp_path)
    assert (facts["people"], facts["versions"], facts["same_hashes"]) == (4, 4, 4)
