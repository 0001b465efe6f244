"""The whole bot on a simulated platform, without hardware: from a message to a lesson and back."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from claasbot.chat.telegram.client import TelegramChat
from claasbot.chat.telegram.limiter import Limiter
from claasbot.chat.telegram.receiving import TelegramRules
from claasbot.data_folder import DataFolder
from claasbot.platforms import chat_of_message, platforms
from claasbot.services.commands import HELP
from claasbot.settings import Settings
from claasbot.storage.rows import one, rows
from claasbot.storage.store import Store
from tests.chat.telegram.fake_bot_api import FakeBotApi
from tests.chat.telegram.world import Chat, Message
from tests.services.world import World, running_world

UNHURRIED = Limiter(private=(100, 100.0), group=(100, 100.0), overall=(100, 100.0))
"""This platform has no limits: the limiter has tests of its own, and one conversation here goes at its pace."""


@dataclass
class Bot:
    """What the host runs, pointed at the simulated platform."""

    fake: FakeBotApi
    data: Path
    store: Store

    @asynccontextmanager
    async def running(self, **settings: object) -> AsyncIterator[World]:
        chosen = Settings(
            **{
                "learning": {"debounce_s": 0.0},
                "access": {"mode": "open"},
            }
            | settings
        )
        client = TelegramChat(
            TelegramRules(
                token=self.fake.bot.token, base_url=self.fake.base_url, base_file_url=self.fake.base_file_url
            ),
            commands=HELP,
            chat_of_message=chat_of_message(self.store, self.fake.bot.token.partition(":")[0]),
            limiter=UNHURRIED,
        )
        async with running_world(self.data, chosen, self.store, client=client) as world:
            yield world


@pytest.fixture
async def bot(fake: FakeBotApi, tmp_path: Path) -> AsyncIterator[Bot]:
    store = Store(None)
    await store.open()
    yield Bot(fake=fake, data=tmp_path, store=store)
    await store.close()


@pytest.fixture
def ada(fake):
    return fake.person("Ada")


def says(chat: Chat, words: str) -> list[Message]:
    return [message for message in chat.messages if message.sender.is_bot and words in message.text]


async def answer_to(bot: Bot, chat: Chat, words: str) -> Message:
    return await bot.fake.until(lambda: next(iter(says(chat, f"heard: {words}")), None))


async def being_answered(world: World) -> None:
    """Return when the server has begun: it wakes nobody on the platform."""
    async with asyncio.timeout(5):
        while not world.server.seen.n_running:  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def agreed(bot: Bot, person, chat: Chat) -> Message:
    """The first answer, after which the person agrees to learning."""
    person.say(chat, "What is rain?")
    answer = await answer_to(bot, chat, "What is rain?")
    card = await bot.fake.until(lambda: next(iter(says(chat, "I am an AI")), None))
    person.press(card, "Yes, learn from me")
    await bot.fake.until(lambda: says(chat, "Thank you"))
    return answer


async def tell_why(bot: Bot, person, chat: Chat) -> None:
    """The bot asks what was wrong, and the person taps a reason."""
    why = await bot.fake.until(lambda: next(iter(says(chat, "What was wrong?")), None))
    person.press(why, "Too long")


async def test_the_app_makes_the_client_of_each_token(bot, fake, ada):
    settings = Settings(
        access={"mode": "open"},
        telegram={"tokens": [fake.bot.token], "base_url": fake.base_url, "base_file_url": fake.base_file_url},
    )
    [client] = platforms(settings, DataFolder(root=bot.data), bot.store).clients
    chat = fake.private_chat(ada)
    async with running_world(bot.data, settings, bot.store, client=client):
        ada.say(chat, "What is rain?")
        await answer_to(bot, chat, "What is rain?")


async def test_from_a_message_to_a_lesson_and_back(bot, fake, ada):
    chat = fake.private_chat(ada)
    async with bot.running() as world:
        answer = await agreed(bot, ada, chat)
        assert answer.buttons == ["👍", "👎", "↻"]
        ada.react(answer, "👎")
        await tell_why(bot, ada, chat)
        await fake.until(lambda: answer.reactions_of(fake.bot) == ["🤓"])
        learned = await fake.until(lambda: next(iter(says(chat, "Learned")), None))
        assert learned.buttons == ["See difference", "Undo"]
        ada.say(chat, "And snow?")
        assert "p1.v1" in (await answer_to(bot, chat, "And snow?")).text
        ada.press(learned, "See difference")
        await fake.until(lambda: says(chat, "base:"))
        ada.press(learned, "Undo")
        await fake.until(lambda: says(chat, "the base model answers you now"))
        ada.say(chat, "And hail?")
        assert "p1.v1" not in (await answer_to(bot, chat, "And hail?")).text
        await world.cycle.settled()
    assert all(press.is_answered for press in fake.world.presses.values())


async def test_a_remark_in_a_message_is_marked_there(bot, fake, ada):
    chat = fake.private_chat(ada)
    async with bot.running():
        await agreed(bot, ada, chat)
        remark = ada.say(chat, "Too long.")
        await fake.until(lambda: remark.reactions_of(fake.bot) == ["🤓"])


async def test_a_reaction_taken_back_takes_the_mark_along(bot, fake, ada):
    chat = fake.private_chat(ada)
    async with bot.running() as world:
        answer = await agreed(bot, ada, chat)
        await world.cycle.steering.set_paused(True, "console:host")
        ada.react(answer, "👎")
        await tell_why(bot, ada, chat)
        await fake.until(lambda: answer.reactions_of(fake.bot) == ["👀"])
        ada.unreact(answer)
        await fake.until(lambda: answer.reactions_of(fake.bot) == [])
        assert (await world.store.run(one, "SELECT state FROM experience"))["state"] == "withdrawn"


async def test_updates_that_come_again_are_answered_once(bot, fake, ada):
    chat = fake.private_chat(ada)
    async with bot.running() as world:
        ada.say(chat, "What is rain?")
        await answer_to(bot, chat, "What is rain?")
        await world.cycle.settled()
    fake.bot.updates.pending = list(fake.bot.updates.history)  # as if the acknowledgement had been lost
    async with bot.running() as world:
        await fake.all_read()
        await world.cycle.settled()
    assert len(says(chat, "heard: What is rain?")) == 1


async def test_a_restart_in_the_middle_of_an_answer_answers_once(bot, fake, ada):
    chat = fake.private_chat(ada)
    async with bot.running() as world:
        world.server.faults.before_token = asyncio.Event().wait
        ada.say(chat, "What is rain?")
        await being_answered(world)
    async with bot.running():
        await answer_to(bot, chat, "What is rain?")
    turns = await bot.store.run(rows, "SELECT role FROM turn ORDER BY id")
    assert [row["role"] for row in turns] == ["user", "assistant"]


async def test_the_native_stop_ends_the_answer_on_the_server(bot, fake, ada):
    chat = fake.private_chat(ada)
    async with bot.running() as world:
        gate, n_pieces = asyncio.Event(), 0

        async def hold() -> None:
            nonlocal n_pieces
            n_pieces += 1
            if n_pieces == 8:
                await gate.wait()

        world.server.faults.before_token = hold
        ada.say(chat, "Tell me a very long story about the rain in Spain, please.")
        await fake.until(lambda: chat.draft is not None and chat.draft.can_stop)
        ada.stop_generation(chat)
        await fake.all_read()
        gate.set()
        await fake.until(lambda: says(chat, "heard"))
        await fake.until(lambda: world.server.seen.n_aborted)
        sent = await world.store.run(one, "SELECT finish_reason FROM completion")
        assert sent["finish_reason"] == "abort"


async def test_in_a_group_only_who_asked_teaches(bot, fake, ada):
    group = fake.group("team")
    bob = fake.person("Bob")
    async with bot.running() as world:
        ada.say(group, f"@{fake.bot.username} What is rain?")
        answer = await answer_to(bot, group, "What is rain?")
        bob.react(answer, "👎")
        bob.say(group, "I think rain is lovely.")
        await fake.all_read()
        await world.cycle.settled()
        assert await world.store.run(rows, "SELECT * FROM feedback_event") == []
        texts = await world.store.run(rows, "SELECT text FROM turn")
        assert not any("lovely" in row["text"] for row in texts)


async def test_reactions_and_buttons_do_not_wait_for_a_running_answer(bot, fake, ada):
    chat = fake.private_chat(ada)
    async with bot.running() as world:
        answer = await agreed(bot, ada, chat)
        gate = asyncio.Event()
        world.server.faults.before_token = gate.wait
        ada.say(chat, "And snow?")
        await being_answered(world)
        ada.react(answer, "👎")
        await fake.until(lambda: says(chat, "What was wrong?"))
        ada.press(answer, "👍")
        await fake.until(lambda: says(chat, "thumbs-up") or says(chat, "keep it up"))
        gate.set()
        await answer_to(bot, chat, "And snow?")


async def test_messages_keep_their_order_in_a_chat(bot, fake, ada):
    chat = fake.private_chat(ada)
    async with bot.running():
        for number in range(5):
            ada.say(chat, f"/ask number {number}")
        for number in range(5):
            await answer_to(bot, chat, f"number {number}")
    texts = [message.text for message in says(chat, "heard: number")]
    assert texts == sorted(texts)


async def test_a_group_that_becomes_a_supergroup_keeps_its_conversation(bot, fake, ada):
    group = fake.group("team", supergroup=False)
    async with bot.running() as world:
        ada.say(group, f"@{fake.bot.username} What is rain?")
        answer = await answer_to(bot, group, "What is rain?")
        upgraded = group.upgrade()
        await fake.all_read()
        await world.cycle.settled()
        ada.say(upgraded, f"@{fake.bot.username} And snow?")
        await answer_to(bot, upgraded, "And snow?")
        read = [message.content for message in world.server.seen.requests[-1].messages]
        assert read == ["What is rain?", answer.text, "And snow?"]


async def test_topics_of_a_forum_are_conversations_of_their_own_and_reactions_find_them(bot, fake, ada):
    group = fake.group("forum", forum=True)
    first, second = group.topic("Rain"), group.topic("Snow")
    async with bot.running() as world:
        ada.say(group, f"@{fake.bot.username} What is rain?", thread=first)
        answer = await answer_to(bot, group, "What is rain?")
        ada.say(group, f"@{fake.bot.username} And snow?", thread=second)
        await answer_to(bot, group, "And snow?")
        assert [message.content for message in world.server.seen.requests[-1].messages] == ["And snow?"]
        ada.react(answer, "🔥")
        await fake.all_read()
        await world.cycle.settled()
        kinds = [row["kind"] for row in await world.store.run(rows, "SELECT kind FROM feedback_event")]
        assert kinds == ["thumbs_up"]


async def test_a_reaction_after_a_restart_finds_its_answer(bot, fake, ada):
    group = fake.group("forum", forum=True)
    topic = group.topic("Rain")
    async with bot.running() as world:
        ada.say(group, f"@{fake.bot.username} What is rain?", thread=topic)
        answer = await answer_to(bot, group, "What is rain?")
        await world.cycle.settled()
    async with bot.running() as world:
        ada.react(answer, "👍")
        await fake.all_read()
        await world.cycle.settled()
        kinds = [row["kind"] for row in await world.store.run(rows, "SELECT kind FROM feedback_event")]
        assert kinds == ["thumbs_up"]


async def test_an_edited_question_is_answered_again(bot, fake, ada):
    chat = fake.private_chat(ada)
    async with bot.running():
        question = ada.say(chat, "What is rian?")
        await answer_to(bot, chat, "What is rian?")
        ada.edit(question, "What is rain?")
        await answer_to(bot, chat, "What is rain?")


async def test_a_stranger_is_let_in_by_the_code(bot, fake, ada):
    chat = fake.private_chat(ada)
    async with bot.running(access={"mode": "pairing"}) as world:
        ada.say(chat, "Hello")
        told = await fake.until(lambda: next(iter(says(chat, "Your code is")), None))
        code = told.text.split("code is ")[1][:8]
        await world.cycle.admitting.let_in(code, "console:me")
        await fake.until(lambda: says(chat, "welcome"))
        ada.say(chat, "/users")
        await fake.until(lambda: says(chat, "p1 Ada"))


async def test_a_person_who_blocks_the_bot_hears_nothing_more(bot, fake, ada):
    chat = fake.private_chat(ada)
    async with bot.running() as world:
        answer = await agreed(bot, ada, chat)
        await world.cycle.steering.set_paused(True, "console:host")
        ada.press(answer, "👎")
        await tell_why(bot, ada, chat)
        await fake.until(lambda: answer.reactions_of(fake.bot) == ["👀"])
        ada.block(chat)
        await fake.all_read()
        await world.cycle.settled()
        n_calls = len(fake.calls)
        await world.cycle.steering.set_paused(False, "console:host")
        await world.cycle.settled()
        assert [call.method for call in fake.calls[n_calls:] if call.method == "sendMessage"] == []


async def test_an_export_comes_as_a_file(bot, fake, ada):
    chat = fake.private_chat(ada)
    async with bot.running():
        await agreed(bot, ada, chat)
        ada.say(chat, "/export")
        sent = await fake.until(lambda: next((one for one in chat.messages if one.file is not None), None))
        with zipfile.ZipFile(io.BytesIO(sent.file.data)) as archive:
            assert b"What is rain?" in archive.read("conversations.md")


async def test_a_text_file_is_read(bot, fake, ada):
    chat = fake.private_chat(ada)
    async with bot.running() as world:
        ada.attach(chat, "notes.txt", b"it rains", "Sum it up")
        await fake.until(lambda: says(chat, "heard"))
        assert "notes.txt:\n```\nit rains" in world.server.seen.requests[-1].messages[-1].content
