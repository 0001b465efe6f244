"""The wrapper against dense float64 sums, one row at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("vllm", reason="needs the server's packages")
import torch
import vllm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform

from claasbot.vllm_plugins.cpu_lora import PINNED_VLLM
from claasbot.vllm_plugins.grouped_lora import LONG_RUN_TOKENS, GroupedLora, packs

pytestmark = pytest.mark.skipif(
    vllm.__version__.partition("+")[0] != PINNED_VLLM or not current_platform.is_cpu(),
    reason=f"the wrapper is for vLLM {PINNED_VLLM} on a CPU",
)

N_SLOTS = 4
MAX_RANK = 16
N_IN = 64
BASE = -1
FUSED = (96, 32, 32)
"""Columns of q, k and v in one layer."""


@pytest.fixture(scope="module", autouse=True)
def kernels() -> None:
    current_platform.import_kernels()


@dataclass(frozen=True)
class Layer:
    """What vLLM keeps per layer: (slots, 1, R, in) and (slots, 1, out, R) per slice, padded with zeros."""

    a: tuple[Tensor, ...]
    b: tuple[Tensor, ...]
    slices: tuple[int, ...]

    def load(self, slot: int, rank: int, generator: torch.Generator) -> None:
        for a, b in zip(self.a, self.b, strict=True):
            a[slot] = 0
            b[slot] = 0
            a[slot, 0, :rank] = torch.randn(rank, a.shape[-1], generator=generator) / 8
            b[slot, 0, :, :rank] = torch.randn(b.shape[-2], rank, generator=generator) / 8


def a_layer(slices: Sequence[int], dtype: torch.dtype, ranks: Sequence[int] = (16, 8, 4, 1), n_in: int = N_IN) -> Layer:
    generator = torch.Generator().manual_seed(len(slices))
    layer = Layer(
        a=tuple(torch.zeros(N_SLOTS, 1, MAX_RANK, n_in, dtype=dtype) for _ in slices),
        b=tuple(torch.zeros(N_SLOTS, 1, n_out, MAX_RANK, dtype=dtype) for n_out in slices),
        slices=tuple(slices),
    )
    for slot, rank in enumerate(ranks):
        layer.load(slot, rank, generator)
    return layer


def a_wrapper(
    slots: Sequence[int], prompts: Sequence[int] | None = None, kind: type[PunicaWrapperCPU] = GroupedLora
) -> PunicaWrapperCPU:
    """Told of a batch whose rows belong to `slots`; slot s holds the adapter with id s + 1."""
    wrapper = kind(2048, 64, "cpu")
    tell(wrapper, slots, prompts)
    return wrapper


def tell(wrapper: PunicaWrapperCPU, slots: Sequence[int], prompts: Sequence[int] | None = None) -> None:
    mapping = LoRAMapping(
        tuple(slot + 1 for slot in slots),
        tuple(slot + 1 for slot in (slots if prompts is None else prompts)),
        is_prefill=True,
    )
    wrapper.update_metadata(mapping, list(range(1, N_SLOTS + 1)), N_SLOTS + 1, 1000)


def rows(n: int, columns: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(n, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)


def expected(y: Tensor, x: Tensor, layer: Layer, slots: Sequence[int], scale: float = 1.0) -> np.ndarray:
    out = y.double().numpy().copy()
    for row, slot in enumerate(slots):
        if slot != BASE:
            deltas = [
                x[row].double().numpy() @ a[slot, 0].double().numpy().T @ b[slot, 0].double().numpy().T * scale
                for a, b in zip(layer.a, layer.b, strict=True)
            ]
            out[row] += np.concatenate(deltas)
    return out


def apply_linear(wrapper: PunicaWrapperCPU, y: Tensor, x: Tensor, layer: Layer, scale: float = 1.0) -> Tensor:
    out = y.clone()
    wrapper.add_lora_linear(out, x, layer.a, layer.b, scale, layer.slices)
    return out


def assert_rows(out: Tensor, y: Tensor, oracle: np.ndarray, slots: Sequence[int]) -> None:
    """Base rows to the bit, the others to the rounding of their dtype."""
    tolerance = 1e-5 if out.dtype == torch.float32 else 0.03
    base = [row for row, slot in enumerate(slots) if slot == BASE]
    assert torch.equal(out[base], y[base])
    np.testing.assert_allclose(out.double().numpy(), oracle, atol=tolerance, rtol=tolerance)


runs = st.lists(
    st.tuples(st.integers(BASE, N_SLOTS - 1), st.sampled_from([1, 1, 1, 2, 5, LONG_RUN_TOKENS, LONG_RUN_TOKENS + 9])),
    min_size=1,
    max_size=9,
)


@settings(deadline=None, max_examples=60)
@given(
    batch=runs,
    slices=st.sampled_from([(64,), (96, 96), FUSED, (40,)]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    scale=st.sampled_from([1.0, 1.0, 0.5]),
)
def test_every_row_gets_its_own_adapter_and_no_other(
    batch: list[tuple[int, int]], slices: tuple[int, ...], dtype: torch.dtype, scale: float
) -> None:
    slots = [slot for slot, n in batch for _ in range(n)]
    layer = a_layer(slices, dtype)
    x, y = rows(len(slots), N_IN, dtype), rows(len(slots), sum(slices), dtype, seed=1)
    out = apply_linear(a_wrapper(slots), y, x, layer, scale)
    assert_rows(out, y, expected(y, x, layer, slots, scale), slots)


def test_the_packed_kernel_is_what_the_tests_of_bfloat16_use() -> None:
    layer = a_layer(FUSED, torch.bfloat16)
    if not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("this processor has no bfloat16 products")
    assert packs(layer.a, layer.b)
    assert not packs(*(tuple(t.float() for t in side) for side in (layer.a, layer.b)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_of_base_requests_is_left_alone(dtype: torch.dtype) -> None:
    layer, y = a_layer((64,), dtype), rows(7, 64, dtype)
    assert torch.equal(apply_linear(a_wrapper([BASE] * 7), y, rows(7, N_IN, dtype), layer), y)


def test_a_wrapper_that_was_told_of_no_batch_leaves_rows_alone() -> None:
    layer, y = a_layer((64,), torch.float32), rows(3, 64, torch.float32)
    assert torch.equal(apply_linear(GroupedLora(64, 8, "cpu"), y, rows(3, N_IN, torch.float32), layer), y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_beyond_the_batch_are_padding_and_left_alone(dtype: torch.dtype) -> None:
    layer, slots = a_layer((64,), dtype), [2, BASE, 0]
    x, y = rows(8, N_IN, dtype), rows(8, 64, dtype, seed=1)
    out = apply_linear(a_wrapper(slots), y, x, layer)
    assert_rows(out, y, expected(y, x, layer, [*slots, *[BASE] * 5]), [*slots, *[BASE] * 5])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_of_nan_and_infinity_poisons_its_own_rows_only(dtype: torch.dtype) -> None:
    slots = [0, 1, BASE, 1, 2, 0]
    layer = a_layer(FUSED, dtype)
    for a, b in zip(layer.a, layer.b, strict=True):
        a[1] = torch.inf
        b[1] = torch.nan
    y = rows(6, sum(FUSED), dtype, seed=1)
    out = apply_linear(a_wrapper(slots), y, rows(6, N_IN, dtype), layer)
    assert out[[1, 3]].isnan().all()
    assert out[[0, 2, 4, 5]].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_loaded_into_a_slot_later_answers_the_next_batch(dtype: torch.dtype) -> None:
    slots, layer = [3, 0, 3], a_layer(FUSED, dtype)
    x, y = rows(3, N_IN, dtype), rows(3, sum(FUSED), dtype, seed=1)
    wrapper = a_wrapper(slots)
    before = apply_linear(wrapper, y, x, layer)
    layer.load(3, 16, torch.Generator().manual_seed(99))
    after = apply_linear(wrapper, y, x, layer)
    assert_rows(after, y, expected(y, x, layer, slots), slots)
    assert torch.equal(before[1], after[1])
    assert not torch.allclose(before[0], after[0])


def test_the_next_batch_is_cut_anew() -> None:
    layer = a_layer((64,), torch.float32)
    x, y = rows(4, N_IN, torch.float32), rows(4, 64, torch.float32, seed=1)
    wrapper = a_wrapper([0, 1, BASE, 2])
    apply_linear(wrapper, y, x, layer)
    tell(wrapper, [BASE, 3, 3, BASE])
    assert_rows(apply_linear(wrapper, y, x, layer), y, expected(y, x, layer, [BASE, 3, 3, BASE]), [BASE, 3, 3, BASE])


def test_an_adapter_alone_and_beside_others_differs_by_rounding_only() -> None:
    layer = a_layer(FUSED, torch.float32)
    x, y = rows(5, N_IN, torch.float32), rows(5, sum(FUSED), torch.float32, seed=1)
    together = apply_linear(a_wrapper([0, 1, BASE, 2, 3]), y, x, layer)
    alone = apply_linear(a_wrapper([1]), y[1:2], x[1:2], layer)
    torch.testing.assert_close(together[1:2], alone, atol=1e-6, rtol=1e-6)


def test_shrink_and_expand_by_themselves_make_the_same_product() -> None:
    slots, layer = [0, BASE, 2, 2, 1], a_layer(FUSED, torch.float32)
    x, y = rows(5, N_IN, torch.float32), rows(5, sum(FUSED), torch.float32, seed=1)
    wrapper = a_wrapper(slots)
    hidden = torch.full((3, 5, MAX_RANK), torch.nan)
    wrapper.add_shrink(hidden, x, layer.a, 0.5)
    assert not hidden[:, 1].any()
    out = y.clone()
    wrapper.add_expand(out, hidden, layer.b, layer.slices)
    assert_rows(out, y, expected(y, x, layer, slots, 0.5), slots)
    wrapper.add_expand(out, hidden, layer.b, layer.slices, add_inputs=False)
    assert not out[1].any()


def test_embedding_rows_get_the_second_matrix_of_their_adapter() -> None:
    slots, layer = [BASE, 1, 3], a_layer((64,), torch.float32)
    looked_up, y = rows(3, MAX_RANK, torch.float32), rows(3, 64, torch.float32, seed=1)
    out = y.clone()
    a_wrapper(slots).add_lora_embedding(out, looked_up, layer.b[0], add_input=True)
    assert torch.equal(out[0], y[0])
    for row in (1, 2):
        delta = looked_up[row].double() @ layer.b[0][slots[row], 0].double().t()
        torch.testing.assert_close(out[row].double(), y[row].double() + delta, atol=1e-5, rtol=1e-5)


def test_logits_follow_the_sampled_rows_not_the_tokens() -> None:
    layer = a_layer((96,), torch.float32)
    wrapper = a_wrapper([0] * 30 + [BASE] * 5 + [2], prompts=[0, BASE, 2])
    x, y = rows(3, N_IN, torch.float32), rows(3, 96, torch.float32, seed=1)
    out = y.clone()
    wrapper.add_lora_logits(out, x, layer.a[0], layer.b[0], 1.0)
    assert_rows(out, y, expected(y, x, layer, [0, BASE, 2]), [0, BASE, 2])


def test_logits_of_a_prompt_whose_owner_is_unknown_get_nobodys_adapter() -> None:
    layer = a_layer((96,), torch.float32)
    y = rows(20, 96, torch.float32)
    out = y.clone()
    a_wrapper([0] * 20, prompts=[0]).add_lora_logits(out, rows(20, N_IN, torch.float32), layer.a[0], layer.b[0], 1.0)
    assert torch.equal(out, y)


def test_logits_notice_an_adapter_that_is_loaded_later() -> None:
    layer = a_layer((96,), torch.float32, ranks=())
    wrapper = a_wrapper([1, BASE])
    x, y = rows(2, N_IN, torch.float32), rows(2, 96, torch.float32, seed=1)
    out = y.clone()
    wrapper.add_lora_logits(out, x, layer.a[0], layer.b[0], 1.0)
    assert torch.equal(out, y)
    layer.load(1, 8, torch.Generator().manual_seed(5))
    wrapper.add_lora_logits(out, x, layer.a[0], layer.b[0], 1.0)
    assert_rows(out, y, expected(y, x, layer, [1, BASE]), [1, BASE])


def test_the_stock_wrapper_gives_a_base_row_the_adapter_of_the_last_slot() -> None:
    """Why this plugin exists. Fails when vLLM mends it: then drop the plugin for that version."""
    layer = a_layer((64,), torch.float32, ranks=(8, 8, 8, 8))
    x, y = rows(2, N_IN, torch.float32), rows(2, 64, torch.float32, seed=1)
    out = apply_linear(a_wrapper([0, BASE], kind=PunicaWrapperCPU), y, x, layer)
    np.testing.assert_allclose(out[1].double().numpy(), expected(y, x, layer, [0, N_SLOTS - 1])[1], atol=1e-5)
