"""One person on two platforms: accounts joined by a code, one memory, and the adapter of their choice."""

from __future__ import annotations

from datetime import timedelta

from sqlite_utils import Database

from claasbot.domain.adapter import AdapterVersion
from claasbot.domain.conversation import Button, Reply
from claasbot.errors import BadInput
from claasbot.services.call import Call, Handler, personal
from claasbot.services.clock import Clock
from claasbot.services.erasing import Erasing
from claasbot.storage import accounts, joining, people, versions
from claasbot.storage.store import Store

_CODE_LASTS = timedelta(minutes=10)


class Linking:
    """/link gives a code, /link CODE uses it.

    The adapter that is not kept is erased; its lessons may be learned again.
    """

    def __init__(self, store: Store, erasing: Erasing, clock: Clock) -> None:
        self._store = store
        self._erasing = erasing
        self._clock = clock

    def handlers(self) -> dict[str, Handler]:
        return {"link": self._link}

    def buttons(self) -> dict[str, Handler]:
        return {"link": self._choose, "relearn": self._relearn}

    async def _link(self, call: Call) -> Reply:
        if call.event.is_group:
            raise BadInput("Write /link to me in private: a code in a group is everybody's.")
        if not call.argument:
            code = await self._store.run(accounts.offer_link, call.person.person_id, self._clock(), lasts=_CODE_LASTS)
            return personal(
                f"Write “/link {code}” to me from your other account within ten minutes: then both are you, with one "
                "memory and one adapter."
            )
        return await self._join(call, call.argument, keep=None)

    async def _choose(self, call: Call) -> Reply:
        code, _, keep = call.argument.partition(":")
        if keep not in ("here", "there"):
            raise BadInput(f"The button {call.argument[:40]!r} is not one of mine.")
        return await self._join(call, code, keep=keep)

    async def _join(self, call: Call, code: str, keep: str | None) -> Reply:
        def unit(db: Database) -> tuple[Reply, bool]:
            now = self._clock()
            there = accounts.link_of(db, code, now)
            here = call.person.person_id
            if there is None:
                raise BadInput(f"Nobody has the code {code[:20]!r}, or it is over. /link gives a new one.")
            if there == here:
                raise BadInput("Both accounts are you already.")
            if any(people.person(db, person_id).is_blocked for person_id in (here, there)):
                raise BadInput("The data of one of the two accounts is being deleted. Try again in a minute.")
            at_here, at_there = versions.current(db, here), versions.current(db, there)
            if keep is None and at_here is not None and at_there is not None:
                return _which(code, at_here, at_there), False
            winner = here if keep == "here" or (keep is None and at_there is None) else there
            accounts.end_link(db, code)
            n_parked = joining.join(db, winner, there if winner == here else here, now)
            return _joined(winner, n_parked), True

        reply, is_joined = await self._store.run(unit)
        if is_joined:
            await self._erasing.resume()
        return reply

    async def _relearn(self, call: Call) -> Reply:
        call.for_its_owner(call.argument)
        n_queued = await self._store.run(joining.learn_again, call.person.person_id, self._clock())
        self._store.stages.experience.set()
        return personal(f"I am learning {n_queued} lessons again." if n_queued else "There is nothing to learn again.")


def _which(code: str, here: AdapterVersion, there: AdapterVersion) -> Reply:
    return Reply(
        text=f"Both accounts have taught me: {here.name} here, {there.name} there. Which shall answer you from now on? "
        "The other one is deleted; its lessons can be learned again.",
        notice=True,
        personal=True,
        buttons=(
            Button(label=f"Keep {here.name}", action=f"link:{code}:here"),
            Button(label=f"Keep {there.name}", action=f"link:{code}:there"),
        ),
    )


def _joined(winner: int, n_parked: int) -> Reply:
    text = f"Joined: both accounts are p{winner} now, with one memory."
    if not n_parked:
        return personal(text)
    return Reply(
        text=f"{text} {n_parked} lessons of the other adapter went with it.",
        notice=True,
        personal=True,
        buttons=(Button(label="Learn them again", action=f"relearn:{winner}"),),
    )
