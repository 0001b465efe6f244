"""Scores a policy on questions that were never rated. Samples through the server, as people are answered."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass, replace

from claasbot.domain.completion import Completion, CompletionRequest, Sampling
from claasbot.domain.conversation import Turn, prompt_messages
from claasbot.errors import ServerDown
from claasbot.evals.scorers import Scorer
from claasbot.ports import InferenceServer
from claasbot.services.serving import Serving

_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One answer to one question."""

    question: str
    text: str
    n_tokens: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """A policy on all questions of a suite."""

    version_name: str
    answers: tuple[Scored, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(answer.score for answer in self.answers)

    @property
    def mean_tokens(self) -> float:
        return statistics.fmean(answer.n_tokens for answer in self.answers)


async def score_person(
    server: InferenceServer,
    serving: Serving,
    person_id: int,
    questions: tuple[str, ...],
    scorer: Scorer,
    sampling: Sampling,
) -> Scores:
    """Each question once, with the seed `sampling.seed` + its position. Nothing is stored."""
    policy = await serving.policy_of(person_id)
    places = asyncio.Semaphore(_AT_ONCE)

    async def ask(index: int, question: str) -> Scored:
        request = CompletionRequest(
            messages=prompt_messages("", (Turn(turn_id=0, role="user", text=question),)),
            model=policy.model,
            sampling=replace(sampling, seed=(sampling.seed or 0) + index),
        )
        async with places:
            completion = await sample(server, request)
        score = scorer(completion.text, completion.finish_reason)
        return Scored(question=question, text=completion.text, n_tokens=len(completion.token_ids), score=score)

    async with serving.holding(policy.version):
        answers = await asyncio.gather(*(ask(index, question) for index, question in enumerate(questions)))
    return Scores(version_name=policy.version_name, answers=tuple(answers))


async def sample(server: InferenceServer, request: CompletionRequest) -> Completion:
    """One completion without streaming it anywhere. Raises ServerDown when none comes."""
    async for part in server.complete(request):
        if isinstance(part, Completion):
            return part
    raise ServerDown(f"no completion of {request.model!r} came; look at the server's log")
