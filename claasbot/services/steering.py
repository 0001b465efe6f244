"""What an admin changes for everybody or for somebody else, from wherever: done, and written down.

Looking (/users, /health, the pages) changes nothing and is not written down.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlite_utils import Database

from claasbot.errors import BadInput
from claasbot.services.clock import Clock
from claasbot.services.learning import Learning
from claasbot.services.promoting import Promoting
from claasbot.services.revoking import Revoked, Revoking
from claasbot.storage import accounts, audit, people, switches
from claasbot.storage.store import Store


class Steering:
    """`who` is the admin's account, as `telegram:7` or `playground:admin`."""

    def __init__(
        self, store: Store, promoting: Promoting, learning: Learning, revoking: Revoking, clock: Clock
    ) -> None:
        self._store = store
        self._promoting = promoting
        self._learning = learning
        self._revoking = revoking
        self._clock = clock

    async def set_paused(self, paused: bool, who: str) -> None:
        def unit(db: Database) -> None:
            switches.set_paused(db, paused, self._clock())
            audit.add(db, who, f"learning: {'paused' if paused else 'on'}", self._clock())

        await self._store.run(unit)
        self._store.stages.experience.set()

    async def undo(self, person_id: int, who: str) -> str:
        """The name of the version that answers that person now. Raises NotFound."""
        await self._store.run(people.person, person_id)
        return await self._promoting.undo(person_id, after=self._rolled_back(person_id, who))

    async def roll_back(self, person_id: int, n: int, who: str) -> str:
        """The same for a version by its number, 0 for the base model. Raises NotFound and BadInput."""
        await self._store.run(people.person, person_id)
        undone = await self._promoting.roll_back(person_id, n, after=self._rolled_back(person_id, who))
        return undone.version_name

    async def revoke(self, person_id: int, job_id: str, who: str) -> Revoked:
        """Take one lesson of somebody back. Raises NotFound."""
        did = f"took lesson {job_id[:8]} of p{person_id} back"
        return await self._revoking.revoke_job(person_id, job_id, after=self._written_down(who, did))

    async def requeue(self, person_id: int, experience_id: int, who: str) -> None:
        """Raises NotFound, NotYours, BadInput, ImpossibleTransition."""
        did = f"queued feedback of p{person_id} once more"
        await self._learning.requeue(person_id, experience_id, after=self._written_down(who, did))

    async def train_now(self, who: str) -> None:
        await self._store.run(self._written_down(who, "began what waits to be learned"))
        await self._learning.train_now()

    async def set_blocked(self, person_id: int, blocked: bool, who: str) -> None:
        """Keep somebody out, or let them in again as a guest. Raises NotFound, and BadInput for oneself."""

        def unit(db: Database) -> None:
            people.person(db, person_id)
            if who in {account.name for account in accounts.of_person(db, person_id)}:
                raise BadInput("That is you: nobody locks themselves out.")
            accounts.set_blocked(db, person_id, blocked)
            audit.add(db, who, f"{'blocked' if blocked else 'let in again'} p{person_id}", self._clock())

        await self._store.run(unit)

    def _rolled_back(self, person_id: int, who: str) -> Callable[[Database, str], None]:
        return lambda db, name: audit.add(db, who, f"rolled p{person_id} back to {name}", self._clock())

    def _written_down(self, who: str, did: str) -> Callable[[Database], None]:
        """A row for the commit of the act itself: neither is there without the other, wherever the bot is killed."""
        return lambda db: audit.add(db, who, did, self._clock())
