"""What people say on a simulated platform, and what of it reaches the inbox."""

from __future__ import annotations

from types import SimpleNamespace

import discord
import pytest
from simcord.backend.models import AllowedMentions

from claasbot.domain.conversation import Commanded, Deleted, Edited, Reply, Said
from claasbot.errors import ChatError

from .conftest import World


async def answer_with(world: World, text: str) -> None:
    async def answer(event):
        if isinstance(event, Said | Commanded):
            key = event.message_key if isinstance(event, Said) else event.own_key
            writer = await world.chat.open_reply(event.address, key)
            await writer.finish(Reply(text=text))

    world.bot.answer = answer


async def test_a_mention_is_answered_where_it_was_said_as_a_reply(world: World):
    """Simulated platform."""
    await answer_with(world, "Water.")
    question = await world.alice.send(world.channel, f"{world.at} What is rain?")
    event = world.bot.only()
    assert isinstance(event, Said)
    assert (event.text, event.account, event.display_name) == ("What is rain?", str(world.alice.id), "alice")
    assert (event.address, event.message_key, event.is_group) == (world.address, str(question.id), True)
    assert event.update_key == f"m{question.id}"
    answer = world.channel.last_message
    assert answer.content == "Water."
    assert answer.reference.message_id == question.id


async def test_what_is_not_addressed_to_the_bot_is_dropped_unstored(world: World):
    """Simulated platform."""
    await world.alice.send(world.channel, "hello everybody")
    await world.alice.send(world.channel, f"{world.bob.mention} hi")
    await world.alice.send(world.channel, world.at)
    assert world.bot.accepted == []


async def test_other_bots_and_webhooks_are_not_heard(world: World):
    """Simulated platform."""
    other = world.channel.guild.add_member(world.env.create_user("other", bot=True))
    await other.send(world.channel, f"{world.at} hi")
    await world.channel.guild.create_webhook(world.channel).send(f"{world.at} hi")
    assert world.bot.accepted == []


async def test_a_reply_to_an_answer_needs_no_mention(world: World):
    """Simulated platform."""
    keys = await world.chat.send(world.address, Reply(text="Water."))
    await world.alice.send(world.channel, "How much?", reply_to=world.channel.last_message)
    event = world.bot.only()
    assert isinstance(event, Said)
    assert (event.text, event.reply_to) == ("How much?", keys[0])


async def test_a_reply_that_pings_nobody_is_for_the_bot_all_the_same(world: World):
    """Simulated platform."""
    keys = await world.chat.send(world.address, Reply(text="Water."))
    world.env.backend.create_message(
        world.channel.id,
        world.alice.id,
        "How much?",
        reference={"channel_id": str(world.channel.id), "message_id": keys[0]},
        allowed_mentions=AllowedMentions(replied_user=False),
    )
    await world.env.settle()
    event = world.bot.only()
    assert isinstance(event, Said)
    assert (event.text, event.reply_to) == ("How much?", keys[0])


async def test_a_reply_to_somebody_else_does_not_bring_their_message_along(world: World):
    """Simulated platform."""
    theirs = await world.bob.send(world.channel, "rain is milk")
    await world.alice.send(world.channel, f"{world.at} is that so?", reply_to=theirs)
    event = world.bot.only()
    assert isinstance(event, Said)
    assert event.reply_to is None


async def test_roles_come_along(world: World):
    """Simulated platform."""
    role = world.channel.guild.create_role("tester")
    carol = world.channel.guild.add_member(world.env.create_user("carol"), roles=[role])
    await carol.send(world.channel, f"{world.at} hi")
    assert world.bot.only().roles == (str(role.id),)


async def test_a_private_message_needs_no_mention_and_is_answered_without_a_reference(world: World):
    """Simulated platform."""
    await answer_with(world, "Water.")
    await world.alice.user.send_dm("What is rain?")
    event = world.bot.only()
    assert isinstance(event, Said)
    assert (event.text, event.is_group, event.roles) == ("What is rain?", False, ())
    answer = world.alice.user.dm_channel.last_message
    assert (answer.content, answer.reference) == ("Water.", None)


async def test_a_thread_is_a_chat_of_its_own_in_its_channel(world: World):
    """Simulated platform."""
    await answer_with(world, "Water.")
    guild_channel = world.env.bot.get_channel(world.channel.id)
    await world.alice.send(world.channel, "let us talk")
    await guild_channel.create_thread(
        name="rain", message=guild_channel.get_partial_message(world.channel.last_message.id)
    )
    (thread,) = world.channel.threads
    await world.alice.send(thread, f"{world.at} What is rain?")
    event = world.bot.accepted[-1]
    assert event.address.chat == f"{world.channel.id}/{thread.id}"
    assert world.texts(thread) == ["Water."]


async def test_a_command_typed_as_text_is_a_command_about_the_message_it_replies_to(world: World):
    """Simulated platform."""
    keys = await world.chat.send(world.address, Reply(text="Water."))
    await world.alice.send(world.channel, "/feedback  shorter, please", reply_to=world.channel.last_message)
    event = world.bot.only()
    assert isinstance(event, Commanded)
    assert (event.command, event.argument, event.message_key) == ("feedback", "shorter, please", keys[0])
    assert not event.is_interaction


@pytest.mark.parametrize("words", ["/feedback shorter, please", "What is rain?"])
async def test_forwarded_words_are_somebody_elses_and_never_a_command(world: World, words: str):
    """Simulated platform."""
    theirs = await world.bob.send(world.channel, words)
    await world.alice.user.send_dm("hello")
    await world.alice.forward(theirs, world.alice.user.dm_channel)
    event = world.bot.accepted[-1]
    assert isinstance(event, Said)
    assert (event.text, event.is_forwarded, event.account) == (words, True, str(world.alice.id))


async def test_forwards_in_a_server_are_not_addressed_to_the_bot(world: World):
    """Simulated platform."""
    theirs = await world.bob.send(world.channel, "/feedback shorter, please")
    await world.alice.forward(theirs, world.channel)
    assert world.bot.accepted == []


async def test_a_command_is_known_however_its_letters_are_written(world: World):
    """Simulated platform."""
    await world.alice.user.send_dm("/Feedback shorter, please")
    event = world.bot.only()
    assert isinstance(event, Commanded)
    assert event.command == "feedback"


async def test_an_edited_command_is_nothing_and_behind_ask_it_is_the_question(world: World):
    """Simulated platform."""
    asked = await world.alice.send(world.channel, f"{world.at} /ask What is rain?")
    noted = await world.alice.send(world.channel, f"{world.at} /feedback shorter")
    await world.alice.edit(asked, f"{world.at} /ask What is snow?")
    await world.alice.edit(noted, f"{world.at} /feedback longer")
    assert [event.text for event in world.bot.accepted if isinstance(event, Edited)] == ["What is snow?"]


@pytest.mark.parametrize("trouble", ["503", "429", "reset"])
async def test_a_thread_that_cannot_be_looked_up_loses_no_message_and_is_looked_up_again(
    world: World, trouble: str, caplog: pytest.LogCaptureFixture
):
    """Simulated platform."""
    await world.alice.send(world.channel, "let us talk")
    guild_channel = world.env.bot.get_channel(world.channel.id)
    await guild_channel.create_thread(
        name="rain", message=guild_channel.get_partial_message(world.channel.last_message.id)
    )
    (thread,) = world.channel.threads
    ask = world.env.bot.http.get_channel
    raised = {
        "503": lambda: discord.HTTPException(SimpleNamespace(status=503, reason=""), "down"),  # type: ignore[arg-type]
        "429": lambda: discord.RateLimited(3600.0),
        "reset": ConnectionResetError,
    }[trouble]

    async def fails(channel_id: int) -> None:
        raise raised()

    forget(world, thread.id)
    world.env.bot.http.get_channel = fails  # type: ignore[method-assign]
    await world.alice.send(thread, f"{world.at} What is rain?")
    world.env.bot.http.get_channel = ask  # type: ignore[method-assign]
    forget(world, thread.id)
    await world.alice.send(thread, f"{world.at} And snow?")
    assert [(event.text, event.address.chat) for event in world.bot.accepted] == [
        ("What is rain?", str(thread.id)),
        ("And snow?", f"{world.channel.id}/{thread.id}"),
    ]


def forget(world: World, thread_id: int) -> None:
    """The library knows the thread no more, as after a restart."""
    guild = world.env.bot.get_guild(world.channel.guild.id)
    guild._threads.pop(thread_id, None)


async def test_an_edit_brings_the_new_wording(world: World):
    """Simulated platform."""
    question = await world.alice.send(world.channel, f"{world.at} What is rane?")
    await world.alice.edit(question, "What is rain?")
    event = world.bot.accepted[1]
    assert isinstance(event, Edited)
    assert (event.text, event.message_key, event.account) == ("What is rain?", str(question.id), str(world.alice.id))
    assert event.update_key.startswith(f"e{question.id}:")


async def test_an_edit_of_what_was_not_for_the_bot_stays_unstored(world: World):
    """Simulated platform."""
    talk = await world.alice.send(world.channel, "hello everybody")
    await world.alice.edit(talk, "hello all")
    assert world.bot.accepted == []


async def test_an_edit_that_addresses_the_bot_is_heard_also_after_a_restart(world: World):
    """Simulated platform."""
    question = await world.alice.send(world.channel, f"{world.at} What is rane?")
    await world.restart()
    await world.alice.edit(question, f"{world.at} What is rain?")
    assert isinstance(world.bot.accepted[-1], Edited)


async def test_a_deleted_question_is_told_with_who_asked_it(world: World):
    """Simulated platform."""
    question = await world.alice.send(world.channel, f"{world.at} What is rain?")
    await world.alice.delete(question)
    event = world.bot.accepted[1]
    assert isinstance(event, Deleted)
    assert (event.message_key, event.account) == (str(question.id), str(world.alice.id))


async def test_a_deletion_of_other_talk_is_not_told(world: World):
    """Simulated platform."""
    talk = await world.alice.send(world.channel, "hello everybody")
    await world.alice.delete(talk)
    assert world.bot.accepted == []


async def test_a_deletion_of_a_message_from_before_the_restart_is_told_without_an_account(world: World):
    """Simulated platform."""
    question = await world.alice.send(world.channel, f"{world.at} What is rain?")
    await world.restart()
    await world.alice.delete(question)
    event = world.bot.accepted[-1]
    assert isinstance(event, Deleted)
    assert (event.message_key, event.account) == (str(question.id), "")


async def test_a_store_that_is_locked_for_a_moment_loses_no_message(world: World):
    """Simulated platform."""
    world.bot.n_failures = 3
    await world.alice.send(world.channel, f"{world.at} What is rain?")
    assert len(world.bot.accepted) == 1


async def test_messages_are_committed_in_the_order_in_which_they_came(world: World):
    """Simulated platform."""
    words = [str(number) for number in range(20)]
    for word in words:
        world.env.backend.create_message(world.channel.id, world.alice.id, f"{world.at} {word}")
    await world.env.settle()
    assert [event.text for event in world.bot.accepted if isinstance(event, Said)] == words


async def test_a_text_file_is_read_when_it_is_wanted(world: World):
    """Simulated platform."""
    await world.alice.send(world.channel, f"{world.at} sum it up", attachments=[("rain.txt", b"Rain is wet.")])
    event = world.bot.only()
    assert isinstance(event, Said)
    (attachment,) = event.attachments
    assert (attachment.name, attachment.n_bytes) == ("rain.txt", 12)
    assert await world.chat.read(attachment) == "Rain is wet."


@pytest.mark.parametrize(
    ("content", "reason"), [(b"\x89PNG\0", "no text file"), (b"x" * 300_000, "300,000 bytes")], ids=["binary", "large"]
)
async def test_what_is_no_short_text_is_not_read(world: World, content: bytes, reason: str):
    """Simulated platform."""
    await world.alice.send(world.channel, f"{world.at} look", attachments=[("rain", content)])
    event = world.bot.only()
    assert isinstance(event, Said)
    with pytest.raises(ChatError, match=reason):
        await world.chat.read(event.attachments[0])


async def test_a_file_that_is_gone_says_so(world: World):
    """Simulated platform."""
    question = await world.alice.send(world.channel, f"{world.at} look", attachments=[("rain.txt", b"wet")])
    event = world.bot.only()
    assert isinstance(event, Said)
    await world.alice.delete(question)
    with pytest.raises(ChatError, match="deleted"):
        await world.chat.read(event.attachments[0])
