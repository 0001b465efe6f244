"""The canary of a candidate: what the server says under its new name, beside what the trainer says of its weights.

Refuses to judge: `domain.gate` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from sqlite_utils import Database

from claasbot.domain.adapter import AdapterVersion
from claasbot.domain.completion import CompletionRequest, Sampling, SentCompletion
from claasbot.domain.conversation import Message
from claasbot.domain.gate import Canary
from claasbot.domain.job import TrainingResult
from claasbot.errors import ServerRefused
from claasbot.ports import InferenceServer
from claasbot.services.sampling import sample
from claasbot.storage import completions, lessons, revocations
from claasbot.storage.lessons import StoredExperience, StoredJob
from claasbot.storage.store import Store

_PROBES = ("What is the capital of France?", "Name a fruit.")
_EXPLAIN = "How do I boil an egg?"
"""Here a word or two is no answer, however short a person likes them."""
_PROBE_SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=24, seed=0)

Checksum = Callable[[AdapterVersion], Awaitable[str | None]]
"""What the server's slot must hash to, from the version's files; None when that cannot be said."""


class Canaries:
    """`taken` of versions that the server holds already."""

    def __init__(self, store: Store, server: InferenceServer, expected_checksum: Checksum) -> None:
        self._store = store
        self._server = server
        self._expected_checksum = expected_checksum

    async def taken(self, job: StoredJob, version: AdapterVersion, result: TrainingResult) -> Canary:
        """What is served under the new name, beside what the trainer says of the new and the parent weights."""
        rows = await self._store.run(_probed, job)
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


def _probed(db: Database, job: StoredJob) -> list[StoredExperience]:
    """What the trainer's logprobs are of: the job's own tokens, or those of a rebuild's last lesson."""
    return revocations.replayed(db, job.job_id)[-1][1] if job.is_rebuild else lessons.of_job(db, job.job_id)


def _mean_gap(served: Sequence[tuple[float, ...]], trained: Sequence[tuple[float, ...]]) -> float:
    """Mean |difference| per token in nats. Raises ServerRefused when the two do not speak of the same tokens."""
    if [len(row) for row in served] != [len(row) for row in trained] or not any(served):
        raise ServerRefused(f"the server returned {sum(map(len, served))} logprobs for {sum(map(len, trained))} tokens")
    gaps = [abs(a - b) for ours, theirs in zip(served, trained, strict=True) for a, b in zip(ours, theirs, strict=True)]
    return sum(gaps) / len(gaps)
