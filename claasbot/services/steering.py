"""What an admin changes for everybody or for somebody else, from wherever: done, and written down.

Looking (/users, /health, the pages) changes nothing and is not written down.
"""

from __future__ import annotations

from sqlite_utils import Database

from claasbot.errors import BadInput
from claasbot.services.clock import Clock
from claasbot.services.learning import Learning
from claasbot.services.promoting import Promoting
from claasbot.storage import accounts, audit, people, switches
from claasbot.storage.store import Store


class Steering:
    """`who` is the admin's account, as `telegram:7` or `playground:admin`."""

    def __init__(self, store: Store, promoting: Promoting, learning: Learning, clock: Clock) -> None:
        self._store = store
        self._promoting = promoting
        self._learning = learning
        self._clock = clock

    async def set_paused(self, paused: bool, who: str) -> None:
        def unit(db: Database) -> None:
            switches.set_switch(db, switches.LEARNING, "paused" if paused else "on", self._clock())
            audit.add(db, who, f"learning: {'paused' if paused else 'on'}", self._clock())

        await self._store.run(unit)
        self._store.stages.experience.set()

    async def undo(self, person_id: int, who: str) -> str:
        """The name of the version that answers that person now. Raises NotFound."""
        await self._store.run(people.person, person_id)
        name = await self._promoting.undo(person_id)
        await self._write_down(who, f"rolled p{person_id} back to {name}")
        return name

    async def requeue(self, person_id: int, experience_id: int, who: str) -> None:
        """Raises NotFound, NotYours, BadInput, ImpossibleTransition."""
        await self._learning.requeue(person_id, experience_id)
        await self._write_down(who, f"queued feedback of p{person_id} once more")

    async def train_now(self, who: str) -> None:
        await self._learning.train_now()
        await self._write_down(who, "began what waits to be learned")

    async def set_blocked(self, person_id: int, blocked: bool, who: str) -> None:
        """Keep somebody out, or let them in again as a guest. Raises NotFound, and BadInput for oneself."""

        def unit(db: Database) -> None:
            people.person(db, person_id)
            if who in {account.name for account in accounts.of_person(db, person_id)}:
                raise BadInput("That is you: nobody locks themselves out.")
            accounts.set_blocked(db, person_id, blocked)
            audit.add(db, who, f"{'blocked' if blocked else 'let in again'} p{person_id}", self._clock())

        await self._store.run(unit)

    async def _write_down(self, who: str, did: str) -> None:
        await self._store.run(audit.add, who, did, self._clock())
