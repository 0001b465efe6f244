"""Which bot is told what: privacy mode, administrators, reactions. The rules of who learns of an event."""

from __future__ import annotations

from tests.chat.telegram import shapes
from tests.chat.telegram.formatting import cut
from tests.chat.telegram.world import Account, BotAccount, Chat, Draft, Json, Message, Press, Status


def tell_message(message: Message, kind: str = "message") -> None:
    for bot in message.chat.bots:
        if message.sender is not bot and _sees(bot, message):
            bot.updates.add(kind, shapes.message(message))
    message.chat.world.changed()


def _sees(bot: BotAccount, message: Message) -> bool:
    """Bots never see what bots write; with privacy mode on, of people only what is meant for them."""
    chat = message.chat
    if message.sender.is_bot and not message.service:
        return False
    if not chat.has(bot):
        return False
    if chat.kind == "private" or message.service or chat.is_admin(bot) or not bot.has_privacy_mode:
        return True
    return _is_meant_for(bot, message)


def _is_meant_for(bot: BotAccount, message: Message) -> bool:
    if message.reply_to is not None and message.reply_to.sender is bot:
        return True
    username = (bot.username or "").lower()
    for entity in message.entities:
        words = cut(message.text, entity).lower()
        match entity["type"]:
            case "mention" if words == f"@{username}":
                return True
            case "text_mention" if entity["user"]["id"] == bot.id:
                return True
            case "bot_command":
                _, at, addressee = words.partition("@")
                if addressee == username or (not at and _spoke_last(bot, message.chat)):
                    return True
    return False


def _spoke_last(bot: BotAccount, chat: Chat) -> bool:
    """A command without a name goes to the bot that wrote last; to all while none has."""
    by_bots = [one.sender for one in chat.messages if one.sender.is_bot]
    return not by_bots or by_bots[-1] is bot


def tell_reaction(message: Message, by: Account | None, old: list[Json], new: list[Json]) -> None:
    """Only what people do is told, in groups only to administrators. Nobody by name: an anonymous administrator."""
    chat = message.chat
    update: Json = {"chat": shapes.chat(chat), "message_id": message.id, "date": int(chat.world.now())}
    update |= {"old_reaction": old, "new_reaction": new}
    update |= {"user": shapes.user(by)} if by is not None else {"actor_chat": shapes.chat(chat)}
    for bot in chat.bots:
        if chat.has(bot) and (chat.kind == "private" or chat.is_admin(bot)):
            bot.updates.add("message_reaction", update)
    chat.world.changed()


def tell_press(press: Press) -> None:
    bot = press.message.sender
    assert isinstance(bot, BotAccount)
    bot.updates.add("callback_query", shapes.callback_query(press))
    bot.updates.world.changed()


def tell_stopped(chat: Chat, draft: Draft) -> None:
    update: Json = {"chat": shapes.chat(chat), "draft_id": draft.draft_id}
    if draft.thread is not None:
        update["message_thread_id"] = draft.thread
    chat.bots[0].updates.add("stopped_message_generation", update)


def tell_membership(chat: Chat, bot: BotAccount, by: Account, old: Status, new: Status) -> None:
    """my_chat_member: added, promoted, removed, blocked."""
    update = {
        "chat": shapes.chat(chat),
        "from": shapes.user(by),
        "date": int(chat.world.now()),
        "old_chat_member": shapes.member(chat, bot, old),
        "new_chat_member": shapes.member(chat, bot, new),
    }
    bot.updates.add("my_chat_member", update)
    chat.world.changed()
