"""What is left of somebody on Discord whom the bot has forgotten: nothing (S-21)."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claasbot.data_folder import DataFolder
from claasbot.storage.rows import one
from claasbot.storage.store import Store
from tests.services.traces import found_in, logged

from .bridge import Bridge
from .test_whole_bot import Server, feedback


@pytest.fixture
async def on_disk(bridge: Bridge, tmp_path: Path) -> AsyncIterator[Server]:
    DataFolder(root=tmp_path).make()
    store = Store(DataFolder(root=tmp_path).database)
    await store.open()
    with logged(tmp_path):
        yield Server(bridge, tmp_path, store)
    await store.close()


async def test_no_byte_of_somebody_on_discord_is_left_and_the_log_never_had_one(tmp_path: Path, on_disk: Server):
    words = {name: f"{name}{secrets.token_hex(6)}" for name in ("display", "question", "why")}
    on_disk.alice = on_disk.guild.add_member(on_disk.bridge.env.create_user(words["display"]))
    words["account"] = str(on_disk.alice.id)
    async with on_disk.running() as world:
        await on_disk.agree()
        answer = await on_disk.ask(words["question"])
        await on_disk.alice.react(answer, "👍")
        await feedback(on_disk.store, "thumbs_up")
        await on_disk.alice.send(on_disk.channel, f"<@{on_disk.bot_id}> /feedback {words['why']}")
        await feedback(on_disk.store, "thumbs_up", "text")
        await on_disk.ask("And snow?")
        await world.cycle.settled()
        before = found_in(tmp_path, words)
        assert {name for name, _ in before} == set(words)
        assert {file for _, file in before if file.endswith(".log")} == set()
        alice = await on_disk.store.run(one, "SELECT person_id FROM account WHERE account = ?", words["account"])
        await world.cycle.erasing.forget(alice["person_id"])
        assert {name for name, _ in found_in(tmp_path, words)} <= {"persona"}, (
            "the persona of a channel is the channel's"
        )
