"""Scores a policy on questions that were never rated. Samples through the server, as people are answered."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass, replace

from claasbot.domain.completion import CompletionRequest
from claasbot.domain.conversation import Turn, prompt_messages
from claasbot.evals.scorers import Scorer
from claasbot.ports import InferenceServer
from claasbot.services.exchanges import ChatRules
from claasbot.services.sampling import sample
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
    rules: ChatRules,
    seed: int,
) -> Scores:
    """Each question once, sampled as for people, with `seed` + its position. Nothing is stored."""
    policy = await serving.policy_of(person_id)
    places = asyncio.Semaphore(_AT_ONCE)

    async def ask(index: int, question: str) -> Scored:
        request = CompletionRequest(
            messages=prompt_messages(rules.system_prompt, (Turn(turn_id=0, role="user", text=question),)),
            model=policy.model,
            sampling=replace(rules.sampling, seed=seed + index),
            template_options=rules.template_options,
        )
        async with places:
            completion = await sample(server, request)
        score = scorer(completion.text, completion.finish_reason)
        return Scored(question=question, text=completion.text, n_tokens=len(completion.token_ids), score=score)

    async with serving.holding(policy.version):
        answers = await asyncio.gather(*(ask(index, question) for index, question in enumerate(questions)))
    return Scores(version_name=policy.version_name, answers=tuple(answers))
