"""The loss against three oracles: TRL's code, closed-form gradients, and numbers worked out by hand."""

import math
import warnings

import pytest
import torch
from torch import Tensor

from claasbot.errors import JobRefused
from claasbot.training.loss import contrasted, divergence, importance_ratio, kl, of_tokens, sdpo_loss

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from trl.experimental.sdpo.loss_utils import (
        apply_importance_sampling_clipping,
        compute_full_logit_self_distillation_loss,
    )

ALPHAS = (0.0, 0.05, 0.3, 0.5, 0.9, 1.0)
B, T, V = 2, 5, 11


@pytest.fixture
def logits() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    student = torch.randn(B, T, V, dtype=torch.float64, generator=draw) * 2
    return student.requires_grad_(), torch.randn(B, T, V, dtype=torch.float64, generator=draw) * 2


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_divergence_and_its_gradient_are_those_of_trl(logits: tuple[Tensor, Tensor], alpha: float) -> None:
    student, teacher = logits
    ours = divergence(student.log_softmax(-1), teacher.log_softmax(-1), alpha)
    theirs = compute_full_logit_self_distillation_loss(student, teacher, distillation_alpha=alpha)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    weights = torch.linspace(0.1, 2.0, B * T, dtype=torch.float64).view(B, T)
    (our_gradient,) = torch.autograd.grad((ours * weights).sum(), student)
    (their_gradient,) = torch.autograd.grad((theirs * weights).sum(), student)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("cap", [0.7, 2.0, 50.0])
def test_mask_and_importance_ratio_are_those_of_trl(logits: tuple[Tensor, Tensor], alpha: float, cap: float) -> None:
    student, teacher = logits
    token_ids = torch.arange(B * T).view(B, T) % V
    completion = torch.linspace(-9.0, -0.1, B * T, dtype=torch.float64).view(B, T)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], dtype=torch.float64)
    student_logprobs = student.log_softmax(-1)
    ours = sdpo_loss(student_logprobs, teacher.log_softmax(-1), token_ids, completion, mask, alpha=alpha, ratio_cap=cap)
    per_token = compute_full_logit_self_distillation_loss(student, teacher, distillation_alpha=alpha)
    per_token = apply_importance_sampling_clipping(per_token, of_tokens(student_logprobs, token_ids), completion, cap)
    theirs = ((per_token * mask).sum(-1) / mask.sum(-1)).mean()
    torch.testing.assert_close(ours.total, theirs, rtol=0, atol=1e-12)
    (our_gradient,) = torch.autograd.grad(ours.total, student, retain_graph=True)
    (their_gradient,) = torch.autograd.grad(theirs, student)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_gradients_have_their_closed_forms(logits: tuple[Tensor, Tensor], alpha: float) -> None:
    """Worked out by hand for the logits z of the student, with d = log p_s - log p_t and r = log p_s - log M."""
    student, teacher = logits
    divergence(student.log_softmax(-1), teacher.log_softmax(-1), alpha).sum().backward()
    log_s, log_t = student.detach().log_softmax(-1), teacher.log_softmax(-1)
    p_s, p_t = log_s.exp(), log_t.exp()
    if alpha == 0.0:
        expected = p_s - p_t
    elif alpha == 1.0:
        d = log_s - log_t
        expected = p_s * (d - (p_s * d).sum(-1, keepdim=True))
    else:
        r = log_s - ((1 - alpha) * p_s + alpha * p_t).log()
        expected = (1 - alpha) * p_s * (r - (p_s * r).sum(-1, keepdim=True))
    torch.testing.assert_close(student.grad, expected, rtol=0, atol=1e-14)


def test_two_token_numbers_come_out_as_on_paper() -> None:
    """p_t = (1/2, 1/2), p_s = (3/4, 1/4): forward KL = ln(2/sqrt 3), reverse KL = 3/4 ln 3 - ln 2."""
    student = torch.tensor([0.75, 0.25], dtype=torch.float64).log()
    teacher = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    assert float(divergence(student, teacher, 0.0)) == pytest.approx(math.log(2 / math.sqrt(3)), abs=1e-15)
    assert float(divergence(student, teacher, 1.0)) == pytest.approx(0.75 * math.log(3) - math.log(2), abs=1e-15)
    middle = 0.5 * (0.75 * math.log(0.75 / 0.625) + 0.25 * math.log(0.25 / 0.375))
    middle += 0.5 * (0.5 * math.log(0.5 / 0.625) + 0.5 * math.log(0.5 / 0.375))
    assert float(divergence(student, teacher, 0.5)) == pytest.approx(middle, abs=1e-15)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_teacher_that_equals_the_student_gives_no_loss_and_no_gradient(
    logits: tuple[Tensor, Tensor], alpha: float
) -> None:
    student, _ = logits
    student_logprobs = student.log_softmax(-1)
    per_token = divergence(student_logprobs, student_logprobs, alpha)
    assert float(per_token.detach().abs().max()) < 1e-15
    (gradient,) = torch.autograd.grad(per_token.sum(), student)
    assert float(gradient.abs().max()) < 1e-15


@pytest.mark.parametrize("alpha", ALPHAS)
def test_masked_tokens_get_exactly_no_gradient(logits: tuple[Tensor, Tensor], alpha: float) -> None:
    student, teacher = logits
    mask = torch.tensor([[1, 0, 1, 1, 0], [1, 1, 1, 0, 0]], dtype=torch.float64)
    _loss_of(student, teacher, mask, alpha).backward()
    assert student.grad is not None
    assert bool((student.grad[mask == 0] == 0).all())
    assert bool((student.grad[mask == 1].abs().sum(-1) > 0).all())


@pytest.mark.parametrize("alpha", ALPHAS)
def test_no_gradient_reaches_the_teacher(logits: tuple[Tensor, Tensor], alpha: float) -> None:
    student, teacher = logits
    teacher.requires_grad_()
    _loss_of(student, teacher, torch.ones(B, T, dtype=torch.float64), alpha).backward()
    assert teacher.grad is None


def test_padding_changes_nothing(logits: tuple[Tensor, Tensor]) -> None:
    student, teacher = logits
    mask = torch.ones(B, T, dtype=torch.float64)
    loss = _loss_of(student, teacher, mask, 0.3)
    pad = torch.full((B, 3, V), 7.0, dtype=torch.float64)
    padded = _loss_of(
        torch.cat([student, pad], 1), torch.cat([teacher, -pad], 1), torch.cat([mask, torch.zeros(B, 3)], 1), 0.3
    )
    torch.testing.assert_close(padded, loss, rtol=0, atol=1e-15)


def test_every_experience_counts_the_same_however_long_it_is(logits: tuple[Tensor, Tensor]) -> None:
    student, teacher = logits
    long_and_short = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0]], dtype=torch.float64)
    both = _loss_of(student, teacher, long_and_short, 1.0)
    alone = [_loss_of(student[[i]], teacher[[i]], long_and_short[[i]], 1.0) for i in range(B)]
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)


def test_the_ratio_is_capped_detached_and_survives_absurd_logprobs() -> None:
    student = torch.tensor([-1.0, -1.0, -1.0, -0.5], requires_grad=True)
    ratio = importance_ratio(student, torch.tensor([-1.0, -3.0, -1e9, -0.1]), 2.0)
    torch.testing.assert_close(ratio, torch.tensor([1.0, 2.0, 2.0, math.exp(-0.4)]))
    assert not ratio.requires_grad


def test_the_loss_pulls_up_the_token_that_the_teacher_prefers() -> None:
    """The sign trap: the loss coefficient is log p_s - log p_t, its negative is the advantage."""
    for alpha in ALPHAS:
        student = torch.zeros(1, 1, 4, requires_grad=True)
        teacher = torch.tensor([[[3.0, 0.0, 0.0, 0.0]]])
        _loss_of(student, teacher, torch.ones(1, 1), alpha).backward()
        assert student.grad is not None
        better = (student.detach() - 0.1 * student.grad).log_softmax(-1)
        assert float(better[0, 0, 0]) > math.log(0.25), alpha


def test_a_completion_without_a_token_is_refused(logits: tuple[Tensor, Tensor]) -> None:
    student, teacher = logits
    mask = torch.ones(B, T, dtype=torch.float64)
    mask[1] = 0
    with pytest.raises(JobRefused, match="no token that trains"):
        _loss_of(student, teacher, mask, 1.0)


def test_kl_names_its_first_argument_first() -> None:
    p, q = torch.tensor([0.9, 0.1]).log(), torch.tensor([0.5, 0.5]).log()
    assert float(kl(p, q)) == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2))


def _loss_of(student: Tensor, teacher: Tensor, mask: Tensor, alpha: float) -> Tensor:
    token_ids = torch.zeros(mask.shape, dtype=torch.int64)
    student_logprobs = student.log_softmax(-1)
    completion = of_tokens(student_logprobs.detach(), token_ids)
    loss = sdpo_loss(student_logprobs, teacher.log_softmax(-1), token_ids, completion, mask, alpha=alpha, ratio_cap=2.0)
    return loss.total


def test_without_contrast_the_teacher_is_itself(logits: tuple[Tensor, Tensor]) -> None:
    plain, teacher = (one.detach().log_softmax(-1) for one in logits)
    torch.testing.assert_close(contrasted(teacher, plain, 0.0), teacher, rtol=0, atol=1e-12)


def test_where_the_hindsight_changed_nothing_nothing_is_contrasted(logits: tuple[Tensor, Tensor]) -> None:
    teacher = logits[1].log_softmax(-1)
    torch.testing.assert_close(contrasted(teacher, teacher, 2.0), teacher, rtol=0, atol=1e-12)


def test_the_contrast_goes_on_along_the_way_of_the_hindsight() -> None:
    """By hand: (.5, .3, .2) against (.25, .25, .5) at contrast 1 is proportional to (1, .36, .08)."""
    teacher = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
    plain = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64).log()
    expected = torch.tensor([1.0, 0.36, 0.08], dtype=torch.float64) / 1.44
    torch.testing.assert_close(contrasted(teacher, plain, 1.0).exp(), expected, rtol=0, atol=1e-12)


def test_a_token_that_the_teacher_finds_implausible_never_rises() -> None:
    """By hand: the last token is a thousand times likelier than without hindsight, and still below a twentieth."""
    teacher = torch.tensor([0.6, 0.39, 0.01], dtype=torch.float64).log()
    plain = torch.tensor([0.6, 0.39999, 0.00001], dtype=torch.float64).log()
    boosted = contrasted(teacher, plain, 1.0).exp()
    assert float(boosted[2]) <= 0.0101
