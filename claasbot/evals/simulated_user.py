"""A person with a hidden preference: asks, reads the answer, and says how they want it.

Says so after every answer, as in the learning trials: a wish does not end with one good answer. Never
tells the preference in the question: the model can only learn it from feedback.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal, Protocol

from claasbot.domain.conversation import Reply
from claasbot.evals.scorers import Scorer
from claasbot.ports import Mark

_LESSON_S = 300.0
"""Patience with a lesson: on a busy machine several people wait for one trainer."""

Arm = Literal["preference", "no_learning", "neutral"]


class Speaking(Protocol):
    """What a simulated person needs of a chat surface; `chat.console.ConsoleChat` is one."""

    async def say(self, account: str, text: str) -> Reply: ...

    async def command(
        self, account: str, name: str, argument: str = "", message_key: str | None = None
    ) -> Reply | None: ...

    async def wait_mark(self, message_key: str, *marks: Mark, within_s: float) -> Mark: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One question, its answer, and what came of the feedback."""

    question: str
    answer: str
    version_name: str
    complied: bool
    outcome: str
    """`learned`, `refused` or `unlearned` (no consent)."""
    seconds: float
    """From the feedback to its outcome."""


@dataclass(slots=True, kw_only=True)
class SimulatedPerson:
    """One scripted person of one arm."""

    account: str
    arm: Arm
    says: str
    """What they say after an answer."""
    questions: tuple[str, ...]
    scorer: Scorer
    remarks: list[Remark] = field(default_factory=list)

    @property
    def n_feedbacks(self) -> int:
        return len(self.remarks)

    async def agree(self, chat: Speaking) -> None:
        """The consent card, answered: the arm without learning says no."""
        await chat.command(self.account, "optout" if self.arm == "no_learning" else "optin")

    async def exchange(self, chat: Speaking) -> Remark:
        """Ask the next question, and say what there is to say about the answer."""
        question = self.questions[len(self.remarks) % len(self.questions)]
        await chat.command(self.account, "reset")
        reply = await chat.say(self.account, question)
        finish_reason = str(reply.data.get("finish_reason", ""))
        complied = self.scorer(reply.text, finish_reason) == 1.0
        key = str(reply.completion_id)
        outcome: str = "unlearned"
        started = time.perf_counter()
        await chat.command(self.account, "feedback", self.says, key)
        if self.arm != "no_learning":
            outcome = await chat.wait_mark(key, "learned", "refused", within_s=_LESSON_S)
        remark = Remark(
            question=question,
            answer=reply.text,
            version_name=reply.version_name or "",
            complied=complied,
            outcome=outcome,
            seconds=time.perf_counter() - started,
        )
        self.remarks.append(remark)
        return remark
