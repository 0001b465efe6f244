"""Slash commands, menus, forms and buttons on a simulated platform."""

from __future__ import annotations

from datetime import timedelta

import pytest

from claasbot.domain.conversation import Button, Commanded, Pressed, Reply, Said

from .conftest import COMMANDS, World, make_chat

GOOD, BAD = "👍 Good", "👎 Bad"
CORRECT, FEEDBACK = "Correct…", "Say what was wrong…"


def answer_with(world: World, reply: Reply) -> None:
    async def answer(event):
        key = event.message_key if isinstance(event, Said) else event.own_key
        await world.chat.send(event.address, reply, key)

    world.bot.answer = answer


async def answered(world: World, *buttons: Button, text: str = "Water."):
    await world.chat.send(world.address, Reply(text=text, buttons=buttons))
    return world.channel.last_message


async def test_a_command_is_answered_for_the_person_alone(world: World):
    """Simulated platform."""
    answer_with(world, Reply(text="The base answers you.", notice=True, personal=True))
    result = await world.alice.slash(world.channel, "status")
    event = world.bot.only()
    assert isinstance(event, Commanded)
    assert (event.command, event.argument, event.is_interaction) == ("status", "", True)
    assert event.own_key == event.update_key and event.own_key.startswith("i")
    assert (event.account, event.address, event.is_group) == (str(world.alice.id), world.address, True)
    assert (result.response.content, result.response.ephemeral) == ("The base answers you.", True)
    assert result.followups == []


async def test_a_command_takes_words(world: World):
    """Simulated platform."""
    await world.alice.slash(world.channel, "feedback", text=" shorter, please ")
    event = world.bot.only()
    assert isinstance(event, Commanded)
    assert (event.command, event.argument) == ("feedback", "shorter, please")


async def test_an_asked_question_is_talk_that_everybody_sees(world: World):
    """Simulated platform."""

    async def answer(event):
        writer = await world.chat.open_reply(event.address, event.message_key)
        await writer.write("Rain is water that falls")
        await writer.finish(Reply(text="Rain is water that falls."))

    world.bot.answer = answer
    result = await world.alice.slash(world.channel, "ask", text="What is rain?")
    event = world.bot.only()
    assert isinstance(event, Said)
    assert (event.text, event.is_interaction) == ("What is rain?", True)
    assert (result.response.content, result.response.ephemeral) == ("Rain is water that falls.", False)


async def test_an_answer_to_a_command_may_be_long(world: World):
    """Simulated platform."""
    text = "\n".join(f"Lesson {number}: shorter answers, please." for number in range(120))
    answer_with(world, Reply(text=text, notice=True))
    result = await world.alice.slash(world.channel, "status")
    assert "\n".join(one.content for one in (result.response, *result.followups)) == text
    assert all(one.ephemeral for one in (result.response, *result.followups))


async def test_an_interaction_from_before_the_restart_is_answered_in_the_channel(world: World):
    """Simulated platform."""
    await world.alice.slash(world.channel, "retry")
    event = world.bot.only()
    assert isinstance(event, Commanded)
    await world.restart()
    await world.chat.send(world.address, Reply(text="Water."), event.own_key)
    assert world.channel.last_message.content == "Water."


async def test_an_interaction_that_has_run_out_is_answered_in_the_channel(world: World):
    """Simulated platform."""
    result = await world.alice.slash(world.channel, "retry")
    event = world.bot.only()
    assert isinstance(event, Commanded)
    await world.env.advance_time(timedelta(minutes=16).total_seconds())
    await world.chat.send(world.address, Reply(text="Water."), event.own_key)
    assert world.channel.last_message.content == "Water."
    assert result.followups == []


async def test_a_personal_reply_to_a_public_command_is_said_alone(world: World):
    """Simulated platform."""
    answer_with(world, Reply(text="Your quota is used up.", notice=True, personal=True))
    result = await world.alice.slash(world.channel, "retry")
    assert (result.response.content, result.response.ephemeral) == ("I say that to you alone.", False)
    assert [(one.content, one.ephemeral) for one in result.followups] == [("Your quota is used up.", True)]


async def test_a_personal_reply_that_comes_too_late_shows_nothing_to_others(world: World):
    """Simulated platform."""
    await world.alice.slash(world.channel, "status")
    event = world.bot.only()
    assert isinstance(event, Commanded)
    await world.env.advance_time(timedelta(minutes=16).total_seconds())
    await world.chat.send(world.address, Reply(text="Your secret. " * 300, personal=True), event.own_key)
    assert [text for text in world.texts() if text] == [
        "That is for you alone: use the slash command, or write to me directly."
    ]


async def test_an_answer_whose_interaction_runs_out_meanwhile_is_finished_in_the_channel(world: World):
    """Simulated platform."""
    await world.alice.slash(world.channel, "ask", text="What is rain?")
    event = world.bot.only()
    assert isinstance(event, Said)
    writer = await world.chat.open_reply(event.address, event.message_key)
    await writer.write("Rain is water that falls")
    while "Rain is water that falls" not in world.texts():
        await world.env.settle()
    await world.env.advance_time(timedelta(minutes=16).total_seconds())
    await writer.finish(Reply(text="Rain is water."))
    assert world.texts() == ["Rain is water."]


async def test_a_personal_reply_without_an_interaction_shows_nothing_to_others(world: World):
    """Simulated platform."""
    await world.chat.send(world.address, Reply(text="Your secret.", notice=True, personal=True))
    assert world.texts() == ["That is for you alone: use the slash command, or write to me directly."]
    private = world.alice.user.dm_channel
    await world.chat.send(world.address_of(private), Reply(text="Your secret.", notice=True, personal=True))
    assert world.texts(private) == ["Your secret."]


@pytest.mark.parametrize(("menu", "command"), [(GOOD, "good"), (BAD, "bad")])
async def test_a_menu_judges_the_answer_it_was_opened_on(world: World, menu: str, command: str):
    """Simulated platform."""
    answer_with(world, Reply(text="Noted.", notice=True))
    answer = await answered(world)
    result = await world.alice.context_menu(world.channel, menu, answer)
    event = world.bot.only()
    assert isinstance(event, Commanded)
    assert (event.command, event.message_key, event.is_interaction) == (command, str(answer.id), True)
    assert (result.response.content, result.response.ephemeral) == ("Noted.", True)


@pytest.mark.parametrize("menu", [GOOD, BAD, CORRECT, FEEDBACK])
async def test_a_menu_on_somebody_elses_message_is_no_feedback(world: World, menu: str):
    """Simulated platform."""
    theirs = await world.bob.send(world.channel, "rain is milk")
    result = await world.alice.context_menu(world.channel, menu, theirs)
    assert world.bot.accepted == []
    assert (result.response.content, result.response.ephemeral) == ("That is not one of my answers.", True)


@pytest.mark.parametrize(
    ("menu", "command", "prefilled"), [(CORRECT, "correct", "Water."), (FEEDBACK, "feedback", None)]
)
async def test_a_form_brings_words_about_the_answer(world: World, menu: str, command: str, prefilled: str | None):
    """Simulated platform."""
    answer_with(world, Reply(text="Noted.", notice=True))
    answer = await answered(world)
    shown = await world.alice.context_menu(world.channel, menu, answer)
    assert shown.modal["components"][0]["component"].get("value") == prefilled
    result = await world.alice.submit_modal(shown, {"text": "Drops of water."})
    event = world.bot.only()
    assert isinstance(event, Commanded)
    assert (event.command, event.argument, event.message_key) == (command, "Drops of water.", str(answer.id))
    assert event.is_interaction
    assert (result.response.content, result.response.ephemeral) == ("Noted.", True)


async def test_a_form_can_be_handed_in_after_a_restart(world: World):
    """Simulated platform."""
    answer = await answered(world)
    shown = await world.alice.context_menu(world.channel, FEEDBACK, answer)
    await world.restart()
    await world.alice.submit_modal(shown, {"text": "shorter"})
    event = world.bot.only()
    assert isinstance(event, Commanded)
    assert (event.command, event.argument, event.message_key) == ("feedback", "shorter", str(answer.id))


@pytest.mark.parametrize("restarted", [False, True], ids=["", "after a restart"])
async def test_a_button_is_a_press_on_its_message(world: World, restarted: bool):
    """Simulated platform."""
    answer_with(world, Reply(text="Undone.", notice=True))
    answer = await answered(world, Button(label="Undo", action="undo:7"))
    if restarted:
        await world.restart()
    result = await world.alice.click(answer, label="Undo")
    event = world.bot.only()
    assert isinstance(event, Pressed)
    assert (event.action, event.message_key, event.account) == ("undo:7", str(answer.id), str(world.alice.id))
    assert event.own_key == event.update_key and event.is_interaction
    assert [(one.content, one.ephemeral) for one in result.followups] == [("Undone.", True)]


async def test_a_press_without_an_answer_leaves_nothing_hanging(world: World):
    """Simulated platform."""
    answer = await answered(world, Button(label="Undo", action="undo:7"))
    result = await world.alice.click(answer, label="Undo")
    assert result.acknowledged
    assert (len(world.channel.history()), result.followups) == (1, [])


async def test_a_button_may_open_a_form_about_its_message(world: World):
    """Simulated platform."""
    answer = await answered(world, Button(label="Say it", action="modal:feedback:17"))
    shown = await world.alice.click(answer, label="Say it")
    await world.alice.submit_modal(shown, {"text": "shorter"})
    event = world.bot.only()
    assert isinstance(event, Commanded)
    assert (event.command, event.argument, event.message_key) == ("feedback", "shorter", str(answer.id))


async def test_buttons_and_forms_are_not_kept_in_memory(world: World):
    """Simulated platform."""
    store = world.env.bot._connection._view_store
    answer = await answered(world, Button(label="Say it", action="modal:feedback:17"))
    await world.alice.click(answer, label="Say it")
    assert (store._views, store._modals) == ({}, {})


async def test_what_cannot_be_stored_is_told_to_the_person(world: World):
    """Simulated platform."""
    world.bot.n_failures = 100
    result = await world.alice.slash(world.channel, "feedback", text="shorter")
    assert world.bot.accepted == []
    assert result.response.content.startswith("I could not note that")


async def test_a_late_acknowledgement_does_not_lose_the_command(world: World):
    """Simulated platform."""
    answer_with(world, Reply(text="Noted.", notice=True))
    world.env.inject_error("POST", "/interactions/*/*/callback", status=404, code=10062)
    await world.alice.slash(world.channel, "feedback", text="shorter")
    assert len(world.bot.accepted) == 1
    assert world.channel.last_message.content == "Noted."


async def test_commands_are_told_to_discord_only_when_they_changed(world: World, bot, tmp_path):
    """Simulated platform."""

    def n_told() -> int:
        return len(world.requests("PUT", "/commands"))

    assert n_told() == 1
    await world.restart()
    assert n_told() == 1
    bot.chat = make_chat(synced_path=tmp_path / "synced", commands=COMMANDS | {"learned": "what I learned"})
    await world.restart()
    assert n_told() == 2
    await world.alice.slash(world.channel, "learned")
    assert len(world.bot.accepted) == 1


async def test_a_bot_that_discord_takes_no_commands_from_talks_all_the_same(world: World, bot, tmp_path):
    """Simulated platform."""
    (tmp_path / "synced").unlink()
    world.env.inject_error("PUT", "/applications/*/commands", status=429)
    await world.restart()
    await world.alice.send(world.channel, f"{world.at} What is rain?")
    assert len(world.bot.accepted) == 1
    assert not (tmp_path / "synced").exists()
