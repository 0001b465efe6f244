"""Schedule → lease rows → job → candidate. One loop, one device; every outcome is a row."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from sqlite_utils import Database

from claasbot import adapter_files
from claasbot.domain.adapter import version_name
from claasbot.domain.completion import BASE
from claasbot.domain.experience import ExperienceState
from claasbot.domain.feedback import signal_of
from claasbot.domain.hindsight import teacher_messages
from claasbot.domain.job import (
    JobExperience,
    Recipe,
    TrainingJob,
    TrainingResult,
    job_identity,
    job_seed,
)
from claasbot.domain.schedule import Rules, Train, Wait, back_off_s, decide
from claasbot.errors import EngineDown, JobRefused, NotFound
from claasbot.ports import InferenceServer, TrainingEngine
from claasbot.services.clock import Clock
from claasbot.services.handover import Handover
from claasbot.services.platform_modes import PlatformModes
from claasbot.services.stage import keep_doing
from claasbot.storage import completions, lessons, outbox, people, switches, versions
from claasbot.storage.lessons import StoredExperience, StoredJob
from claasbot.storage.store import Store

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_ANOTHER_BASE = "it was answered by another base model"


@dataclass(frozen=True, slots=True, kw_only=True)
class LessonRules:
    """What the host decides about lessons."""

    rules: Rules
    recipe: Recipe
    max_experiences: int
    max_standing: int
    n_earlier: int
    max_attempts: int


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
        self._modes = modes
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

    async def requeue(self, person_id: int, experience_id: int) -> None:
        """Queue parked feedback once more. Raises NotFound, NotYours, BadInput, ImpossibleTransition."""
        await self._store.run(lessons.requeue, person_id, experience_id, self._clock())
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
            await self._train(leased[0])
            return 0.0
        decision = await self._decision(now)
        if isinstance(decision, Wait):
            return _LOOK_S if decision.until is None else min(_LOOK_S, (decision.until - now).total_seconds())
        await self._store.run(self._lease, decision, await self._base())
        self._store.stages.outbox.set()
        return 0.0

    async def _decision(self, now: datetime) -> Train | Wait:
        """Whoever said `/learn now` goes first, as often as it takes until nothing of theirs is due."""
        paused = await self._store.run(switches.switch, switches.LEARNING) == "paused"
        rules = replace(self._rules.rules, is_paused=paused)
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

    def _lease(self, db: Database, decision: Train, base_revision: str) -> None:
        """One transaction: version number, job row, experiences leased. Nothing, if none of them may teach any more."""
        now = self._clock()
        chosen = self._batch(db, decision.person_id, base_revision, now)
        if not chosen:
            return
        parent = versions.current(db, decision.person_id)
        n = versions.next_n(db, decision.person_id)
        ids = tuple(experience.experience_id for experience in chosen)
        recipe = _recipe_for(chosen, self._rules.recipe)
        job_id = job_identity(
            parent=BASE if parent is None else parent.server_name,
            version_name=version_name(decision.person_id, n),
            experience_ids=ids,
            recipe=recipe,
        )
        lessons.add_job(
            db,
            job_id=job_id,
            person_id=decision.person_id,
            version_n=n,
            parent_version_id=None if parent is None else parent.version_id,
            recipe=recipe,
            reason=decision.reason,
            experience_ids=ids,
            now=now,
        )
        for experience in chosen:
            outbox.add(db, experience, "queued", {"version": version_name(decision.person_id, n)}, now)

    def _batch(self, db: Database, person_id: int, base_revision: str, now: datetime) -> list[StoredExperience]:
        """What one job trains: oldest first, all sampled under one chat template with the same options.

        The rest waits for the next job. What can never teach is rejected on the way.
        """
        batch: list[StoredExperience] = []
        template: tuple[str, dict[str, object]] | None = None
        for experience in lessons.queued(db, person_id, self._rules.max_experiences):
            sent = completions.completion(db, experience.completion_id)
            not_here = self._why_not_here(db, experience)
            if not people.consent_of(db, person_id, experience.address).allows_learning:
                lessons.move(db, experience.experience_id, "rejected", "you withdrew your consent", now)
                outbox.clear_dropped(db, experience, now)
            elif sent.base_revision != base_revision:
                lessons.move(db, experience.experience_id, "rejected", _ANOTHER_BASE, now)
                outbox.add(db, experience, "refused", {"reason": _ANOTHER_BASE}, now)
            elif not_here is not None:
                lessons.move(db, experience.experience_id, "rejected", not_here, now)
                outbox.add(db, experience, "refused", {"reason": not_here}, now)
            elif template in (None, (sent.template_hash, sent.template_options)):
                template = (sent.template_hash, sent.template_options)
                batch.append(experience)
        return batch

    def _why_not_here(self, db: Database, row: StoredExperience) -> str | None:
        return self._modes.why_not(db, row.address.platform, row.completion_id, is_interaction=row.is_interaction)

    async def _train(self, stored: StoredJob) -> None:
        base_revision = await self._base()
        started = time.perf_counter()
        try:
            job = await self._store.run(self._job, stored)
        except NotFound as error:
            await self._end(stored, "abandoned", str(error))
            return
        if job.base_revision != base_revision:
            await self._end(stored, "abandoned", _ANOTHER_BASE, experiences="rejected", told=_ANOTHER_BASE)
            return
        staged = time.perf_counter()
        try:
            result = await self._handover.run(job)
        except (EngineDown, OSError) as error:
            await self._failed(stored, error)
            return
        except JobRefused as error:
            await self._end(stored, "dead", str(error))
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

    async def _failed(self, stored: StoredJob, error: Exception) -> None:
        """Try again later, until the attempts are used up."""
        if stored.attempts + 1 >= self._rules.max_attempts:
            await self._end(stored, "dead", f"given up after {stored.attempts + 1} attempts: {error}")
            return
        not_before = self._clock() + timedelta(seconds=back_off_s(stored.attempts + 1))
        attempts = await self._store.run(lessons.job_failed, stored.job_id, str(error), not_before)
        log.warning("job %s failed (attempt %d): %s", stored.job_id, attempts, error)

    async def _end(
        self,
        stored: StoredJob,
        state: str,
        reason: str,
        *,
        experiences: ExperienceState = "quarantined",
        told: str = "something went wrong on my side; the admin finds it under Lessons",
    ) -> None:
        """The job makes no version: its experiences are parked with the reason, or rejected."""

        def unit(db: Database) -> None:
            now = self._clock()
            lessons.job_ended(db, stored.job_id, state, (reason,), stored.seconds, now)
            for experience in lessons.of_job(db, stored.job_id):
                if experience.state == "leased":
                    lessons.move(db, experience.experience_id, experiences, reason, now)
                    outbox.add(db, experience, "refused", {"reason": told}, now)
                else:
                    outbox.clear_dropped(db, experience, now)

        log.error("job %s ended as %s: %s", stored.job_id, state, reason)
        try:
            await self._store.run(unit)
        except NotFound:
            log.info("job %s is gone already", stored.job_id)
        await self._engine.discard(stored.job_id)
        self._store.stages.outbox.set()

    def _job(self, db: Database, stored: StoredJob) -> TrainingJob:
        """The job as the engine sees it. Raises NotFound when its person or rows are gone."""
        leased = [row for row in lessons.of_job(db, stored.job_id) if row.state == "leased"]
        if not leased:
            raise NotFound(f"all feedback of job {stored.job_id} was withdrawn")
        parent = None if stored.parent_version_id is None else versions.version(db, stored.parent_version_id)
        learned = lessons.consumed(db, stored.person_id, max(self._rules.max_standing, self._rules.n_earlier))
        standing = _standing(learned[: self._rules.max_standing], stored.recipe)
        first = completions.completion(db, leased[0].completion_id)
        earlier = [
            row
            for row in learned[: self._rules.n_earlier]
            if completions.completion(db, row.completion_id).base_revision == first.base_revision
        ]
        name = version_name(stored.person_id, stored.version_n)
        return TrainingJob(
            job_id=stored.job_id,
            version_name=name,
            folder=str(self._data / version_folder(stored.person_id, stored.version_n)),
            parent_folder=None if parent is None else str(self._data / parent.folder),
            base_revision=first.base_revision,
            template_options=first.template_options,
            recipe=stored.recipe,
            seed=job_seed(stored.job_id),
            experiences=tuple(_experience(db, row, standing) for row in leased),
            earlier=tuple(_experience(db, row, standing) for row in earlier),
        )


def version_folder(person_id: int, n: int) -> Path:
    """Where a version lies, relative to the data folder."""
    return Path("adapters") / f"p{person_id}" / f"v{n}"


def _recipe_for(chosen: list[StoredExperience], recipe: Recipe) -> Recipe:
    """One step only for feedback whose first candidate the gate refused as too large a move."""
    return replace(recipe, n_steps=1) if any(row.n_refusals for row in chosen) else recipe


def _standing(learned: list[StoredExperience], recipe: Recipe) -> tuple[str, ...]:
    """The preferences that the teacher goes on reading, oldest first (`base+digest`)."""
    if recipe.teacher != "base+digest":
        return ()
    texts = [signal_of(row.feedback.kind, row.feedback.text).hint for row in reversed(learned)]
    return tuple(dict.fromkeys(text for text in texts if text))


def _experience(db: Database, row: StoredExperience, standing: tuple[str, ...]) -> JobExperience:
    sent = completions.completion(db, row.completion_id)
    signal = signal_of(row.feedback.kind, row.feedback.text)
    return JobExperience(
        experience_id=row.experience_id,
        messages=sent.messages,
        teacher_messages=teacher_messages(
            sent.messages,
            hints=(signal.hint,) if signal.hint else (),
            demonstration=signal.demonstration,
            standing=standing,
        ),
        prompt_ids=sent.completion.prompt_ids,
        token_ids=sent.completion.token_ids,
        logprobs=sent.completion.logprobs,
        version_name=sent.version_name,
        correction=signal.demonstration,
    )
