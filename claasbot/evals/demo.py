"""The demonstration: people with a hidden preference teach the real stack, beside two control groups.

Per seed, three people are served at the same time: one says the preference after each answer, one says it without
having agreed to learning, one only says thanks. A hint's wording alone shortens a small model's
answers, so the claim is the difference to the controls, not the rise.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from claasbot.domain.completion import SentCompletion
from claasbot.domain.conversation import Reply
from claasbot.evals.runner import Scores, score_person
from claasbot.evals.scorers import scorer
from claasbot.evals.simulated_user import Arm, Remark, SimulatedPerson, Speaking
from claasbot.evals.suite import Suite
from claasbot.ports import InferenceServer
from claasbot.services.clock import utc_now
from claasbot.services.exchanges import ChatRules
from claasbot.services.serving import Serving
from claasbot.storage import completions, people
from claasbot.storage.store import Store

ARMS: tuple[Arm, ...] = ("preference", "no_learning", "neutral")

Say = Callable[[str], None]
"""Shows one line of progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The running bot, as the demonstration uses it."""

    chat: Speaking
    platform: str
    store: Store
    server: InferenceServer
    serving: Serving
    rules: ChatRules

    async def sent(self, reply: Reply) -> SentCompletion:
        """The evidence behind an answer. Raises NotFound for a notice."""
        return await self.store.run(completions.completion, reply.completion_id or 0)


@dataclass(slots=True, kw_only=True)
class ArmResult:
    """One person of one arm, from before to after."""

    arm: Arm
    seed: int
    before: Scores
    after: Scores
    remarks: tuple[Remark, ...]
    n_feedbacks: int


@dataclass(slots=True, kw_only=True)
class DemoResult:
    """Everything that the terminal, the report and `--json` show."""

    suite: Suite
    arms: list[ArmResult] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def of(self, arm: Arm) -> list[ArmResult]:
        return [result for result in self.arms if result.arm == arm]

    def mean_after(self, arm: Arm) -> float:
        return statistics.fmean(result.after.mean for result in self.of(arm))

    def summary(self) -> dict[str, object]:
        """The line that `--json` ends with."""
        taught = self.of("preference")
        return {
            "feedbacks": statistics.fmean(result.n_feedbacks for result in taught),
            "compliance_before": statistics.fmean(result.before.mean for result in taught),
            "compliance_after": self.mean_after("preference"),
            "control_no_learning": self.mean_after("no_learning"),
            "control_neutral": self.mean_after("neutral"),
            "seconds": self.seconds.get("total", 0.0),
            "seeds": [
                {"seed": result.seed, "arm": result.arm, "feedbacks": result.n_feedbacks,
                 "before": result.before.mean, "after": result.after.mean,
                 "tokens_before": result.before.mean_tokens, "tokens_after": result.after.mean_tokens}
                for result in self.arms
            ],
        }  # fmt: skip


async def run_demo(stack: Stack, suite: Suite, *, seeds: range, n_feedbacks: int, say: Say) -> DemoResult:
    """Teach, then ask what was never rated. Seeds run one after another, the arms of a seed together."""
    result = DemoResult(suite=suite)
    started = time.perf_counter()
    for seed in seeds:
        say(f"seed {seed}: {len(ARMS)} people, {len(suite.held_out)} questions that are never rated")
        result.arms += await _run_seed(stack, suite, seed, n_feedbacks, say, result.seconds)
    result.seconds["total"] = time.perf_counter() - started
    return result


async def _run_seed(
    stack: Stack, suite: Suite, seed: int, n_feedbacks: int, say: Say, seconds: dict[str, float]
) -> list[ArmResult]:
    persons = [_person(suite, arm, seed) for arm in ARMS]
    for person in persons:
        await person.agree(stack.chat)
    ids = [await person_id_of(stack, person.account) for person in persons]
    started = time.perf_counter()
    # Nobody has learned yet, so one person's answers stand for all three: the base model's.
    before = await _score(stack, suite, ids[0], seed)
    _add(seconds, "before", started)
    say(f"  before: {before.mean:.2f} obey, {before.mean_tokens:.0f} tokens: “{_short(before.answers[0].text)}”")
    started = time.perf_counter()
    await asyncio.gather(*(_teach(stack, person, n_feedbacks, say) for person in persons))
    _add(seconds, "teaching", started)
    started = time.perf_counter()
    results = []
    scored = await asyncio.gather(*(_score(stack, suite, person_id, seed) for person_id in ids))
    for person, after in zip(persons, scored, strict=True):
        say(
            f"  after, {person.arm}: {after.mean:.2f} obey, {after.mean_tokens:.0f} tokens ({after.version_name}): "
            f"“{_short(after.answers[0].text)}”"
        )
        results.append(
            ArmResult(
                arm=person.arm, seed=seed, before=before, after=after, remarks=tuple(person.remarks),
                n_feedbacks=person.n_feedbacks,
            )
        )  # fmt: skip
    _add(seconds, "after", started)
    return results


def _person(suite: Suite, arm: Arm, seed: int) -> SimulatedPerson:
    questions = list(suite.training)
    random.Random(seed).shuffle(questions)
    return SimulatedPerson(
        account=f"{arm}-{seed}",
        arm=arm,
        says=suite.neutral if arm == "neutral" else suite.preference,
        questions=tuple(questions),
        scorer=scorer(suite.scorer),
    )


async def _teach(stack: Stack, person: SimulatedPerson, n_feedbacks: int, say: Say) -> None:
    """Chat until the person has given their feedback."""
    while person.n_feedbacks < n_feedbacks:
        remark = await person.exchange(stack.chat)
        if person.arm == "preference":
            say(
                f"  {person.account} asked “{remark.question}”, {remark.version_name} used "
                f"{len(remark.answer.split())} words: {remark.outcome} ({remark.seconds:.1f} s)"
            )


async def _score(stack: Stack, suite: Suite, person_id: int, seed: int) -> Scores:
    return await score_person(
        stack.server, stack.serving, person_id, suite.held_out, scorer(suite.scorer), stack.rules, 1000 * seed
    )


async def person_id_of(stack: Stack, account: str) -> int:
    person = await stack.store.run(people.person_of, stack.platform, account, account, utc_now())
    return person.person_id


def _add(seconds: dict[str, float], part: str, started: float) -> None:
    seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - started


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 90 else f"{line[:87]}…"
