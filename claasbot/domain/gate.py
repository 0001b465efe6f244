"""Whether a candidate may answer: a verdict from its scores.

Two readings: what the trainer measured (its result) and what the server then does with the
loaded weights (the canary). A rejected candidate is a result, not an error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from claasbot.domain.job import TrainingResult

_MOSTLY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The gate's limits; every number is a setting."""

    max_mismatch_nats: float = 0.25
    """Completion vs student logprobs at unchanged weights: above it something is wired wrongly."""
    max_kl_new_old_nats: float = 1.0
    max_kl_base_nats: float = 1.5
    max_served_gap_nats: float = 0.12
    """Served vs trainer logprobs of the candidate: bf16 noise is 0.02-0.05 mean."""
    max_earlier_rise_nats: float = 0.5
    """How much further an earlier lesson's student may move away from its teacher."""
    min_delta_norm: float = 1e-6
    max_repeated_share: float = 0.8
    """Share of repeated 3-grams in a sample above which it counts as a loop."""
    min_explanation_words: int = 3
    """Fewer words in answer to a question that asks how: answers have collapsed. 0 allows any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """What the server says under the candidate's name."""

    served_vs_new_nats: float
    """Mean |served - trainer(new)| over the job's own tokens."""
    served_vs_parent_nats: float
    checksum_matches: bool | None
    """Whether the loaded slot holds the file's weights; None when the server cannot say."""
    samples: tuple[str, ...]
    """A few short answers to the fixed probe questions; one word may be all that is right."""
    explanation: str | None = None
    """The answer to a question that no single word answers; None: it was not asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`reasons` is empty when the candidate passed."""

    reasons: tuple[str, ...]
    can_retry_smaller: bool = False

    @property
    def passed(self) -> bool:
        return not self.reasons


def judge_training(result: TrainingResult, limits: Limits) -> Verdict:
    """The half that needs no server."""
    if not result.finite:
        return Verdict(reasons=("the step was not finite",), can_retry_smaller=True)
    wrong = []
    if result.delta_norm < limits.min_delta_norm:
        wrong.append(f"nothing changed (delta norm {result.delta_norm:.1e})")
    if result.mismatch_nats is not None and not result.mismatch_nats <= limits.max_mismatch_nats:
        wrong.append(f"server and trainer disagree by {result.mismatch_nats:.2f} nats before the step")
    too_far = [
        f"{label} {value:.2f} nats, at most {limit:.2f}"
        for label, value, limit in (
            ("moved from the parent by", result.kl_new_old_nats, limits.max_kl_new_old_nats),
            ("moved from the base by", result.kl_base_nats, limits.max_kl_base_nats),
            ("pushed an earlier lesson away by", _worst_rise(result), limits.max_earlier_rise_nats),
        )
        if not value <= limit  # also true for NaN
    ]
    return Verdict(reasons=tuple(wrong + too_far), can_retry_smaller=not wrong and bool(too_far))


def judge_canary(canary: Canary, limits: Limits) -> Verdict:
    """The half that asks whether what is served is what was trained.

    Noise alone can hide a LoRA that was never applied: nearer to the new weights than to the
    parent is asked for, or, where the two differ by less than the noise, the slot's checksum.
    """
    wrong = []
    if not canary.served_vs_new_nats <= limits.max_served_gap_nats:
        wrong.append(f"the server serves other weights ({canary.served_vs_new_nats:.2f} nats from the trainer's)")
    elif canary.checksum_matches is False:
        wrong.append("the loaded slot does not hold the version's weights")
    elif canary.checksum_matches is None and canary.served_vs_new_nats >= canary.served_vs_parent_nats:
        wrong.append("the server still answers like the parent version")
    samples = canary.samples if canary.explanation is None else (*canary.samples, canary.explanation)
    if any(repeated_share(sample) > limits.max_repeated_share for sample in samples):
        wrong.append("a sample answer repeats itself")
    if canary.samples and all(not sample.strip() for sample in canary.samples):
        wrong.append("sample answers are empty")
    collapsed = []
    if canary.explanation is not None and (n := _n_words(canary.explanation)) < limits.min_explanation_words:
        collapsed.append(
            f"the answer to a question that asks how has {n} words, at least {limits.min_explanation_words}"
        )
    return Verdict(reasons=tuple(wrong + collapsed), can_retry_smaller=not wrong and bool(collapsed))


def _n_words(text: str) -> int:
    """By blanks; in scripts that know no capitals (and often no blanks) every letter counts, which errs upwards."""
    return max(len(text.split()), sum(letter.isalpha() and letter.lower() == letter.upper() for letter in text))


def _worst_rise(result: TrainingResult) -> float:
    rises = [score.after_nats - score.before_nats for score in result.earlier]
    if any(math.isnan(rise) for rise in rises):
        return math.nan
    return max(rises, default=0.0)


def is_mostly_repetition(text: str) -> bool:
    """Whether most of what an answer says it has said before, so that the next answer will repeat it too."""
    return repeated_share(text) > _MOSTLY


def repeated_share(text: str) -> float:
    """1 - distinct 3-grams / 3-grams, over words; 0 for texts under 12 words."""
    words = text.split()
    if len(words) < 12:
        return 0.0
    grams = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    return 1.0 - len(set(grams)) / len(grams)
