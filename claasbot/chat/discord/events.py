"""What Discord tells, as chat events. Pure: a Discord object in; an event, or nothing, out.

A message in a server that is not addressed to the bot becomes nothing here, and so is stored nowhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict

import discord

from claasbot.chat.discord.whereabouts import Where
from claasbot.domain.conversation import (
    Attachment,
    ChatAddress,
    Commanded,
    Deleted,
    Edited,
    Pressed,
    Reacted,
    Said,
    Stopped,
)

ASK = "ask"
"""The command whose argument is a question, as if it had been said."""
STOP = "stop"
"""The action of the button under an answer that is being written."""

Person = discord.User | discord.Member


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The bot's own account."""

    user_id: int
    commands: frozenset[str]


class _Facts(TypedDict):
    address: ChatAddress
    account: str
    display_name: str
    update_key: str
    at: datetime | None
    is_group: bool
    roles: tuple[str, ...]
    is_interaction: bool


def said(message: discord.Message, where: Where, bot: Account) -> Said | Commanded | None:
    """A person's message to the bot; `/name …` typed as text is a command too, about the answer it replies to.

    A forward holds somebody else's words: they command nothing.
    """
    if not is_by_person(message) or not is_addressed(message, bot):
        return None
    is_forwarded = bool(message.message_snapshots)
    text = "\n\n".join(one.content for one in message.message_snapshots) if is_forwarded else text_of(message, bot)
    attachments = tuple(_attachment(message, one) for one in message.attachments)
    if not text and not attachments:
        return None  # a bare mention, or a text that is hidden without the message content intent
    facts = _message_facts(message, where, f"m{message.id}")
    reply_to = _reply_to(message, bot)
    key = str(message.id)
    if not is_forwarded and (typed := _command_in(text, bot)) is not None:
        command, argument = typed
        return Commanded(**facts, command=command, argument=argument, message_key=reply_to, own_key=key)
    return Said(
        **facts, text=text, message_key=key, reply_to=reply_to, attachments=attachments, is_forwarded=is_forwarded
    )


def edited(payload: discord.RawMessageUpdateEvent, where: Where, bot: Account, *, was_addressed: bool) -> Edited | None:
    """A person's new wording. What Discord adds by itself, such as previews of links, is no edit.

    Behind `/ask` it is the question; other commands were carried out when they came.
    """
    message = payload.message
    if "content" not in dict(payload.data) or message.edited_at is None or not is_by_person(message):
        return None
    if not was_addressed and not is_addressed(message, bot):
        return None
    text = text_of(message, bot)
    if (typed := _command_in(text, bot)) is not None:
        command, text = typed
        if command != ASK or not text:
            return None
    facts = _message_facts(message, where, f"e{message.id}:{message.edited_at.isoformat()}")
    return Edited(**facts, message_key=str(message.id), text=text)


def deleted(message_id: int, account: str, where: Where) -> Deleted:
    """Discord does not say whose message it was: `account` is "" where it is not remembered either."""
    return Deleted(
        address=where.address,
        account=account,
        update_key=f"d{message_id}",
        is_group=where.is_group,
        message_key=str(message_id),
    )


def is_feedback(payload: discord.RawReactionActionEvent, bot: Account) -> bool:
    """A standard emoji, by a person, on a message that is the bot's as far as Discord says."""
    return (
        payload.user_id != bot.user_id
        and payload.emoji.is_unicode_emoji()
        and payload.message_author_id in (None, bot.user_id)
        and not (payload.member is not None and payload.member.bot)
    )


def reacted(payload: discord.RawReactionActionEvent, where: Where, unique: str) -> Reacted:
    """`unique` tells this time from the next: Discord numbers no reactions."""
    member = payload.member
    removed = payload.event_type == "REACTION_REMOVE"
    reaction = bare(payload.emoji.name)
    sign = "-" if removed else "+"
    return Reacted(
        address=where.address,
        account=str(payload.user_id),
        display_name="" if member is None else member.display_name,
        update_key=f"r{payload.message_id}:{payload.user_id}:{reaction}:{sign}:{unique}",
        is_group=where.is_group,
        roles=() if member is None else roles_of(member),
        message_key=str(payload.message_id),
        reaction=reaction,
        removed=removed,
    )


def found_reaction(message_key: str, person: Person, emoji: str, where: Where) -> Reacted:
    """A reaction that stands there when the bot looks: the same event however often it looks."""
    reaction = bare(emoji)
    return Reacted(
        address=where.address,
        account=str(person.id),
        display_name=person.display_name,
        update_key=f"r{message_key}:{person.id}:{reaction}:+:found",
        is_group=where.is_group,
        roles=roles_of(person),
        message_key=message_key,
        reaction=reaction,
    )


def commanded(
    interaction: discord.Interaction, where: Where, command: str, argument: str = "", message_key: str | None = None
) -> Commanded:
    facts = _interaction_facts(interaction, where)
    own_key = key_of(interaction)
    return Commanded(**facts, command=command, argument=argument, message_key=message_key, own_key=own_key)


def asked(interaction: discord.Interaction, where: Where, text: str) -> Said:
    """`/ask`: a message to the bot that Discord shows it without the message content intent."""
    return Said(**_interaction_facts(interaction, where), text=text, message_key=key_of(interaction))


def pressed(interaction: discord.Interaction, where: Where, action: str) -> Pressed | Stopped:
    facts = _interaction_facts(interaction, where)
    if action == STOP:
        return Stopped(**facts)
    message_key = None if interaction.message is None else str(interaction.message.id)
    return Pressed(**facts, action=action, message_key=message_key, own_key=key_of(interaction))


def key_of(interaction: discord.Interaction) -> str:
    """What a reply refers to when it answers this interaction."""
    return f"i{interaction.id}"


def is_by_person(message: discord.Message) -> bool:
    return (
        not message.author.bot
        and message.webhook_id is None
        and message.type in (discord.MessageType.default, discord.MessageType.reply)
    )


def is_addressed(message: discord.Message, bot: Account) -> bool:
    """In private, everything; in a server, what mentions the bot (or its role) or replies to it."""
    if message.guild is None:
        return True
    if any(person.id == bot.user_id for person in message.mentions):
        return True
    if message.guild.self_role is not None and message.guild.self_role in message.role_mentions:
        return True
    replied = _replied(message)
    return replied is not None and replied.author.id == bot.user_id


def text_of(message: discord.Message, bot: Account) -> str:
    """What was written, without the mention that only said to whom."""
    text = re.sub(rf"<@!?{bot.user_id}>", "", message.content)
    if message.guild is not None and message.guild.self_role is not None:
        text = text.replace(message.guild.self_role.mention, "")
    return text.strip()


def _command_in(text: str, bot: Account) -> tuple[str, str] | None:
    """(name, argument) of a text that begins with one of the bot's commands."""
    command, _, argument = text.removeprefix("/").partition(" ")
    command = command.lower()
    return (command, argument.strip()) if text.startswith("/") and command in bot.commands else None


def bare(emoji: str) -> str:
    """Without the variation selector, so that ❤ and ❤️ are one reaction."""
    return emoji.replace("\ufe0f", "")


def roles_of(person: Person) -> tuple[str, ...]:
    """Role ids, without the one that everybody in a server has."""
    if not isinstance(person, discord.Member):
        return ()
    return tuple(str(role.id) for role in person.roles if not role.is_default())


def _replied(message: discord.Message) -> discord.Message | None:
    reference = message.reference
    if reference is None or message.type is not discord.MessageType.reply:
        return None
    return reference.resolved if isinstance(reference.resolved, discord.Message) else None


def _reply_to(message: discord.Message, bot: Account) -> str | None:
    """The replied message where it is the bot's or the same person's; other people's stay out."""
    replied = _replied(message)
    if replied is None or replied.author.id not in (bot.user_id, message.author.id):
        return None
    return str(replied.id)


def _attachment(message: discord.Message, attachment: discord.Attachment) -> Attachment:
    reference = f"{message.channel.id}/{message.id}/{attachment.id}"
    return Attachment(name=attachment.filename, reference=reference, n_bytes=attachment.size)


def _message_facts(message: discord.Message, where: Where, update_key: str) -> _Facts:
    return _Facts(
        address=where.address,
        account=str(message.author.id),
        display_name=message.author.display_name,
        update_key=update_key,
        at=message.edited_at or message.created_at,
        is_group=where.is_group,
        roles=roles_of(message.author),
        is_interaction=False,
    )


def _interaction_facts(interaction: discord.Interaction, where: Where) -> _Facts:
    return _Facts(
        address=where.address,
        account=str(interaction.user.id),
        display_name=interaction.user.display_name,
        update_key=key_of(interaction),
        at=interaction.created_at,
        is_group=where.is_group,
        roles=roles_of(interaction.user),
        is_interaction=True,
    )
