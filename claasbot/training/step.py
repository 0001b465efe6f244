"""The steps of one job: forward, divergence to the teacher, backward, AdamW, until enough was learned.

The forward of the first step is at the parent's weights, so it also gives the parent's logprobs, the mismatch and the
point that the KL stop measures from: no pass is made twice. Refuses to touch files.
Letters: T completion tokens, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from claasbot.domain.job import Recipe, StepMetrics
from claasbot.training.loss import divergence, kl, of_tokens, sdpo_loss
from claasbot.training.optimizer import AdamState, adamw_step, clip
from claasbot.training.policy import Policy
from claasbot.training.stopwatch import Stopwatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """One experience as tensors, with what the teacher makes of it."""

    experience_id: int
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    completion_logprobs: Tensor  # (T,)
    teacher_logprobs: Tensor  # (T, V)
    correction_ids: tuple[int, ...] = ()

    @property
    def tokens(self) -> Tensor:
        return torch.tensor(self.token_ids, device=self.teacher_logprobs.device)  # (T,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one forward of the student showed, per completion token, detached."""

    token_logprobs: Tensor  # (T,)
    divergence: Tensor  # (T,)
    kl_from_start: Tensor  # (T,)
    is_clipped: Tensor  # (T,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """Readings at the parent's weights and at the weights that came out, and the steps between."""

    before: tuple[Reading, ...]
    after: tuple[Reading, ...]
    steps: tuple[StepMetrics, ...]
    finite: bool


def mean_over_tokens(tensors: list[Tensor]) -> float:
    return float(torch.cat(tensors).double().mean())


class Lesson:
    """The experiences of one job and the weights that learn from them."""

    def __init__(self, policy: Policy, experiences: tuple[Experience, ...], recipe: Recipe, watch: Stopwatch) -> None:
        self._policy = policy
        self._experiences = experiences
        self._recipe = recipe
        self._watch = watch
        self._start: list[Tensor] = []  # per experience (T, V): logprobs at the parent's weights

    def learn(self, state: AdamState) -> Learned:
        """Up to `n_steps` optimizer steps on the adapter, in place.

        Where a loss, gradient or logprob is not finite no step is made, or the last one was wrong: the parent's weights
        come back and `finite` is False.
        """
        adapter, recipe = self._policy.adapter, self._recipe
        parent_weights = adapter.weights.clone()
        before: tuple[Reading, ...] = ()
        after: tuple[Reading, ...] = ()
        steps: list[StepMetrics] = []
        while len(steps) < recipe.n_steps:
            loss, readings, kl_nats = self._accumulate()
            before = before or readings
            if kl_nats > recipe.kl_stop_nats:
                after = readings
                break
            with self._watch("optimizer"):
                norm = clip(adapter.gradient, recipe.clip_norm)
                if not (math.isfinite(loss) and math.isfinite(norm)):
                    break
                adamw_step(adapter.weights, adapter.gradient, state, recipe)
            steps.append(_metrics(loss, norm, kl_nats, readings))
        else:
            after = tuple(self._read(index) for index in range(len(self._experiences)))
        if after and all(bool(torch.isfinite(row.divergence + row.kl_from_start).all()) for row in after):
            return Learned(before=before, after=after, steps=tuple(steps), finite=True)
        adapter.weights.copy_(parent_weights)
        return Learned(before=before, after=before, steps=tuple(steps), finite=False)

    @torch.no_grad()
    def _read(self, index: int) -> Reading:
        """The student on one experience, now."""
        experience = self._experiences[index]
        with self._watch("score"):
            logprobs = self._policy.logprobs(experience.prompt_ids, experience.token_ids)
            gap = divergence(logprobs, experience.teacher_logprobs, self._recipe.alpha)
            return self._reading(index, logprobs, gap, torch.zeros_like(gap))

    def _accumulate(self) -> tuple[float, tuple[Reading, ...], float]:
        """Loss, readings and KL from the start at the weights as they are; their gradient lies on the adapter.

        One experience at a time, so that one graph is in memory. The last backward is skipped when the KL stop says so.
        """
        self._policy.adapter.gradient.zero_()
        loss, kl_nats, readings = 0.0, 0.0, []
        for index, experience in enumerate(self._experiences):
            with self._watch("student"):
                total, reading = self._forward(index, experience)
            loss += float(total.detach())
            readings.append(reading)
            if index + 1 == len(self._experiences):
                kl_nats = mean_over_tokens([row.kl_from_start for row in readings])
                if kl_nats > self._recipe.kl_stop_nats:
                    break
            with self._watch("backward"):
                total.backward()
            loss += self._correct(experience)
        return loss, tuple(readings), kl_nats

    def _forward(self, index: int, experience: Experience) -> tuple[Tensor, Reading]:
        """This experience's share of the loss, with its graph."""
        logprobs = self._policy.logprobs(experience.prompt_ids, experience.token_ids)  # (T, V)
        if index == len(self._start):
            self._start.append(logprobs.detach())
        loss = sdpo_loss(
            logprobs[None],
            experience.teacher_logprobs[None],
            experience.tokens[None],
            experience.completion_logprobs[None],
            torch.ones_like(experience.completion_logprobs)[None],
            alpha=self._recipe.alpha,
            ratio_cap=self._recipe.ratio_cap,
        )
        is_clipped = (loss.ratio[0] >= self._recipe.ratio_cap).float()
        reading = self._reading(index, logprobs.detach(), loss.divergence[0], is_clipped)
        return loss.total / len(self._experiences), reading

    def _correct(self, experience: Experience) -> float:
        """Adds the cross-entropy on the person's own text: what the student never says, a divergence hardly raises."""
        if not experience.correction_ids:
            return 0.0
        with self._watch("student"):
            logprobs = self._policy.logprobs(experience.prompt_ids, experience.correction_ids)
            ids = torch.tensor(experience.correction_ids, device=logprobs.device)
            share = self._recipe.correction_weight / len(self._experiences)
            total = -share * of_tokens(logprobs, ids).mean()
        with self._watch("backward"):
            total.backward()
        return float(total.detach())

    def _reading(self, index: int, logprobs: Tensor, gap: Tensor, is_clipped: Tensor) -> Reading:
        return Reading(
            token_logprobs=of_tokens(logprobs, self._experiences[index].tokens),
            divergence=gap,
            kl_from_start=kl(logprobs, self._start[index]),
            is_clipped=is_clipped,
        )


def _metrics(loss: float, norm: float, kl_nats: float, readings: tuple[Reading, ...]) -> StepMetrics:
    return StepMetrics(
        loss=loss,
        grad_norm=norm,
        kl_from_start_nats=kl_nats,
        ratio_clipped_share=mean_over_tokens([row.is_clipped for row in readings]),
    )
