"""Telegram's updates → chat events. Pure; what is not addressed to the bot, or is nobody's, becomes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeGuard

from telegram import (
    CallbackQuery,
    Chat,
    ChatMemberUpdated,
    MaybeInaccessibleMessage,
    Message,
    MessageReactionUpdated,
    ReactionType,
    ReactionTypeEmoji,
    Update,
)

from claasbot.chat.telegram.addressing import (
    Identity,
    command_in,
    is_by_bot,
    is_forwarded,
    is_group,
    is_person,
    is_talk,
    meant_message,
    text_for,
)
from claasbot.chat.telegram.attachments import attachments_of
from claasbot.chat.telegram.formatting import units
from claasbot.chat.telegram.places import chat_name
from claasbot.domain.conversation import (
    ChatAddress,
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

PLATFORM = "telegram"
ASK = "ask"
"""The command whose argument is a question, as if it had been said."""
STOP = "!stop"
"""Callback data of the Stop button under a preview; no action of a Reply begins with `!`."""

RECEIVED = (
    "message",
    "edited_message",
    "callback_query",
    "message_reaction",
    "my_chat_member",
    "stopped_message_generation",
)
"""Telegram keeps the last list that it was given, and by default withholds reactions: always pass it."""

_FULL_UNITS = 4000
"""Clients cut a long text at 4096 and send the rest at once."""


def message_in_question(update: Update) -> tuple[int, int] | None:
    """(chat, message) where the update names a message of which it does not tell the topic, or whose it is."""
    if update.message_reaction is not None:
        return update.message_reaction.chat.id, update.message_reaction.message_id
    message = None if update.callback_query is None else update.callback_query.message
    if message is not None and not _is_whole(message):
        return message.chat.id, message.message_id
    return None


def translate(update: Update, me: Identity, known_chat: str | None = None) -> tuple[ChatEvent, ...]:
    """`known_chat`: where the bot wrote the message in question, as far as it remembers."""
    if update.message is not None:
        event = _of_message(update.message, str(update.update_id), me)
        return () if event is None else (event,)
    if update.edited_message is not None:
        event = _of_edit(update.edited_message, str(update.update_id), me)
        return () if event is None else (event,)
    if update.callback_query is not None:
        event = _of_press(update.callback_query, str(update.update_id), me, known_chat)
        return () if event is None else (event,)
    if update.message_reaction is not None:
        return tuple(_of_reaction(update.message_reaction, str(update.update_id), me, known_chat))
    if update.my_chat_member is not None:
        return tuple(_of_membership(update.my_chat_member, str(update.update_id), me))
    return tuple(_of_stop(update, me))


def moved(me: Identity, account: str, from_chat: int, to_chat: int) -> Moved:
    """The same event whether an update tells it or a refused message."""
    return Moved(
        address=_address(me, chat_name(from_chat)),
        account=account,
        update_key=f"moved:{from_chat}:{to_chat}",
        is_group=True,
        to_chat=chat_name(to_chat),
    )


def chat_of(message: Message) -> str:
    """A reply in a supergroup carries a thread id too: only a topic's counts."""
    return chat_name(message.chat.id, message.message_thread_id if message.is_topic_message else None)


def _of_message(message: Message, key: str, me: Identity) -> ChatEvent | None:
    if message.migrate_to_chat_id is not None:
        account = "" if message.from_user is None else str(message.from_user.id)
        return moved(me, account, message.chat.id, message.migrate_to_chat_id)
    text = text_for(message, me)
    if text is None:
        return None
    command = command_in(message)  # goes to the bot alone: an interaction
    if command is not None:
        replied = message.reply_to_message
        return Commanded(
            **_facts(message, key, me, is_interaction=True),
            command=command[0],
            argument=command[2],
            message_key=str(replied.message_id) if replied is not None and is_by_bot(replied, me) else None,
            own_key=str(message.message_id),
        )
    meant = meant_message(message, me)
    return Said(
        **_facts(message, key, me),
        text=text,
        message_key=str(message.message_id),
        reply_to=None if meant is None else str(meant.message_id),
        quote=message.quote.text if meant is not None and message.quote is not None else "",
        attachments=attachments_of(message.document),
        may_continue=units(message.text or "") >= _FULL_UNITS,
        is_forwarded=is_forwarded(message),
    )


def _of_edit(message: Message, key: str, me: Identity) -> ChatEvent | None:
    """The new text; behind `/ask` it is the question. Other commands were carried out when they came."""
    text, command = text_for(message, me), command_in(message)
    if text and command is not None:
        name, _, text = command
        if name != ASK:
            return None
    if not text:
        return None
    facts = _facts(message, key, me, is_interaction=command is not None)
    return Edited(**facts, message_key=str(message.message_id), text=text)


def _of_press(query: CallbackQuery, key: str, me: Identity, known_chat: str | None) -> ChatEvent | None:
    message = query.message
    if message is None or query.data is None or not is_person(query.from_user) or not is_talk(message.chat):
        return None
    chat = chat_of(message) if _is_whole(message) else known_chat or chat_name(message.chat.id)
    facts: dict[str, Any] = {
        "address": _address(me, chat),
        "account": str(query.from_user.id),
        "display_name": query.from_user.full_name,
        "update_key": key,
        "is_group": is_group(message.chat),
        "is_interaction": True,
    }
    if query.data == STOP:
        return Stopped(**facts)
    own_key = f"press:{query.id}"  # digits alone would look like a message
    return Pressed(**facts, action=query.data, message_key=str(message.message_id), own_key=own_key)


def _of_reaction(
    reaction: MessageReactionUpdated, key: str, me: Identity, known_chat: str | None
) -> Iterator[ChatEvent]:
    """One event per emoji that came or went; other people's messages in groups are nobody's business."""
    chat = known_chat or (chat_name(reaction.chat.id) if reaction.chat.type == Chat.PRIVATE else None)
    if chat is None or not is_person(reaction.user) or not is_talk(reaction.chat):
        return
    assert reaction.user is not None
    old, new = _emoji(reaction.old_reaction), _emoji(reaction.new_reaction)
    changes = [("-", one) for one in old if one not in new] + [("+", one) for one in new if one not in old]
    for sign, emoji in changes:
        yield Reacted(
            address=_address(me, chat),
            account=str(reaction.user.id),
            display_name=reaction.user.full_name,
            update_key=f"{key}:{sign}{emoji}",
            at=reaction.date,
            is_group=is_group(reaction.chat),
            message_key=str(reaction.message_id),
            reaction=emoji,
            removed=sign == "-",
        )


def _of_membership(change: ChatMemberUpdated, key: str, me: Identity) -> Iterator[ChatEvent]:
    if change.new_chat_member.status in ("kicked", "left") and is_talk(change.chat):
        yield Left(
            address=_address(me, chat_name(change.chat.id)),
            account=str(change.from_user.id),
            display_name=change.from_user.full_name,
            update_key=key,
            at=change.date,
            is_group=is_group(change.chat),
        )


def _of_stop(update: Update, me: Identity) -> Iterator[ChatEvent]:
    """Bot API 10.3, later than the models of python-telegram-bot 22: `{chat, draft_id, message_thread_id}`."""
    stopped = update.to_dict().get("stopped_message_generation")
    if stopped is not None:
        chat_id = int(stopped["chat"]["id"])
        yield Stopped(
            address=_address(me, chat_name(chat_id, stopped.get("message_thread_id"))),
            account=str(chat_id),  # drafts exist in private chats only, which are named like the person
            update_key=str(update.update_id),
            is_interaction=True,
        )


def _is_whole(message: MaybeInaccessibleMessage) -> TypeGuard[Message]:
    """Of a message that is too old, python-telegram-bot makes a Message without content and date."""
    return isinstance(message, Message) and message.is_accessible


def _emoji(reactions: tuple[ReactionType, ...]) -> list[str]:
    """Custom and paid ones mean nothing to us. ❤ is written with and without U+FE0F."""
    return [one.emoji.replace("\ufe0f", "") for one in reactions if isinstance(one, ReactionTypeEmoji)]


def _facts(message: Message, key: str, me: Identity, *, is_interaction: bool = False) -> dict[str, Any]:
    assert message.from_user is not None
    return {
        "address": _address(me, chat_of(message)),
        "account": str(message.from_user.id),
        "display_name": message.from_user.full_name,
        "update_key": key,
        "at": message.edit_date or message.date,
        "is_group": is_group(message.chat),
        "is_interaction": is_interaction,
    }


def _address(me: Identity, chat: str) -> ChatAddress:
    return ChatAddress(platform=PLATFORM, bot_account=me.account, chat=chat)
