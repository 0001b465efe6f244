"""/compare: the last question answered by two versions, without names until the person has chosen."""

from __future__ import annotations

import random

from sqlite_utils import Database

from claasbot.domain.conversation import Button, Commanded, Reply
from claasbot.errors import BadInput, NotFound
from claasbot.services.call import Call, Handler
from claasbot.services.clock import Clock
from claasbot.services.comparing import Compared, Comparing
from claasbot.services.exchanges import Exchanges, may_use_adapter
from claasbot.services.feedback_commands import number
from claasbot.storage import chats, comparisons, completions
from claasbot.storage.comparisons import Comparison
from claasbot.storage.store import Store

_CHOICES = {"first": "A is better", "second": "B is better", "neither": "No difference"}


class CompareCommands:
    def __init__(self, store: Store, comparing: Comparing, exchanges: Exchanges, clock: Clock) -> None:
        self._store = store
        self._exchanges = exchanges
        self._comparing = comparing
        self._clock = clock

    def handlers(self) -> dict[str, Handler]:
        return {"compare": self._blind}

    def buttons(self) -> dict[str, Handler]:
        return {"compare": self._open, "pick": self._pick}

    async def _blind(self, call: Call) -> Reply:
        question = await self._question(call)
        first, second = random.sample(await self._compared(call, question), 2)

        def unit(db: Database) -> int:
            return comparisons.add(
                db, call.person.person_id, question, first.version_name, second.version_name, self._clock()
            )

        comparison_id = await self._store.run(unit)
        return Reply(
            text=f"“{question}”\n\nA: {first.text}\n\nB: {second.text}\n\nWhich is better? Then I say who is who.",
            notice=True,
            buttons=tuple(
                Button(label=label, action=f"pick:{comparison_id}:{choice}") for choice, label in _CHOICES.items()
            ),
        )

    async def _open(self, call: Call) -> Reply:
        """“See difference” under a lesson's notice: with names."""
        question = await self._question(call)
        before, now = await self._compared(call, question)
        return Reply(
            text=f"“{question}”\n\n{before.version_name}: {before.text}\n\n{now.version_name}: {now.text}", notice=True
        )

    async def _compared(self, call: Call, question: str) -> tuple[Compared, Compared]:
        """Under the rules of that chat: its persona, and in a group nothing that was learned elsewhere."""

        def allowed(db: Database) -> str:
            if not may_use_adapter(db, call.person.person_id, call.address):
                raise BadInput("In this group the base model answers you: /optin lets what I learned from you in.")
            self._exchanges.refuse_too_many(db, call.person)
            return chats.room(db, call.address).persona

        persona = await self._store.run(allowed)
        return await self._comparing.compare(call.person.person_id, question, persona)

    async def _pick(self, call: Call) -> Reply:
        comparison_id, _, choice = call.argument.partition(":")
        if choice not in _CHOICES:
            raise BadInput(f"The button {call.argument[:40]!r} is not one of mine.")
        found = await self._store.run(comparisons.choose, call.person.person_id, number(comparison_id), choice)
        return Reply(text=_revealed(found), notice=True)

    async def _question(self, call: Call) -> str:
        if call.argument and isinstance(call.event, Commanded):
            return call.argument
        last = await self._store.run(completions.last_completion, call.person.person_id, call.address)
        if last is None:
            raise NotFound("There is no question to compare on in this conversation yet: /compare What is rain?")
        return last.messages[-1].content


def _revealed(found: Comparison) -> str:
    who = f"A was {found.first_version}, B was {found.second_version}."
    match found.choice:
        case "first":
            return f"You chose {found.first_version}. {who}"
        case "second":
            return f"You chose {found.second_version}. {who}"
    return f"No difference to you. {who}"
