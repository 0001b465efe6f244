"""Adapter matmuls on a CPU: tokens of one adapter together, tokens of no adapter not at all.

A punica wrapper for vLLM 0.32.0. Once per batch, the tokens are divided among the adapter slots; every layer then
follows that plan. A row without an adapter is never read or written, so a base request beside adapter requests gets
the base result bit for bit, and an adapter that holds NaN poisons its own rows only.

Two shapes of work, by measurement:
- a long run of one adapter's tokens (a prompt): plain matmuls in place;
- the rest, typically one token per request: one batched matmul over the span of slots in use, rows padded to the same
  number per slot, on weights packed the way that vLLM's own kernel wants them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

LONG_RUN_TOKENS = 64
"""From here on the packed kernel is slower than a plain matmul (3072 x 32, bf16: 34 against 34 us)."""

KERNEL_BLOCK = 32
"""The packed kernel takes matrices whose sides are multiples of this."""

NO_ADAPTER = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Consecutive rows of one slot."""

    start: int
    end: int
    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows of several slots, laid out as (slots, width): padded with row 0, whose results are dropped."""

    first_slot: int
    end_slot: int
    width: int
    gather: Tensor
    """(slots * width,) the row that each cell reads."""
    rows: Tensor
    """(n,) the rows that take part, ascending."""
    cells: Tensor
    """(n,) the cell that holds the result of each of `rows`."""

    def is_whole(self, rows: Tensor) -> bool:
        """Every row is of one slot, so that rows and cells are the same."""
        return self.end_slot - self.first_slot == 1 and len(self.rows) == len(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do for the rows of one batch. Rows in neither part have no adapter."""

    runs: tuple[Run, ...] = ()
    group: Group | None = None


def runs_of(slots: np.ndarray) -> Iterator[Run]:
    """Maximal runs of equal slot in (T,) `slots`, those without an adapter left out."""
    if not len(slots):
        return
    cuts = np.flatnonzero(np.diff(slots)) + 1
    starts = [0, *cuts.tolist()]
    ends = [*starts[1:], len(slots)]
    for start, end in zip(starts, ends, strict=True):
        if slots[start] != NO_ADAPTER:
            yield Run(start=start, end=end, slot=int(slots[start]))


def plan_of(slots: np.ndarray) -> Plan:
    """Long runs alone, everything shorter in one group."""
    long: list[Run] = []
    short: list[Run] = []
    for run in runs_of(slots):
        (long if run.end - run.start >= LONG_RUN_TOKENS else short).append(run)
    return Plan(runs=tuple(long), group=_group_of(short) if short else None)


def _group_of(runs: Sequence[Run]) -> Group:
    rows = np.concatenate([np.arange(run.start, run.end) for run in runs])
    slots = np.concatenate([np.full(run.end - run.start, run.slot) for run in runs])
    first, end = int(slots.min()), int(slots.max()) + 1
    width = int(np.bincount(slots - first).max())
    gather = np.zeros((end - first, width), dtype=np.int64)
    cells = np.empty(len(rows), dtype=np.int64)
    for slot in np.unique(slots):
        mine = np.flatnonzero(slots == slot)
        gather[slot - first, : len(mine)] = rows[mine]
        cells[mine] = (slot - first) * width + np.arange(len(mine))
    return Group(
        first_slot=first,
        end_slot=end,
        width=width,
        gather=torch.from_numpy(gather.ravel()),
        rows=torch.from_numpy(rows),
        cells=torch.from_numpy(cells),
    )


class PackedWeights:
    """A layer's stacked matrices in the kernel's format, all slices of a fused layer in one pair.

    `a` is (slots, H, in), `b` is (slots, out, H) and block-diagonal over the slices, with H = slices * R rounded up to
    whole blocks: q, k and v then take one product each way. Nearly twice the bytes, a third of the time.
    A copy: what vLLM loads into a slot or clears shows in the counts that PyTorch keeps of writes to a tensor.
    """

    def __init__(self, a_stacked: Sequence[Tensor], b_stacked: Sequence[Tensor]) -> None:
        self.a_stacked = a_stacked  # kept alive: its id is the key under which this is found
        self.b_stacked = b_stacked
        self.writes = -1
        self.refresh()

    def refresh(self) -> None:
        writes = sum(tensor._version for tensor in (*self.a_stacked, *self.b_stacked))
        if writes == self.writes:
            return
        n_slots, _, rank, n_in = self.a_stacked[0].shape
        n_hidden = -(-len(self.a_stacked) * rank // KERNEL_BLOCK) * KERNEL_BLOCK
        n_out = sum(b.shape[-2] for b in self.b_stacked)
        a = self.a_stacked[0].new_zeros(n_slots, n_hidden, n_in)
        b = self.b_stacked[0].new_zeros(n_slots, n_out, n_hidden)
        row = column = 0
        for a_slice, b_slice in zip(self.a_stacked, self.b_stacked, strict=True):
            a[:, row : row + rank] = a_slice[:, 0]
            b[:, column : column + b_slice.shape[-2], row : row + rank] = b_slice[:, 0]
            row += rank
            column += b_slice.shape[-2]
        self.a = torch.ops._C.convert_weight_packed(a)
        self.b = torch.ops._C.convert_weight_packed(b)
        self.n_hidden, self.n_out = n_hidden, n_out
        self.writes = writes


def packs(a_stacked: Sequence[Tensor], b_stacked: Sequence[Tensor]) -> bool:
    """Whether the kernel takes this layer. Where it does not, plain matmuls do the same, slower."""
    sides = (a_stacked[0].shape[-1], *(b.shape[-2] for b in b_stacked))
    return _has_kernel(a_stacked[0].dtype) and all(side % KERNEL_BLOCK == 0 for side in sides)


@functools.cache
def _has_kernel(dtype: torch.dtype) -> bool:
    """bfloat16 on processors for which vLLM's build has it; tried, because no flag says so."""
    if dtype != torch.bfloat16:
        return False
    x = torch.arange(2 * KERNEL_BLOCK, dtype=dtype).view(2, 1, KERNEL_BLOCK)
    eye = torch.eye(KERNEL_BLOCK, dtype=dtype).repeat(2, 1, 1)
    out = torch.empty_like(x)
    try:
        torch.ops._C.bmm_cpu(out, x, torch.ops._C.convert_weight_packed(eye), True, None)
    except (AttributeError, RuntimeError):
        return False
    return torch.equal(out, x)


class GroupedLora(PunicaWrapperCPU):
    """Same contract as its parent: `y += x @ A @ B * scale` per row, with the row's own adapter."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._plan = Plan()
        self._token_runs: tuple[Run, ...] = ()
        self._sampler_runs: tuple[Run, ...] = ()
        self._packed: dict[int, PackedWeights | None] = {}
        self._used: dict[int, tuple[Tensor, int, frozenset[int]]] = {}

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        super().update_metadata(*args, **kwargs)
        slots = self.token_lora_indices.numpy()
        self._plan = plan_of(slots)
        self._token_runs = tuple(runs_of(slots))
        self._sampler_runs = tuple(runs_of(self.sampler_indices.numpy()))

    def add_lora_linear(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        lora_b_stacked: tuple[Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: tuple[Tensor, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        plan = self._plan
        for run in plan.runs:
            _add_run(y, x, lora_a_stacked, lora_b_stacked, run, scale)
        if plan.group is not None:
            packed = self._packed_weights(lora_a_stacked, lora_b_stacked)
            if packed is not None and x.dtype == y.dtype == packed.a.dtype and scale == 1.0:
                _add_group(y, _group_product_packed(x, packed, plan.group), plan.group)
            else:
                _add_group(y, _group_product(x, lora_a_stacked, lora_b_stacked, plan.group, scale), plan.group)

    def _packed_weights(self, a_stacked: tuple[Tensor, ...], b_stacked: tuple[Tensor, ...]) -> PackedWeights | None:
        key = id(a_stacked)
        if key not in self._packed:
            self._packed[key] = PackedWeights(a_stacked, b_stacked) if packs(a_stacked, b_stacked) else None
        packed = self._packed[key]
        if packed is not None:
            packed.refresh()
        return packed

    def add_shrink(
        self,
        y: tuple[Tensor, ...] | Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        scale: float,
        **kwargs: Any,
    ) -> None:
        x = x.view(-1, x.shape[-1])
        for index, a in enumerate(lora_a_stacked):
            hidden = y[index].view(-1, y[index].shape[-1])
            hidden.zero_()
            for run in self._token_runs:
                rank = a.shape[-2]
                rows = x[run.start : run.end].to(hidden.dtype)
                hidden[run.start : run.end, :rank] = rows @ a[run.slot, 0].to(hidden.dtype).t() * scale

    def add_expand(
        self,
        y: Tensor,
        x: tuple[Tensor, ...] | Tensor,
        lora_b_stacked: tuple[Tensor, ...],
        output_slices: tuple[int, ...],
        offset_start: int = 0,
        add_inputs: bool = True,
        **kwargs: Any,
    ) -> None:
        y = y.view(-1, y.shape[-1])
        column = offset_start
        for index, n_out in enumerate(output_slices):
            _expand(y[:, column : column + n_out], x[index], lora_b_stacked[index], self._token_runs, add_inputs)
            column += n_out

    def add_lora_embedding(
        self, y: Tensor, x: Tensor, lora_b_stacked: Tensor, add_inputs: bool = True, **kwargs: Any
    ) -> None:
        _expand(y, x, lora_b_stacked, self._runs_with_weights(self._token_runs, lora_b_stacked), add_inputs)

    def add_lora_logits(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: Tensor,
        lora_b_stacked: Tensor,
        scale: float,
        *,
        buffer: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        y = y.view(-1, y.shape[-1])
        x = x.view(-1, x.shape[-1])
        if len(x) != len(self.sampler_indices):
            return  # logprobs of a prompt: nothing says whose rows these are, and nobody's adapter beats somebody's
        runs = self._runs_with_weights(self._sampler_runs, lora_b_stacked)
        hidden = torch.zeros(len(x), lora_a_stacked.shape[-2], dtype=torch.float32)
        for run in runs:
            rows = x[run.start : run.end].to(hidden.dtype)
            hidden[run.start : run.end] = rows @ lora_a_stacked[run.slot, 0].to(hidden.dtype).t() * scale
        _expand(y, hidden, lora_b_stacked, runs, add_inputs=True)

    def _runs_with_weights(self, runs: tuple[Run, ...], b_stacked: Tensor) -> tuple[Run, ...]:
        """Those whose slot has anything here: embeddings and logits are wrapped always, adapted hardly ever.

        Over a whole vocabulary, multiplying by zero cost 4 ms of a 30 ms pass. PyTorch counts each write to a tensor
        or to a view of it, so what was found holds until the count moves.
        """
        if not runs:
            return ()
        owner, version, used = self._used.get(id(b_stacked), (None, -1, frozenset()))
        if owner is not b_stacked or version != b_stacked._version:
            used = frozenset(slot for slot, b in enumerate(b_stacked) if b.any())
            self._used[id(b_stacked)] = (b_stacked, b_stacked._version, used)
        return tuple(run for run in runs if run.slot in used)


def _add_run(
    y: Tensor, x: Tensor, a_stacked: Sequence[Tensor], b_stacked: Sequence[Tensor], run: Run, scale: float
) -> None:
    column = 0
    for a, b in zip(a_stacked, b_stacked, strict=True):
        n_out = b.shape[-2]
        target = y[run.start : run.end, column : column + n_out]
        hidden = x[run.start : run.end].to(a.dtype) @ a[run.slot, 0].t()  # (n, R)
        if target.dtype == hidden.dtype:
            target.addmm_(hidden, b[run.slot, 0].t(), alpha=scale)
        else:
            target += hidden @ b[run.slot, 0].t() * scale
        column += n_out


def _group_product_packed(x: Tensor, packed: PackedWeights, group: Group) -> Tensor:
    """(slots * width, out), `x @ A @ B` of each cell."""
    slots = slice(group.first_slot, group.end_slot)
    n_slots = group.end_slot - group.first_slot
    cells = x if group.is_whole(x) else x.index_select(0, group.gather)
    cells = cells.view(n_slots, group.width, x.shape[-1])
    hidden = x.new_empty(n_slots, group.width, packed.n_hidden)
    torch.ops._C.bmm_cpu(hidden, cells, packed.a[slots], True, None)
    product = x.new_empty(n_slots, group.width, packed.n_out)
    torch.ops._C.bmm_cpu(product, hidden, packed.b[slots], True, None)
    return product.view(-1, packed.n_out)


def _group_product(
    x: Tensor, a_stacked: Sequence[Tensor], b_stacked: Sequence[Tensor], group: Group, scale: float
) -> Tensor:
    """The same without the kernel."""
    slots = slice(group.first_slot, group.end_slot)
    cells = x.to(a_stacked[0].dtype).index_select(0, group.gather)
    cells = cells.view(group.end_slot - group.first_slot, group.width, x.shape[-1])
    slices = [
        torch.bmm(torch.bmm(cells, a[slots, 0].transpose(1, 2)) * scale, b[slots, 0].transpose(1, 2))
        for a, b in zip(a_stacked, b_stacked, strict=True)
    ]
    return torch.cat(slices, dim=-1).view(len(group.gather), -1)


def _add_group(y: Tensor, product: Tensor, group: Group) -> None:
    delta = product if group.is_whole(y) else product.index_select(0, group.cells)
    if len(group.rows) == len(y):
        y += delta
    else:
        y.index_add_(0, group.rows, delta.to(y.dtype))


def _expand(y: Tensor, x: Tensor, b_stacked: Tensor, runs: Sequence[Run], add_inputs: bool) -> None:
    """Plain form for the layers that hardly any adapter has. (T, out), (T, R), (slots, 1, out, R)."""
    if not add_inputs:
        y.zero_()
    for run in runs:
        b = b_stacked[run.slot, 0, : y.shape[-1]].to(y.dtype)  # a padded vocabulary is wider
        y[run.start : run.end, : len(b)] += x[run.start : run.end].to(y.dtype) @ b.t()
