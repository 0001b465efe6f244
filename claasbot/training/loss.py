"""The SDPO objective: how far the student's next-token distributions are from the teacher's.

Pure functions of log-probabilities over the whole vocabulary, in nats. Refuses approximations: no top-k, no
sampled-token estimator, no normalised advantages. Source: arXiv:2601.20802; the direction of alpha is that of GKD
(arXiv:2306.13649).
Letters: B experiences, T completion tokens, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from claasbot.errors import JobRefused

_PLAUSIBLE = math.log(0.05)
_MAX_LOG_RATIO = 20.0  # exp(20) is far above any cap: keeps the ratio finite where the server and we disagree


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The number to differentiate, and what it was made of (detached)."""

    total: Tensor  # ()
    divergence: Tensor  # (B, T)
    ratio: Tensor  # (B, T)


def divergence(student_logprobs: Tensor, teacher_logprobs: Tensor, alpha: float) -> Tensor:
    """D_alpha per token, in nats: logprobs (..., V) → (...). Gradient reaches `student_logprobs` only.

    alpha 0: forward KL(teacher || student). 1: reverse KL(student || teacher). Between them
    (1-a) KL(student || M) + a KL(teacher || M) with M = (1-a) student + a teacher; 0.5 is Jensen-Shannon.
    """
    teacher_logprobs = teacher_logprobs.detach()
    if alpha == 0.0:
        return kl(teacher_logprobs, student_logprobs)
    if alpha == 1.0:
        return kl(student_logprobs, teacher_logprobs)
    mixture = torch.logaddexp(student_logprobs + math.log1p(-alpha), teacher_logprobs + math.log(alpha))
    return (1.0 - alpha) * kl(student_logprobs, mixture) + alpha * kl(teacher_logprobs, mixture)


def contrasted(teacher_logprobs: Tensor, plain_logprobs: Tensor, contrast: float) -> Tensor:
    """The teacher, moved further along the way that the hindsight moved it: (..., V) → (..., V), normalised.

    p(y|x,h) (p(y|x,h) / p(y|x)) ** contrast, both by the frozen base model, so that it stands still however often it is
    learned from. A token that the teacher itself finds implausible (below a twentieth of its best) never rises: the
    ratio of two tiny numbers means nothing. Sources: contrastive decoding (arXiv:2210.15097) for the limit,
    classifier-free guidance (arXiv:2306.17806) for the target.
    """
    shift = contrast * (teacher_logprobs - plain_logprobs)
    is_plausible = teacher_logprobs >= teacher_logprobs.amax(-1, keepdim=True) + _PLAUSIBLE
    shift = torch.where(is_plausible, shift, shift.clamp(max=0.0))
    return (teacher_logprobs + shift).log_softmax(-1)


def kl(p_logprobs: Tensor, q_logprobs: Tensor) -> Tensor:
    """KL(p || q) per token, in nats: (..., V) → (...)."""
    return (p_logprobs.exp() * (p_logprobs - q_logprobs)).sum(-1)


def importance_ratio(student_logprobs: Tensor, completion_logprobs: Tensor, cap: float) -> Tensor:
    """student / completion probability of each sampled token, at most `cap`, detached: same shape as its inputs."""
    log_ratio = (student_logprobs - completion_logprobs).detach().clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    return log_ratio.exp().clamp(max=cap)


def sdpo_loss(
    student_logprobs: Tensor,
    teacher_logprobs: Tensor,
    token_ids: Tensor,
    completion_logprobs: Tensor,
    loss_mask: Tensor,
    *,
    alpha: float,
    ratio_cap: float,
) -> Loss:
    """Mean over experiences of the token-mean of ratio x divergence, in nats.

    Student and teacher logprobs are (B, T, V); ids, completion logprobs and mask (B, T). The ratio multiplies the loss
    of its token, and each experience counts the same however long it is. Gradient reaches `student_logprobs` only.
    Raises JobRefused if a row of the mask is all zero: an empty completion teaches nothing.
    """
    n_tokens = loss_mask.sum(-1)  # (B,)
    if not bool((n_tokens > 0).all()):
        raise JobRefused("a completion has no token that trains, expected at least its end-of-turn token; drop it")
    per_token = divergence(student_logprobs, teacher_logprobs, alpha)  # (B, T)
    ratio = importance_ratio(of_tokens(student_logprobs, token_ids), completion_logprobs, ratio_cap)
    total = ((per_token * ratio * loss_mask).sum(-1) / n_tokens).mean()
    return Loss(total=total, divergence=per_token.detach(), ratio=ratio)


def of_tokens(logprobs: Tensor, token_ids: Tensor) -> Tensor:
    """The logprobs of the tokens that stand there: (..., T, V), (..., T) → (..., T)."""
    return logprobs.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1)
