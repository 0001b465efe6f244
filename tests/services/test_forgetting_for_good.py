"""Receipts, and who stays forgotten: after a join, a backup that is put back, a crash, a server that is away (S-21)."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from claasbot.domain.conversation import ChatAddress, Said
from claasbot.errors import BadInput, NotFound
from claasbot.services.backing_up import backup
from claasbot.services.burying import ERASED, buried, bury
from claasbot.services.clock import utc_now
from claasbot.services.erasing import Erasing
from claasbot.services.snapshots import BackupRules, name_at
from claasbot.settings import Settings
from claasbot.storage import erasure
from claasbot.storage.erasure import Tombstone
from claasbot.storage.rows import one, rows
from claasbot.storage.store import Store
from claasbot.store_commands import put_back
from tests.services.world import World, running_world

ADA, BOB = 1, 2
TEAM = ChatAddress(platform="console", bot_account="console", chat="team")


async def names(store: Store) -> list[str]:
    return [row["display_name"] for row in await store.run(rows, "SELECT display_name FROM person ORDER BY id")]


def with_backups(world: World, **rules: object) -> Erasing:
    return Erasing(
        world.store, world.cycle.serving, world.engine, world.data, utc_now, world.cycle.outside.restart_server,
        backups=BackupRules(**rules),
    )  # fmt: skip


async def joined(world: World, account: str, into: str) -> None:
    """Two accounts of the console are one person from now on."""
    told = await world.chat.command(into, "link")
    code = told.text.partition("/link ")[2][:8]
    reply = await world.chat.command(account, "link", code)
    assert "Joined" in reply.text, reply.text


async def test_the_receipt_has_a_number_that_leads_to_what_went_and_to_nobody(world):
    await world.taught()
    reply = await world.chat.press("ada", "forget:yes")
    receipt = str(reply.data["number"])
    assert f"Receipt {receipt}, {utc_now():%Y-%m-%d}" in reply.text
    kept = await world.store.run(erasure.receipt, receipt)
    assert json.loads(kept["counts_json"]) == reply.data["receipt"]
    row = await world.store.run(one, "SELECT * FROM erasure")
    assert (row["person_id"], row["person_made_at"], row["folders_json"], row["server_names_json"]) == (
        0,
        "",
        "[]",
        "[]",
    )
    with pytest.raises(NotFound, match="ffff"):
        await world.store.run(erasure.receipt, "ffff")


async def test_the_receipt_names_the_backups_that_still_hold_the_person_and_their_ends(world):
    await world.chat.say("ada", "What is rain?")
    folder = world.data / "backups"
    folder.mkdir()
    before, after = utc_now() - timedelta(days=2), utc_now()
    await backup(world.store, world.data, folder / name_at(before), lambda: before)
    await backup(world.store, world.data, folder / name_at(after), lambda: after)
    (world.data / "claasbot.db.until-20261101T120000Z").touch()
    receipt = await with_backups(world, days=30).forget(ADA)
    assert [(one.name, one.expires_at) for one in receipt.backups] == [
        (name_at(after), after + timedelta(days=30)),
        ("claasbot.db.until-20261101T120000Z", None),
    ]


async def test_people_are_told_until_when_a_backup_holds_them(tmp_path, settings, store):
    async with running_world(tmp_path, settings, store) as world:
        await world.chat.say("ada", "What is rain?")
        made_at = utc_now()
        (tmp_path / "backups").mkdir()
        await backup(store, tmp_path, tmp_path / "backups" / name_at(made_at), lambda: made_at)
        reply = await world.chat.press("ada", "forget:yes")
        assert f"Backup {name_at(made_at)} still holds you, until {made_at + timedelta(days=30):%Y-%m-%d}" in reply.text


async def test_whoever_was_forgotten_since_a_backup_is_forgotten_again_when_it_is_put_back(tmp_path, settings):
    there, backups = tmp_path / "there", tmp_path / "there" / "backups"
    there.mkdir()
    store = Store(there / "claasbot.db")
    await store.open()
    async with running_world(there, settings, store) as world:
        await world.taught("ada")
        await world.chat.say("bob", "What is hail?")
        backups.mkdir()
        await backup(store, there, backups / "20261120T120000Z", utc_now)
        await with_backups(world).forget(ADA)
        assert await names(store) == ["bob"]
    await store.close()

    here = tmp_path / "here"
    await put_back(Settings(data=here), backups / "20261120T120000Z")
    assert (here / "adapters" / "p1" / "v1").exists()
    store = Store(here / "claasbot.db")
    await store.open()
    assert await names(store) == ["ada", "bob"]
    async with running_world(here, settings, store) as world, asyncio.timeout(10):
        while await names(store) != ["bob"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert not (here / "adapters" / "p1").exists()
        assert (await world.chat.say("ada", "Do you know me?")).version_name == "base"
    await store.close()


async def test_a_later_person_who_gets_the_number_of_a_forgotten_one_is_left_alone(world):
    """A database that was put back gives numbers out a second time."""
    await world.chat.say("ada", "What is rain?")
    await asyncio.to_thread(bury, [world.data], [Tombstone(person_id=ADA, made_at="2025-01-01T00:00:00.000000+00:00")])
    await world.cycle.erasing.forget_who_returned()
    assert await world.store.run(erasure.unfinished) == []
    made_at = (await world.store.run(one, "SELECT created_at FROM person"))["created_at"]
    await asyncio.to_thread(bury, [world.data], [Tombstone(person_id=ADA, made_at=made_at)])
    await world.cycle.erasing.forget_who_returned()
    assert len(await world.store.run(erasure.unfinished)) == 1


async def test_the_list_of_the_forgotten_names_nobody(world):
    await world.chat.say("ada", "What is rain?")
    await world.cycle.erasing.forget(ADA)
    text = (world.data / ERASED).read_text()
    assert "ada" not in text and len(json.loads(text)) == 1


async def test_a_join_is_no_reason_to_stay_forgotten_but_an_erasure_of_both_is(world):
    await world.chat.say("ada", "What is rain?")
    await world.chat.say("bob", "What is hail?")
    await joined(world, "bob", into="ada")
    await world.cycle.settled()
    assert buried(world.data) == []
    left = (await world.store.run(rows, "SELECT id FROM person"))[0]["id"]
    await world.cycle.erasing.forget(left)
    assert {one.person_id for one in buried(world.data)} == {ADA, BOB}
    assert {row["person_id"] for row in await world.store.run(rows, "SELECT person_id FROM erasure")} == {0}


async def test_three_who_became_one_stay_forgotten_together(world):
    for account in ("ada", "bob", "eve"):
        await world.chat.say(account, "What is rain?")
    await joined(world, "bob", into="ada")
    await joined(world, "ada", into="eve")
    left = (await world.store.run(rows, "SELECT id FROM person"))[0]["id"]
    await world.cycle.erasing.forget(left)
    assert {one.person_id for one in buried(world.data)} == {1, 2, 3}


async def test_a_list_that_cannot_be_read_stops_the_start(tmp_path, settings, store):
    (tmp_path / ERASED).write_text("[{")
    with pytest.raises(BadInput, match="who must stay forgotten"):
        buried(tmp_path)


async def test_an_answer_that_is_being_written_elsewhere_is_stopped_and_leaves_nothing(world):
    await world.taught()
    world.server.faults.before_token = asyncio.Event().wait  # nothing but a stop ends it
    await world.chat.post(
        Said(address=TEAM, account="ada", update_key="t", message_key="t", text="A long one", is_group=True)
    )
    async with asyncio.timeout(5):
        while not world.server.seen.n_running:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    reply = await world.chat.press("ada", "forget:yes")
    assert "Forgotten" in reply.text
    await world.cycle.settled()
    for table in ("person", "completion", "turn", "conversation"):
        assert await world.store.run(rows, f"SELECT * FROM {table}") == []


async def test_a_lesson_that_is_running_ends_without_a_version(world):
    await world.taught()
    runs, hold = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        runs.set()
        await hold.wait()

    world.engine.faults.before_step = work
    reply = await world.chat.say("ada", "What is rain?")
    await world.chat.command("ada", "feedback", "In verse.", str(reply.completion_id))
    await runs.wait()
    assert "Forgotten" in (await world.chat.press("ada", "forget:yes")).text
    hold.set()
    await world.cycle.settled()
    assert list((world.data / "adapters").iterdir()) == []


async def test_a_server_that_is_away_is_waited_for_and_the_person_told_so(world):
    await world.taught()
    world.server.faults.is_down = True
    reply = await world.chat.press("ada", "forget:yes")
    assert "as soon as it can be reached" in reply.text
    assert "deleted" in (await world.chat.say("ada", "Still there?")).text
    world.server.faults.is_down = False
    await world.cycle.erasing.resume()
    assert await names(world.store) == []
    assert not (world.data / "adapters" / "p1").exists()
    assert (await world.chat.say("ada", "Who am I?")).version_name == "base"


async def test_what_was_asked_before_a_crash_is_done_at_the_next_start(tmp_path: Path, settings, store):
    async with running_world(tmp_path, settings, store) as world:
        await world.taught()
        await store.run(erasure.ask, ADA, "adapters/p1", datetime.now(UTC))
    async with running_world(tmp_path, settings, store) as world, asyncio.timeout(10):
        while await names(store):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert not (tmp_path / "adapters" / "p1").exists()


async def test_an_update_that_the_platform_repeats_brings_nobody_back(tmp_path: Path, settings, store):
    said = Said(address=TEAM, account="ada", update_key="u7", message_key="m7", text="Remember me", is_group=True)
    async with running_world(tmp_path, settings, store) as world:
        await world.chat.post(said)
        await world.cycle.settled()
        await world.chat.press("ada", "forget:yes")
        await world.cycle.settled()
        await world.chat.post(said)
        await world.cycle.settled()
    async with running_world(tmp_path, settings, store) as world:
        await world.chat.post(said)
        await world.cycle.settled()
        assert await names(store) == []
        kept = await store.run(rows, "SELECT update_key, account, chat, event_json FROM inbox")
        assert {(row["account"], row["chat"], row["event_json"]) for row in kept} == {("", "", "")}
        assert all(row["update_key"].startswith("forgotten:") for row in kept)
        assert (await world.chat.say("ada", "Hello, I am new")).version_name == "base"


async def test_what_waited_elsewhere_when_its_person_was_forgotten_is_not_answered(world):
    """The update was in memory already, behind another one that is being answered in that chat."""
    hold = asyncio.Event()
    world.server.faults.before_token = hold.wait
    for account, key in (("bob", "b1"), ("ada", "a1")):
        await world.chat.post(
            Said(address=TEAM, account=account, update_key=key, message_key=key, text=f"By {account}", is_group=True)
        )
    async with asyncio.timeout(5):
        while not world.server.seen.n_running:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    await world.chat.command("ada", "optin")
    await world.chat.press("ada", "forget:yes")
    hold.set()
    await world.cycle.settled()
    assert await names(world.store) == ["bob"]
    assert [one.text for one in world.chat.shown if one.kind == "reply" and one.reply_to == "a1"] == []
