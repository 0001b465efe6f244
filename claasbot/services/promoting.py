"""Candidate → loaded → canary → gate → promoted or rejected; and the pointer's way back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlite_utils import Database

from claasbot.domain.adapter import AdapterVersion
from claasbot.domain.completion import BASE
from claasbot.domain.gate import Limits, Verdict, judge_canary, judge_training
from claasbot.domain.job import TrainingResult, lesson_s
from claasbot.errors import (
    AdapterDamaged,
    AdaptersMix,
    BadInput,
    ClaasbotError,
    NotFound,
    ServerError,
    ServerRefused,
)
from claasbot.ports import TrainingEngine
from claasbot.services.canaries import Canaries
from claasbot.services.clock import Clock
from claasbot.services.rebuilding import Rebuilding
from claasbot.services.serving import Serving
from claasbot.services.stage import keep_doing
from claasbot.storage import lessons, outbox, people, revocations, versions
from claasbot.storage.lessons import StoredExperience, StoredJob
from claasbot.storage.store import Store

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_N_REJECTED_KEPT = 3
"""Rejected versions of one person whose files stay, for whoever wants to know why the gate refused them."""


After = Callable[[Database, str], None]
"""What belongs into the commit of an undo; it is told the name of the version that answers now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """What an undo came to."""

    n_undone: int
    """Lessons: a version that was rebuilt holds several, and all of them go."""
    version_name: str
    """Which version answers now; `base` for none."""


class Promoting:
    """The loop that lets candidates answer, or says why not."""

    def __init__(
        self,
        store: Store,
        serving: Serving,
        engine: TrainingEngine,
        canaries: Canaries,
        rebuilding: Rebuilding,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self._store = store
        self._serving = serving
        self._engine = engine
        self._canaries = canaries
        self._rebuilding = rebuilding
        self._limits = limits
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        await keep_doing("promoting", self.step, self._store.stages.candidate)

    async def step(self) -> float:
        """Judge every candidate that waits. A server that is down leaves them waiting."""
        for job in await self._store.run(lessons.open_jobs, self._clock()):
            if job.state == "trained" and job.result is not None:
                await self._judge_safely(job, job.result)
        return _LOOK_S

    async def _judge_safely(self, job: StoredJob, result: TrainingResult) -> None:
        """One candidate's trouble is not the next one's."""
        try:
            await self._judge(job, result)
        except (ClaasbotError, OSError) as error:
            log.warning("candidate of job %s waits: %s", job.job_id, error)
        except Exception:  # the outermost loop of one candidate
            log.exception("candidate of job %s waits", job.job_id)

    async def _judge(self, job: StoredJob, result: TrainingResult) -> None:
        version = await self._store.run(versions.of_job, job.job_id)
        seconds = dict(job.seconds)
        started = time.perf_counter()
        verdict = judge_training(result, self._limits)
        if verdict.passed:
            try:
                await self._serving.ensure_loaded(version)
                seconds["load"] = time.perf_counter() - started
                started = time.perf_counter()
                async with self._serving.holding(version):
                    canary = await self._canaries.taken(job, version, result)
                verdict = judge_canary(canary, self._limits)
            except AdaptersMix:  # no fault of the candidate: it waits for a server that keeps adapters apart
                raise
            except (ServerRefused, AdapterDamaged) as error:
                verdict = Verdict(reasons=(f"it could not be served: {error}",), can_retry_smaller=True)
        seconds["canary"] = time.perf_counter() - started
        started = time.perf_counter()
        promoted = await self._store.run(self._settle, job, version, verdict, seconds)
        log.info("version %s is %s in %.2f s", version.name, "promoted" if promoted else "rejected", lesson_s(seconds))
        self._store.stages.outbox.set()
        self._store.stages.experience.set()
        self._store.stages.revocation.set()
        await self._engine.discard(job.job_id)
        await self._unload_others(job.person_id, keep=version if promoted else None)
        await self.prune(job.person_id)

    def _settle(
        self, db: Database, job: StoredJob, version: AdapterVersion, verdict: Verdict, seconds: dict[str, float]
    ) -> bool:
        """Transaction 2: promoted with everything that follows, or rejected. Returns whether it answers now."""
        started = time.perf_counter()
        if people.person(db, job.person_id).is_blocked:
            raise NotFound(f"p{job.person_id} is being forgotten")
        if job.is_rebuild:
            return self._rebuilding.settle(db, job, version, verdict.reasons, seconds, self._clock())
        if revocations.is_asked(db, job.person_id):
            self._abandon(db, job, version, "a lesson before it was taken back meanwhile", again=True, seconds=seconds)
            return False
        parent = versions.current(db, job.person_id)
        leased = lessons.of_job(db, job.job_id)
        if (None if parent is None else parent.version_id) != job.parent_version_id:
            self._abandon(db, job, version, "its parent was undone meanwhile", again=True, seconds=seconds)
            return False
        if any(row.state != "leased" for row in leased):
            self._abandon(db, job, version, "its feedback was withdrawn meanwhile", again=True, seconds=seconds)
            return False
        forbidden = next((why for row in leased if (why := self._rebuilding.why_not_any_more(db, row))), None)
        if forbidden is not None:
            self._abandon(db, job, version, forbidden, again=False, seconds=seconds)
            return False
        if not verdict.passed:
            self._reject(db, job, version, verdict, seconds)
            return False
        now = self._clock()
        if parent is not None:
            versions.move(db, parent.version_id, "retired", now)
        versions.move(db, version.version_id, "promoted", now)
        versions.point_to(db, job.person_id, version.version_id)
        for number, row in enumerate(leased):
            lessons.consume(db, row.experience_id, version.version_id, now)
            # One notice for the whole lesson; every message gets its mark.
            effect = {} if number else _effect(row, version, job.result)
            outbox.add(db, row, "learned", effect, now)
        seconds["gate"] = time.perf_counter() - started
        lessons.job_ended(db, job.job_id, "promoted", (), seconds, now)
        return True

    def _reject(
        self, db: Database, job: StoredJob, version: AdapterVersion, verdict: Verdict, seconds: dict[str, float]
    ) -> None:
        """A result, not an error: the feedback gets one more try with a smaller step if that can help."""
        now = self._clock()
        versions.move(db, version.version_id, "rejected", now)
        reason = "; ".join(verdict.reasons)
        for row in lessons.of_job(db, job.job_id):
            again = verdict.can_retry_smaller and row.n_refusals == 0
            lessons.count_refusal(db, row.experience_id)
            lessons.move(db, row.experience_id, "queued" if again else "rejected", reason, now)
            if not again:
                told = reason.partition(":")[0]  # what a server or trainer said stays with the admin
                outbox.add(db, row, "refused", {"reason": told, "version": version.name}, now)
        lessons.job_ended(db, job.job_id, "rejected", verdict.reasons, seconds, now)

    def _abandon(
        self, db: Database, job: StoredJob, version: AdapterVersion, why: str, *, again: bool, seconds: dict[str, float]
    ) -> None:
        now = self._clock()
        versions.move(db, version.version_id, "rejected", now)
        for row in lessons.of_job(db, job.job_id):
            if row.state == "leased":
                lessons.move(db, row.experience_id, "queued" if again else "rejected", why, now)
            if row.state != "leased" or not again:
                outbox.clear_dropped(db, row, now)
        lessons.job_ended(db, job.job_id, "abandoned", (why,), seconds, now)

    async def undo(self, person_id: int, version_id: int | None = None, *, after: After | None = None) -> str:
        """Go back to the version before the current one; its lessons are withdrawn. Raises NotFound.

        `version_id`: undo that version only; raises BadInput when it is not the current one any more.
        Returns the name of the version that answers now.
        """
        return (await self._go_back(person_id, version_id, 1, after)).version_name

    async def undo_last(self, person_id: int, n: int) -> Undone:
        """Take the last `n` lessons back, or as many as there are, in one unit. Raises NotFound when there is none."""
        return await self._go_back(person_id, None, n)

    async def roll_back(self, person_id: int, n: int, *, after: After | None = None) -> Undone:
        """Back to version number `n` of those that the current one stands on, 0 for the base model; what was learned
        since is withdrawn. Raises BadInput for any other.
        """

        def unit(db: Database) -> tuple[list[AdapterVersion], int, AdapterVersion | None]:
            left, n_undone, current = list[AdapterVersion](), 0, versions.current(db, person_id)
            while current is not None and current.n > n:
                undone, n_more, current = self._step_back(db, person_id, None)
                left.append(undone)
                n_undone += n_more
            if not left or n != (0 if current is None else current.n):
                raise BadInput(
                    f"p{person_id}.v{n} is none of the earlier versions of what answers p{person_id} now; the person's "
                    "page lists them."
                )
            return left, n_undone, current

        return await self._gone_back(unit, after)

    async def _go_back(self, person_id: int, version_id: int | None, n: int, after: After | None = None) -> Undone:
        def unit(db: Database) -> tuple[list[AdapterVersion], int, AdapterVersion | None]:
            undone, n_undone, current = self._step_back(db, person_id, version_id)
            left = [undone]
            while n_undone < n and current is not None:
                undone, n_more, current = self._step_back(db, person_id, None)
                left.append(undone)
                n_undone += n_more
            return left, n_undone, current

        return await self._gone_back(unit, after)

    async def _gone_back(
        self,
        unit: Callable[[Database], tuple[list[AdapterVersion], int, AdapterVersion | None]],
        after: After | None,
    ) -> Undone:
        def whole(db: Database) -> tuple[list[AdapterVersion], Undone]:
            left, n_undone, current = unit(db)
            undone = Undone(n_undone=n_undone, version_name=BASE if current is None else current.name)
            if after is not None:
                after(db, undone.version_name)
            return left, undone

        left, undone = await self._store.run(whole)
        self._store.stages.outbox.set()
        await self._serving.retire(left)
        return undone

    def _step_back(
        self, db: Database, person_id: int, version_id: int | None
    ) -> tuple[AdapterVersion, int, AdapterVersion | None]:
        """The version that answers no more, how many lessons went with it, and the version that answers now."""
        now = self._clock()
        current = versions.current(db, person_id)
        _refuse_undo_of(db, person_id, version_id, current)
        assert current is not None
        parent = None if current.parent_id is None else versions.version(db, current.parent_id)
        while parent is not None and not (parent.state == "retired" and versions.has_files(db, parent.version_id)):
            parent = None if parent.parent_id is None else versions.version(db, parent.parent_id)
        versions.move(db, current.version_id, "retired", now)
        if parent is not None:
            versions.move(db, parent.version_id, "promoted", now)
        versions.point_to(db, person_id, None if parent is None else parent.version_id)
        n_lessons = revocations.n_lessons(db, current.version_id)
        for row in lessons.consumed_by(db, current.version_id):
            lessons.move(db, row.experience_id, "withdrawn", "you undid the lesson", now)
            outbox.clear_dropped(db, row, now)
        return current, max(1, n_lessons), parent

    async def _unload_others(self, person_id: int, keep: AdapterVersion | None) -> None:
        """What no longer answers leaves the server; running requests under those names finish."""
        current = await self._store.run(versions.current, person_id)
        held = {version.version_id for version in (keep, current) if version is not None}
        mine = await self._store.run(versions.of_person, person_id)
        await self._serving.retire([version for version in mine if version.version_id not in held])

    async def prune(self, person_id: int) -> None:
        """Delete the files of all but the latest rejected versions; their rows stay. What fails is tried next time."""
        found = await self._store.run(versions.of_person, person_id)
        for version in [version for version in found if version.state == "rejected"][_N_REJECTED_KEPT:]:
            try:
                await self._serving.delete_files(version)
            except (ServerError, OSError) as error:
                log.info("the files of version %s stay: %s", version.name, error)


def _refuse_undo_of(db: Database, person_id: int, version_id: int | None, current: AdapterVersion | None) -> None:
    """Raises BadInput for a lesson that is not the last one, and NotFound where there is none."""
    who = "the base model" if current is None else current.name
    line = current
    while line is not None and line.version_id != version_id:
        line = None if line.parent_id is None else versions.version(db, line.parent_id)
    if version_id is not None and line is None:
        for lesson in revocations.standing_lessons(db, person_id):
            if lesson.job_id == versions.version(db, version_id).job_id:
                raise BadInput(f"{who} learned that lesson again. /unlearn {lesson.lesson_n} takes it back.")
        raise BadInput(f"That lesson is undone already: {who} answers you.")
    if current is None:
        is_learning = any(row.state == "leased" for row in lessons.unsettled(db, person_id))
        more = " What I am learning now can be undone once it is learned; /optout drops it." if is_learning else ""
        raise NotFound(f"There is nothing to undo: the base model answers you.{more}")
    if version_id not in (None, current.version_id):
        n = versions.version(db, version_id or 0).n
        raise BadInput(
            f"That lesson is not the last one any more: {who} answers you. /undo takes that back, /unlearn {n} yours."
        )


def _effect(row: StoredExperience, version: AdapterVersion, result: TrainingResult | None) -> dict[str, object]:
    """What the notice shows: which version, from which words, and how far the answer moved."""
    facts: dict[str, object] = {
        "version": version.name,
        "version_id": version.version_id,
        "said": row.feedback.text,
        "kind": row.feedback.kind,
    }
    if result is not None:
        for score in result.learned:
            if score.experience_id == row.experience_id:
                facts |= {"before_nats": score.before_nats, "after_nats": score.after_nats}
    return facts
