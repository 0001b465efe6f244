"""What Telegram's updates mean, and whose they are. Simulated platform: updates in the Bot API's own form."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest
from aiogram.types import Update as Referee
from telegram import Update

from claasbot.chat.telegram.addressing import Identity
from claasbot.chat.telegram.updates import RECEIVED, STOP, message_in_question, translate
from claasbot.domain.conversation import (
    Attachment,
    ChatEvent,
    Commanded,
    Edited,
    Left,
    Moved,
    Pressed,
    Reacted,
    Said,
    Stopped,
)
from tests.chat.telegram.formatting import as_written_by_a_person

Json = dict[str, Any]

ME = Identity(bot_id=900, username="ClaasBot", commands=frozenset({"help", "retry"}))
BOT: Json = {"id": 900, "is_bot": True, "first_name": "claasbot", "username": "ClaasBot"}
ADA: Json = {"id": 7, "is_bot": False, "first_name": "Ada", "last_name": "L."}
BOB: Json = {"id": 8, "is_bot": False, "first_name": "Bob"}
PRIVATE: Json = {"id": 7, "type": "private", "first_name": "Ada"}
GROUP: Json = {"id": -1005, "type": "supergroup", "title": "Group"}
FORUM: Json = {"id": -1006, "type": "supergroup", "title": "Forum", "is_forum": True}
CHANNEL: Json = {"id": -1009, "type": "channel", "title": "News"}
AT = 1_790_000_000
_numbers = itertools.count(1)


def message(text: str = "", *, chat: Json = PRIVATE, user: Json | None = ADA, **more: Any) -> Json:
    made: Json = {"message_id": 41, "date": AT, "chat": chat, **more}
    if user is not None:
        made["from"] = user
    if text:
        shown = as_written_by_a_person(text)
        made |= {"text": shown.text, "entities": list(shown.entities)}
    return made


def by_bot(**more: Any) -> Json:
    return message("Rain is water.", user=BOT, **{"message_id": 40, "chat": GROUP, **more})


def events(known_chat: str | None = None, **payload: Any) -> tuple[ChatEvent, ...]:
    raw = {"update_id": next(_numbers), **payload}
    Referee.model_validate(raw)
    update = Update.de_json(raw, None)
    assert update is not None
    return translate(update, ME, known_chat)


def event(known_chat: str | None = None, **payload: Any) -> Any:
    (only,) = events(known_chat, **payload)
    return only


# In private chats everything is said to the bot.


def test_a_private_message_is_said_by_its_person():
    said = event(message=message("What is rain?"))
    assert isinstance(said, Said)
    assert (said.text, said.account, said.display_name) == ("What is rain?", "7", "Ada L.")
    assert (said.message_key, said.address.chat, said.is_group) == ("41", "7", False)
    assert (said.address.platform, said.address.bot_account) == ("telegram", "900")
    assert said.at == datetime.fromtimestamp(AT, UTC)
    assert not said.may_continue and not said.is_interaction


def test_two_updates_have_two_keys_and_the_same_one_has_one():
    raw = {"update_id": 5, "message": message("hi")}
    twice = [translate(Update.de_json(raw, None), ME)[0].update_key for _ in range(2)]
    assert twice[0] == twice[1] != event(message=message("hi")).update_key


@pytest.mark.parametrize(("n_characters", "may_continue"), [(1_999, False), (2_000, True)])
def test_a_text_as_long_as_telegram_allows_may_go_on(n_characters, may_continue):
    """Counted in UTF-16 units: an emoji is two."""
    assert event(message=message("😀" * n_characters)).may_continue is may_continue


def test_a_reply_names_the_bots_message_and_the_part_that_was_picked_out():
    said = event(message=message("Why?", reply_to_message=by_bot(chat=PRIVATE), quote={"text": "water", "position": 8}))
    assert (said.reply_to, said.quote) == ("40", "water")


def test_a_caption_is_the_text_and_a_text_document_hangs_on_it():
    document = {
        "file_id": "F1",
        "file_unique_id": "u",
        "file_name": "notes.MD",
        "file_size": 12,
        "mime_type": "application/octet-stream",
    }
    said = event(message=message(caption="Read this", document=document))
    assert said.text == "Read this"
    assert said.attachments == (Attachment(name="notes.MD", reference="F1", n_bytes=12),)


def test_a_picture_is_said_without_words():
    said = event(message=message(photo=[{"file_id": "P", "file_unique_id": "p", "width": 1, "height": 1}]))
    assert (said.text, said.attachments) == ("", ())


def test_what_telegram_itself_writes_into_a_chat_is_nothing_said():
    assert not events(message=message(chat=GROUP, new_chat_members=[BOB]))
    assert not events(message=message(pinned_message=by_bot(chat=PRIVATE)))


def test_a_topic_of_a_private_chat_is_a_chat_of_its_own():
    said = event(message=message("hi", message_thread_id=3, is_topic_message=True))
    assert said.address.chat == "7/3"


# In groups only what is addressed to it.


@pytest.mark.parametrize("text", ["What is rain?", "/help@other_bot", "@other_bot what is rain?", "/weather", "/"])
def test_what_is_not_for_the_bot_is_nothing_in_a_group(text):
    assert not events(message=message(text, chat=GROUP))
    assert not events(edited_message=message(text, chat=GROUP, edit_date=AT))


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("@ClaasBot what is rain?", "what is rain?"),
        ("@claasbot, what is rain?", "what is rain?"),
        ("😀 hey @ClaasBot what is rain?", "😀 hey what is rain?"),
        ("what is rain, @ClaasBot?", "what is rain, ?"),
        ("@ClaasBot", ""),
    ],
)
def test_a_mention_is_heard_without_the_name(text, heard):
    said = event(message=message(text, chat=GROUP))
    assert (said.text, said.is_group) == (heard, True)


def test_a_mention_by_name_of_a_bot_that_is_no_username_counts():
    entity = {"type": "text_mention", "offset": 0, "length": 6, "user": BOT}
    assert event(message={**message(chat=GROUP), "text": "Claas: rain?", "entities": [entity]}).text == "rain?"


def test_a_reply_to_the_bot_is_heard_and_a_reply_to_others_is_not():
    assert event(message=message("Why?", chat=GROUP, reply_to_message=by_bot())).reply_to == "40"
    assert not events(message=message("Why?", chat=GROUP, reply_to_message=message("Because", chat=GROUP, user=BOB)))


def test_what_others_wrote_is_not_read_along():
    """A mention in a reply to somebody else is heard; that person's message and words are not."""
    other = message("Bob's secret", chat=GROUP, user=BOB, message_id=39)
    said = event(
        message=message(
            "@ClaasBot explain", chat=GROUP, reply_to_message=other, quote={"text": "Bob's secret", "position": 0}
        )
    )
    assert (said.text, said.reply_to, said.quote) == ("explain", None, "")


def test_a_reply_to_ones_own_message_is_named():
    own = message("What is rain?", chat=GROUP, message_id=38)
    assert event(message=message("@ClaasBot answer", chat=GROUP, reply_to_message=own)).reply_to == "38"


@pytest.mark.parametrize(
    "sender",
    [
        {"user": {**ADA, "id": 1087968824, "is_bot": True, "username": "GroupAnonymousBot"}, "sender_chat": GROUP},
        {"user": ADA, "sender_chat": CHANNEL},
        {"user": {"id": 9, "is_bot": True, "first_name": "other bot"}},
        {"user": None},
    ],
    ids=["anonymous administrator", "as a channel", "another bot", "nobody"],
)
def test_what_no_person_wrote_is_nothing(sender):
    assert not events(message=message("@ClaasBot hi", chat=GROUP, **sender))


def test_channels_are_not_talked_to():
    assert not events(channel_post=message("@ClaasBot hi", chat=CHANNEL, user=None))


def test_a_topic_is_a_chat_of_its_own_and_the_general_topic_is_the_group():
    in_topic = message("/help", chat=FORUM, message_thread_id=12, is_topic_message=True)
    assert event(message=in_topic).address.chat == "-1006/12"
    in_general = message("/help", chat=FORUM, message_thread_id=1, is_topic_message=True)
    assert event(message=in_general).address.chat == "-1006"
    assert event(message=message("/help", chat=FORUM)).address.chat == "-1006"


def test_the_thread_of_replies_in_a_plain_supergroup_is_no_topic():
    assert event(message=message("/help", chat=GROUP, message_thread_id=33)).address.chat == "-1005"


def test_in_a_topic_that_the_bot_opened_not_everything_is_a_reply_to_it():
    opened = by_bot(chat=FORUM, message_id=12, forum_topic_created={"name": "x", "icon_color": 7322096})
    del opened["text"], opened["entities"]
    talk = message("hi all", chat=FORUM, message_thread_id=12, is_topic_message=True, reply_to_message=opened)
    assert not events(message=talk)


# Commands.


def test_a_command_has_a_name_an_argument_and_the_answer_it_replies_to():
    commanded = event(message=message("/Retry  a haiku\nplease", reply_to_message=by_bot(chat=PRIVATE)))
    assert isinstance(commanded, Commanded)
    assert (commanded.command, commanded.argument) == ("retry", "a haiku\nplease")
    assert (commanded.message_key, commanded.own_key) == ("40", "41")


def test_what_a_start_link_carries_is_its_argument():
    assert event(message=message("/start pair-7")).argument == "pair-7"


@pytest.mark.parametrize("text", ["/help", "/help@ClaasBot", "/help@claasbot now", "/weather@ClaasBot"])
def test_a_command_in_a_group_is_for_the_bot_by_its_menu_or_by_its_name(text):
    assert event(message=message(text, chat=GROUP)).command == text[1:].split("@")[0].split()[0]


def test_any_command_in_reply_to_the_bot_is_for_the_bot():
    assert event(message=message("/users", chat=GROUP, reply_to_message=by_bot())).command == "users"


def test_a_command_for_another_bot_is_nothing_anywhere():
    assert not events(message=message("/help@other_bot"))
    assert not events(message=message("/help@other_bot", chat=GROUP, reply_to_message=by_bot()))


def test_a_command_does_not_name_other_peoples_messages():
    other = message("Bob's", chat=GROUP, user=BOB)
    assert event(message=message("/retry", chat=GROUP, reply_to_message=other)).message_key is None


def test_a_typed_command_goes_to_the_bot_alone():
    """Which is what `interactions` may learn from."""
    assert event(message=message("/ask What is rain?")).is_interaction


FORWARDED: Json = {"forward_origin": {"type": "user", "sender_user": BOB, "date": AT}}


@pytest.mark.parametrize("text", ["/feedback shorter, please", "/help@other_bot"])
def test_a_forwarded_command_is_what_somebody_said_and_no_command(text):
    said = event(message=message(text, **FORWARDED))
    assert isinstance(said, Said)
    assert (said.text, said.is_forwarded) == (text, True)
    assert not events(message=message(text, chat=GROUP, **FORWARDED))


# Reactions.


def reaction(old: list[str], new: list[str], *, chat: Json = PRIVATE, **by: Any) -> Json:
    def kinds(emoji: list[str]) -> list[Json]:
        return [{"type": "emoji", "emoji": one} for one in emoji]

    who = by or {"user": ADA}
    return {
        "chat": chat,
        "message_id": 40,
        "date": AT,
        "old_reaction": kinds(old),
        "new_reaction": kinds(new),
        **who,
    }


def test_a_reaction_names_the_message_and_the_emoji():
    reacted = event(message_reaction=reaction([], ["👍"]))
    assert isinstance(reacted, Reacted)
    assert (reacted.message_key, reacted.reaction, reacted.removed, reacted.account) == ("40", "👍", False, "7")


def test_another_reaction_takes_the_first_one_off():
    changes = events(message_reaction=reaction(["👍", "🔥"], ["👎", "🔥"]))
    assert [(one.reaction, one.removed) for one in changes] == [("👍", True), ("👎", False)]
    assert len({one.update_key for one in changes}) == 2


def test_two_spellings_of_a_heart_are_one():
    assert event(message_reaction=reaction([], ["❤"])).reaction == "❤"
    raw = {"update_id": 1, "message_reaction": reaction([], ["❤\ufe0f"])}
    assert [one.reaction for one in translate(Update.de_json(raw, None), ME)] == ["❤"]


def test_custom_and_paid_reactions_mean_nothing():
    custom = reaction([], []) | {"new_reaction": [{"type": "custom_emoji", "custom_emoji_id": "5"}, {"type": "paid"}]}
    assert not events(message_reaction=custom)


def test_an_anonymous_administrators_reaction_is_nobodys():
    assert not events("-1005", message_reaction=reaction([], ["👍"], chat=GROUP, actor_chat=GROUP))


def test_in_a_group_only_reactions_on_the_bots_messages_are_heard():
    assert not events(None, message_reaction=reaction([], ["👍"], chat=FORUM))
    reacted = event("-1006/12", message_reaction=reaction([], ["👍"], chat=FORUM))
    assert (reacted.address.chat, reacted.is_group) == ("-1006/12", True)


def test_of_a_reaction_one_has_to_know_where_its_message_stands():
    update = Update.de_json({"update_id": 1, "message_reaction": reaction([], ["👍"], chat=FORUM)}, None)
    assert message_in_question(update) == (-1006, 40)
    assert message_in_question(Update.de_json({"update_id": 1, "message": message("hi")}, None)) is None


# Buttons, stops, edits, comings and goings.


def press(data: str, under: Json) -> Json:
    return {"id": "4711", "from": ADA, "message": under, "chat_instance": "c", "data": data}


def test_a_press_names_its_action_and_the_message_that_the_button_stands_under():
    under = by_bot(chat=FORUM, message_thread_id=12, is_topic_message=True)
    pressed = event(callback_query=press("undo:3", under))
    assert isinstance(pressed, Pressed)
    assert (pressed.action, pressed.message_key, pressed.address.chat) == ("undo:3", "40", "-1006/12")
    assert pressed.is_interaction and pressed.own_key == "press:4711"


def test_a_press_under_a_message_too_old_to_be_shown_is_looked_up():
    old = {"chat": FORUM, "message_id": 40, "date": 0}
    update = Update.de_json({"update_id": 1, "callback_query": press("undo:3", old)}, None)
    assert message_in_question(update) == (-1006, 40)
    assert event("-1006/12", callback_query=press("undo:3", old)).address.chat == "-1006/12"
    assert event(None, callback_query=press("undo:3", old)).address.chat == "-1006"


def test_the_stop_button_stops():
    stopped = event(callback_query=press(STOP, by_bot()))
    assert isinstance(stopped, Stopped)
    assert (stopped.account, stopped.address.chat) == ("7", "-1005")


def test_the_native_stop_button_stops():
    stopped = event(stopped_message_generation={"chat": PRIVATE, "draft_id": 5, "message_thread_id": 3})
    assert isinstance(stopped, Stopped)
    assert (stopped.account, stopped.address.chat) == ("7", "7/3")


def test_an_edit_brings_the_new_text():
    edited = event(edited_message=message("What is snow?", edit_date=AT + 60))
    assert isinstance(edited, Edited)
    assert (edited.message_key, edited.text) == ("41", "What is snow?")
    in_group = event(edited_message=message("@ClaasBot what is snow?", chat=GROUP, edit_date=AT + 60))
    assert in_group.text == "what is snow?"


def test_an_edited_question_behind_ask_is_the_question_alone():
    edited = event(edited_message=message("/ask  What is snow?", edit_date=AT + 60))
    assert isinstance(edited, Edited)
    assert (edited.text, edited.is_interaction) == ("What is snow?", True)


@pytest.mark.parametrize("text", ["/ask", "/feedback longer, please"])
def test_an_edit_of_another_command_or_of_no_question_is_nothing(text):
    assert not events(edited_message=message(text, edit_date=AT + 60))


def member(status: str, chat: Json) -> Json:
    until = {"until_date": 0} if status == "kicked" else {}
    return {
        "chat": chat,
        "from": ADA,
        "date": AT,
        "old_chat_member": {"user": BOT, "status": "member"},
        "new_chat_member": {"user": BOT, "status": status, **until},
    }


@pytest.mark.parametrize(("status", "chat"), [("kicked", PRIVATE), ("kicked", GROUP), ("left", GROUP)])
def test_a_blocked_or_removed_bot_is_told_so(status, chat):
    left = event(my_chat_member=member(status, chat))
    assert isinstance(left, Left)
    assert (left.address.chat, left.account) == (str(chat["id"]), "7")


def test_coming_in_is_no_leaving():
    assert not events(my_chat_member=member("member", GROUP))


def test_a_group_that_becomes_a_supergroup_moves():
    basic = {"id": -5, "type": "group", "title": "Group"}
    went = event(message=message(chat=basic, migrate_to_chat_id=-1005))
    assert isinstance(went, Moved)
    assert (went.address.chat, went.to_chat) == ("-5", "-1005")
    again = event(message=message(chat=basic, user=BOB, migrate_to_chat_id=-1005))
    assert went.update_key == again.update_key, "told twice, it is one event"


def test_reactions_are_asked_for_by_name():
    """Telegram's default withholds them."""
    assert {"message", "message_reaction", "stopped_message_generation"} <= set(RECEIVED)
