import math

import pytest
import torch
from torch import Tensor, nn

from claasbot.domain.job import Recipe
from claasbot.errors import JobRefused
from claasbot.training.lora import Adapter, LoraLinear
from claasbot.training.policy import Policy

RECIPE = Recipe(rank=4, lora_alpha=8)
PROMPT, TOKENS = (1, 20, 30, 40), (50, 60, 2)


@pytest.fixture
def adapter(policy: Policy) -> Adapter:
    adapter = policy.wear(RECIPE)
    adapter.start_fresh(1)
    return adapter


def randomise(adapter: Adapter, seed: int, scale: float = 0.1) -> Tensor:
    adapter.weights.copy_(torch.randn(adapter.weights.shape, generator=torch.Generator().manual_seed(seed)) * scale)
    return adapter.weights.clone()


def test_every_target_layer_of_every_block_gets_factors(adapter: Adapter) -> None:
    assert len(adapter.layers) == 2 * 7
    shapes = {name: tuple(view.shape) for name, view in adapter.factors(adapter.weights).items()}
    assert shapes["model.layers.1.self_attn.k_proj.lora_A"] == (4, 32)
    assert shapes["model.layers.1.self_attn.k_proj.lora_B"] == (16, 4)
    assert sum(math.prod(shape) for shape in shapes.values()) == adapter.weights.numel()


def test_a_fresh_adapter_answers_like_the_base_model(policy: Policy, adapter: Adapter) -> None:
    with adapter.off():
        base = policy.logprobs(PROMPT, TOKENS)
    assert torch.equal(policy.logprobs(PROMPT, TOKENS), base)


def test_a_fresh_adapter_is_kaiming_uniform_and_comes_from_the_seed(adapter: Adapter) -> None:
    factors = adapter.factors(adapter.weights)
    a = factors["model.layers.0.mlp.down_proj.lora_A"]
    assert 0.9 / math.sqrt(64) < float(a.abs().max()) <= 1 / math.sqrt(64)
    assert not any(bool(view.any()) for name, view in factors.items() if name.endswith("lora_B"))
    first = adapter.weights.clone()
    adapter.start_fresh(2)
    assert not torch.equal(adapter.weights, first)
    adapter.start_fresh(1)
    assert torch.equal(adapter.weights, first)


def test_off_is_the_base_model_and_on_again_afterwards(policy: Policy, adapter: Adapter) -> None:
    with adapter.off():
        base = policy.logprobs(PROMPT, TOKENS)
    randomise(adapter, 0)
    with adapter.off():
        assert torch.equal(policy.logprobs(PROMPT, TOKENS), base)
    assert not torch.allclose(policy.logprobs(PROMPT, TOKENS), base, atol=1e-2)


def test_the_gradient_lands_in_the_flat_vector_and_nowhere_in_the_base(policy: Policy, adapter: Adapter) -> None:
    randomise(adapter, 0)
    policy.logprobs(PROMPT, TOKENS).sum().backward()
    once = adapter.gradient.clone()
    assert all(bool(view.any()) for view in adapter.factors(once).values())
    policy.logprobs(PROMPT, TOKENS).sum().backward()
    torch.testing.assert_close(adapter.gradient, 2 * once)
    frozen = [p for name, p in policy.model.named_parameters() if not name.endswith((".a", ".b"))]
    assert frozen and all(p.grad is None for p in frozen)


def test_the_same_recipe_keeps_the_adapter_and_another_rank_replaces_it(policy: Policy, adapter: Adapter) -> None:
    assert policy.wear(RECIPE) is adapter
    other = policy.wear(Recipe(rank=2, lora_alpha=8, target_modules=("q_proj",)))
    assert other is not adapter
    wrapped = [module for module in policy.model.modules() if isinstance(module, LoraLinear)]
    assert len(wrapped) == 2
    assert all(isinstance(layer.linear, nn.Linear) for layer in wrapped)


def test_the_change_norm_is_that_of_the_dense_matrices(adapter: Adapter) -> None:
    before, after = randomise(adapter, 1), randomise(adapter, 2)
    then, now = adapter.factors(before), adapter.factors(after)
    dense = [
        (now[f"{name}.lora_B"] @ now[f"{name}.lora_A"] - then[f"{name}.lora_B"] @ then[f"{name}.lora_A"]) * 2.0
        for name in adapter.layers
    ]
    expected = math.sqrt(sum(float((matrix.double() ** 2).sum()) for matrix in dense))
    assert adapter.change_norm(before) == pytest.approx(expected, rel=1e-6)
    assert adapter.change_norm(after) < 1e-6 * expected


def test_layers_that_the_model_does_not_have_are_refused(policy: Policy) -> None:
    with pytest.raises(JobRefused, match="query_key_value"):
        policy.wear(Recipe(target_modules=("query_key_value",)))
