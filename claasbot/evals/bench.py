"""Figures of the running stack: how fast people are answered, and where the time of a lesson goes.

Prints, never asserts: the machines are shared. Compare ratios, and the same command on the same machine.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial

from claasbot.domain.completion import CompletionRequest, Sampling
from claasbot.domain.conversation import Message
from claasbot.errors import EngineError
from claasbot.evals.demo import Stack, person_id_of
from claasbot.evals.simulated_user import SimulatedPerson
from claasbot.evals.suite import Suite
from claasbot.ports import InferenceServer
from claasbot.services.sampling import sample
from claasbot.services.serving import Policy
from claasbot.storage import lessons

_AT_ONCE = (1, 4, 16)
_N_TOKENS = 96
_N_PEOPLE = 4
_PROMPT = "Please write a long story about a lighthouse keeper. " * 16
"""About 200 tokens, as in the table of the learning trials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """One row: who answered, to how many people at once."""

    who: str
    at_once: int
    tokens_per_s: float
    first_token_s: float
    """Median over the answers."""


async def bench_chat(stack: Stack, suite: Suite, n_repeats: int) -> list[Throughput]:
    """Base model and adapters, the bare server beside the bot, at 1, 4 and 16 people at once."""
    names = [f"bench-{index}" for index in range(_N_PEOPLE)]
    for name in names:
        await _one_lesson(stack, suite, name)
    policies = [await stack.serving.policy_of(await person_id_of(stack, name)) for name in names]
    if not all(policy.version for policy in policies):
        raise EngineError("a lesson of the bench was refused, so there is no adapter to measure; see the bot's log")
    info = await stack.serving.info()
    base = [Policy(model=info.base_model, version=None)]
    table = []
    for at_once in _AT_ONCE:
        for who, chosen in (("server, base", base), ("server, adapters", policies)):
            models = [chosen[index % len(chosen)].model for index in range(at_once)]
            table.append(await _best_of(n_repeats, who, at_once, partial(_bare, stack.server, models)))
        people = {"bot, base": [f"nobody-{index}" for index in range(at_once)]}
        if at_once <= _N_PEOPLE:
            people["bot, adapters"] = names[:at_once]
        for who, accounts in people.items():
            table.append(await _best_of(n_repeats, who, at_once, partial(_through_bot, stack, accounts)))
    return table


Sampled = list[tuple[int, float]]
"""(tokens, seconds to the first of them) of each answer."""


async def _best_of(n: int, who: str, at_once: int, answer: Callable[[], Awaitable[Sampled]]) -> Throughput:
    """The fastest of n runs: what else the machine does only ever slows it down."""
    rates, firsts = [], []
    for _ in range(n):
        started = time.perf_counter()
        sampled = await answer()
        rates.append(sum(tokens for tokens, _ in sampled) / (time.perf_counter() - started))
        firsts += [first for _, first in sampled]
    return Throughput(who=who, at_once=at_once, tokens_per_s=max(rates), first_token_s=statistics.median(firsts))


async def _bare(server: InferenceServer, models: list[str]) -> Sampled:
    async def one(model: str) -> tuple[int, float]:
        request = CompletionRequest(
            messages=(Message(role="user", content=_PROMPT),),
            model=model,
            sampling=Sampling(temperature=1.0, top_p=1.0, max_tokens=_N_TOKENS),
        )
        completion = await sample(server, request)
        return len(completion.token_ids), completion.first_token_s

    return await asyncio.gather(*(one(model) for model in models))


async def _through_bot(stack: Stack, accounts: list[str]) -> Sampled:
    async def one(account: str) -> tuple[int, float]:
        await stack.chat.command(account, "reset")
        reply = await stack.chat.say(account, _PROMPT)
        sent = await stack.sent(reply)
        return len(sent.completion.token_ids), sent.completion.first_token_s

    return await asyncio.gather(*(one(account) for account in accounts))


async def bench_lesson(stack: Stack, suite: Suite, n_repeats: int) -> dict[str, object]:
    """Medians over lessons: every part of the way from feedback to the first answer of the new version."""
    person = f"lesson-{time.time_ns()}"
    rows = []
    for _ in range(n_repeats):
        started = time.perf_counter()
        waited = await _one_lesson(stack, suite, person)
        reply = await stack.chat.say(person, "What is the capital of France?")
        rows.append(
            {
                "answer_to_feedback_to_answer": time.perf_counter() - started,
                "feedback_to_learned": waited,
                "first_token_after": (await stack.sent(reply)).completion.first_token_s,
                **await _parts_of_last_lesson(stack, person),
            }
        )
    names = sorted({name for row in rows for name in row})
    medians = {name: statistics.median(row[name] for row in rows if name in row) for name in names}
    medians["feedback_to_new_answer"] = medians["feedback_to_learned"] + medians["first_token_after"]
    return {"n": len(rows), **medians}


async def _one_lesson(stack: Stack, suite: Suite, account: str) -> float:
    """One question, one feedback; returns the seconds from the feedback to the outcome."""
    person = SimulatedPerson(
        account=account,
        arm="preference",
        says=suite.preference,
        questions=suite.training,
        scorer=lambda text, finish_reason: 0.0,
    )
    await person.agree(stack.chat)
    return (await person.exchange(stack.chat)).seconds


async def _parts_of_last_lesson(stack: Stack, account: str) -> dict[str, float]:
    person_id = await person_id_of(stack, account)
    jobs = await stack.store.run(lessons.lesson_list, person_id, 1)
    stored = await stack.store.run(lessons.job, jobs[0]["id"])
    return {f"part_{name}": value for name, value in stored.seconds.items()}


def as_facts(table: list[Throughput]) -> dict[str, object]:
    """The line that `--json` ends with, with the ratio that is promised."""
    rate = {(row.who, row.at_once): row.tokens_per_s for row in table}
    return {
        "rows": [asdict(row) for row in table],
        "adapters_to_base_at_16": rate[("server, adapters", 16)] / rate[("server, base", 16)],
        "bot_to_server_at_16": rate[("bot, base", 16)] / rate[("server, base", 16)],
    }
