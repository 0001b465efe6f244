"""Groups and supergroups: who is in them, topics, the bot's rights, and the day a group becomes a supergroup."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.chat.telegram import shapes, telling
from tests.chat.telegram.formatting import Text
from tests.chat.telegram.people import Person, reaction, set_reactions
from tests.chat.telegram.world import Account, BotAccount, Chat, Json, Message, Status


@dataclass(eq=False, kw_only=True)
class Group(Chat):
    """A group with an owner, who does what only administrators may."""

    owner: Person

    def let_in(self, people: Iterable[Account]) -> None:
        for one in people:
            self.status_of[one.id] = "member"
            self.accounts[one.id] = one

    def add_bot(self, bot: BotAccount, *, is_admin: bool = False) -> None:
        """Telegram tells the bot twice: by its membership and by a service message."""
        old = self.status_of.get(bot.id, "left")
        if bot not in self.bots:
            self.bots.append(bot)
        self.accounts[bot.id] = bot
        self.status_of[bot.id] = "member"
        telling.tell_membership(self, bot, self.owner, old, "member")
        self._announce(new_chat_members=[shapes.user(bot)])
        if is_admin:
            self.promote(bot)

    def promote(self, bot: BotAccount | None = None) -> None:
        self._change(bot or self.bots[0], "administrator")

    def demote(self, bot: BotAccount | None = None) -> None:
        self._change(bot or self.bots[0], "member")

    def remove_bot(self, bot: BotAccount | None = None) -> None:
        self._change(bot or self.bots[0], "kicked")

    def _change(self, bot: BotAccount, new: Status) -> None:
        old = self.status_of[bot.id]
        self.status_of[bot.id] = new
        telling.tell_membership(self, bot, self.owner, old, new)

    def topic(self, name: str) -> int:
        """A new topic; returns its thread id, which is the id of the message that tells of it."""
        assert self.is_forum, "only forums have topics"
        message_id = self.next_id()
        self.topics[message_id] = name
        created = {"forum_topic_created": {"name": name, "icon_color": 7322096}}
        message = self._service(message_id, created, thread=message_id)
        telling.tell_message(message)
        return message_id

    def react_anonymously(self, message: Message, *emoji: str) -> None:
        """As an administrator who shows the group's name instead of their own."""
        set_reactions(message, self.id, [reaction(one) for one in emoji], None)

    def upgrade(self) -> Group:
        """The group becomes a supergroup with another id. Both tell it; the old one takes no more messages."""
        assert self.kind == "group", "supergroups stay what they are"
        new = Group(
            world=self.world,
            id=-1_000_000_000_000 - next(self.world.numbers),
            kind="supergroup",
            title=self.title,
            owner=self.owner,
            bots=list(self.bots),
            status_of=dict(self.status_of),
            accounts=dict(self.accounts),
            allowed_reactions=self.allowed_reactions,
        )
        self.world.chats.append(new)
        self.upgraded_to = new
        self._announce(migrate_to_chat_id=new.id)
        new._announce(migrate_from_chat_id=self.id)
        return new

    def _announce(self, **service: object) -> None:
        telling.tell_message(self._service(self.next_id(), service))

    def _service(self, message_id: int, service: Json, thread: int | None = None) -> Message:
        message = Message(
            id=message_id,
            chat=self,
            sender=self.owner,
            date=int(self.world.now()),
            shown=Text(""),
            thread=thread,
            service=service,
        )
        self.history.append(message)
        return message
