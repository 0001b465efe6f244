"""JSON from a page or a terminal → ChatEvent. Refuses what it does not know, in one clear line."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, RootModel, StringConstraints

from claasbot.domain.conversation import ChatAddress, ChatEvent, Commanded, Pressed, Reacted, Said, Stopped
from claasbot.web.bodies import Body

Key = Annotated[str, StringConstraints(min_length=1, max_length=80)]
_Action = Annotated[str, StringConstraints(max_length=200)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who sent an event, from where and when: never read from the event itself."""

    address: ChatAddress
    account: str
    display_name: str
    at: datetime


class _Event(Body):
    update_key: Key = Field(description="Any text that is new with every event; the same one again is the same event.")

    def facts(self, sender: Sender) -> dict[str, Any]:
        return {
            "address": sender.address,
            "account": sender.account,
            "display_name": sender.display_name,
            "update_key": self.update_key,
            "at": sender.at,
        }


class SaidEvent(_Event):
    """A message. How long it may be is decided by `chat.max_message_chars`, and answered in the chat."""

    kind: Literal["said"]
    text: str
    reply_to: Key | None = None

    def event(self, sender: Sender) -> ChatEvent:
        return Said(**self.facts(sender), text=self.text, message_key=self.update_key, reply_to=self.reply_to)


class CommandedEvent(_Event):
    """A command of docs/commands.md, without its slash."""

    kind: Literal["commanded"]
    command: Key
    argument: str = ""
    message_key: Key | None = Field(None, description="The answer that it is about.")

    def event(self, sender: Sender) -> ChatEvent:
        facts = self.facts(sender)
        return Commanded(**facts, command=self.command, argument=self.argument, message_key=self.message_key)


class PressedEvent(_Event):
    """A button under a message."""

    kind: Literal["pressed"]
    action: _Action
    message_key: Key | None = None

    def event(self, sender: Sender) -> ChatEvent:
        return Pressed(**self.facts(sender), action=self.action, message_key=self.message_key)


class ReactedEvent(_Event):
    """A reaction that came, or went."""

    kind: Literal["reacted"]
    message_key: Key
    reaction: Key
    removed: bool = False

    def event(self, sender: Sender) -> ChatEvent:
        facts = self.facts(sender)
        return Reacted(**facts, message_key=self.message_key, reaction=self.reaction, removed=self.removed)


class StoppedEvent(_Event):
    """End the answer that is being written."""

    kind: Literal["stopped"]

    def event(self, sender: Sender) -> ChatEvent:
        return Stopped(**self.facts(sender))


class AnyEvent(RootModel[SaidEvent | CommandedEvent | PressedEvent | ReactedEvent | StoppedEvent]):
    """What a person does in the playground or the terminal."""

    root: SaidEvent | CommandedEvent | PressedEvent | ReactedEvent | StoppedEvent = Field(discriminator="kind")
