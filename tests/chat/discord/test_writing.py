"""Answers that grow on a simulated platform: previews may be dropped, the final text never is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import discord
import pytest

from claasbot.chat.discord.pace import Pace
from claasbot.domain.conversation import Button, Reply, Stopped
from claasbot.errors import ChatError, ChatGone

from .conftest import World, make_chat

MESSAGES = "/channels/*/messages"
MESSAGE = "/channels/*/messages/*"
NO_PINGS = {"parse": [], "users": [], "roles": [], "replied_user": False}


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 — the writer's own task makes it so
            await asyncio.sleep(0)


async def test_an_answer_types_then_grows_then_is_whole(world: World):
    """Simulated platform."""
    writer = await world.chat.open_reply(world.address, None)
    await until(lambda: len(world.requests("POST", "/typing")) == 1)
    await writer.write("Rain is ")
    for _ in range(50):
        await asyncio.sleep(0)
    assert world.texts() == []
    await writer.write("water that falls")
    await until(lambda: world.texts() == ["Rain is water that falls"])
    await writer.write(" from clouds")
    await until(lambda: world.texts() == ["Rain is water that falls from clouds"])
    keys = await writer.finish(Reply(text="Rain is water that falls from clouds."))
    assert world.texts() == ["Rain is water that falls from clouds."]
    assert keys == (str(world.channel.last_message.id),)
    assert len(world.requests("POST", "/messages")) == 1


async def test_a_preview_has_a_stop_button_and_the_answer_has_its_own(world: World):
    """Simulated platform."""
    writer = await world.chat.open_reply(world.address, None)
    await writer.write("Rain is water that falls")
    await until(lambda: bool(world.texts()))
    await world.alice.click(world.channel.last_message, label="Stop")
    event = world.bot.only()
    assert isinstance(event, Stopped)
    assert (event.address, event.account) == (world.address, str(world.alice.id))
    await writer.finish(Reply(text="Rain is water.", buttons=(Button(label="Undo", action="undo:7"),)))
    (row,) = world.channel.last_message.components
    assert [button.label for button in row.children] == ["Undo"]


async def test_what_has_not_changed_is_not_edited(world: World):
    """Simulated platform."""
    writer = await world.chat.open_reply(world.address, None)
    await writer.write("Rain is water that falls")
    await until(lambda: bool(world.texts()))
    for _ in range(50):
        await asyncio.sleep(0)
    assert world.requests("PATCH") == []
    await writer.finish(Reply(text="Rain is water that falls"))
    assert len(world.requests("PATCH")) == 1  # the stop button goes


async def test_previews_keep_their_distance(world: World):
    """Simulated platform."""
    world.bot.chat = make_chat(pace=Pace(preview_s=3600.0))
    await world.restart()
    writer = await world.chat.open_reply(world.address, None)
    await writer.write("Rain is water that falls")
    await until(lambda: bool(world.texts()))
    await writer.write(" from clouds")
    for _ in range(50):
        await asyncio.sleep(0)
    assert world.texts() == ["Rain is water that falls"]
    await writer.finish(Reply(text="Rain is water that falls from clouds."))
    assert world.texts() == ["Rain is water that falls from clouds."]


async def test_a_short_answer_is_one_message_without_a_preview(world: World):
    """Simulated platform."""
    writer = await world.chat.open_reply(world.address, None)
    await writer.write("Water.")
    await writer.finish(Reply(text="Water."))
    assert (world.texts(), world.requests("PATCH")) == (["Water."], [])


async def test_a_long_answer_becomes_several_messages_whose_keys_are_all_told(world: World):
    """Simulated platform."""
    text = "\n".join(f"Line {number} of a long answer about rain." for number in range(150))
    writer = await world.chat.open_reply(world.address, None)
    await writer.write(text[:3000])
    await until(lambda: len(world.texts()) == 2)
    await writer.write(text[3000:3100])
    await until(lambda: text[3050:3100] in world.texts()[1])
    second = str(world.channel.last_message.id)
    assert all(request.path.endswith(second) for request in world.requests("PATCH"))  # the first is left alone
    keys = await writer.finish(Reply(text=text, buttons=(Button(label="Undo", action="undo:7"),)))
    assert "\n".join(world.texts()) == text
    assert all(len(one) <= 2000 for one in world.texts())
    history = world.channel.history()
    assert keys == tuple(str(message.id) for message in history)
    assert [bool(message.components) for message in history] == [False, False, True]


async def test_previews_that_the_final_text_does_not_need_are_taken_away(world: World):
    """Simulated platform."""
    writer = await world.chat.open_reply(world.address, None)
    await writer.write("word " * 700)
    await until(lambda: len(world.texts()) == 2)
    keys = await writer.finish(Reply(text="(This answer broke off.)", notice=True))
    assert world.texts() == ["(This answer broke off.)"]
    assert len(keys) == 1


async def test_a_rate_limited_preview_is_dropped_and_the_final_text_arrives(world: World):
    """Simulated platform."""
    writer = await world.chat.open_reply(world.address, None)
    await writer.write("Rain is water that falls")
    await until(lambda: bool(world.texts()))
    world.env.inject_error("PATCH", MESSAGE, status=429)
    await writer.write(" from clouds")
    await until(lambda: writer.previews.done())
    assert world.texts() == ["Rain is water that falls"]
    await writer.finish(Reply(text="Rain is water that falls from clouds."))
    assert world.texts() == ["Rain is water that falls from clouds."]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_an_outage_delays_the_final_text_and_neither_loses_nor_doubles_it(world: World, status: int):
    """Simulated platform."""
    world.env.inject_error("POST", MESSAGES, status=status, times=3)
    writer = await world.chat.open_reply(world.address, None)
    keys = await writer.finish(Reply(text="Water."))
    assert world.texts() == ["Water."]
    assert keys == (str(world.channel.last_message.id),)


async def test_an_outage_while_streaming_does_not_end_the_previews(world: World):
    """Simulated platform."""
    world.env.inject_error("POST", MESSAGES, status=503)
    writer = await world.chat.open_reply(world.address, None)
    await writer.write("Rain is water that falls")
    await until(lambda: len(world.requests("POST", "/messages")) == 1)
    await writer.write(" from clouds")
    await until(lambda: world.texts() == ["Rain is water that falls from clouds"])
    await writer.finish(Reply(text="Rain."))
    assert world.texts() == ["Rain."]


async def test_every_try_of_a_message_has_the_same_nonce(world: World):
    """Simulated platform: Discord makes one message of posts with one nonce."""
    world.env.inject_error("POST", MESSAGES, status=503)
    await world.chat.send(world.address, Reply(text="Water."))
    nonces = [request.json["nonce"] for request in world.requests("POST", "/messages")]
    assert len(nonces) == 2
    assert len(set(nonces)) == 1
    await world.chat.send(world.address, Reply(text="Water."))
    assert world.requests("POST", "/messages")[-1].json["nonce"] not in nonces


async def test_a_lasting_outage_is_told(world: World):
    """Simulated platform."""
    world.env.inject_error("POST", MESSAGES, status=503, times=None)
    writer = await world.chat.open_reply(world.address, None)
    with pytest.raises(ChatError, match="503"):
        await writer.finish(Reply(text="Water."))


async def test_a_channel_that_is_closed_to_the_bot_is_gone(world: World):
    """Simulated platform."""
    closed = world.channel.guild.create_text_channel(
        "closed", overwrites={world.env.bot.user: discord.PermissionOverwrite(send_messages=False)}
    )
    with pytest.raises(ChatGone, match="50013"):
        await world.chat.send(world.address_of(closed), Reply(text="Water."))
    with pytest.raises(ChatGone, match="10003"):
        await world.chat.send(world.chat_address("999"), Reply(text="Water."))


async def test_a_preview_that_a_moderator_deleted_does_not_take_the_answer_with_it(world: World):
    """Simulated platform."""
    writer = await world.chat.open_reply(world.address, None)
    await writer.write("Rain is water that falls")
    await until(lambda: bool(world.texts()))
    world.env.backend.delete_message(world.channel.id, world.channel.last_message.id)
    keys = await writer.finish(Reply(text="Rain is water."))
    assert world.texts() == ["Rain is water."]
    assert keys == (str(world.channel.last_message.id),)


async def test_nobody_is_pinged(world: World):
    """Simulated platform."""
    question = await world.alice.send(world.channel, f"{world.at} ping them")
    writer = await world.chat.open_reply(world.address, str(question.id))
    await writer.write(f"@everyone @here {world.bob.mention}")
    await until(lambda: bool(world.texts()))
    await writer.finish(Reply(text=f"@everyone @here {world.bob.mention} <@&1>"))
    await world.chat.send(world.address, Reply(text="@everyone"))
    bodies = [one.json for one in world.env.http_requests if one.json and "content" in one.json]
    assert len(bodies) == 3
    assert all(body["allowed_mentions"]["parse"] == [] for body in bodies)
    assert all(not any(body["allowed_mentions"].get(kind) for kind in NO_PINGS) for body in bodies)


async def test_links_get_no_previews_of_pages(world: World):
    """Simulated platform."""
    await world.chat.send(world.address, Reply(text="https://example.org"))
    assert world.channel.last_message.flags.suppress_embeds


async def test_a_file_hangs_on_the_last_message(world: World, tmp_path: Path):
    """Simulated platform."""
    (tmp_path / "x.zip").write_bytes(b"PK")
    data: dict[str, object] = {"file_name": "claasbot-p1.zip", "file_path": str(tmp_path / "x.zip")}
    reply = Reply(text="Here.", notice=True, data=data)
    await world.chat.send(world.address, reply)
    (file,) = world.channel.last_message.attachments
    assert (file.filename, await file.read()) == ("claasbot-p1.zip", b"PK")


async def test_an_action_too_long_for_a_button_is_refused_by_name(world: World):
    """Simulated platform."""
    reply = Reply(text="Choose.", buttons=(Button(label="This", action="x" * 92),))
    with pytest.raises(ChatError, match="92 characters; Discord takes 91"):
        await world.chat.send(world.address, reply)
    assert world.texts() == []


async def test_an_answer_to_a_deleted_question_is_still_shown(world: World):
    """Simulated platform."""
    question = await world.alice.send(world.channel, f"{world.at} What is rain?")
    await world.alice.delete(question)
    writer = await world.chat.open_reply(world.address, str(question.id))
    await writer.finish(Reply(text="Water."))
    assert world.texts() == ["Water."]
    (request,) = world.requests("POST", "/messages")
    assert request.json["message_reference"]["fail_if_not_exists"] is False
