"""A dead trainer, server or platform connection degrades its own part: the others go on, and its light says so."""

from __future__ import annotations

import asyncio

from claasbot.services.receiving import DOWN
from claasbot.storage.rows import rows
from tests.faults.dry_bot import DryBot
from tests.faults.test_server_trouble import lined
from tests.services.world import World


async def noted(world: World, completion_id: int | None) -> None:
    """Feedback on an answer is kept, and the person sees that it is."""
    await world.chat.command("ada", "feedback", "Shorter, please.", str(completion_id))
    await world.chat.wait_mark(str(completion_id), "noted")


async def test_without_a_trainer_people_are_answered_and_their_feedback_waits(world: World):
    world.engine.faults.n_deaths = 1_000
    await world.chat.command("ada", "optin")
    first = await world.chat.say("ada", "What is rain?")
    await noted(world, first.completion_id)
    for number in range(5):
        assert (await world.chat.say("ada", f"And snow, {number}?")).version_name == "base"
    assert (await world.chat.command("ada", "status")).text
    kept = await world.store.run(rows, "SELECT state FROM experience")
    assert len(kept) == 1


async def test_without_a_server_feedback_and_commands_go_on_and_what_was_asked_waits(tmp_path):
    async with lined(tmp_path) as line:
        world = line.world
        await world.chat.command("ada", "optin")
        first = await world.chat.say("ada", "What is rain?")
        await line.front.stop()
        await line.ask("bob", "And snow?", "1")
        await line.until(lambda: line.notices()["bob", DOWN.text])
        await noted(world, first.completion_id)
        assert (await world.chat.command("ada", "status")).text
        await line.front.start()
        await line.until(lambda: line.answers("bob"))
        await world.chat.wait_mark(str(first.completion_id), "learned")


async def test_without_a_platform_the_others_go_on_and_its_people_are_answered_once_it_is_back(fake, tmp_path):
    """In a process of its own: the terminal is a platform too."""
    bot = DryBot(tmp_path, fake)
    person = fake.person("Ada")
    chat = fake.private_chat(person)
    await asyncio.to_thread(bot.start)
    try:
        assert await asyncio.to_thread(bot.wait_for, lambda: lights(bot).get("telegram") == "ok")
        await fake.stop()
        await asyncio.to_thread(bot.wait_for, lambda: lights(bot)["telegram"] == "down")
        answer = await asyncio.to_thread(bot.say, "What is rain?")
        assert answer["text"].endswith("What is rain?")
        others = {state for name, state in lights(bot).items() if name != "telegram"}
        assert others == {"ok"}
        person.say(chat, "/ask and snow?")
        await fake.start()
        await fake.until(lambda: [one for one in chat.messages if "heard: and snow?" in one.text], within_s=60)
        await asyncio.to_thread(bot.wait_for, lambda: lights(bot)["telegram"] == "ok")
    finally:
        await asyncio.to_thread(bot.stop)


def lights(bot: DryBot) -> dict[str, str]:
    return {light["name"]: light["state"] for light in bot.ask("GET", "/api/status")["lights"]}
