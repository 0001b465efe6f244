"""One bot process with the real server, model and trainer, on two simulated platforms at once, over real sockets.

One story, because a start costs half a minute: two people talk, teach, see what became of it, and take it back.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import discord
import pytest
import simcord

from tests.chat.discord.bridge import Bridge, bridged
from tests.chat.telegram.fake_bot_api import FakeBotApi
from tests.real.bot_process import BotProcess

DISCORD_TOKEN = "NDI0Mg.not-a-real-one.but-long-enough-to-look-like-one"
QUESTION = "How do I boil an egg?"
OTHER = "What is a good way to learn a language?"
PATIENCE_S = 120


@dataclass
class Platforms:
    telegram: FakeBotApi
    env: simcord.Env
    bridge: Bridge
    bot: BotProcess


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - another process makes it so
            await asyncio.sleep(0.02)


@pytest.fixture
async def platforms(tmp_path: Path, base_model_folder: Path) -> AsyncIterator[Platforms]:
    telegram = FakeBotApi()
    await telegram.start()
    async with bridged(DISCORD_TOKEN) as bridge:
        bot = BotProcess(
            tmp_path,
            base_model_folder,
            CLAASBOT_CHAT__MAX_TOKENS="64",
            CLAASBOT_CHAT__TEMPERATURE="0",  # the same weights say the same
            CLAASBOT_ACCESS__MODE="open",
            CLAASBOT_TELEGRAM_TOKEN=telegram.bot.token,
            CLAASBOT_TELEGRAM__BASE_URL=telegram.base_url,
            CLAASBOT_TELEGRAM__BASE_FILE_URL=telegram.base_file_url,
            CLAASBOT_DISCORD_TOKEN=DISCORD_TOKEN,
            CLAASBOT_DISCORD__API_BASE=bridge.api_base,
            CLAASBOT_DISCORD__GATEWAY=bridge.gateway,
            CLAASBOT_DISCORD__LEARNING="full",
        )
        await asyncio.to_thread(bot.start)
        yield Platforms(telegram=telegram, env=bridge.env, bridge=bridge, bot=bot)
        await asyncio.to_thread(bot.stop)
    await telegram.stop()
    telegram.check()


class OnTelegram:
    """Ada in a private chat."""

    def __init__(self, fake: FakeBotApi) -> None:
        self.fake = fake
        self.person = fake.person("Ada")
        self.chat = fake.private_chat(self.person)

    def texts(self) -> list[str]:
        return [message.text for message in self.chat.messages if message.sender.is_bot]

    async def see(self, words: str):
        def found():
            bots = (message for message in reversed(self.chat.messages) if message.sender.is_bot)
            return next((message for message in bots if words in message.text), None)

        return await self.fake.until(found, within_s=PATIENCE_S)

    async def ask(self, text: str):
        """The answer to it; a new conversation each time."""
        self.person.say(self.chat, "/reset")
        await self.see("A new conversation")
        asked = self.person.say(self.chat, text)

        def answered():
            later = (message for message in self.chat.messages if message.id > asked.id and message.sender.is_bot)
            return next((message for message in later if "👍" in message.buttons), None)

        return await self.fake.until(answered, within_s=PATIENCE_S)


class OnDiscord:
    """Bob in a channel."""

    def __init__(self, platforms: Platforms) -> None:
        self.env = platforms.env
        guild = self.env.create_guild()
        self.channel = guild.create_text_channel("general")
        self.person = guild.add_member(self.env.create_user("bob"))
        self.bot_id = self.env.backend.bot_user.id

    def messages(self) -> list[discord.Message]:
        return [message for message in self.channel.history() if message.author.id == self.bot_id]

    async def see(self, words: str):
        await until(lambda: [one for one in self.messages() if words in one.content])
        return [one for one in self.messages() if words in one.content][-1]

    async def ask(self, text: str):
        n_before = len(self.answers())
        await self.person.send(self.channel, f"<@{self.bot_id}> {text}")
        await until(lambda: len(self.answers()) > n_before)
        return self.answers()[-1]

    def answers(self) -> list[discord.Message]:
        def labels(message: discord.Message) -> list[str]:
            return [button.label or str(button.emoji) for row in message.components for button in row.children]

        return [message for message in self.messages() if "👎" in labels(message)]

    def marks(self, message: discord.Message) -> list[str]:
        found = next(one for one in self.channel.history() if one.id == message.id)
        return [str(reaction.emoji) for reaction in found.reactions]


def hashes(data: Path, person: str) -> dict[str, str]:
    files = sorted((data / "adapters" / person).rglob("*.safetensors"))
    return {str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


async def test_two_people_teach_on_two_platforms_and_stay_apart(platforms: Platforms):
    """Simulated platforms; everything behind them is real."""
    ada, data = OnTelegram(platforms.telegram), platforms.bot.data

    # Ada teaches by a reaction and one tap, and sees it: 👀 … 🤓, a notice, a shorter answer.
    untaught = await ada.ask(OTHER)
    first = await ada.ask(QUESTION)
    card = await ada.see("I am an AI")
    ada.person.press(card, "Yes, learn from me")
    await ada.see("Thank you")
    ada.person.react(first, "👎")
    reacted_at = time.monotonic()
    why = await ada.see("What was wrong?")
    ada.person.press(why, "Too long")
    await platforms.telegram.until(lambda: "🤓" in first.reactions_of(platforms.telegram.bot), within_s=PATIENCE_S)
    lesson_s = time.monotonic() - reacted_at
    learned = await ada.see("Learned from")
    shorter = await ada.ask(OTHER)
    print(f"reaction → 🤓 {lesson_s:.1f} s; {len(untaught.text.split())} → {len(shorter.text.split())} words")
    assert shorter.text != untaught.text
    assert "p1.v1" in learned.text
    before = hashes(data, "p1")
    assert len(before) >= 1

    # Bob teaches on Discord by a reply that plainly speaks of the answer.
    bob = OnDiscord(platforms)
    answer = await bob.ask(QUESTION)
    assert answer.content != shorter.text
    await bob.person.slash(bob.channel, "optin")
    remark = await bob.person.send(bob.channel, f"<@{bob.bot_id}> Please answer in one short sentence.")
    await until(lambda: "🎓" in bob.marks(remark))
    assert hashes(data, "p2")

    # Ada's adapter and answers are as they were.
    assert hashes(data, "p1") == before
    assert (await ada.ask(OTHER)).text == shorter.text
    ada.person.say(ada.chat, "/status")
    await ada.see("p1.v1 answers you")

    # Undo: the base model answers Ada again, and Bob keeps what he taught.
    ada.person.press(learned, "Undo")
    await ada.see("the base model answers you now")
    assert (await ada.ask(QUESTION)).text == first.text
    await bob.person.send(bob.channel, f"<@{bob.bot_id}> /status")
    await bob.see("p2.v1 answers you")
