"""One lesson taken back, not only the last: at once for the log, and as soon as the rest is learned again for the
weights. The loop begins what was asked and deletes the files of versions that held the lesson.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlite_utils import Database

from claasbot.domain.completion import BASE
from claasbot.domain.rebuild import Taught, of_lesson
from claasbot.errors import NotFound, ServerError
from claasbot.ports import InferenceServer
from claasbot.services.clock import Clock
from claasbot.services.rebuilding import Rebuilding
from claasbot.services.serving import Serving
from claasbot.services.stage import keep_doing
from claasbot.storage import lessons, outbox, people, revocations, versions
from claasbot.storage.store import Store

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_RETRY_S = 5.0

_Choice = Callable[[Database, list[Taught]], tuple[int, ...]]
"""Which experiences, of all that the line was taught. Raises NotFound when there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """What taking a lesson back would come to, as the log is now."""

    said: str
    version_name: str
    """Who answers until it is done."""
    n_again: int
    """Lessons that are learned again without it."""
    lost: tuple[str, ...]
    """Why later feedback would go with it, one reason for each piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    is_rebuilding: bool
    """The version that answered goes on until the rest was learned again."""
    version_name: str
    """Who answers now."""


class Revoking:
    def __init__(
        self,
        store: Store,
        server: InferenceServer,
        serving: Serving,
        rebuilding: Rebuilding,
        data: Path,
        clock: Clock,
    ) -> None:
        self._store = store
        self._server = server
        self._serving = serving
        self._rebuilding = rebuilding
        self._data = data
        self._clock = clock

    async def foresee(self, person_id: int, lesson_n: int) -> Foreseen:
        """Changes nothing. Raises NotFound when the version that answers does not stand on that lesson."""
        base_revision = await self._base_revision()

        def unit(db: Database) -> Foreseen:
            taught = self._rebuilding.taught(db, person_id, base_revision)
            ids = of_lesson(taught, lesson_n)
            found = self._rebuilding.plan(db, person_id, base_revision, without=ids)
            current = versions.current(db, person_id)
            return Foreseen(
                said=" · ".join(filter(None, (lessons.experience(db, one).feedback.text for one in ids))),
                version_name=BASE if current is None else current.name,
                n_again=len(found.lessons),
                lost=tuple(row.why_not or "" for row in found.lost),
            )

        return await self._store.run(unit)

    async def revoke(self, person_id: int, lesson_n: int) -> Revoked:
        """Take that lesson back. Raises NotFound when the version that answers does not stand on it."""
        return await self._revoke(person_id, lambda db, taught: of_lesson(taught, lesson_n))

    async def revoke_job(self, person_id: int, job_id: str, *, after: Callable[[Database], None]) -> Revoked:
        """The same by the lesson's job. `after`: what belongs into the same commit."""

        def chosen(db: Database, taught: list[Taught]) -> tuple[int, ...]:
            return of_lesson(taught, _number(db, person_id, job_id))

        return await self._revoke(person_id, chosen, after)

    async def revoke_taken_back(self, person_id: int) -> Revoked:
        """All feedback that the person took back after it was learned, and nothing else of its lessons."""
        return await self._revoke(person_id, lambda db, taught: _taken_back(db, person_id))

    async def _revoke(
        self, person_id: int, chosen: _Choice, after: Callable[[Database], None] = lambda db: None
    ) -> Revoked:
        """The log first, in one commit: from here on it never teaches again, whatever becomes of the weights."""

        def unit(db: Database) -> None:
            now = self._clock()
            people.person(db, person_id)
            ids = chosen(db, self._rebuilding.taught(db, person_id, None))
            revocations.ask(db, person_id, ids, now)
            for experience_id in ids:
                outbox.clear_dropped(db, lessons.experience(db, experience_id), now)
            after(db)

        await self._store.run(unit)
        await self._begin(person_id)
        self._store.stages.revocation.set()

        def outcome(db: Database) -> Revoked:
            current = versions.current(db, person_id)
            name = BASE if current is None else current.name
            return Revoked(is_rebuilding=revocations.is_asked(db, person_id), version_name=name)

        return await self._store.run(outcome)

    async def run(self) -> None:
        """Until cancelled."""
        await keep_doing("revoking", self.step, self._store.stages.revocation)

    async def step(self) -> float:
        for person_id in await self._store.run(revocations.waiting):
            await self._begin(person_id)
        return await self._delete_files()

    async def _begin(self, person_id: int) -> None:
        await self._store.run(self._rebuilding.begin, person_id, await self._base_revision(), self._clock())
        self._store.stages.experience.set()
        self._store.stages.outbox.set()

    async def _base_revision(self) -> str | None:
        """None while the server cannot say: the trainer refuses what is of another base model."""
        try:
            return (await self._server.info()).base_revision
        except ServerError:
            return None

    async def _delete_files(self) -> float:
        """Of versions that held what was taken back: once nobody is answered by them and no copy is left in the worker.

        A server that cannot forget keeps them until it has been restarted with our plugin, or the person is forgotten.
        """
        wait_s = _LOOK_S
        for version in await self._store.run(revocations.leaving):
            try:
                await self._serving.delete_files(version)
            except (ServerError, OSError) as error:
                log.info("the files of version %s stay for now: %s", version.name, error)
            if await asyncio.to_thread((self._data / version.folder).exists):
                wait_s = _RETRY_S
            else:
                await self._store.run(revocations.left, version.version_id, self._clock())
        return wait_s


def _number(db: Database, person_id: int, job_id: str) -> int:
    """Raises NotFound, also for somebody else's."""
    found = lessons.job(db, job_id)
    if found.person_id != person_id:
        raise NotFound(f"there is no job {job_id}")
    return found.version_n


def _taken_back(db: Database, person_id: int) -> tuple[int, ...]:
    current = versions.current(db, person_id)
    found = tuple(
        row.experience.experience_id
        for row in revocations.taught(db, None if current is None else current.version_id)
        if row.is_taken_back and row.experience.state == "consumed"
    )
    if not found:
        raise NotFound("Nothing that you took back is in what I learned.")
    return found
