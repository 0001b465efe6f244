"""What is left of somebody on Telegram whom the bot has forgotten: nothing (S-21)."""

from __future__ import annotations

import itertools
import secrets
from pathlib import Path

import pytest

from claasbot.data_folder import DataFolder
from claasbot.storage.store import Store
from tests.chat.telegram.fake_bot_api import FakeBotApi
from tests.chat.telegram.test_whole_bot import Bot, agreed, says
from tests.services.traces import found_in, logged

WORDS = ("display", "question", "file", "text", "why", "persona")


@pytest.fixture
async def on_disk(fake: FakeBotApi, tmp_path: Path):
    DataFolder(root=tmp_path).make()
    store = Store(DataFolder(root=tmp_path).database)
    await store.open()
    with logged(tmp_path):
        yield Bot(fake=fake, data=tmp_path, store=store)
    await store.close()


async def test_no_byte_of_somebody_on_telegram_is_left_and_the_log_never_had_one(tmp_path, fake, on_disk):
    words = {name: f"{name}-{secrets.token_hex(6)}" for name in WORDS}
    fake.world.numbers = itertools.count(7_313_909_001)
    ada = fake.person(words["display"])
    words["account"] = str(ada.id)
    chat = fake.private_chat(ada)
    async with on_disk.running() as world:
        answer = await agreed(on_disk, ada, chat)
        ada.say(chat, f"/persona {words['persona']}")
        ada.say(chat, words["question"])
        await fake.until(lambda: says(chat, f"heard: {words['question']}"))
        ada.attach(chat, f"{words['file']}.txt", words["text"].encode(), "Sum it up")
        await fake.until(lambda: says(chat, words["text"]))
        ada.say(chat, f"/feedback {words['why']}", reply_to=answer)
        await world.cycle.settled()
        before = found_in(tmp_path, words)
        assert {name for name, _ in before} == set(words)
        assert {file for _, file in before if file.endswith(".log")} == set()
        ada.say(chat, "/forget")
        card = await fake.until(lambda: next(iter(says(chat, "cannot be undone")), None))
        ada.press(card, "Delete it all")
        await fake.until(lambda: says(chat, "Forgotten"))
        await world.cycle.settled()
        assert found_in(tmp_path, words) == set()
