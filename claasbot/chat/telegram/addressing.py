"""Who is talking, and whether to the bot. Pure.

As an administrator, which reactions in groups require, a bot receives everything that is said there. What is not a
command, a reply to it or a mention of it ends here, before anything is stored; so does what has no person behind it:
channel posts, other bots, anonymous administrators.
"""

from __future__ import annotations

from dataclasses import dataclass

from telegram import Chat, Message, MessageEntity, User


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom people mean when they write to the bot."""

    bot_id: int
    username: str
    commands: frozenset[str]
    """Its menu: in a group, `/weather` without a name may be meant for another bot."""

    @property
    def account(self) -> str:
        return str(self.bot_id)


def text_for(message: Message, me: Identity) -> str | None:
    """What the message says to the bot; None when it says nothing to it."""
    if message.sender_chat is not None or not is_person(message.from_user) or not is_talk(message.chat):
        return None
    text = message.text or message.caption or ""
    if not text and message.effective_attachment is None:  # "Ada joined the group"
        return None
    command = command_in(message)
    replied = message.reply_to_message
    is_to_bot = not is_group(message.chat) or (replied is not None and is_by_bot(replied, me))
    if command is not None:
        name, bot, _ = command
        is_mine = bot.lower() == me.username.lower() if bot else is_to_bot or name in me.commands
        return text if is_mine else None
    mentions = [entity for entity, said in _entities(message).items() if _names(entity, said, me)]
    if mentions and is_group(message.chat):
        return _without(text, mentions)
    return text if is_to_bot else None


def command_in(message: Message) -> tuple[str, str, str] | None:
    """(name, the bot that it is for or "", argument) of a message that begins with a command of its sender's own."""
    if is_forwarded(message):
        return None
    for entity, said in _entities(message).items():
        if entity.type == MessageEntity.BOT_COMMAND and entity.offset == 0:
            name, _, bot = said.removeprefix("/").partition("@")
            argument = (message.text or message.caption or "")[len(said) :]
            return name.lower(), bot, argument.strip()
    return None


def meant_message(message: Message, me: Identity) -> Message | None:
    """The message that it replies to, if the bot or the same person wrote it: others' words are not ours to read."""
    replied = message.reply_to_message
    if replied is None or message.from_user is None or replied.forum_topic_created is not None:
        return None
    is_own = (
        replied.from_user is not None and replied.from_user.id == message.from_user.id and replied.sender_chat is None
    )
    return replied if is_own or is_by_bot(replied, me) else None


def is_by_bot(message: Message, me: Identity) -> bool:
    """Everything in a topic that the bot opened "replies" to the bot's opening it: that one does not count."""
    return message.from_user is not None and message.from_user.id == me.bot_id and message.forum_topic_created is None


def is_forwarded(message: Message) -> bool:
    """Somebody else's words: they command nothing."""
    return message.forward_origin is not None


def _entities(message: Message) -> dict[MessageEntity, str]:
    return message.parse_entities() if message.text else message.parse_caption_entities()


def _names(entity: MessageEntity, said: str, me: Identity) -> bool:
    if entity.type == MessageEntity.TEXT_MENTION:
        return entity.user is not None and entity.user.id == me.bot_id
    return entity.type == MessageEntity.MENTION and said.lower() == f"@{me.username.lower()}"


def _without(text: str, mentions: list[MessageEntity]) -> str:
    """`@bot, what is rain?` is the question alone; offsets count UTF-16 units."""
    raw = text.encode("utf-16-le")
    for entity in sorted(mentions, key=lambda one: one.offset, reverse=True):
        before, after = raw[: 2 * entity.offset], raw[2 * (entity.offset + entity.length) :]
        left, right = before.decode("utf-16-le"), after.decode("utf-16-le")
        if not left.strip():
            right = right.lstrip(" ,:;")
        elif left.endswith(" "):
            right = right.removeprefix(" ")
        raw = (left + right).encode("utf-16-le")
    return raw.decode("utf-16-le").strip()


def is_person(user: User | None) -> bool:
    return user is not None and not user.is_bot


def is_talk(chat: Chat) -> bool:
    return chat.type != Chat.CHANNEL


def is_group(chat: Chat) -> bool:
    return chat.type in (Chat.GROUP, Chat.SUPERGROUP)
