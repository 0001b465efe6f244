"""One command or button by one person, as every handler gets it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from claasbot.domain.conversation import ChatAddress, Commanded, Pressed, Reply
from claasbot.domain.person import Person
from claasbot.errors import NotYours
from claasbot.ports import ChatClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    person: Person
    is_admin: bool
    event: Commanded | Pressed
    argument: str
    client: ChatClient
    inbox_id: int

    @property
    def address(self) -> ChatAddress:
        return self.event.address

    @property
    def source_key(self) -> str:
        """The same update notes the same feedback, however often it comes."""
        return f"{self.address.platform}:{self.address.bot_account}:{self.event.update_key}"

    def for_admins(self) -> None:
        """Raises NotYours for everybody else."""
        if not self.is_admin:
            raise NotYours("That is for the admins of this bot. /whoami says who you are to me.")

    def for_its_owner(self, person_id: str) -> None:
        """A personal card says in its buttons whose it is: others may see it in a group. Raises NotYours.

        Cards from before they said so are taken in private only.
        """
        if person_id != str(self.person.person_id) and (person_id or self.event.is_group):
            raise NotYours("That was asked by somebody else, and is theirs to decide.")


Handler = Callable[[Call], Awaitable[Reply | None]]


def personal(text: str, **data: object) -> Reply:
    """A notice for the person who asked alone."""
    return Reply(text=text, notice=True, personal=True, data=data)
