"""Accounts, chats and messages as the Bot API writes them. Every shape is checked by the referee when it is served."""

from __future__ import annotations

from tests.chat.telegram.formatting import Text, units
from tests.chat.telegram.world import Account, BotAccount, Chat, File, Json, Message, Press

_ADMIN_RIGHTS = (
    "can_manage_chat",
    "can_delete_messages",
    "can_manage_video_chats",
    "can_restrict_members",
    "can_change_info",
    "can_invite_users",
    "can_post_stories",
    "can_edit_stories",
    "can_delete_stories",
    "can_send_welcome_messages",
    "can_pin_messages",
)


def user(account: Account) -> Json:
    shape: Json = {"id": account.id, "is_bot": account.is_bot, "first_name": account.first_name}
    if account.username:
        shape["username"] = account.username
    if account.language_code:
        shape["language_code"] = account.language_code
    if account.is_premium:
        shape["is_premium"] = True
    return shape


def myself(bot: BotAccount) -> Json:
    """What getMe says beyond `user`."""
    return user(bot) | {
        "can_join_groups": True,
        "can_read_all_group_messages": not bot.has_privacy_mode,
        "supports_inline_queries": False,
        "supports_guest_queries": False,
        "can_connect_to_business": False,
        "has_main_web_app": False,
        "has_topics_enabled": False,
        "allows_users_to_create_topics": False,
        "can_manage_bots": False,
    }


def chat(one: Chat) -> Json:
    if one.person is not None:
        account = user(one.person)
        names: Json = {name: account[name] for name in ("first_name", "username") if name in account}
        return {"id": one.id, "type": "private", **names}
    return {"id": one.id, "type": one.kind, "title": one.title} | ({"is_forum": True} if one.is_forum else {})


def full_chat(one: Chat) -> Json:
    gifts = ("unlimited_gifts", "limited_gifts", "unique_gifts", "premium_subscription", "gifts_from_channels")
    shape = chat(one) | {
        "accent_color_id": 1,
        "max_reaction_count": 11,
        "accepted_gift_types": {name: False for name in gifts},
    }
    if one.allowed_reactions is not None:
        shape["available_reactions"] = [{"type": "emoji", "emoji": emoji} for emoji in sorted(one.allowed_reactions)]
    return shape


def member(one: Chat, account: Account, status: str | None = None) -> Json:
    status = status or one.status_of.get(account.id, "member" if one.kind == "private" else "left")
    shape: Json = {"user": user(account), "status": status}
    match status:
        case "creator":
            shape["is_anonymous"] = False
        case "administrator":
            shape |= {"can_be_edited": False, "is_anonymous": False, "can_promote_members": False}
            shape |= {right: True for right in _ADMIN_RIGHTS}
        case "kicked":
            shape["until_date"] = 0
    return shape


def message(one: Message, *, with_reply: bool = True) -> Json:
    """`reply_to_message` holds one level only: the replied message comes without its own."""
    shape: Json = {"message_id": one.id, "from": user(one.sender), "chat": chat(one.chat), "date": one.date}
    if one.edit_date:
        shape["edit_date"] = one.edit_date
    if one.thread is not None:
        shape["message_thread_id"] = one.thread
        if one.thread in one.chat.topics:
            shape["is_topic_message"] = True
    shape |= _content(one)
    if with_reply:
        shape |= _reply(one)
    if one.keyboard:
        shape["reply_markup"] = {"inline_keyboard": one.keyboard}
    return shape


def _content(one: Message) -> Json:
    shape: Json = one.service | one.extra
    if one.file is not None:
        shape["document"] = document(one.file)
    if one.shown.text:
        prefix = "caption" if one.file or one.extra else "text"
        shape[prefix] = one.shown.text
        if one.shown.entities:
            shape["entities" if prefix == "text" else "caption_entities"] = list(one.shown.entities)
    return shape


def _reply(one: Message) -> Json:
    target = one.reply_to
    if target is None and one.thread is not None:
        # The official server names the first message of the topic or thread where nothing else was replied to.
        target = one.chat.find(one.thread)
    if target is None or target.is_deleted:
        return {}
    shape: Json = {}
    is_elsewhere = target.chat is not one.chat or (one.chat.is_forum and target.thread != one.thread)
    if not is_elsewhere:
        shape["reply_to_message"] = message(target, with_reply=False)
    else:
        origin = {"type": "user", "date": target.date, "sender_user": user(target.sender)}
        shape["external_reply"] = {"origin": origin, "chat": chat(target.chat), "message_id": target.id}
    if one.quote is not None:
        shape["quote"] = quote(target.shown, one.quote)
    return shape


def quote(of: Text, part: str) -> Json:
    return {"text": part, "position": units(of.text[: of.text.index(part)]), "is_manual": True}


def document(file: File) -> Json:
    return {
        "file_id": file.file_id,
        "file_unique_id": f"u{file.file_id}",
        "file_name": file.name,
        "mime_type": file.mime_type,
        "file_size": len(file.data),
    }


def callback_query(press: Press) -> Json:
    return {
        "id": press.query_id,
        "from": user(press.by),
        "message": message(press.message),
        "chat_instance": str(press.message.chat.id),
        "data": press.data,
    }
