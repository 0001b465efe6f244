"""Schedule → lease rows → job → candidate. One loop, one device; every outcome is a row."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from sqlite_utils import Database

from claasbot import adapter_files, tensor_check
from claasbot.data_folder import is_full
from claasbot.domain.completion import BASE
from claasbot.domain.experience import ExperienceState
from claasbot.domain.job import TrainingJob, TrainingResult
from claasbot.domain.schedule import Train, Wait, back_off_s, decide
from claasbot.errors import AdapterDamaged, EngineDown, JobRefused, NotFound, ServerError, StoreError
from claasbot.ports import InferenceServer, TrainingEngine
from claasbot.services.clock import Clock
from claasbot.services.handover import Handover
from claasbot.services.leasing import ANOTHER_BASE, Leasing, LessonRules
from claasbot.services.platform_modes import PlatformModes
from claasbot.services.rebuilding import Rebuilding
from claasbot.services.stage import keep_doing
from claasbot.services.staging import staged_job, staged_rebuild, version_folder
from claasbot.storage import lessons, outbox, people, revocations, switches, versions
from claasbot.storage.lessons import StoredJob
from claasbot.storage.store import Store

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class Learning:
    """The loop that turns waiting experiences into candidates."""

    def __init__(
        self,
        store: Store,
        engine: TrainingEngine,
        handover: Handover,
        rules: LessonRules,
        data: Path,
        clock: Clock,
        server: InferenceServer,
        modes: PlatformModes,
    ) -> None:
        """`modes`: what may train, by platform, where it is not `full`."""
        self._store = store
        self._engine = engine
        self._handover = handover
        self._rules = rules
        self._data = data
        self._clock = clock
        self._server = server
        self._leasing = Leasing(rules=rules, modes=modes)
        self._rebuilding = Rebuilding(modes=modes)
        self._base_revision: str | None = None
        self._in_a_hurry: set[int] = set()

    async def train_now(self, person_id: int | None = None) -> None:
        """Start what waits of that person, or of everybody, at once: without debounce or cooldown."""
        if person_id is not None:
            self._in_a_hurry.add(person_id)
        else:
            waiting = await self._store.run(lessons.waiting, self._clock())
            self._in_a_hurry.update(person.person_id for person in waiting)
        self._store.stages.experience.set()

    async def requeue(
        self, person_id: int, experience_id: int, *, after: Callable[[Database], None] = lambda db: None
    ) -> None:
        """Queue parked feedback once more. `after`: what belongs into the same commit.

        Raises NotFound, NotYours, BadInput, ImpossibleTransition.
        """

        def unit(db: Database) -> None:
            lessons.requeue(db, person_id, experience_id, self._clock())
            after(db)

        await self._store.run(unit)
        self._store.stages.experience.set()

    async def run(self) -> None:
        """Until cancelled."""
        await keep_doing("learning", self.step, self._store.stages.experience)

    async def step(self) -> float:
        """Do the one thing that is due; returns the seconds until something may be due again, 0 for at once."""
        if not self._engine.is_ready():
            return _LOOK_S
        now = self._clock()
        leased = [job for job in await self._store.run(lessons.open_jobs, now) if job.state == "leased"]
        if leased:
            await self._train_safely(leased[0])
            return 0.0
        decision = await self._decision(now)
        if isinstance(decision, Wait):
            return _LOOK_S if decision.until is None else min(_LOOK_S, (decision.until - now).total_seconds())
        await self._store.run(self._leasing.lease, decision, await self._base(), now)
        self._store.stages.outbox.set()
        return 0.0

    def _staged(self, db: Database, stored: StoredJob) -> TrainingJob | None:
        rules = self._rules
        if stored.is_rebuild:
            return staged_rebuild(db, stored, self._data, max_standing=rules.max_standing)
        return staged_job(db, stored, self._data, max_standing=rules.max_standing, n_earlier=rules.n_earlier)

    async def _decision(self, now: datetime) -> Train | Wait:
        """Whoever said `/learn now` goes first, as often as it takes until nothing of theirs is due."""
        rules = replace(self._rules.rules, is_paused=await self._store.run(switches.is_paused))
        waiting = await self._store.run(lessons.waiting, now)
        hurried = tuple(person for person in waiting if person.person_id in self._in_a_hurry)
        decision = decide(hurried, now, replace(rules, debounce_s=0.0, cooldown_s=0.0))
        if isinstance(decision, Train):
            return decision
        self._in_a_hurry.clear()
        return decide(waiting, now, rules)

    async def _base(self) -> str:
        """The revision of the base model that is served and trained; it changes with a restart of the bot only."""
        if self._base_revision is None:
            self._base_revision = (await self._server.info()).base_revision
        return self._base_revision

    async def _train_safely(self, stored: StoredJob) -> None:
        """The outermost loop of one job: whatever it trips over counts as an attempt, and nobody waits behind it."""
        try:
            await self._train(stored)
        except (StoreError, ServerError):  # not the job's fault, and the next one would meet it too
            raise
        except Exception as error:
            log.exception("job %s failed here", stored.job_id)
            await self._failed(stored, f"{type(error).__name__} before or after the step")

    async def _train(self, stored: StoredJob) -> None:
        base_revision = await self._base()
        started = time.perf_counter()
        if not stored.is_rebuild and await self._store.run(revocations.is_asked, stored.person_id):
            await self._end(stored, "abandoned", "a lesson before it was taken back", experiences="queued")
            return
        try:
            job = await self._store.run(self._staged, stored)
        except NotFound as error:
            await self._end(stored, "abandoned", str(error))
            return
        if job is None:
            await self._end(stored, "abandoned", "some of its feedback was withdrawn", experiences="queued")
            return
        if job.base_revision != base_revision:
            await self._end(stored, "abandoned", ANOTHER_BASE, experiences="rejected", told=ANOTHER_BASE)
            return
        staged = time.perf_counter()
        try:
            result = await self._handover.run(job)
            await asyncio.to_thread(_check_made, job, result)
        except OSError as error:
            await (self._postpone if error.errno in _NO_SPACE else self._failed)(stored, str(error))
            return
        except EngineDown as error:
            await self._failed(stored, str(error))
            return
        except JobRefused as error:
            await self._give_up(stored, str(error))
            return
        except AdapterDamaged as error:  # or made before a crash, of a log that has changed since
            await self._clear(stored)
            await self._failed(stored, str(error))
            return
        seconds = {
            "queue": max(0.0, (self._clock() - stored.created_at).total_seconds() - (time.perf_counter() - started)),
            "stage": staged - started,
            **{"parent" if part == "load" else part: value for part, value in result.seconds.items()},
            "train": time.perf_counter() - staged,
        }
        await self._record(stored, job, result, seconds)

    async def _record(
        self, stored: StoredJob, job: TrainingJob, result: TrainingResult, seconds: dict[str, float]
    ) -> None:
        """Transaction 1: the candidate exists; its experiences stay leased."""

        def unit(db: Database) -> None:
            if people.person(db, stored.person_id).is_blocked:
                raise NotFound(f"p{stored.person_id} is being forgotten")
            if lessons.job(db, stored.job_id).state != "leased":
                return
            versions.add_candidate(
                db,
                person_id=stored.person_id,
                n=stored.version_n,
                parent_id=stored.parent_version_id,
                job_id=stored.job_id,
                folder=str(Path(job.folder).relative_to(self._data)),
                weights_sha256=result.weights_sha256,
                base_revision=job.base_revision,
                now=self._clock(),
            )
            lessons.job_trained(db, stored.job_id, result, seconds)

        try:
            await self._store.run(unit)
        except NotFound:
            # The person was erased while the job ran: what it made goes too.
            await asyncio.to_thread(adapter_files.remove, Path(job.folder))
            await self._engine.discard(stored.job_id)
            return
        self._store.stages.candidate.set()

    async def _failed(self, stored: StoredJob, why: str) -> None:
        """Try again later, until the attempts are used up. Half of a batch that failed has one."""
        if await asyncio.to_thread(is_full, self._data / "adapters"):
            await self._postpone(stored, why)
            return
        rows = await self._store.run(lessons.of_job, stored.job_id)
        n_attempts = self._rules.max_attempts if all(row.max_batch is None for row in rows) else 1
        if stored.attempts + 1 >= n_attempts:
            tries = f"{stored.attempts + 1} attempt{'s' if stored.attempts else ''}"
            await self._give_up(stored, f"given up after {tries}: {why}")
            return
        not_before = self._clock() + timedelta(seconds=back_off_s(stored.attempts + 1))
        attempts = await self._store.run(lessons.job_failed, stored.job_id, why, not_before)
        log.warning("job %s failed (attempt %d): %s", stored.job_id, attempts, why)

    async def _postpone(self, stored: StoredJob, why: str) -> None:
        log.warning("job %s waits for space on the disk: %s", stored.job_id, why)
        await self._store.run(lessons.job_waits, stored.job_id, why, self._clock() + timedelta(seconds=_LOOK_S))

    async def _give_up(self, stored: StoredJob, why: str) -> None:
        """A row that breaks its batch must not take the others with it: they are tried in halves until it is alone."""

        def unit(db: Database) -> bool:
            now = self._clock()
            batch = [row for row in lessons.of_job(db, stored.job_id) if row.state == "leased"]
            if len(batch) < 2 or lessons.job(db, stored.job_id).state != "leased":
                return False
            reasons = (why, f"its {len(batch)} pieces of feedback are tried again in halves")
            lessons.job_ended(db, stored.job_id, "dead", reasons, stored.seconds, now)
            lessons.halve(db, batch, why, now)
            return True

        try:
            is_halved = await self._store.run(unit)
        except NotFound:  # forgotten meanwhile
            is_halved = False
        if not is_halved:
            await self._end(stored, "dead", why)
            return
        log.error("job %s is tried again in halves: %s", stored.job_id, why)
        await self._clear(stored)

    async def _clear(self, stored: StoredJob) -> None:
        """What an attempt left, the version folder too: no row names it, and in the way it is never made again."""
        await self._engine.discard(stored.job_id)
        folder = self._data / version_folder(stored.person_id, stored.version_n)
        try:
            await asyncio.to_thread(adapter_files.remove, folder)
        except OSError as error:  # nobody's next lesson waits for that: a number is never given out again
            log.error("what job %s left in %s stays: %s", stored.job_id, folder, error)

    async def _end(
        self,
        stored: StoredJob,
        state: str,
        reason: str,
        *,
        experiences: ExperienceState = "quarantined",
        told: str = "something went wrong on my side; the admin finds it under Lessons",
    ) -> None:
        """The job makes no version: its experiences are parked with the reason, rejected, or queued again."""

        def unit(db: Database) -> None:
            now = self._clock()
            lessons.job_ended(db, stored.job_id, state, (reason,), stored.seconds, now)
            if stored.is_rebuild and state == "dead":
                self._rebuilding.fall_back(db, stored.person_id, now)
            for experience in lessons.of_job(db, stored.job_id):
                if experience.state == "leased":
                    lessons.move(db, experience.experience_id, experiences, reason, now)
                    if experiences != "queued":
                        outbox.add(db, experience, "refused", {"reason": told}, now)
                else:
                    outbox.clear_dropped(db, experience, now)

        log.error("job %s ended as %s: %s", stored.job_id, state, reason)
        await self._clear(stored)
        try:
            await self._store.run(unit)
        except NotFound:
            log.info("job %s is gone already", stored.job_id)
        self._store.stages.outbox.set()
        self._store.stages.revocation.set()


def _check_made(job: TrainingJob, result: TrainingResult) -> None:
    """The folder holds an adapter, and the one that this job was to make of its parent. Raises AdapterDamaged.

    What a step that was not finite left is no matter: the gate rejects it before anything reads it.
    """
    if not result.finite:
        return
    folder = Path(job.folder)
    tensor_check.check(folder)
    made = adapter_files.read_manifest(folder)
    parent = BASE if job.parent_folder is None else adapter_files.read_manifest(Path(job.parent_folder)).version_name
    found = (made.version_name, made.parent, made.job_id, made.base_revision, made.weights_sha256)
    asked = (job.version_name, parent, job.job_id, job.base_revision, result.weights_sha256)
    if found != asked:
        raise AdapterDamaged(f"{folder.name} says {found!r}, the job asked for {asked!r}; it is removed, try again")
