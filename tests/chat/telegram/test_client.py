"""The Telegram client over real HTTP against a simulated platform."""

from __future__ import annotations

import asyncio
import logging
import re

import pytest

from claasbot.chat.telegram.client import MARKS
from claasbot.chat.telegram.receiving import TelegramRules
from claasbot.domain.conversation import Button, Commanded, Left, Moved, Pressed, Reacted, Reply, Said, Stopped
from claasbot.errors import ChatError, ChatGone, SettingsError, StoreError
from claasbot.settings import every_field
from tests.chat.telegram.people import LEGAL_REACTIONS
from tests.chat.telegram.running_bot import running

NOTICE = Reply(text="Noted.", notice=True)


@pytest.fixture
async def bot(fake):
    async with running(fake) as bot:
        yield bot


@pytest.fixture
def ada(fake):
    return fake.person("Ada")


# Receiving.


async def test_what_people_say_is_accepted_and_then_acknowledged(fake, bot, ada):
    chat = fake.private_chat(ada)
    bot.may_commit.clear()
    ada.say(chat, "What is rain?")
    await fake.until(lambda: fake.polls)
    assert fake.bot.updates.pending, "not before it is committed"
    bot.may_commit.set()
    assert (await bot.next(Said)).text == "What is rain?"
    await fake.all_read()


async def test_an_update_that_cannot_be_stored_is_tried_again_after_a_pause(fake, bot, ada):
    chat = fake.private_chat(ada)
    bot.accept_raises = StoreError("the disk is full; make room")
    ada.say(chat, "What is rain?")
    await fake.until(lambda: bot.clock.sleeping)
    assert "the disk is full" in bot.chat.health().detail and bot.chat.health().state == "down"
    assert fake.bot.updates.pending
    bot.accept_raises = None
    bot.clock.advance(10)
    assert (await bot.next(Said)).text == "What is rain?"
    await fake.all_read()
    await bot.is_healthy()


async def test_what_was_not_acknowledged_comes_again_after_a_restart_under_the_same_key(fake, ada):
    chat = fake.private_chat(ada)
    keys = []
    for _ in range(2):
        async with running(fake, start=False) as bot:
            fake.bot.updates.pending = list(fake.bot.updates.history)
            if not keys:
                ada.say(chat, "What is rain?")
            keys.append((await bot.next(Said)).update_key)
    assert keys[0] == keys[1]


async def test_an_update_that_nobody_understands_is_skipped_and_named_by_its_number(fake, bot, ada, caplog):
    chat = fake.private_chat(ada)
    ada.say(chat, "a secret")
    fake.bot.updates.pending[-1]["message"]["date"] = "no date"
    ada.say(chat, "What is rain?")
    assert (await bot.next(Said)).text == "What is rain?"
    assert str(fake.bot.updates.history[-2]["update_id"]) in caplog.text
    assert "a secret" not in caplog.text
    assert "date" in fake.take_problems()[0]


async def test_reactions_arrive_with_the_topic_in_which_their_message_stands(fake, bot, ada):
    forum = fake.group("Forum", members=[ada], forum=True)
    topic = forum.topic("Weather")
    (key,) = await bot.chat.send(bot.address(forum, topic), NOTICE)
    ada.react(forum.find(int(key)), "👍")
    reacted = await bot.next(Reacted)
    assert (reacted.address, reacted.message_key) == (bot.address(forum, topic), key)


async def test_reactions_on_other_peoples_messages_are_dropped(fake, bot, ada):
    group = fake.group("Group", members=[ada])
    theirs = fake.person("Bob").say(group, "Hello all")
    ada.react(theirs, "👍")
    await fake.all_read()
    assert bot.accepted == []


async def test_after_a_restart_the_app_tells_which_message_was_the_bots(fake, ada):
    group = fake.group("Group", members=[ada])
    async with running(fake) as bot:
        (key,) = await bot.chat.send(bot.address(group), NOTICE)
    asked = []

    async def chat_of_message(chat_id: str, message_key: str) -> str | None:
        asked.append((chat_id, message_key))
        return chat_id if message_key == key else None

    async with running(fake, chat_of_message=chat_of_message) as bot:
        ada.react(fake.person("Bob").say(group, "Hello"), "👎")
        ada.react(group.find(int(key)), "👍")
        assert (await bot.next(Reacted)).reaction == "👍"
    assert asked[-1] == (str(group.id), key) and len(asked) == 2


async def test_a_press_is_answered_at_once(fake, bot, ada):
    chat = fake.private_chat(ada)
    (key,) = await bot.chat.send(
        bot.address(chat), Reply(text="Undo?", notice=True, buttons=(Button(label="Undo", action="undo:3"),))
    )
    press = ada.press(chat.messages[-1], "Undo")
    pressed = await bot.next(Pressed)
    assert (pressed.action, pressed.message_key, pressed.account) == ("undo:3", key, str(ada.id))
    await fake.until(lambda: press.is_answered)


async def test_a_press_that_cannot_be_answered_counts_all_the_same(fake, bot, ada):
    chat = fake.private_chat(ada)
    await bot.chat.send(
        bot.address(chat), Reply(text="Undo?", notice=True, buttons=(Button(label="Undo", action="undo"),))
    )
    fake.fail_next("answerCallbackQuery", 400, "Bad Request: query is too old")
    ada.press(chat.messages[-1], "Undo")
    await bot.next(Pressed)


async def test_the_menu_is_set_and_reactions_are_subscribed(fake, bot):
    (call,) = fake.calls_of("setMyCommands")
    assert [one["command"] for one in call["commands"]] == ["help", "retry"]
    assert "message_reaction" in fake.bot.updates.kinds and "stopped_message_generation" in fake.bot.updates.kinds


async def test_a_bot_that_is_blocked_or_put_out_says_so(fake, bot, ada):
    chat, group = fake.private_chat(ada), fake.group("Group", members=[ada])
    ada.block(chat)
    assert (await bot.next(Left)).address == bot.address(chat)
    group.remove_bot()
    assert (await bot.next(Left)).address == bot.address(group)


async def test_an_album_without_words_is_one_message(fake, bot, ada):
    chat = fake.private_chat(ada)
    photo = [{"file_id": "P", "file_unique_id": "p", "width": 1, "height": 1}]
    for _ in range(3):
        ada.send(chat, photo=photo, media_group_id="album-1")
    ada.say(chat, "and this")
    assert [(await bot.next(Said)).text, (await bot.next(Said)).text] == ["", "and this"]


async def test_a_file_is_read_when_it_is_needed(fake, bot, ada):
    ada.attach(fake.private_chat(ada), "notes.md", "Größe: 3".encode(), "Read this")
    said = await bot.next(Said)
    assert await bot.chat.read(said.attachments[0]) == "Größe: 3"


async def test_a_file_that_is_no_text_or_too_large_is_refused_with_a_reason(fake, bot, ada):
    chat = fake.private_chat(ada)
    ada.attach(chat, "notes.txt", b"\xff\x00\x81", "Read this")
    with pytest.raises(ChatError, match="UTF-8"):
        await bot.chat.read((await bot.next(Said)).attachments[0])
    ada.attach(chat, "large.log", b"x" * 300_000)
    with pytest.raises(ChatError, match="at most"):
        await bot.chat.read((await bot.next(Said)).attachments[0])


# Sending.


async def test_an_answer_is_formatted_and_a_notice_means_what_it_says(fake, bot, ada):
    chat = fake.private_chat(ada)
    await bot.chat.send(bot.address(chat), Reply(text="**Rain** is `H2O`."))
    assert chat.messages[-1].text == "Rain is H2O."
    assert chat.messages[-1].shown.spans("bold") == ["Rain"]
    await bot.chat.send(bot.address(chat), Reply(text="/feedback a_b_c *now*", notice=True))
    assert chat.messages[-1].text == "/feedback a_b_c *now*"


async def test_a_long_reply_is_several_messages_with_the_buttons_under_the_last(fake, bot, ada):
    chat = fake.private_chat(ada)
    reply = Reply(text="```py\n" + "x = 1\n" * 1_000 + "```", buttons=(Button(label="Good", action="good"),))
    keys = await bot.chat.send(bot.address(chat), reply)
    assert [message.buttons for message in chat.messages] == [[], ["Good"]]
    assert keys == tuple(str(message.id) for message in chat.messages)
    assert all(message.shown.spans("pre") == [message.text] for message in chat.messages)


async def test_replies_quote_in_groups_only(fake, bot, ada):
    chat, group = fake.private_chat(ada), fake.group("Group", members=[ada])
    question, in_group = ada.say(chat, "hi"), ada.say(group, "/help")
    await bot.chat.send(bot.address(chat), NOTICE, reply_to=str(question.id))
    await bot.chat.send(bot.address(group), NOTICE, reply_to=str(in_group.id))
    assert chat.messages[-1].reply_to is None
    assert group.messages[-1].reply_to is in_group


async def test_an_answer_to_a_message_that_is_gone_comes_all_the_same(fake, bot, ada):
    group = fake.group("Group", members=[ada])
    question = ada.say(group, "/help")
    ada.delete(question)
    await bot.chat.send(bot.address(group), NOTICE, reply_to=str(question.id))
    assert group.messages[-1].text == "Noted."


async def test_an_answer_to_a_press_quotes_nothing(fake, bot, ada):
    group = fake.group("Group", members=[ada])
    await bot.chat.send(bot.address(group), NOTICE, reply_to="press:4711")
    assert group.messages[-1].reply_to is None


async def test_formatting_that_is_refused_is_left_away(fake, bot, ada):
    chat = fake.private_chat(ada)
    fake.fail_next("sendMessage", 400, "Bad Request: can't parse entities: unsupported entity")
    await bot.chat.send(bot.address(chat), Reply(text="**Rain**"))
    assert [(message.text, message.entities) for message in chat.messages] == [("Rain", ())]


async def test_flood_control_is_waited_for_and_never_taken_for_bad_formatting(fake, bot, ada):
    chat = fake.private_chat(ada)
    await bot.is_healthy()
    fake.fail_next("sendMessage", 429, retry_after=20)
    sending = asyncio.create_task(bot.chat.send(bot.address(chat), Reply(text="**Rain**")))
    await fake.until(lambda: bot.clock.sleeping)
    assert bot.chat.health().state == "busy" and "20 s" in bot.chat.health().detail
    assert bot.clock.sleeps_for() == [20]
    bot.clock.advance(20)
    await sending
    assert chat.messages[-1].shown.spans("bold") == ["Rain"]
    assert len(fake.calls_of("sendMessage")) == 2


async def finishing(bot, chat) -> asyncio.Task[object]:
    """A final that waits out the pause which Telegram asks for."""
    bot.fake.fail_next("sendMessage", 429, retry_after=200)
    writer = await bot.chat.open_reply(bot.address(chat), None)
    ended = asyncio.create_task(writer.finish(Reply(text="Water.")))
    await bot.fake.until(lambda: 200 in bot.clock.sleeps_for())
    return ended


async def test_a_notice_does_not_wait_out_a_long_pause_and_says_how_long_it_is(fake, bot, ada):
    """The answer does, and holds the chat meanwhile."""
    chat, other = fake.private_chat(ada), fake.private_chat(fake.person("Bob"))
    question = ada.say(chat, "What is rain?")
    await bot.is_healthy()
    ended = await finishing(bot, chat)
    with pytest.raises(ChatError, match="200 s"):
        await bot.chat.send(bot.address(chat), NOTICE)
    await bot.chat.mark(bot.address(chat), str(question.id), "noted")
    await bot.chat.send(bot.address(other), NOTICE)
    assert [one.text for one in other.messages] == ["Noted."]
    bot.clock.advance(200)
    await ended
    assert [one.text for one in chat.messages] == ["What is rain?", "Water."]


async def test_a_notice_that_is_refused_with_a_long_pause_gives_up_at_once(fake, bot, ada):
    chat = fake.private_chat(ada)
    fake.fail_next("sendMessage", 429, retry_after=200)
    with pytest.raises(ChatError, match="200 s"):
        await bot.chat.send(bot.address(chat), NOTICE)


async def test_a_notice_gives_up_within_half_a_minute_where_telegram_is_not_reached(fake, bot, ada):
    chat = fake.private_chat(ada)
    fake.drop_next("sendMessage", times=50)
    began = bot.clock.now()
    sending = asyncio.create_task(bot.chat.send(bot.address(chat), NOTICE))
    sending.add_done_callback(lambda _: fake.world.changed())
    while not sending.done():
        await fake.until(lambda: bot.clock.sleeps_for() or sending.done())
        bot.clock.advance(min(bot.clock.sleeps_for(), default=0))
    with pytest.raises(ChatError, match="not reached"):
        await sending
    assert bot.clock.now() - began <= 30
    fake.forget_faults()


async def test_a_notice_does_not_wait_long_for_a_reply_that_holds_the_chat(fake, ada):
    async with running(fake, notice_s=0.01) as bot:
        chat = fake.private_chat(ada)
        hold = fake.hold_next("sendMessage")
        writer = await bot.chat.open_reply(bot.address(chat), None)
        ended = asyncio.create_task(writer.finish(Reply(text="Water.")))
        await hold.reached.wait()
        with pytest.raises(ChatError, match="try again"):
            await bot.chat.send(bot.address(chat), NOTICE)
        hold.release()
        await ended


async def test_a_server_that_stumbles_is_tried_again_and_nothing_is_doubled(fake, bot, ada):
    chat = fake.private_chat(ada)
    fake.fail_next("sendMessage", 502)
    sending = asyncio.create_task(bot.chat.send(bot.address(chat), NOTICE))
    await fake.until(lambda: bot.clock.sleeping)
    bot.clock.advance(5)
    await sending
    assert [message.text for message in chat.messages] == ["Noted."]


async def test_two_long_replies_do_not_mix(fake, bot, ada):
    chat = fake.private_chat(ada)
    hold = fake.hold_next("sendMessage")
    sending = [
        asyncio.create_task(bot.chat.send(bot.address(chat), Reply(text=letter * 6_000, notice=True)))
        for letter in ("a", "b")
    ]
    await hold.reached.wait()
    await asyncio.wait(sending, timeout=0.05)
    hold.release()
    await fake.until(lambda: bot.clock.sleeping)
    bot.clock.advance(5)
    await asyncio.gather(*sending)
    assert [message.text[0] for message in chat.messages] == ["a", "a", "b", "b"]


async def test_a_blocked_bot_gives_up_for_good(fake, bot, ada):
    chat = fake.private_chat(ada)
    ada.block(chat)
    with pytest.raises(ChatGone, match="blocked by the user"):
        await bot.chat.send(bot.address(chat), NOTICE)


async def test_other_refusals_say_what_to_do(fake, bot, ada):
    chat = fake.private_chat(ada)
    fake.fail_next("sendMessage", 400, "Bad Request: not enough rights to send text messages to the chat")
    with pytest.raises(ChatError, match="let the bot write") as caught:
        await bot.chat.send(bot.address(chat), NOTICE)
    assert not isinstance(caught.value, ChatGone)


async def test_a_group_that_was_upgraded_gets_its_message_and_its_new_name_is_told(fake, bot, ada):
    group = fake.group("Group", members=[ada], supergroup=False)
    new = group.upgrade()
    told = await bot.next(Moved)
    await bot.chat.send(bot.address(group), NOTICE)
    assert new.messages[-1].text == "Noted."
    again = await bot.next(Moved)
    assert told.to_chat == again.to_chat == str(new.id)
    assert told.update_key == again.update_key


async def test_a_file_comes_as_a_document(fake, bot, ada, tmp_path):
    chat = fake.private_chat(ada)
    (tmp_path / "x.zip").write_bytes(b"PK\x00\xff")
    data = {"file_name": "me.zip", "file_path": str(tmp_path / "x.zip")}
    (key,) = await bot.chat.send(bot.address(chat), Reply(text="Here is all.", notice=True, data=data))
    message = chat.find(int(key))
    assert (message.text, message.file.name, message.file.data) == ("Here is all.", "me.zip", b"PK\x00\xff")


@pytest.mark.parametrize("buttons", [(), (Button(label="Let Eve in", action="pair:7"),)])
async def test_nothing_of_what_is_personal_is_shown_in_a_group(fake, bot, ada, buttons):
    group = fake.group("Group", members=[ada])
    data = {"file_name": "me.zip", "file_path": "/nowhere/me.zip"}
    reply = Reply(text="p1.v1: “told in private”", notice=True, personal=True, buttons=buttons, data=data)
    await bot.is_healthy()
    writer = await bot.chat.open_reply(bot.address(group), None)
    await writer.finish(reply)
    await bot.chat.send(bot.address(group), reply)
    only = ("That is for you alone: write to me in private, t.me/claas_test_bot", [], None)
    assert [(one.text, one.buttons, one.file) for one in group.messages] == [only, only]


async def test_what_is_personal_is_whole_in_a_private_chat(fake, bot, ada):
    chat = fake.private_chat(ada)
    await bot.chat.send(bot.address(chat), Reply(text="One.\nTwo.", notice=True, personal=True))
    assert chat.messages[-1].text == "One.\nTwo."


async def test_an_action_that_does_not_fit_under_a_button_is_refused(fake, bot, ada):
    chat = fake.private_chat(ada)
    for action in ("x" * 65, "", "é" * 33):
        with pytest.raises(ChatError, match="64"):
            await bot.chat.send(bot.address(chat), Reply(text="?", buttons=(Button(label="a", action=action),)))
    await bot.chat.send(bot.address(chat), Reply(text="?", buttons=(Button(label="a", action="é" * 32),)))
    assert chat.messages[-1].buttons == ["a"]


async def test_a_chat_of_another_platform_is_refused(bot, fake, ada):
    address = bot.address(fake.private_chat(ada))
    with pytest.raises(ChatError, match="general"):
        await bot.chat.send(type(address)(platform="telegram", bot_account="1", chat="general"), NOTICE)


# Marks.


def test_every_mark_is_a_reaction_that_telegram_allows():
    assert set(MARKS.values()) <= LEGAL_REACTIONS


async def test_marks_replace_one_another_and_go(fake, bot, ada):
    chat = fake.private_chat(ada)
    message = ada.say(chat, "shorter, please")
    for mark, seen in [("noted", ["👀"]), ("queued", ["✍"]), ("learned", ["🤓"]), ("refused", ["🤔"]), (None, [])]:
        await bot.chat.mark(bot.address(chat), str(message.id), mark)
        assert message.reactions == seen


@pytest.mark.parametrize("key", ["999", "press:4711", "a message from before the restart"])
async def test_a_mark_that_cannot_be_shown_is_no_matter(fake, bot, ada, key):
    await bot.chat.mark(bot.address(fake.private_chat(ada)), key, "noted")


async def test_a_mark_that_the_administrators_forbid_does_not_hold_up_the_reply(fake, bot, ada):
    group = fake.group("Group", members=[ada])
    group.allowed_reactions = {"👍"}
    question = ada.say(group, "/help")
    await bot.chat.mark(bot.address(group), str(question.id), "noted")
    await bot.chat.send(bot.address(group), NOTICE)
    assert group.messages[-1].text == "Noted."


async def test_a_mark_is_dropped_rather_than_waited_for_during_flood_control(fake, bot, ada):
    chat = fake.private_chat(ada)
    message = ada.say(chat, "hi")
    fake.fail_next("setMessageReaction", 429, retry_after=200)
    await bot.chat.mark(bot.address(chat), str(message.id), "noted")
    await bot.chat.mark(bot.address(chat), str(message.id), "queued")
    assert len(fake.calls_of("setMessageReaction")) == 1


# Trouble.


async def test_good_health_names_the_account(bot):
    assert "@claas_test_bot" in await bot.is_healthy()


async def test_a_group_without_rights_is_told(fake, bot, ada):
    await bot.is_healthy()
    group = fake.group("Group", members=[ada], bot_is_admin=False)
    await fake.until(lambda: "administrator" in bot.chat.health().detail)
    group.promote()
    await fake.until(lambda: "administrator" not in bot.chat.health().detail)


async def test_a_second_poller_is_explained_and_waited_for_with_growing_pauses(fake, bot, ada):
    fake.fail_next("getUpdates", 409, times=3)
    ada.say(fake.private_chat(ada), "wake up")
    pauses = []
    for _ in range(3):
        await fake.until(lambda: bot.clock.sleeping)
        assert "another program" in bot.chat.health().detail
        pauses += bot.clock.sleeps_for()
        bot.clock.advance(pauses[-1])
        await fake.until(lambda: not bot.clock.sleeping)
    assert pauses == [5, 10, 20]
    await bot.is_healthy()


async def test_a_webhook_that_somebody_set_is_explained(fake, bot, ada):
    fake.fail_next(
        "getUpdates", 409, "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete"
    )
    ada.say(fake.private_chat(ada), "wake up")
    assert "webhook" in await bot.is_healthy("down")


async def test_a_revoked_token_is_explained_without_showing_it_and_tried_rarely(fake, ada, caplog):
    caplog.set_level(logging.DEBUG)
    async with running(fake) as bot:
        await bot.is_healthy()
        fake.bot.is_revoked = True
        ada.say(fake.private_chat(ada), "wake up")
        assert "BotFather" in await bot.is_healthy("down")
        assert bot.clock.sleeps_for() == [60]
        with pytest.raises(ChatError, match="BotFather") as caught:
            await bot.chat.send(bot.address(fake.world.chats[0]), NOTICE)
        fake.bot.is_revoked = False
        bot.clock.advance(60)
        await bot.is_healthy()
    secret = fake.bot.token.split(":")[1]
    shown = caplog.text + str(caught.value) + repr(TelegramRules(token=fake.bot.token))
    assert secret not in shown


async def test_no_network_is_explained_and_tried_again(fake):
    port = fake.port
    await fake.stop()
    async with running(fake, start=False, base_url=f"http://127.0.0.1:{port}/bot") as bot:
        await fake.until(lambda: bot.clock.sleeping)
        assert "network" in bot.chat.health().detail
        await fake.start()
        bot.clock.advance(1)
        await bot.is_healthy()


async def test_a_poll_that_never_comes_back_is_begun_anew(fake, ada):
    hold = fake.hold_next("getUpdates")
    async with running(fake, poll_s=0, watchdog_s=0.05) as bot:
        await hold.reached.wait()
        ada.say(fake.private_chat(ada), "hello?")
        await bot.next(Said)
        hold.release()


def test_a_token_that_is_none_is_refused_without_showing_it():
    with pytest.raises(SettingsError, match="BotFather") as caught:
        TelegramRules(token="my-secret")
    assert "my-secret" not in str(caught.value)
    assert "telegram.tokens" in str(caught.value), "the setting's name"


# By webhook.


async def test_by_webhook_updates_need_the_secret(fake, ada):
    rules = {"webhook_url": "https://bot.example/telegram", "webhook_secret": "s3cret"}
    async with running(fake, start=False, **rules) as bot:
        await bot.is_healthy()
        (call,) = fake.calls_of("setWebhook")
        assert (call["secret_token"], call["max_connections"]) == ("s3cret", 1)
        assert "message_reaction" in call["allowed_updates"]
        user = {"id": ada.id, "is_bot": False, "first_name": "Ada"}
        message = {"message_id": 1, "date": 1, "chat": {"id": ada.id, "type": "private"}, "from": user, "text": "hi"}
        update = {"update_id": 1, "message": message}
        for wrong in (None, "", "S3cret"):
            assert not await bot.chat.receive(update, wrong)
        assert bot.accepted == []
        assert await bot.chat.receive(update, "s3cret")
        assert (await bot.next(Said)).text == "hi"
        bot.accept_raises = StoreError("the disk is full; make room")
        with pytest.raises(StoreError):
            await bot.chat.receive(update, "s3cret")
        assert not fake.polls


async def test_a_webhook_that_was_taken_away_is_set_again(fake):
    rules = {"webhook_url": "https://bot.example/telegram", "webhook_secret": "s3cret"}
    async with running(fake, start=False, **rules) as bot:
        await bot.is_healthy()
        fake.bot.updates.set_webhook(None)
        bot.clock.advance(300)
        assert "taken away" in await bot.is_healthy("down")
        bot.clock.advance(10)
        await bot.is_healthy()
        assert len(fake.calls_of("setWebhook")) == 2


def test_a_webhook_without_a_secret_is_refused():
    with pytest.raises(SettingsError, match=r"telegram\.webhook_url") as caught:
        TelegramRules(token=f"1:{'a' * 35}", webhook_url="https://bot.example/telegram")
    named = set(re.findall(r"telegram\.\w+", str(caught.value)))
    assert named <= {name for name, _, _ in every_field()}


async def test_commands_and_stops_arrive(fake, bot, ada):
    chat = fake.private_chat(ada)
    ada.say(chat, "/retry shorter")
    assert (await bot.next(Commanded)).argument == "shorter"
    writer = await bot.chat.open_reply(bot.address(chat), None)
    await writer.write("A text that is long enough to be shown.")
    await fake.until(lambda: chat.draft)
    ada.stop_generation(chat)
    assert (await bot.next(Stopped)).address == bot.address(chat)
    await writer.finish(Reply(text="A text that is long"))
