"""A strict, stateful stand-in for Telegram's Bot API server, over real HTTP. A simulated platform: no Telegram in it.

It plays three parts: the server that the bot talks to, the people on the other side, and the referee between them.
A call or update that the Bot API's schema does not know becomes a `problem`, and a problem fails the test.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.chat.telegram.faults import Chance, Fault, Hold, RateLimit, Rates
from tests.chat.telegram.groups import Group
from tests.chat.telegram.people import Person
from tests.chat.telegram.refusal import OTHER_POLLER, Refused, flood
from tests.chat.telegram.server import BotApiServer, Call
from tests.chat.telegram.updates import UpdateQueue
from tests.chat.telegram.world import BotAccount, Chat, Message

_WORDS = {
    401: "Unauthorized",
    403: "Forbidden: bot was blocked by the user",
    409: OTHER_POLLER,
    500: "Internal Server Error",
    502: "Bad Gateway",
}


@dataclass
class FakeBotApi(BotApiServer):
    """Start it, point a client at `base_url`, act as people, look at chats."""

    _group_ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1001))

    def __post_init__(self) -> None:
        self.bot = self.add_bot("claasbot", "claas_test_bot")

    def add_bot(self, first_name: str, username: str, *, privacy_mode: bool = True) -> BotAccount:
        number = next(self.world.numbers)
        bot = BotAccount(
            id=number,
            first_name=first_name,
            username=username,
            is_bot=True,
            token=f"{number}:simulated-token-of-no-value",
            updates=UpdateQueue(world=self.world, problem=self.problems.append),
            has_privacy_mode=privacy_mode,
        )
        self.world.bots.append(bot)
        return bot

    def person(self, name: str, *, username: str | None = None, premium: bool = False, language: str = "en") -> Person:
        person = Person(
            id=next(self.world.numbers),
            first_name=name,
            username=username or name.lower(),
            is_premium=premium,
            language_code=language,
            world=self.world,
        )
        self.world.people[person.id] = person
        return person

    def private_chat(self, person: Person, *, bot: BotAccount | None = None, started: bool = True) -> Chat:
        """`started`: the person has written before. Otherwise the bot may not write until they do."""
        chat = Chat(
            world=self.world,
            id=person.id,
            kind="private",
            title=person.first_name,
            person=person,
            bots=[bot or self.bot],
            accounts={person.id: person, (bot or self.bot).id: bot or self.bot},
            is_started=started,
        )
        self.world.chats.append(chat)
        return chat

    def group(
        self,
        title: str,
        *,
        members: Iterable[Person] = (),
        owner: Person | None = None,
        forum: bool = False,
        supergroup: bool | None = None,
        bot_is_admin: bool = True,
    ) -> Group:
        """A supergroup unless `supergroup=False`; only such a basic group can be upgraded."""
        is_super = forum or supergroup is not False
        number = next(self._group_ids)
        owner = owner or self.person("Olga")
        group = Group(
            world=self.world,
            id=-1_000_000_000_000 - number if is_super else -number,
            kind="supergroup" if is_super else "group",
            title=title,
            is_forum=forum,
            owner=owner,
            bots=[self.bot],
            status_of={owner.id: "creator"},
            accounts={owner.id: owner},
        )
        self.world.chats.append(group)
        group.let_in(members)
        group.add_bot(self.bot, is_admin=bot_is_admin)
        return group

    def delete(self, message: Message) -> None:
        """The message goes, whoever wrote it. Bots are not told."""
        message.is_deleted = True
        self.world.changed()

    def fail_next(
        self,
        method: str | None,
        status: int,
        description: str | None = None,
        *,
        retry_after: int | None = None,
        times: int = 1,
        after: bool = False,
    ) -> None:
        """Refuse the next calls of a method (None: any but getUpdates). `after`: they are carried out first."""
        assert description or status == 429 or status in _WORDS, f"say what a {status} says"
        refusal = flood(retry_after or 1) if status == 429 else Refused(status, description or _WORDS[status])
        self._faults.append(Fault(method=method, refusal=refusal, times=times, is_after=after))

    def flood_some(self, method: str, share: float, *, retry_after: int, seed: int = 0) -> None:
        """Answer that share of a method's calls with 429."""
        drawn = random.Random(seed)
        refusal = flood(retry_after)
        self._faults.append(
            Chance(method=method, refusal=refusal, times=sys.maxsize, is_after=False, share=share, drawn=drawn)
        )

    def drop_next(self, method: str | None, *, times: int = 1, after: bool = False) -> None:
        """Break the connection instead of answering. `after`: the call is carried out, the answer is lost."""
        self._faults.append(Fault(method=method, refusal=None, times=times, is_after=after))

    def hold_next(self, method: str) -> Hold:
        """The next call of this method waits for `release()`; `reached` tells that it is there."""
        self._holds.append(hold := Hold(method))
        return hold

    def limit_rates(self, rates: Rates | None = None) -> RateLimit:
        self.rate_limit = RateLimit(rates or Rates())
        return self.rate_limit

    def forget_faults(self) -> None:
        self._faults.clear()

    def advance(self, seconds: float) -> None:
        """Move the platform's clock, by which drafts, "typing…", queries, updates and rates grow old."""
        self.world.advance(seconds)

    async def until(self, predicate: Callable[[], Any], *, within_s: float = 5) -> Any:
        """Wait until the predicate holds and return what it returned; looks at every change of state."""
        try:
            return await self.world.until(predicate, within_s)
        except TimeoutError:
            raise AssertionError(f"not within {within_s} s\n{self.report()}") from None

    async def all_read(self, bot: BotAccount | None = None, *, within_s: float = 5) -> None:
        """Wait until the bot has acknowledged every update."""
        queue = (bot or self.bot).updates
        await self.until(lambda: not queue.pending, within_s=within_s)

    def calls_of(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method == method]

    @property
    def refusals(self) -> list[Call]:
        """Calls that were answered with an error."""
        return [call for call in self.calls if call.status >= 400]

    def report(self) -> str:
        chats = [chat.transcript() for chat in self.world.chats]
        calls = [f"{call!r}" for call in self.calls[-20:]]
        return "\n".join([*chats, "last calls:", *calls, *(f"PROBLEM: {one}" for one in self.problems)])

    def check(self) -> None:
        """Fail if the client or the simulation did what the Bot API does not know."""
        assert not self.problems, self.report()

    def take_problems(self) -> list[str]:
        """The problems so far, for a test that provokes them."""
        taken = list(self.problems)
        self.problems.clear()
        return taken
