"""Candidate → loaded → canary → gate → promoted or rejected; and the pointer's way back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sqlite_utils import Database

from claasbot.domain.adapter import AdapterVersion
from claasbot.domain.completion import BASE, CompletionRequest, Sampling, SentCompletion
from claasbot.domain.conversation import Message
from claasbot.domain.gate import Canary, Limits, Verdict, judge_canary, judge_training
from claasbot.domain.job import TrainingResult, lesson_s
from claasbot.errors import (
    AdapterDamaged,
    AdaptersMix,
    BadInput,
    ClaasbotError,
    NotFound,
    ServerDown,
    ServerError,
    ServerRefused,
)
from claasbot.ports import InferenceServer, TrainingEngine
from claasbot.services.clock import Clock
from claasbot.services.platform_modes import PlatformModes
from claasbot.services.sampling import sample
from claasbot.services.serving import Serving
from claasbot.services.stage import keep_doing
from claasbot.storage import completions, lessons, outbox, people, versions
from claasbot.storage.lessons import StoredExperience, StoredJob
from claasbot.storage.store import Store

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_N_REJECTED_KEPT = 3
"""Rejected versions of one person whose files stay, for whoever wants to know why the gate refused them."""
_PROBES = ("What is the capital of France?", "Name a fruit.")
_EXPLAIN = "How do I boil an egg?"
"""Here a word or two is no answer, however short a person likes them."""
_PROBE_SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=24, seed=0)

Checksum = Callable[[AdapterVersion], Awaitable[str | None]]
"""What the server's slot must hash to, from the version's files; None when that cannot be said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """What an undo came to."""

    n_undone: int
    version_name: str
    """Which version answers now; `base` for none."""


class Promoting:
    """The loop that lets candidates answer, or says why not."""

    def __init__(
        self,
        store: Store,
        server: InferenceServer,
        serving: Serving,
        engine: TrainingEngine,
        limits: Limits,
        clock: Clock,
        expected_checksum: Checksum,
        modes: PlatformModes,
    ) -> None:
        self._store = store
        self._server = server
        self._serving = serving
        self._engine = engine
        self._limits = limits
        self._clock = clock
        self._expected_checksum = expected_checksum
        self._modes = modes

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
                    canary = await self._canary(job, version, result)
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
        await self._engine.discard(job.job_id)
        await self._unload_others(job.person_id, keep=version if promoted else None)
        await self.prune(job.person_id)

    async def _canary(self, job: StoredJob, version: AdapterVersion, result: TrainingResult) -> Canary:
        """What is served under the new name, beside what the trainer says of the new and the parent weights."""
        rows = await self._store.run(lessons.of_job, job.job_id)
        sent = [await self._store.run(completions.completion, row.completion_id) for row in rows]
        served, checksum_matches, (*samples, explanation) = await asyncio.gather(
            asyncio.gather(*(self._served(version, one) for one in sent)),
            self._checksum_matches(version),
            asyncio.gather(*(self._sample(version, question, sent[0]) for question in (*_PROBES, _EXPLAIN))),
        )
        return Canary(
            served_vs_new_nats=_mean_gap(served, result.new_logprobs),
            served_vs_parent_nats=_mean_gap(served, result.parent_logprobs),
            checksum_matches=checksum_matches,
            samples=tuple(samples),
            explanation=explanation,
        )

    async def _served(self, version: AdapterVersion, sent: SentCompletion) -> tuple[float, ...]:
        completion = sent.completion
        return await self._server.logprobs(version.server_name, completion.prompt_ids, completion.token_ids)

    async def _checksum_matches(self, version: AdapterVersion) -> bool | None:
        served = await self._server.checksum(version.server_name)
        expected = await self._expected_checksum(version) if served is not None else None
        return None if served is None or expected is None else served == expected

    async def _sample(self, version: AdapterVersion, question: str, like: SentCompletion) -> str:
        request = CompletionRequest(
            messages=(Message(role="user", content=question),),
            model=version.server_name,
            sampling=_PROBE_SAMPLING,
            template_options=like.template_options,
        )
        return (await sample(self._server, request)).text

    def _settle(
        self, db: Database, job: StoredJob, version: AdapterVersion, verdict: Verdict, seconds: dict[str, float]
    ) -> bool:
        """Transaction 2: promoted with everything that follows, or rejected. Returns whether it answers now."""
        started = time.perf_counter()
        if people.person(db, job.person_id).is_blocked:
            raise NotFound(f"p{job.person_id} is being forgotten")
        parent = versions.current(db, job.person_id)
        leased = lessons.of_job(db, job.job_id)
        if (None if parent is None else parent.version_id) != job.parent_version_id:
            self._abandon(db, job, version, "its parent was undone meanwhile", again=True, seconds=seconds)
            return False
        if any(row.state != "leased" for row in leased):
            self._abandon(db, job, version, "its feedback was withdrawn meanwhile", again=True, seconds=seconds)
            return False
        forbidden = next((why for row in leased if (why := self._why_not_any_more(db, row))), None)
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

    def _why_not_any_more(self, db: Database, row: StoredExperience) -> str | None:
        """Consent and the host's rules as they are now: both may have changed while the lesson ran."""
        if not people.consent_of(db, row.person_id, row.address).allows_learning:
            return "you withdrew your consent"
        return self._modes.why_not(db, row.address.platform, row.completion_id, is_interaction=row.is_interaction)

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

    async def undo(self, person_id: int, version_id: int | None = None) -> str:
        """Go back to the version before the current one; its lessons are withdrawn. Raises NotFound.

        `version_id`: undo that version only; raises BadInput when it is not the current one any more.
        Returns the name of the version that answers now.
        """
        return (await self._go_back(person_id, version_id, 1)).version_name

    async def undo_last(self, person_id: int, n: int) -> Undone:
        """Take the last `n` lessons back, or as many as there are, in one unit. Raises NotFound when there is none."""
        return await self._go_back(person_id, None, n)

    async def _go_back(self, person_id: int, version_id: int | None, n: int) -> Undone:
        def unit(db: Database) -> tuple[list[AdapterVersion], AdapterVersion | None]:
            undone, current = self._step_back(db, person_id, version_id)
            left = [undone]
            while len(left) < n and current is not None:
                undone, current = self._step_back(db, person_id, None)
                left.append(undone)
            return left, current

        left, current = await self._store.run(unit)
        self._store.stages.outbox.set()
        for undone in left:
            await self._unload_quietly(undone)
        return Undone(n_undone=len(left), version_name=BASE if current is None else current.name)

    def _step_back(
        self, db: Database, person_id: int, version_id: int | None
    ) -> tuple[AdapterVersion, AdapterVersion | None]:
        """The version that answers no more, and the one that answers now."""
        now = self._clock()
        current = versions.current(db, person_id)
        _refuse_undo_of(db, person_id, version_id, current)
        assert current is not None
        parent = None if current.parent_id is None else versions.version(db, current.parent_id)
        while parent is not None and parent.state != "retired":
            parent = None if parent.parent_id is None else versions.version(db, parent.parent_id)
        versions.move(db, current.version_id, "retired", now)
        if parent is not None:
            versions.move(db, parent.version_id, "promoted", now)
        versions.point_to(db, person_id, None if parent is None else parent.version_id)
        for row in lessons.consumed_by(db, current.version_id):
            lessons.move(db, row.experience_id, "withdrawn", "you undid the lesson", now)
            outbox.clear_dropped(db, row, now)
        return current, parent

    async def _unload_others(self, person_id: int, keep: AdapterVersion | None) -> None:
        """What no longer answers leaves the server; running requests under those names finish."""
        current = await self._store.run(versions.current, person_id)
        held = {version.version_id for version in (keep, current) if version is not None}
        names = await self._server.loaded()
        for version in await self._store.run(versions.of_person, person_id):
            if version.version_id not in held and version.server_name in names:
                await self._unload_quietly(version)

    async def prune(self, person_id: int) -> None:
        """Delete the files of all but the latest rejected versions; their rows stay. What fails is tried next time."""
        found = await self._store.run(versions.of_person, person_id)
        for version in [version for version in found if version.state == "rejected"][_N_REJECTED_KEPT:]:
            try:
                await self._serving.delete_files(version)
            except (ServerError, OSError) as error:
                log.info("the files of version %s stay: %s", version.name, error)

    async def _unload_quietly(self, version: AdapterVersion) -> None:
        try:
            await self._serving.retire(version)
        except (ServerDown, ServerRefused) as error:
            log.info("version %s stays loaded: %s", version.name, error)


def _refuse_undo_of(db: Database, person_id: int, version_id: int | None, current: AdapterVersion | None) -> None:
    """Raises BadInput for a lesson that is not the last one, and NotFound where there is none."""
    who = "the base model" if current is None else current.name
    line = current
    while line is not None and line.version_id != version_id:
        line = None if line.parent_id is None else versions.version(db, line.parent_id)
    if version_id is not None and line is None:
        raise BadInput(f"That lesson is undone already: {who} answers you.")
    if current is None:
        is_learning = any(row.state == "leased" for row in lessons.unsettled(db, person_id))
        more = " What I am learning now can be undone once it is learned; /optout drops it." if is_learning else ""
        raise NotFound(f"There is nothing to undo: the base model answers you.{more}")
    if version_id not in (None, current.version_id):
        raise BadInput(f"That lesson is not the last one any more: {who} answers you. /undo takes it back.")


def _mean_gap(served: Sequence[tuple[float, ...]], trained: Sequence[tuple[float, ...]]) -> float:
    """Mean |difference| per token in nats. Raises ServerRefused when the two do not speak of the same tokens."""
    if [len(row) for row in served] != [len(row) for row in trained] or not any(served):
        raise ServerRefused(f"the server returned {sum(map(len, served))} logprobs for {sum(map(len, trained))} tokens")
    gaps = [abs(a - b) for ours, theirs in zip(served, trained, strict=True) for a, b in zip(ours, theirs, strict=True)]
    return sum(gaps) / len(gaps)


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
