"""The door: who comes in, what a stranger is told, and the consent card, once per room."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlite_utils import Database

from claasbot.domain.access import AccessRules, Entry, Visit, entry, is_blocked, makes_admin
from claasbot.domain.conversation import ChatAddress, ChatEvent, Reacted, Reply
from claasbot.domain.person import CONSENT_VERSION, Person
from claasbot.errors import ChatError, ChatGone, NotFound
from claasbot.ports import ChatClient
from claasbot.services.answering import CONSENT_CARD
from claasbot.services.clock import Clock
from claasbot.storage import accounts, audit, chats, people
from claasbot.storage.accounts import Stranger
from claasbot.storage.store import Store

log = logging.getLogger(__name__)

_CODE_LASTS = timedelta(hours=1)
_MAX_PENDING = 3
_FULL = Reply(
    text="I do not know you yet, and too many people are waiting to be let in. Please try again in an hour.",
    notice=True,
)


_WELCOME = Reply(text="You are let in: welcome! /start says what I am, /help what I can do.", notice=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """Somebody who was let in."""

    person: Person
    is_admin: bool


class Admitting:
    """Decides at the first contact and at every later one: a role may have changed."""

    def __init__(
        self,
        store: Store,
        clients: Mapping[tuple[str, str], ChatClient],
        rules: AccessRules,
        no_learning_on: frozenset[str],
        clock: Clock,
    ) -> None:
        """`no_learning_on`: platforms whose people are never learned from, so nobody is asked there."""
        self._store = store
        self._clients = clients
        self._rules = rules
        self._no_learning_on = no_learning_on
        self._asking: set[tuple[int, ChatAddress]] = set()
        self._clock = clock

    async def enter(self, client: ChatClient, event: ChatEvent) -> Guest | None:
        """The person behind the event; None for somebody who is not let in, who may have been told how to be."""
        found, guest, code = await self._store.run(self._enter, event)
        if guest is not None or found == "out":
            return guest
        await client.send(event.address, _FULL if code is None else _how_to_enter(code))
        return None

    def _enter(self, db: Database, event: ChatEvent) -> tuple[Entry, Guest | None, str | None]:
        address, now = event.address, self._clock()
        visit = Visit(
            platform=address.platform,
            account=event.account,
            room=address.room.chat,
            is_group=event.is_group,
            roles=event.roles,
        )
        role = accounts.role_of(db, address.platform, event.account)
        found = entry(visit, role, self._rules)
        if isinstance(event, Reacted):
            # Whoever was answered may judge the answer: a reaction brings no roles, and makes nobody known.
            known = people.known(db, address.platform, event.account)
            is_heard = known is not None and not is_blocked(visit, role, self._rules)
            return "out", Guest(person=known, is_admin=found == "admin") if known and is_heard else None, None
        if found in ("admin", "guest"):
            person = people.person_of(db, address.platform, event.account, event.display_name, now)
            chats.visited(db, address, is_group=event.is_group)
            return found, Guest(person=person, is_admin=found == "admin"), None
        if found == "out":
            return found, None, None
        code = accounts.ask_to_pair(
            db, address, event.account, event.display_name, now, lasts=_CODE_LASTS, max_pending=_MAX_PENDING
        )
        return found, None, code

    async def let_in(self, code: str, who: str) -> tuple[Stranger, bool]:
        """Whoever has that code, and whether they could be told.

        `who` did it, for the record. Raises NotFound for a code that nobody has.
        """
        stranger = await self._store.run(self._pair, code, who)
        client = self._clients.get((stranger.address.platform, stranger.address.bot_account))
        if client is None:
            return stranger, False
        try:
            await client.send(stranger.address, _WELCOME)
        except ChatError:
            return stranger, False
        return stranger, True

    def _pair(self, db: Database, code: str, who: str) -> Stranger:
        as_admin = makes_admin(who, self._rules, has_admin=accounts.has_admin(db))
        stranger = accounts.pair(db, code, self._clock(), as_admin=as_admin)
        if stranger is None:
            raise NotFound(f"Nobody has the code {code[:20]!r}, or it is over: codes last an hour.")
        whom = f"{stranger.address.platform}:{stranger.account}"
        audit.add(db, who, "let in as an admin:" if as_admin else "let in", self._clock(), whom=whom)
        return stranger

    async def ask_consent_once(self, client: ChatClient, person: Person, address: ChatAddress) -> None:
        """Asked is who saw the card: one that could not be shown is shown after the next answer."""
        if address.platform in self._no_learning_on:
            return
        room = (person.person_id, address.room)
        consent = await self._store.run(people.consent_of, person.person_id, address)
        if not consent.must_be_asked or room in self._asking:
            return
        self._asking.add(room)
        try:
            await client.send(address, CONSENT_CARD)
            await self._store.run(
                people.record_consent, person.person_id, address, "asked", CONSENT_VERSION, self._clock()
            )
        except ChatGone:
            raise
        except ChatError as error:
            log.info("p%d is asked later: %s", person.person_id, error)
        finally:
            self._asking.discard(room)


def _how_to_enter(code: str) -> Reply:
    return Reply(
        text=f"Hello! I am an AI, and I answer only people that my host let in. Your code is {code}. "
        f"Ask the host to write “/pair {code}” to me within an hour.",
        notice=True,
        data={"code": code},
    )
