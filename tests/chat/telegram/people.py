"""What people do in Telegram: write, reply, react, press, block. Everything here is legal for a real person too."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable
from dataclasses import dataclass

from telegram.constants import ReactionEmoji

from tests.chat.telegram import telling
from tests.chat.telegram.formatting import MAX_CAPTION, MAX_TEXT, Text, as_written_by_a_person, units
from tests.chat.telegram.world import Account, Chat, File, Json, Message, Press, World

LEGAL_REACTIONS = frozenset(emoji.value.replace("\ufe0f", "") for emoji in ReactionEmoji)


def reaction(emoji: str) -> Json:
    """Telegram spells reactions without U+FE0F."""
    return {"type": "emoji", "emoji": emoji.replace("\ufe0f", "")}


@dataclass(eq=False, kw_only=True)
class Person(Account):
    """A person with a Telegram client in hand."""

    world: World

    def say(
        self,
        chat: Chat,
        text: str,
        *,
        reply_to: Message | None = None,
        thread: int | None = None,
        quote: str | None = None,
    ) -> Message:
        """Write a message. `thread` is a topic's id; a reply goes to its message's topic by itself."""
        assert text.strip(), "Telegram's clients do not send empty messages"
        assert units(text) <= MAX_TEXT, "a client would send this as several messages"
        return self._post(chat, as_written_by_a_person(text), reply_to=reply_to, thread=thread, quote=quote)

    def attach(
        self, chat: Chat, name: str, data: bytes, caption: str = "", *, reply_to: Message | None = None
    ) -> Message:
        """Send a document."""
        assert units(caption) <= MAX_CAPTION
        shown = as_written_by_a_person(caption) if caption else Text("")
        return self._post(chat, shown, file=add_file(self.world, name, data), reply_to=reply_to)

    def send(self, chat: Chat, **content: object) -> Message:
        """Send something else, such as `sticker={…}`, in the Bot API's own words."""
        return self._post(chat, Text(""), extra=content)

    def _post(
        self,
        chat: Chat,
        shown: Text,
        *,
        reply_to: Message | None = None,
        thread: int | None = None,
        quote: str | None = None,
        file: File | None = None,
        extra: Json | None = None,
    ) -> Message:
        self._enter(chat)
        assert quote is None or (reply_to is not None and quote in reply_to.text), "people quote what stands there"
        message = Message(
            id=chat.next_id(),
            chat=chat,
            sender=self,
            date=int(self.world.now()),
            shown=shown,
            thread=thread_of(chat, reply_to, thread),
            reply_to=reply_to,
            quote=quote,
            file=file,
            extra=extra or {},
        )
        chat.add(message)
        telling.tell_message(message)
        return message

    def _enter(self, chat: Chat) -> None:
        """Writing starts a private chat and makes a member of a group."""
        assert chat.upgraded_to is None, "the group is a supergroup now: write to `group.upgraded_to`"
        assert chat.person in (None, self), "this is somebody else's private chat"
        assert not chat.is_blocked, "people unblock a bot before they write to it"
        chat.is_started = True
        if chat.kind != "private" and not chat.has(self):
            chat.status_of[self.id] = "member"
        chat.accounts[self.id] = self

    def edit(self, message: Message, text: str) -> None:
        assert message.sender is self, "people edit their own messages"
        message.history.append(message.shown)
        message.shown = as_written_by_a_person(text)
        message.n_edits += 1
        message.edit_date = int(self.world.now())
        telling.tell_message(message, "edited_message")

    def delete(self, message: Message) -> None:
        """Bots are not told."""
        message.is_deleted = True
        self.world.changed()

    def react(self, message: Message, *emoji: str) -> None:
        """Set one's reactions on a message; several at once are for premium accounts."""
        assert len(emoji) <= (3 if self.is_premium else 1), "one reaction, or three with premium"
        for one in map(reaction, emoji):
            assert one["emoji"] in LEGAL_REACTIONS, f"{one['emoji']} is no reaction that Telegram offers"
            allowed = message.chat.allowed_reactions
            assert allowed is None or one["emoji"] in allowed, "the administrators do not allow this one"
        self.react_with(message, [reaction(one) for one in emoji])

    def unreact(self, message: Message) -> None:
        self.react_with(message, [])

    def react_with(self, message: Message, new: Iterable[Json]) -> None:
        """Any ReactionType, such as a custom emoji."""
        assert not message.is_deleted
        set_reactions(message, self.id, list(new), self)

    def press(self, message: Message, label: str) -> Press:
        """Press the button with this label. The bot has to answer the query; see the Press."""
        assert not message.is_deleted, "the message is gone, and its buttons with it"
        found = [button for row in message.keyboard for button in row if button["text"] == label]
        assert found, f"no button {label!r} among {message.buttons}"
        assert "callback_data" in found[0], f"button {label!r} opens something else: {found[0]}"
        press = Press(
            query_id=str(next(self.world.numbers)),
            by=self,
            message=message,
            data=found[0]["callback_data"],
            pressed_at=self.world.now(),
        )
        self.world.presses[press.query_id] = press
        telling.tell_press(press)
        return press

    def stop_generation(self, chat: Chat, thread: int | None = None) -> None:
        """Press Stop under a draft that allows it."""
        draft = chat.draft_in(thread)
        assert draft is not None, "no draft is being shown"
        assert draft.can_stop, "the draft has no Stop button: the bot did not pass can_stop"
        draft.is_stopped = True
        telling.tell_stopped(chat, draft)
        self.world.changed()

    def block(self, chat: Chat) -> None:
        """Stop and block the bot of a private chat."""
        chat.is_blocked = True
        telling.tell_membership(chat, chat.bots[0], self, "member", "kicked")

    def unblock(self, chat: Chat) -> None:
        chat.is_blocked = False
        telling.tell_membership(chat, chat.bots[0], self, "kicked", "member")


def set_reactions(message: Message, key: int, new: list[Json], by: Account | None) -> None:
    """Replace what stands under `key`; the update is told only where something changed."""
    old = message.reactions_by.pop(key, [])
    if new:
        message.reactions_by[key] = new
    if old != new and (by is None or not by.is_bot):
        telling.tell_reaction(message, by, old, new)
    message.chat.world.changed()


def thread_of(chat: Chat, reply_to: Message | None, thread: int | None) -> int | None:
    """Topics of a forum; elsewhere in a supergroup, the first message of a row of replies names the thread."""
    if chat.kind != "supergroup":
        return None
    if chat.is_forum:
        chosen = thread if thread is not None else (reply_to.thread if reply_to else None)
        assert chosen is None or chosen in chat.topics, f"no topic {chosen}"
        return chosen
    if reply_to is None or reply_to.chat is not chat:
        return None
    return reply_to.thread if reply_to.thread is not None else reply_to.id


def add_file(world: World, name: str, data: bytes) -> File:
    number = next(world.numbers)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    suffix = f".{name.rsplit('.', 1)[1]}" if "." in name else ""
    file = File(file_id=f"file{number}", name=name, data=data, mime_type=kind, path=f"documents/file_{number}{suffix}")
    world.files[file.file_id] = file
    return file
