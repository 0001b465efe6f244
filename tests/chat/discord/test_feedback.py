"""Reactions and marks on a simulated platform."""

from __future__ import annotations

import pytest

from claasbot.domain.conversation import Reacted, Reply

from .conftest import World, make_chat


async def answered(world: World) -> str:
    (key,) = await world.chat.send(world.address, Reply(text="Water."))
    return key


def marks(world: World) -> list[str]:
    return [str(reaction.emoji) for reaction in world.channel.last_message.reactions]


async def test_a_reaction_and_its_removal_are_told(world: World):
    """Simulated platform."""
    key = await answered(world)
    await world.alice.react(world.channel.last_message, "👍")
    await world.alice.unreact(world.channel.last_message, "👍")
    given, taken = world.bot.accepted
    assert isinstance(given, Reacted) and isinstance(taken, Reacted)
    assert (given.message_key, given.reaction, given.removed) == (key, "👍", False)
    assert (given.account, given.display_name, given.address) == (str(world.alice.id), "alice", world.address)
    assert (taken.message_key, taken.reaction, taken.removed) == (key, "👍", True)
    assert taken.account == given.account


async def test_the_same_reaction_given_twice_is_two_events(world: World):
    """Simulated platform."""
    await answered(world)
    for _ in range(2):
        await world.alice.react(world.channel.last_message, "👍")
        await world.alice.unreact(world.channel.last_message, "👍")
    assert len({event.update_key for event in world.bot.accepted}) == 4


async def test_both_hearts_are_one_reaction(world: World):
    """Simulated platform."""
    await answered(world)
    await world.alice.react(world.channel.last_message, "❤️")
    event = world.bot.only()
    assert isinstance(event, Reacted)
    assert event.reaction == "❤"


async def test_custom_emoji_and_the_bots_own_marks_are_no_feedback(world: World):
    """Simulated platform."""
    key = await answered(world)
    emoji = world.channel.guild.create_emoji("blob")
    await world.alice.react(world.channel.last_message, f"blob:{emoji.id}")
    await world.chat.mark(world.address, key, "noted")
    await world.env.settle()
    assert world.bot.accepted == []


async def test_the_bots_own_marks_in_private_are_no_feedback(world: World):
    """Simulated platform."""
    address = world.address_of(world.alice.user.dm_channel)
    (key,) = await world.chat.send(address, Reply(text="Water."))
    await world.chat.mark(address, key, "noted")
    await world.env.settle()
    assert world.bot.accepted == []


async def test_a_reaction_after_a_restart_is_told(world: World):
    """Simulated platform."""
    key = await answered(world)
    await world.restart()
    await world.alice.react(world.channel.last_message, "👎")
    event = world.bot.only()
    assert isinstance(event, Reacted)
    assert (event.message_key, event.reaction) == (key, "👎")


async def test_a_reaction_in_private_is_told_under_the_private_chat(world: World):
    """Simulated platform."""
    channel = world.alice.user.dm_channel
    await world.chat.send(world.address_of(channel), Reply(text="Water."))
    await world.alice.user.set_reaction(channel.last_message, "👍", reacted=True)
    event = world.bot.only()
    assert isinstance(event, Reacted)
    assert (event.address, event.is_group) == (world.address_of(channel), False)


async def test_a_reaction_in_a_thread_from_before_the_restart_is_told_under_the_thread(world: World):
    """Simulated platform."""
    await world.alice.send(world.channel, "let us talk")
    message = world.env.bot.get_channel(world.channel.id).get_partial_message(world.channel.last_message.id)
    await message.create_thread(name="rain")
    (thread,) = world.channel.threads
    address = world.chat_address(f"{world.channel.id}/{thread.id}")
    await world.chat.send(address, Reply(text="Water."))
    await world.restart()
    await world.alice.react(thread.last_message, "👍")
    assert world.bot.only().address == address


async def test_reactions_that_were_missed_are_found_at_the_next_start_as_one_event_each(world: World):
    """Simulated platform."""
    key = await answered(world)
    backend = world.env.backend
    recent = [(world.address.chat, key), (world.address.chat, "999"), ("998", "997"), ("x", "i7")]

    async def recent_messages() -> list[tuple[str, str]]:
        return recent

    world.bot.chat = make_chat(recent_messages=recent_messages)
    subscribers, backend.subscribers[:] = list(backend.subscribers), []  # nobody listens
    backend.add_reaction(world.channel.id, int(key), "👍", world.alice.id)
    backend.add_reaction(world.channel.id, int(key), "👀", backend.bot_user.id)
    backend.subscribers[:] = subscribers
    assert world.bot.accepted == []
    for _ in range(2):
        await world.restart()
    events = world.bot.accepted
    assert len(events) == 2
    assert len({event.update_key for event in events}) == 1
    assert isinstance(events[0], Reacted)
    assert (events[0].reaction, events[0].account) == ("👍", str(world.alice.id))
    assert (events[0].address, events[0].is_group) == (world.address, True)


@pytest.mark.parametrize("restarted", [False, True], ids=["", "across a restart"])
async def test_a_mark_takes_the_place_of_the_one_before(world: World, restarted: bool):
    """Simulated platform."""
    key = await answered(world)
    seen = []
    for mark in ("noted", "queued", "learned", None, "refused"):
        await world.chat.mark(world.address, key, mark)
        seen.append(marks(world))
        if restarted:
            world.bot.chat = make_chat()
            await world.restart()
    assert seen == [["👀"], ["✍️"], ["🎓"], [], ["🤔"]]


async def test_other_peoples_reactions_stay_when_a_mark_goes(world: World):
    """Simulated platform."""
    key = await answered(world)
    for emoji in ("👀", "🤔"):
        await world.alice.react(world.channel.last_message, emoji)
    await world.chat.mark(world.address, key, "noted")
    assert world.requests("DELETE") == []
    await world.chat.mark(world.address, key, "learned")
    assert marks(world) == ["👀", "🤔", "🎓"]


async def test_a_mark_that_cannot_be_shown_is_no_trouble(world: World):
    """Simulated platform."""
    key = await answered(world)
    world.env.inject_error("PUT", "/channels/*/messages/*/reactions/*", status=403, code=50013)
    await world.chat.mark(world.address, key, "noted")
    assert marks(world) == []
    await world.chat.mark(world.address, "a message from elsewhere", "noted")
    await world.chat.mark(world.address, "999", "noted")
    await world.chat.mark(world.address, key, "noted")
    assert marks(world) == ["👀"]
