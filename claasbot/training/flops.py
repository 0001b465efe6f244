"""How many floating-point operations a step cannot do without, and how fast this machine multiplies.

Only matrix products are counted; norms, softmaxes and the optimizer come on top, so a real step is always slower.
"""

import time
from dataclasses import dataclass

import torch
from torch import nn

from claasbot.training.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFlops:
    """Multiplications and additions of one teacher pass, one student forward and its backward."""

    teacher: float
    forward: float
    backward: float


def count(policy: Policy, *, n_student: int, n_teacher: int, n_completion: int) -> StepFlops:
    """FLOPs for sequences of `n_student` and `n_teacher` tokens of which `n_completion` are the completion.

    Let P be the weights of all linear layers of the body, R those of the adapter, H x V the head, D the width of all
    attention heads together, N the layers, L the tokens of a sequence, T the completion tokens. A product of (m, k) and
    (k, n) takes 2 m k n.

    - body forward: 2 P L
    - attention forward: scores and values are 2 L² D each; causality needs half of that: 2 N L² D
    - head forward, completion positions only: 2 H V T
    - adapter forward: 2 R L
    - backward: the base is frozen, so only the gradient by activations: 2 P L + 2 H V T; attention has four products
      where the forward has two: 4 N L² D; the adapter has both gradients: 4 R L

    The teacher is one forward with the adapter off. The first layer's input needs no gradient: too little to count.
    """
    config = policy.model.config
    linears = [
        module.linear.weight if hasattr(module, "linear") else module.weight
        for name, module in policy.model.base_model.named_modules()
        if hasattr(module, "linear") or (isinstance(module, nn.Linear) and not name.endswith(".linear"))
    ]
    body = sum(weight.numel() for weight in linears)
    head = policy.model.get_output_embeddings().weight.numel()
    adapter = policy.adapter.weights.numel()
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    width = config.num_hidden_layers * config.num_attention_heads * head_dim

    def forward(n_tokens: int) -> float:
        return 2.0 * (body * n_tokens + head * n_completion + width * n_tokens**2)

    attention_twice = 2.0 * width * n_student**2
    return StepFlops(
        teacher=forward(n_teacher),
        forward=forward(n_student) + 2.0 * adapter * n_student,
        backward=forward(n_student) + attention_twice + 4.0 * adapter * n_student,
    )


def peak_flops(policy: Policy, n_tokens: int) -> float:
    """The best rate of a matrix product of this model's shapes and precision, in FLOP/s, measured now."""
    config = policy.model.config
    shapes = ((config.hidden_size, config.intermediate_size), (config.intermediate_size, config.hidden_size))
    best = 0.0
    for n_in, n_out in shapes:
        x = torch.randn(n_tokens, n_in, device=policy.device).to(policy.model.dtype)
        weight = torch.randn(n_out, n_in, device=policy.device).to(policy.model.dtype)
        for _ in range(100):
            start = time.perf_counter()
            nn.functional.linear(x, weight)
            if x.is_cuda:
                torch.cuda.synchronize()
            best = max(best, 2.0 * n_tokens * n_in * n_out / (time.perf_counter() - start))
    return best
