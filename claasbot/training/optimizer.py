"""AdamW on one adapter, its state kept per person and resumed from version to version.

No schedule: the learning rate asked for is the rate used. Refuses a step on a gradient that is not finite.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from claasbot.domain.job import Recipe


@dataclass(slots=True, kw_only=True)
class AdamState:
    """Steps taken so far in this person's life, and both moments, (P,) fp32."""

    n_steps: int
    first: Tensor
    second: Tensor

    @classmethod
    def fresh(cls, weights: Tensor) -> "AdamState":
        return cls(n_steps=0, first=torch.zeros_like(weights), second=torch.zeros_like(weights))


def clip(gradient: Tensor, max_norm: float) -> float:
    """Scale the gradient in place to at most `max_norm`; returns its norm before, which may be inf or NaN."""
    norm = float(torch.linalg.vector_norm(gradient))
    if math.isfinite(norm) and norm > max_norm:
        gradient.mul_(max_norm / norm)
    return norm


@torch.no_grad()
def adamw_step(weights: Tensor, gradient: Tensor, state: AdamState, recipe: Recipe) -> None:
    """One update of `weights` (P,) in place. Decoupled weight decay, bias correction from the stored step count.

    Source: arXiv:1711.05101, algorithm 2, with the schedule multiplier at 1.
    """
    state.n_steps += 1
    state.first.lerp_(gradient, 1.0 - recipe.beta1)
    state.second.mul_(recipe.beta2).addcmul_(gradient, gradient, value=1.0 - recipe.beta2)
    first_correction = 1.0 - recipe.beta1**state.n_steps
    second_correction = 1.0 - recipe.beta2**state.n_steps
    denominator = (state.second / second_correction).sqrt_().add_(recipe.epsilon)
    weights.mul_(1.0 - recipe.learning_rate * recipe.weight_decay)
    weights.addcdiv_(state.first, denominator, value=-recipe.learning_rate / first_correction)
