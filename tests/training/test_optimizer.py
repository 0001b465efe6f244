import math

import pytest
import torch

from claasbot.domain.job import Recipe
from claasbot.training.optimizer import AdamState, adamw_step, clip

RECIPE = Recipe(learning_rate=0.01, beta1=0.8, beta2=0.95, weight_decay=0.1)


def gradients(n_steps: int) -> torch.Tensor:
    return torch.randn(n_steps, 50, generator=torch.Generator().manual_seed(0))


def test_the_steps_are_those_of_torch_adamw() -> None:
    ours = torch.linspace(-1, 1, 50)
    theirs = ours.clone().requires_grad_()
    oracle = torch.optim.AdamW([theirs], lr=0.01, betas=(0.8, 0.95), eps=1e-8, weight_decay=0.1)
    state = AdamState.fresh(ours)
    for gradient in gradients(6):
        adamw_step(ours, gradient, state, RECIPE)
        theirs.grad = gradient.clone()
        oracle.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-7)


def test_the_first_step_moves_each_touched_weight_by_the_learning_rate_asked_for() -> None:
    weights = torch.zeros(4)
    adamw_step(weights, torch.tensor([1e-3, -50.0, 0.0, 7.0]), AdamState.fresh(weights), Recipe(learning_rate=3e-4))
    torch.testing.assert_close(weights, torch.tensor([-3e-4, 3e-4, 0.0, -3e-4]), rtol=1e-4, atol=0)


def test_bias_correction_goes_on_from_the_stored_step_count() -> None:
    """With a constant gradient every corrected step is one learning rate, the first as the hundredth."""
    weights = torch.zeros(1)
    state = AdamState.fresh(weights)
    before = 0.0
    for n in range(1, 101):
        adamw_step(weights, torch.ones(1), state, Recipe(learning_rate=0.5))
        assert state.n_steps == n
        assert before - float(weights) == pytest.approx(0.5, rel=1e-4)
        before = float(weights)


def test_clipping_keeps_the_direction_and_reports_the_norm_before() -> None:
    gradient = torch.tensor([3.0, 4.0])
    assert clip(gradient, 6.0) == pytest.approx(5.0)
    torch.testing.assert_close(gradient, torch.tensor([3.0, 4.0]))
    assert clip(gradient, 1.0) == pytest.approx(5.0)
    torch.testing.assert_close(gradient, torch.tensor([0.6, 0.8]))


def test_clipping_reports_a_gradient_that_is_not_finite() -> None:
    assert math.isnan(clip(torch.tensor([1.0, math.nan]), 1.0))
    assert clip(torch.tensor([1.0, math.inf]), 1.0) == math.inf
