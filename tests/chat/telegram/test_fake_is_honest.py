"""Simulated platform: the stand-in for Telegram's server against referees that its authors did not write.

aiogram's schema of the Bot API, Telegram's own text parser, and two clients that know nothing of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiogram
import aiohttp
import pytest
import telegram
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.types import BufferedInputFile, ReactionTypeEmoji
from aiohttp import web
from telegram.error import BadRequest, ChatMigrated, Conflict, Forbidden, NetworkError, RetryAfter

from tests.chat.telegram.fake_bot_api import FakeBotApi
from tests.chat.telegram.faults import Rates
from tests.chat.telegram.formatting import accepted_by_official_parser
from tests.chat.telegram.people import LEGAL_REACTIONS
from tests.chat.telegram.world import Chat

EVERY = [
    "message",
    "edited_message",
    "message_reaction",
    "callback_query",
    "my_chat_member",
    "stopped_message_generation",
]


@pytest.fixture
async def bot(fake: FakeBotApi) -> AsyncIterator[telegram.Bot]:
    """python-telegram-bot, without its updater."""
    bot = telegram.Bot(fake.bot.token, base_url=fake.base_url, base_file_url=fake.base_file_url)
    await bot.initialize()
    yield bot
    await bot.shutdown()


async def raw(fake: FakeBotApi, method: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{fake.base_url}{fake.bot.token}/{method}", json=arguments) as response,
    ):
        return response.status, await response.json()


async def refused(awaitable: Awaitable[Any]) -> str:
    with pytest.raises(BadRequest) as caught:
        await awaitable
    return caught.value.message


def draft_of(chat: Chat) -> str | None:
    return chat.draft.text if chat.draft else None


async def test_a_field_that_the_bot_api_does_not_know_is_a_problem(fake: FakeBotApi) -> None:
    chat = fake.private_chat(fake.person("Ada"))
    status, _ = await raw(fake, "sendMessage", chat_id=chat.id, text="hi", reply_to=3)
    assert status == 200  # the official server ignores it too
    assert fake.take_problems() == ["sendMessage.reply_to: unknown field"]


async def test_unknown_fields_deep_inside_a_call_are_found(fake: FakeBotApi) -> None:
    chat = fake.private_chat(fake.person("Ada"))
    markup = {"inline_keyboard": [[{"text": "Good", "callback_data": "1", "colour": "red"}]]}
    await raw(fake, "sendMessage", chat_id=chat.id, text="hi", reply_markup=markup)
    (problem,) = fake.take_problems()
    assert problem.endswith("inline_keyboard.0.0.colour: unknown field")


async def test_fields_that_the_bot_api_gave_up_are_a_problem(fake: FakeBotApi) -> None:
    chat = fake.private_chat(fake.person("Ada"))
    await raw(fake, "sendMessage", chat_id=chat.id, text="hi", reply_to_message_id=3)
    assert fake.take_problems() == ["sendMessage.reply_to_message_id: deprecated field"]


async def test_a_missing_argument_is_refused_and_a_problem(fake: FakeBotApi) -> None:
    status, answer = await raw(fake, "sendMessage", text="hi")
    assert (status, answer["description"]) == (400, "Bad Request: sendMessage.chat_id: Field required")
    assert fake.take_problems() == ["sendMessage.chat_id: Field required"]


async def test_a_method_that_does_not_exist_is_a_problem_unless_clients_may_do_without_it(fake: FakeBotApi) -> None:
    assert await raw(fake, "sendTelepathy", chat_id=1) == (
        404,
        {"ok": False, "error_code": 404, "description": "Not Found: method not found"},
    )
    assert fake.take_problems() == ["sendTelepathy: no method of this server"]
    status, _ = await raw(fake, "sendRichMessage", chat_id=1)
    assert status == 404
    assert not fake.problems


async def test_an_update_that_the_bot_api_does_not_know_is_a_problem(fake: FakeBotApi) -> None:
    fake.bot.updates.add("message", {"message_id": 1, "mood": "good"})
    problems = fake.take_problems()
    assert any("update.message.chat: Field required" in one for one in problems), problems


async def test_an_answer_that_the_bot_api_does_not_know_is_a_problem(fake: FakeBotApi) -> None:
    fake.bot.first_name = None  # type: ignore[assignment]
    await raw(fake, "getMe")
    (problem,) = fake.take_problems()
    assert problem.startswith("the simulation answers wrongly: result of getMe.first_name")


async def test_broken_markup_is_refused_in_the_parsers_own_words(fake: FakeBotApi, bot: telegram.Bot) -> None:
    chat = fake.private_chat(fake.person("Ada"))
    unclosed = bot.send_message(chat.id, "<b>bold", parse_mode="HTML")
    assert await refused(unclosed) == "Can't parse entities: can't find end tag corresponding to start tag \"b\""
    unescaped = bot.send_message(chat.id, "Hi.", parse_mode="MarkdownV2")
    assert "character '.' is reserved" in await refused(unescaped)
    assert not chat.messages


async def test_markup_becomes_entities_and_links_are_found(fake: FakeBotApi, bot: telegram.Bot) -> None:
    chat = fake.private_chat(fake.person("Ada"))
    text = '😀 <b>bold</b> <pre><code class="language-py">http://a.org</code></pre> http://b.org'
    sent = await bot.send_message(chat.id, text, parse_mode="HTML")
    assert chat.messages[0].text == sent.text == "😀 bold http://a.org http://b.org"
    assert sent.parse_entities() == {
        sent.entities[0]: "bold",
        sent.entities[1]: "http://a.org",
        sent.entities[2]: "http://b.org",
    }
    assert [entity.type for entity in sent.entities] == ["bold", "pre", "url"]
    assert chat.messages[0].shown.spans("bold") == ["bold"]


async def test_what_people_type_gets_commands_mentions_and_links(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    ada.say(fake.private_chat(ada), "/undo@claas_test_bot 😀 @grace_h https://x.org")
    (update,) = await bot.get_updates()
    assert update.message is not None
    found = {entity.type: words for entity, words in update.message.parse_entities().items()}
    assert found == {"bot_command": "/undo@claas_test_bot", "mention": "@grace_h", "url": "https://x.org"}


@pytest.mark.parametrize(
    ("text", "entity", "is_accepted"),
    [
        ("hello \ud83d", {"type": "bold", "offset": 0, "length": 5}, False),
        ("hello", {"type": "bold", "offset": 0, "length": 5}, True),
        ("hello", {"type": "bold", "offset": 0, "length": 6}, False),
        ("hello", {"type": "bold", "offset": -1, "length": 2}, False),
        ("😀llo", {"type": "bold", "offset": 0, "length": 2}, True),
        ("😀llo", {"type": "bold", "offset": 1, "length": 2}, False),  # half an emoji
        ("hello", {"type": "text_link", "offset": 0, "length": 5, "url": "http://a.org"}, True),
        ("hello", {"type": "text_link", "offset": 0, "length": 5, "url": "nowhere"}, False),
        ("hello", {"type": "loud", "offset": 0, "length": 5}, False),
        ("a" * 4097, {"type": "bold", "offset": 0, "length": 1}, False),
        (" \n ", {"type": "bold", "offset": 0, "length": 1}, False),
    ],
)
def test_entities_are_judged_in_utf16_units(text: str, entity: dict[str, Any], is_accepted: bool) -> None:
    assert accepted_by_official_parser(text, [entity]) is is_accepted


async def test_an_entity_outside_the_text_is_refused(fake: FakeBotApi, bot: telegram.Bot) -> None:
    chat = fake.private_chat(fake.person("Ada"))
    entities = [telegram.MessageEntity("bold", 3, 9)]
    assert "ends after the end of the text" in await refused(bot.send_message(chat.id, "hello", entities=entities))


async def test_a_message_travels_both_ways(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    chat = fake.private_chat(ada)
    question = ada.say(chat, "What is 2 + 2?")
    (update,) = await bot.get_updates(allowed_updates=EVERY)
    assert update.message is not None and update.message.text == "What is 2 + 2?"
    assert update.effective_user is not None and update.effective_user.id == ada.id
    reply = telegram.ReplyParameters(question.id, quote="2 + 2")
    sent = await bot.send_message(chat.id, "4", reply_parameters=reply)
    assert [one.text for one in chat.messages] == ["What is 2 + 2?", "4"]
    assert chat.messages[1].reply_to is question
    assert sent.reply_to_message is not None and sent.reply_to_message.text == question.text
    assert sent.quote is not None and (sent.quote.text, sent.quote.position) == ("2 + 2", 8)


async def test_updates_come_again_until_they_are_acknowledged(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    chat = fake.private_chat(ada)
    ada.say(chat, "one")
    ada.say(chat, "two")
    first, second = await bot.get_updates()
    assert first.update_id < second.update_id
    assert [one.update_id for one in await bot.get_updates(limit=1)] == [first.update_id]
    assert [one.update_id for one in await bot.get_updates(offset=second.update_id)] == [second.update_id]
    assert await bot.get_updates(offset=second.update_id + 1) == ()
    await fake.all_read()


async def test_updates_are_lost_after_a_day(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    ada.say(fake.private_chat(ada), "hello")
    fake.advance(86_401)
    assert await bot.get_updates() == ()


async def test_a_poll_waits_for_the_next_update(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    chat = fake.private_chat(ada)
    polling = asyncio.create_task(bot.get_updates(timeout=30))
    await fake.until(lambda: fake.bot.updates.is_polled)
    ada.say(chat, "hello")
    (update,) = await asyncio.wait_for(polling, 5)
    assert update.message is not None and update.message.text == "hello"


async def test_of_two_pollers_the_first_is_sent_away(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    first = asyncio.create_task(bot.get_updates(timeout=30))
    await fake.until(lambda: fake.bot.updates.is_polled)
    second = asyncio.create_task(raw(fake, "getUpdates", timeout=30))
    with pytest.raises(Conflict, match="terminated by other getUpdates request"):
        await asyncio.wait_for(first, 5)
    ada.say(fake.private_chat(ada), "hello")
    _, answer = await asyncio.wait_for(second, 5)
    assert len(answer["result"]) == 1


async def test_a_poll_whose_client_is_gone_is_no_second_poller(fake: FakeBotApi, bot: telegram.Bot) -> None:
    first = asyncio.create_task(raw(fake, "getUpdates", timeout=30))
    await fake.until(lambda: fake.bot.updates.is_polled)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await fake.until(lambda: not fake.bot.updates.is_polled)
    second = asyncio.create_task(bot.get_updates(timeout=30))
    await fake.until(lambda: fake.bot.updates.is_polled)
    ada = fake.person("Ada")
    ada.say(fake.private_chat(ada), "hello")
    assert len(await asyncio.wait_for(second, 5)) == 1
    assert [poll.status for poll in fake.polls] == [0, 200]


async def test_a_subscription_stays_until_another_is_named(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    chat = fake.private_chat(ada)
    hello = ada.say(chat, "hello")
    ada.react(hello, "👍")  # by default nobody hears of reactions
    await bot.get_updates(offset=-1)
    await bot.get_updates(allowed_updates=["message_reaction"])
    await bot.get_updates()
    ada.react(hello, "👎")
    ada.say(chat, "not subscribed")
    update = (await bot.get_updates())[-1]
    assert update.message_reaction is not None
    assert [one.to_dict() for one in update.message_reaction.old_reaction] == [{"type": "emoji", "emoji": "👍"}]
    assert [one.to_dict() for one in update.message_reaction.new_reaction] == [{"type": "emoji", "emoji": "👎"}]
    assert [kind for kind, _ in fake.bot.updates.skipped] == ["message_reaction", "message"]
    await bot.get_updates(allowed_updates=[])
    ada.say(chat, "the default again")
    assert (await bot.get_updates())[-1].message is not None


@pytest.mark.parametrize("is_admin", [True, False])
async def test_reactions_in_groups_are_told_to_administrators(
    fake: FakeBotApi, bot: telegram.Bot, is_admin: bool
) -> None:
    ada = fake.person("Ada")
    group = fake.group("team", members=[ada], bot_is_admin=is_admin)
    await bot.get_updates(allowed_updates=EVERY)
    sent = await bot.send_message(group.id, "an answer")
    ada.react(group.messages[0], "👍")
    group.react_anonymously(group.messages[0], "🔥")
    told = [one["message_reaction"] for one in fake.bot.updates.pending if "message_reaction" in one]
    assert [one["message_id"] for one in told] == ([sent.message_id] * 2 if is_admin else [])
    assert [("user" in one, "actor_chat" in one) for one in told] == (
        [(True, False), (False, True)] if is_admin else []
    )
    assert group.messages[0].reactions == ["👍", "🔥"]


async def test_a_bots_own_reaction_is_shown_and_told_to_nobody(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    hello = ada.say(fake.private_chat(ada), "hello")
    await bot.get_updates(allowed_updates=EVERY)
    assert await bot.set_message_reaction(ada.id, hello.id, "👀")
    assert await bot.set_message_reaction(ada.id, hello.id, "✍")
    assert hello.reactions_of(fake.bot) == ["✍"]
    assert await bot.set_message_reaction(ada.id, hello.id, [])
    assert hello.reactions == []
    assert all("message_reaction" not in one for one in fake.bot.updates.history)


async def test_only_the_73_reactions_of_telegram_are_legal(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    hello = ada.say(fake.private_chat(ada), "hello")
    assert len(LEGAL_REACTIONS) == 73
    assert (
        await refused(bot.set_message_reaction(ada.id, hello.id, telegram.ReactionTypeEmoji("🎓")))
        == "Reaction_invalid"
    )
    assert await refused(bot.set_message_reaction(ada.id, 99, "👍")) == "Message to react not found"
    assert await bot.set_message_reaction(ada.id, hello.id, telegram.ReactionTypeEmoji("❤\ufe0f"))
    assert hello.reactions == ["❤"]


async def test_drafts_are_shown_in_private_chats_until_a_message_comes(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    chat = fake.private_chat(ada)
    await bot.send_message_draft(chat.id, 7, "4", api_kwargs={"can_stop": True, "keep_on_stop": True})
    await bot.send_message_draft(chat.id, 7, "42", api_kwargs={"can_stop": True})
    assert chat.draft is not None
    assert (chat.draft.text, chat.draft.n_updates, chat.draft.can_stop) == ("42", 2, True)
    await bot.send_message(chat.id, "42")
    assert draft_of(chat) is None
    assert chat.previews == ["4", "42"]
    await bot.send_message_draft(chat.id, 8, "")
    assert draft_of(chat) == ""  # "Thinking…"
    fake.advance(31)
    assert draft_of(chat) is None
    group = fake.group("team")
    assert await refused(bot.send_message_draft(group.id, 9, "x")) == "Textdraft_peer_invalid"


async def test_the_stop_button_of_a_draft_sends_an_update(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    chat = fake.private_chat(ada)
    await bot.get_updates(allowed_updates=EVERY)
    await bot.send_message_draft(chat.id, 7, "4", api_kwargs={"can_stop": True})
    ada.stop_generation(chat)
    (update,) = await bot.get_updates()
    assert update.api_kwargs["stopped_message_generation"]["draft_id"] == 7
    await bot.send_message_draft(chat.id, 7, "42")
    assert chat.previews == ["4"]  # no further drafts
    assert draft_of(chat) is None
    await bot.send_message_draft(chat.id, 8, "4", api_kwargs={"can_stop": True, "keep_on_stop": True})
    ada.stop_generation(chat)
    assert draft_of(chat) == "4"


async def test_a_draft_without_stop_cannot_be_stopped(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    await bot.send_message_draft(fake.private_chat(ada).id, 7, "4")
    with pytest.raises(AssertionError, match="can_stop"):
        ada.stop_generation(fake.world.chats[0])


async def test_buttons_are_pressed_and_answered_once(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    chat = fake.private_chat(ada)
    button = telegram.InlineKeyboardButton("Undo", callback_data="undo:1", api_kwargs={"style": "danger"})
    await bot.send_message(chat.id, "learned", reply_markup=telegram.InlineKeyboardMarkup([[button]]))
    press = ada.press(chat.messages[0], "Undo")
    (update,) = await bot.get_updates()
    query = update.callback_query
    assert query is not None and query.data == "undo:1"
    assert isinstance(query.message, telegram.Message) and query.message.text == "learned"
    assert await bot.answer_callback_query(query.id, text="undone")
    assert (press.is_answered, press.text) == (True, "undone")
    assert "Query is too old" in await refused(bot.answer_callback_query(query.id))
    late = ada.press(chat.messages[0], "Undo")
    fake.advance(61)
    assert "Query is too old" in await refused(bot.answer_callback_query(late.query_id))


@pytest.mark.parametrize(
    ("button", "message"),
    [
        ({"text": "x", "callback_data": "é" * 33}, "Button_data_invalid"),
        ({"text": "x"}, "text buttons are unallowed in the inline keyboard"),
        ({"text": "x", "callback_data": "1", "style": "loud"}, "invalid button style specified"),
    ],
)
async def test_buttons_that_telegram_refuses(
    fake: FakeBotApi, bot: telegram.Bot, button: dict[str, Any], message: str
) -> None:
    chat = fake.private_chat(fake.person("Ada"))
    markup = {"inline_keyboard": [[button]]}
    assert message in await refused(bot.send_message(chat.id, "x", api_kwargs={"reply_markup": markup}))


async def test_edits_are_compared_with_what_is_shown(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    chat = fake.private_chat(ada)
    sent = await bot.send_message(chat.id, "one")
    edited = await bot.edit_message_text("two", chat.id, sent.message_id)
    assert isinstance(edited, telegram.Message) and edited.edit_date is not None
    assert (chat.messages[0].text, chat.messages[0].n_edits, chat.messages[0].history[0].text) == ("two", 1, "one")
    same = await refused(bot.edit_message_text("two  \n", chat.id, sent.message_id))
    assert same.startswith("Message is not modified: specified new message content and reply markup are exactly")
    assert await refused(bot.edit_message_text("x", chat.id, 9999)) == "Message to edit not found"
    theirs = ada.say(chat, "mine")
    assert await refused(bot.edit_message_text("x", chat.id, theirs.id)) == "Message can't be edited"
    assert await refused(bot.edit_message_text("x" * 4097, chat.id, sent.message_id)) == "Message_too_long"


async def test_texts_too_long_or_empty_are_refused(fake: FakeBotApi, bot: telegram.Bot) -> None:
    chat = fake.private_chat(fake.person("Ada"))
    assert await refused(bot.send_message(chat.id, "😀" * 2049)) == "Message is too long"
    assert await refused(bot.send_message(chat.id, " \n")) == "Text must be non-empty"
    assert await refused(bot.send_message(chat.id, "")) == "Message text is empty"
    assert (await bot.send_message(chat.id, "😀" * 2048)).text == "😀" * 2048


async def test_a_reply_to_a_deleted_message_is_refused_unless_allowed(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    chat = fake.private_chat(ada)
    gone = ada.say(chat, "never mind")
    ada.delete(gone)
    reply = telegram.ReplyParameters(gone.id)
    assert await refused(bot.send_message(chat.id, "x", reply_parameters=reply)) == "Message to be replied not found"
    reply = telegram.ReplyParameters(gone.id, allow_sending_without_reply=True)
    assert (await bot.send_message(chat.id, "x", reply_parameters=reply)).reply_to_message is None


async def test_a_blocked_bot_hears_of_it_and_may_not_write(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    chat = fake.private_chat(ada)
    ada.block(chat)
    with pytest.raises(Forbidden, match="bot was blocked by the user"):
        await bot.send_message(chat.id, "hello?")
    ada.unblock(chat)
    await bot.send_message(chat.id, "hello")
    told = [one.my_chat_member.new_chat_member.status for one in await bot.get_updates() if one.my_chat_member]
    assert told == ["kicked", "member"]


async def test_a_bot_cannot_write_first(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    chat = fake.private_chat(ada, started=False)
    with pytest.raises(Forbidden, match="can't initiate conversation"):
        await bot.send_message(chat.id, "hello")
    ada.say(chat, "/start")
    await bot.send_message(chat.id, "hello")
    assert await refused(bot.send_message(12345, "hello")) == "Chat not found"


async def test_a_group_that_became_a_supergroup_names_its_new_id(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    group = fake.group("team", members=[ada], supergroup=False)
    ada.say(group, "hello")
    new = group.upgrade()
    with pytest.raises(ChatMigrated) as caught:
        await bot.send_message(group.id, "hi")
    assert caught.value.new_chat_id == new.id
    await bot.send_message(new.id, "hi")
    ids = [update.message for update in await bot.get_updates() if update.message]
    assert new.id in [one.migrate_to_chat_id for one in ids]
    assert group.id in [one.migrate_from_chat_id for one in ids]
    assert (await bot.get_chat_member(new.id, fake.bot.id)).status == "administrator"


async def test_a_bot_that_was_removed_or_left_may_not_write(fake: FakeBotApi, bot: telegram.Bot) -> None:
    group = fake.group("team", supergroup=False)
    await bot.get_updates(offset=-1)
    group.remove_bot()
    with pytest.raises(Forbidden, match="bot was kicked from the group chat"):
        await bot.send_message(group.id, "hello?")
    group.add_bot(fake.bot)
    assert await bot.leave_chat(group.id)
    with pytest.raises(Forbidden, match="bot is not a member of the group chat"):
        await bot.send_message(group.id, "hello?")
    told = [one["my_chat_member"] for one in fake.bot.updates.history if "my_chat_member" in one]
    seen = [one["new_chat_member"]["status"] for one in told]
    assert seen == ["member", "administrator", "kicked", "member", "left"]


async def test_buttons_are_edited_alone_and_messages_deleted(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    group = fake.group("team", members=[ada], bot_is_admin=False)
    markup = telegram.InlineKeyboardMarkup([[telegram.InlineKeyboardButton("Good", callback_data="1")]])
    sent = await bot.send_message(group.id, "hello", reply_markup=markup)
    message = group.messages[0]
    same = bot.edit_message_reply_markup(group.id, sent.message_id, reply_markup=markup)
    assert (await refused(same)).startswith("Message is not modified")
    await bot.edit_message_reply_markup(group.id, sent.message_id)
    assert (message.text, message.buttons) == ("hello", [])
    theirs = ada.say(group, "mine")
    assert await refused(bot.delete_message(group.id, theirs.id)) == "Message can't be deleted"
    assert await bot.delete_message(group.id, sent.message_id)
    assert group.messages == [theirs]
    assert await refused(bot.delete_message(group.id, sent.message_id)) == "Message to delete not found"


async def test_chats_tell_who_is_in_them_and_which_reactions_they_allow(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    group = fake.group("team", members=[ada])
    group.allowed_reactions = {"👍"}
    full = await bot.get_chat(group.id)
    assert full.available_reactions == (telegram.ReactionTypeEmoji("👍"),)
    hello = ada.say(group, "hello")
    assert await refused(bot.set_message_reaction(group.id, hello.id, "👀")) == "Reaction_invalid"
    assert (await bot.get_chat_member(group.id, ada.id)).status == "member"
    assert [one.status for one in await bot.get_chat_administrators(group.id)] == ["creator", "administrator"]


async def test_a_reply_into_another_chat_is_external(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    group, chat = fake.group("team", members=[ada]), fake.private_chat(ada)
    await bot.get_updates(offset=-1)
    said = ada.say(group, "the sky is green")
    ada.say(chat, "is it?", reply_to=said, quote="green")
    message = (await bot.get_updates())[-1].message
    assert message is not None and message.external_reply is not None and message.quote is not None
    assert (message.external_reply.message_id, message.reply_to_message) == (said.id, None)
    assert message.quote.position == len("the sky is ")


async def test_with_privacy_mode_a_bot_gets_only_what_is_meant_for_it(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    group = fake.group("team", members=[ada], bot_is_admin=False)
    await bot.get_updates(offset=-1)
    await bot.send_message(group.id, "an answer")
    for text in ("among us", "/undo", "/undo@claas_test_bot", "/undo@other_bot", "hello @claas_test_bot"):
        ada.say(group, text)
    ada.say(group, "a reply", reply_to=group.messages[0])
    heard = [one.message.text for one in await bot.get_updates() if one.message and one.message.text]
    assert heard == ["/undo", "/undo@claas_test_bot", "hello @claas_test_bot", "a reply"]
    group.promote()
    ada.say(group, "among us, and an administrator")
    assert fake.bot.updates.pending[-1]["message"]["text"] == "among us, and an administrator"


async def test_messages_in_a_topic_seem_to_reply_to_its_first_message(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    forum = fake.group("forum", members=[ada], forum=True)
    plans = forum.topic("plans")
    ada.say(forum, "in the topic", thread=plans)
    ada.say(forum, "in General")
    in_topic, in_general = [one.message for one in await bot.get_updates() if one.message and one.message.text]
    assert (in_topic.message_thread_id, in_topic.is_topic_message) == (plans, True)
    assert in_topic.reply_to_message is not None and in_topic.reply_to_message.forum_topic_created is not None
    assert (in_general.message_thread_id, in_general.reply_to_message) == (None, None)
    sent = await bot.send_message(forum.id, "here", message_thread_id=plans)
    assert sent.message_thread_id == plans and forum.in_thread(plans)[-1].text == "here"
    assert forum.messages[-1].reply_to is None
    follows = await bot.send_message(forum.id, "x", reply_parameters=telegram.ReplyParameters(in_topic.message_id))
    assert follows.message_thread_id == plans
    assert await refused(bot.send_message(forum.id, "x", message_thread_id=1)) == "Message thread not found"
    assert await bot.send_chat_action(forum.id, "typing", message_thread_id=1)
    assert forum.typing_in(None) and not forum.typing_in(plans)
    fake.advance(6)
    assert not forum.typing


async def test_a_reply_in_a_supergroup_carries_a_thread_that_is_no_topic(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    group = fake.group("team", members=[ada])
    first = ada.say(group, "one")
    ada.say(group, "two", reply_to=first)
    message = (await bot.get_updates())[-1].message
    assert message is not None
    assert (message.message_thread_id, message.is_topic_message) == (first.id, None)


async def test_files_go_both_ways(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    chat = fake.private_chat(ada)
    ada.attach(chat, "notes.txt", b"from Ada", "please read")
    (update,) = await bot.get_updates()
    assert update.message is not None and update.message.document is not None
    assert (update.message.caption, update.message.document.file_name) == ("please read", "notes.txt")
    file = await update.message.document.get_file()
    assert bytes(await file.download_as_bytearray()) == b"from Ada"
    await bot.send_document(
        chat.id, b"from the bot", filename="export.jsonl", caption="<b>yours</b>", parse_mode="HTML"
    )
    received = chat.messages[-1]
    assert received.file is not None and (received.file.name, received.file.data) == ("export.jsonl", b"from the bot")
    assert (received.text, received.shown.spans("bold")) == ("yours", ["yours"])
    assert await refused(bot.get_file("nothing")) == "Wrong file_id or the file is temporarily unavailable"
    unasked = f"{fake.base_file_url}{fake.bot.token}/{received.file.path}"
    async with aiohttp.ClientSession() as http, http.get(unasked) as response:
        assert response.status == 404


async def test_commands_are_kept_by_scope_and_checked(fake: FakeBotApi, bot: telegram.Bot) -> None:
    await bot.set_my_commands([("undo", "Take the last lesson back")])
    await bot.set_my_commands([("users", "Who is here")], scope=telegram.BotCommandScopeChat(5), language_code="de")
    assert fake.bot.commands['{"type": "default"}', ""] == [
        {"command": "undo", "description": "Take the last lesson back"}
    ]
    assert [one.command for one in await bot.get_my_commands()] == ["undo"]
    assert await refused(bot.set_my_commands([("Undo!", "x")])) == "Bot_command_invalid"


async def test_faults_come_as_ordered(fake: FakeBotApi, bot: telegram.Bot) -> None:
    chat = fake.private_chat(fake.person("Ada"))
    fake.fail_next("sendMessage", 429, retry_after=7)
    with pytest.raises(RetryAfter) as flood:
        await bot.send_message(chat.id, "1")
    assert flood.value.retry_after == 7
    fake.fail_next("sendMessage", 502, times=2)
    for _ in range(2):
        with pytest.raises(NetworkError):
            await bot.send_message(chat.id, "2")
    assert not chat.messages
    fake.drop_next("sendMessage", after=True)
    with pytest.raises(NetworkError):
        await bot.send_message(chat.id, "3")
    assert [one.text for one in chat.messages] == ["3"]  # sent, though the client cannot know
    assert [call.status for call in fake.calls_of("sendMessage")] == [429, 502, 502, 0]


async def test_a_call_can_be_held_back(fake: FakeBotApi, bot: telegram.Bot) -> None:
    chat = fake.private_chat(fake.person("Ada"))
    hold = fake.hold_next("sendMessage")
    sending = asyncio.create_task(bot.send_message(chat.id, "late"))
    await asyncio.wait_for(hold.reached.wait(), 5)
    await bot.send_chat_action(chat.id, "typing")
    assert chat.typing and not chat.messages
    hold.release()
    await asyncio.wait_for(sending, 5)
    assert not chat.typing


async def test_the_rate_limit_asks_for_the_wait_that_helps(fake: FakeBotApi, bot: telegram.Bot) -> None:
    chat = fake.private_chat(fake.person("Ada"))
    limit = fake.limit_rates(Rates(private=(2, 10.0)))
    await bot.send_message(chat.id, "1")
    await bot.send_message(chat.id, "2")
    with pytest.raises(RetryAfter):
        await bot.send_message(chat.id, "3")
    assert limit.n_refused == 1
    fake.advance(10)
    await bot.send_message(chat.id, "3")


async def test_a_wrong_token_is_refused(fake: FakeBotApi) -> None:
    token, unauthorized = fake.bot.token, {"ok": False, "error_code": 401, "description": "Unauthorized"}
    fake.bot.token = "1:other"
    async with aiohttp.ClientSession() as http, http.get(f"{fake.base_url}{token}/getMe") as response:
        assert (response.status, await response.json()) == (401, unauthorized)
    fake.bot.is_revoked = True
    assert await raw(fake, "getMe") == (401, unauthorized)


@asynccontextmanager
async def receiver(handle: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/hook", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    await runner.cleanup()


async def test_a_webhook_gets_updates_with_its_secret_until_it_takes_them(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    got: list[tuple[str | None, Any]] = []

    async def handle(request: web.Request) -> web.Response:
        got.append((request.headers.get("X-Telegram-Bot-Api-Secret-Token"), await request.json()))
        return web.Response(status=500 if len(got) == 1 else 200)

    async with receiver(handle) as url:
        await bot.set_webhook(url, secret_token="s3cret-token", allowed_updates=EVERY)
        with pytest.raises(Conflict, match="webhook is active"):
            await bot.get_updates()
        ada.say(fake.private_chat(ada), "hello")
        await fake.all_read()
        assert [(secret, one["message"]["text"]) for secret, one in got] == [("s3cret-token", "hello")] * 2
        info = await bot.get_webhook_info()
        assert (info.url, info.last_error_message) == (
            url,
            "Wrong response from the webhook: 500 Internal Server Error",
        )
        await bot.delete_webhook()
    assert await bot.get_updates() == ()


async def test_people_write_on_while_the_server_is_away(fake: FakeBotApi, bot: telegram.Bot) -> None:
    ada = fake.person("Ada")
    chat = fake.private_chat(ada)
    await fake.stop()
    with pytest.raises(NetworkError):
        await bot.get_updates()
    ada.say(chat, "anybody there?")
    await fake.start()
    assert len(await bot.get_updates()) == 1


@asynccontextmanager
async def aiogram_bot(fake: FakeBotApi) -> AsyncIterator[aiogram.Bot]:
    """Echoes what it hears, marks it with a reaction, and answers buttons."""
    bot = aiogram.Bot(fake.bot.token, session=AiohttpSession(api=TelegramAPIServer.from_base(fake.url)))
    dispatcher = aiogram.Dispatcher()

    @dispatcher.message(aiogram.F.text)
    async def echo(message: aiogram.types.Message) -> None:
        await bot.send_chat_action(message.chat.id, "typing")
        await message.react([ReactionTypeEmoji(emoji="👀")])
        button = aiogram.types.InlineKeyboardButton(text="Good", callback_data="good")
        markup = aiogram.types.InlineKeyboardMarkup(inline_keyboard=[[button]])
        await message.reply(f"<i>{message.text}</i>", parse_mode="HTML", reply_markup=markup)

    @dispatcher.message(aiogram.F.document)
    async def send_back(message: aiogram.types.Message) -> None:
        assert message.document is not None
        data = await bot.download(message.document)
        assert data is not None
        await message.answer_document(BufferedInputFile(data.read(), "back.txt"))

    @dispatcher.message_reaction()
    async def thank(event: aiogram.types.MessageReactionUpdated) -> None:
        await bot.edit_message_text("thanks", chat_id=event.chat.id, message_id=event.message_id)

    @dispatcher.callback_query()
    async def note(query: aiogram.types.CallbackQuery) -> None:
        await query.answer("noted")

    polling = asyncio.create_task(dispatcher.start_polling(bot, handle_signals=False, polling_timeout=20))
    try:
        yield bot
    finally:
        await dispatcher.stop_polling()
        await polling


async def test_an_aiogram_bot_lives_here_too(fake: FakeBotApi) -> None:
    ada = fake.person("Ada")
    chat = fake.private_chat(ada)
    async with aiogram_bot(fake):
        await fake.until(lambda: fake.polls)
        hello = ada.say(chat, "hello")
        echo = await fake.until(lambda: chat.messages[1])
        assert (echo.text, echo.shown.spans("italic"), echo.reply_to) == ("hello", ["hello"], hello)
        assert hello.reactions_of(fake.bot) == ["👀"]
        assert chat.actions == [(None, "typing")]
        press = ada.press(echo, "Good")
        await fake.until(lambda: press.is_answered)
        assert press.text == "noted"
        ada.react(echo, "👍")
        await fake.until(lambda: echo.text == "thanks")
        assert echo.buttons == []  # an edit without markup takes them away
        ada.attach(chat, "there.txt", b"there and back")
        back = await fake.until(lambda: chat.messages[3])
        assert back.file is not None and back.file.data == b"there and back"
        await fake.all_read()


async def test_two_bots_have_their_own_chats_and_updates(fake: FakeBotApi) -> None:
    ada = fake.person("Ada")
    other = fake.add_bot("other", "other_test_bot")
    mine, theirs = fake.private_chat(ada), fake.private_chat(ada, bot=other)
    ada.say(mine, "to one")
    ada.say(theirs, "to the other")
    assert mine.id == theirs.id
    assert [one["message"]["text"] for one in fake.bot.updates.pending] == ["to one"]
    assert [one["message"]["text"] for one in other.updates.pending] == ["to the other"]
    async with telegram.Bot(other.token, base_url=fake.base_url) as bot:
        await bot.send_message(ada.id, "hello")
    assert (mine.messages[-1].text, theirs.messages[-1].text) == ("to one", "hello")


async def test_a_wait_that_fails_shows_what_happened(fake: FakeBotApi) -> None:
    ada = fake.person("Ada")
    ada.say(fake.private_chat(ada), "hello")
    with pytest.raises(AssertionError, match="Ada: 'hello'"):
        await fake.until(lambda: False, within_s=0.01)


async def test_people_do_only_what_telegram_lets_them(fake: FakeBotApi) -> None:
    ada = fake.person("Ada")
    hello = ada.say(fake.private_chat(ada), "hello")
    with pytest.raises(AssertionError, match="no reaction that Telegram offers"):
        ada.react(hello, "🎓")
    with pytest.raises(AssertionError, match="one reaction"):
        ada.react(hello, "👍", "👎")
    with pytest.raises(AssertionError, match="no button"):
        ada.press(hello, "Good")
