"""Everything about one person as a zip, nothing about anybody else (S-22)."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import stat
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load

from claasbot.data_folder import DataFolder
from claasbot.domain.conversation import ChatAddress, Said
from claasbot.errors import BadInput, NotFound
from claasbot.services.clock import utc_now
from claasbot.services.exporting import EXPORTS, drop_exports
from claasbot.settings import Settings
from claasbot.storage import audit, conversations, erasure, people, versions
from claasbot.storage.conversations import NewTurn, Part
from claasbot.storage.store import Store
from claasbot.store_commands import hand_out
from claasbot.web.server import WebServer
from tests.services.world import running_world
from tests.web.conftest import Site

ADA = 1
TEAM = ChatAddress(platform="console", bot_account="console", chat="team")


async def exported(world, person_id: int = ADA, **limits: int) -> zipfile.ZipFile:
    async with world.cycle.exporting.made(person_id, **limits) as made:
        return zipfile.ZipFile(io.BytesIO(made.path.read_bytes()))


def in_it(archive: zipfile.ZipFile, table: str):
    return json.loads(archive.read(f"rows/{table}.json"))


async def say_in_team(world, account: str, text: str) -> None:
    since = len(world.chat.shown)
    await world.chat.post(
        Said(address=TEAM, account=account, update_key=text, message_key=text, text=text, is_group=True)
    )
    await world.chat.wait_for(lambda one: one.kind == "reply" and one.reply_to == text, since=since)


async def test_every_row_that_an_erasure_would_delete_is_handed_out_before(world):
    await world.taught()
    await world.chat.say("bob", "What is hail?")
    await world.cycle.settled()
    archive = await exported(world)
    n_exported = {table: len(in_it(archive, table)) for table in erasure.owned_tables()}
    asked = await world.store.run(erasure.ask, ADA, "adapters/p1", utc_now())
    erased = await world.store.run(erasure.finish, asked, utc_now())
    assert n_exported == erased
    assert {"person", "conversation", "completion", "outbox", "inbox", "adapter_version"} <= {
        table for table, n in n_exported.items() if n
    }


async def test_every_file_hashes_to_what_the_manifest_says(world):
    await world.taught()
    archive = await exported(world)
    manifest = json.loads(archive.read("manifest.json"))
    assert manifest["person"] == "p1" and manifest["left_out"] == ""
    assert manifest["sha256"] == {
        name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist() if name != "manifest.json"
    }


async def test_the_adapter_that_answers_now_comes_along_and_opens(world):
    await world.taught()
    await world.taught(said="In verse.")
    archive = await exported(world)
    current = await world.store.run(versions.current, ADA)
    weights = archive.read("adapter/adapter_model.safetensors")
    assert hashlib.sha256(weights).hexdigest() == current.weights_sha256
    assert load(weights)
    assert json.loads(archive.read("adapter/adapter_config.json"))


async def test_talk_is_readable_with_its_umlauts_its_versions_and_its_feedback(world):
    await world.chat.say("ada", "Grüße?")
    await world.taught(said="Kürzer.")
    archive = await exported(world)
    text = archive.read("conversations.md").decode()
    assert "Grüße?" in text and "_Your feedback: Kürzer._" in text and "**claasbot (p1.v1)**" in text
    assert "\\u00" not in archive.read("rows/completion.json").decode()
    assert in_it(archive, "completion")[0]["messages_json"][-1]["content"] == "Grüße?"


async def test_what_was_agreed_to_is_told_with_the_text_that_was_seen(world):
    await world.chat.command("ada", "optin")
    await world.chat.command("ada", "optout")
    archive = await exported(world)
    assert [(row["state"], row["text_version"]) for row in in_it(archive, "consent")] == [
        ("granted", "2026-11"),
        ("withdrawn", "2026-11"),
    ]
    assert archive.read("consent.md").decode().count("(text 2026-11)") == 2


async def test_nothing_of_anybody_else_is_in_it_also_from_a_group(world):
    await world.chat.command("bob", "persona", "bobs-persona")
    await world.taught("bob", said="bobs-note")
    await say_in_team(world, "bob", "bobs-question")
    await say_in_team(world, "ada", "adas-question")
    await world.chat.command("ada", "optin")
    ada = await world.store.run(people.known, "console", "ada")
    archive = await exported(world, ada.person_id)
    everything = b"".join(archive.read(name) for name in archive.namelist())
    assert b"adas-question" in everything
    assert b"bob" not in everything


async def test_many_rows_come_page_by_page_each_once(world):
    await world.chat.say("ada", "What is rain?")
    for number in range(250):
        turn = NewTurn(parts=(Part(text=f"line {number}"),), inbox_id=None, message_key=None)
        await world.store.run(conversations.add_user_turn, 1, turn, utc_now())
    archive = await exported(world)
    ids = [row["id"] for row in in_it(archive, "turn")]
    assert len(ids) == len(set(ids)) == 252
    text = archive.read("conversations.md").decode()
    assert all(text.count(f"line {number}\n") == 1 for number in range(250))


async def test_an_adapter_that_is_too_large_to_send_is_left_out_and_said(world):
    await world.taught()
    archive = await exported(world, at_most_bytes=100_000)
    assert "adapter/adapter_model.safetensors" in archive.namelist()
    world.chat.max_file_bytes = 66_000
    reply = await world.chat.command("ada", "export")
    assert "Not in it: the adapter p1.v1 has" in reply.text
    with zipfile.ZipFile(io.BytesIO(world.chat.received["claasbot-p1.zip"])) as archive:
        assert not [name for name in archive.namelist() if name.startswith("adapter/")]
        assert "p1.v1" in json.loads(archive.read("manifest.json"))["left_out"]


async def test_rows_that_are_too_many_to_send_are_refused_with_the_way_out(world):
    await world.taught()
    with pytest.raises(BadInput, match="claasbot export p1"):
        await exported(world, at_most_bytes=1_000)


async def test_the_file_is_its_owners_and_goes_when_it_was_sent(world):
    await world.taught()
    async with world.cycle.exporting.made(ADA) as made:
        assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(made.path.parent.stat().st_mode) == 0o700
        assert made.path.is_relative_to(world.data)
    with contextlib.suppress(RuntimeError):
        async with world.cycle.exporting.made(ADA):
            raise RuntimeError("the platform hung up")
    assert list((world.data / EXPORTS).iterdir()) == []


async def test_an_erasure_deletes_what_is_being_handed_out(world):
    await world.taught()
    async with world.cycle.exporting.made(ADA) as made:
        await world.cycle.erasing.forget(ADA)
        assert not made.path.exists()


async def test_what_a_crash_left_behind_goes_at_the_next_start(tmp_path, settings, store):
    (tmp_path / EXPORTS).mkdir()
    left = tmp_path / EXPORTS / "p1-00ff.zip"
    left.write_bytes(b"PK")
    async with running_world(tmp_path, settings, store) as world:
        await world.chat.say("ada", "What is rain?")
    assert not left.exists()


def test_an_export_of_p1_is_not_one_of_p11(tmp_path):
    for name in ("p1-a.zip", "p11-a.zip"):
        (tmp_path / name).touch()
    drop_exports(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["p11-a.zip"]


async def test_nobody_is_handed_out_and_nobody_who_is_being_forgotten(world):
    with pytest.raises(NotFound, match="p7"):
        await exported(world, 7)
    await world.chat.say("ada", "What is rain?")
    await world.store.run(people.block, ADA)
    with pytest.raises(NotFound, match="being deleted"):
        await exported(world)


async def on_disk(data: Path) -> Store:
    store = Store(DataFolder(root=data).database)
    await store.open()
    return store


async def test_the_host_exports_somebody_while_no_bot_runs(tmp_path, settings):
    data = tmp_path / "var"
    DataFolder(root=data).make()
    store = await on_disk(data)
    async with running_world(data, settings, store) as world:
        await world.taught()
    await store.close()
    to = tmp_path / "ada.zip"
    await hand_out(Settings(data=data), ADA, to)
    with zipfile.ZipFile(to) as archive:
        assert archive.testzip() is None
        assert "adapter/adapter_model.safetensors" in archive.namelist()
    assert stat.S_IMODE(to.stat().st_mode) == 0o600
    with pytest.raises(BadInput, match="exists already"):
        await hand_out(Settings(data=data), ADA, to)
    with pytest.raises(NotFound, match="p9"):
        await hand_out(Settings(data=data), 9, tmp_path / "nobody.zip")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["ada.zip"]


async def test_the_running_bot_hands_out_by_its_socket_and_writes_it_down(tmp_path, settings):
    data = DataFolder(root=tmp_path / "d")
    with data.lock():
        store = await on_disk(data.root)
        async with running_world(data.root, settings, store) as world:
            await world.taught()
            site = Site(parts=None, http=None)  # type: ignore[arg-type]
            parts = replace(site.wire(store), export=world.cycle.exporting.made)
            server = WebServer(parts, host="127.0.0.1", port=0, socket_path=data.socket)
            await server.start()
            await hand_out(Settings(data=data.root), ADA, tmp_path / "ada.zip")
            with pytest.raises(BadInput, match="p9"):
                await hand_out(Settings(data=data.root), 9, tmp_path / "nobody.zip")
            await server.stop()
        assert [row["did"] for row in await store.run(audit.latest)] == ["exported p1"]
        await store.close()
    with zipfile.ZipFile(tmp_path / "ada.zip") as archive:
        assert archive.testzip() is None
