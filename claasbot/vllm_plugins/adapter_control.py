"""Looks into the worker's adapters and drops them. A vLLM worker extension; refuses to load anything.

Start the server with `--worker-extension-cls claasbot.vllm_plugins.adapter_control.AdapterControl` and
`VLLM_SERVER_DEV_MODE=1`, then POST /collective_rpc {"method": ..., "args": [...]}. Each method answers one JSON value
per worker. What cannot be done is answered as {"error": ...}; an exception would take the engine down.

The engine calls these between two batches, in the process and thread that runs them.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import vllm
from torch import Tensor
from vllm.lora.lora_model import LoRAModel
from vllm.lora.worker_manager import WorkerLoRAManager

from claasbot.vllm_plugins.cpu_lora import WRAPPER

NAME = "claasbot_name"


def _keep_names() -> None:
    """Have the worker remember under which name it loaded an adapter; of its own it keeps a number only."""
    load: Callable[..., LoRAModel] = WorkerLoRAManager._load_adapter
    if getattr(load, "keeps_names", False):
        return

    @functools.wraps(load)
    def load_and_keep_name(self: WorkerLoRAManager, lora_request: Any) -> LoRAModel:
        model = load(self, lora_request)
        setattr(model, NAME, lora_request.lora_name)
        return model

    load_and_keep_name.keeps_names = True  # type: ignore[attr-defined]
    WorkerLoRAManager._load_adapter = load_and_keep_name


_keep_names()  # at import: vLLM imports this module before the worker exists, and offers no later moment


class AdapterControl:
    """Mixed into vLLM's worker class, so `self` is the worker. Names start with `claasbot_`: none may exist there."""

    model_runner: Any

    def claasbot_plugin_report(self) -> dict[str, Any]:
        """Whether the server keeps adapters apart by our wrapper. `cpu_lora` false on a GPU is as it should be."""
        wrappers = {type(wrapper) for wrapper in _manager(self).punica_wrapper_mapping.values()}
        names = sorted(f"{wrapper.__module__}.{wrapper.__name__}" for wrapper in wrappers)
        return {"cpu_lora": names == [WRAPPER], "version": vllm.__version__, "wrappers": names}

    def claasbot_list_adapters(self) -> list[dict[str, Any]]:
        """Every adapter that the worker keeps a copy of, with the slot that holds it (None: not in a slot now)."""
        return [
            {
                "name": getattr(model, NAME, None),
                "id": adapter_id,
                "slot": _slot_of(_manager(self), adapter_id),
                "n_running": _running(self, adapter_id),
            }
            for adapter_id, model in _manager(self).list_adapters().items()
        ]

    def claasbot_forget_adapter(self, name: str) -> dict[str, Any]:
        """Drop and overwrite every copy under `name`, and clear the slots that nobody uses.

        A name that was loaded twice has two copies here. Requests still queued in the scheduler are not visible from
        the worker: unload the name and let its requests end first, or the next of them reads the folder again.
        """
        manager = _manager(self)
        ids = _ids_of(manager, name)
        running = sum(_running(self, adapter_id) or 0 for adapter_id in ids)
        if running:
            return {"error": f"{name!r} answers {running} running request(s); wait for them and ask again"}
        dropped = []
        for adapter_id in ids:
            dropped.append({"id": adapter_id, "slot": _slot_of(manager, adapter_id)})
            model = manager.list_adapters()[adapter_id]
            manager.remove_adapter(adapter_id)
            for layer in model.loras.values():
                for matrix in (*_as_list(layer.lora_a), *_as_list(layer.lora_b)):
                    if matrix is not None:
                        matrix.zero_()
        # an adapter that left its slot earlier is still in it until another one comes
        free = [slot for slot, adapter_id in enumerate(manager.lora_index_to_id) if adapter_id is None]
        for module in manager.modules.values():
            for slot in free:
                module.reset_lora(slot)
        return {"name": name, "dropped": dropped, "cleared_slots": free}

    def claasbot_adapter_checksum(self, name: str) -> dict[str, Any]:
        """SHA-256 over the matrices in the slot of `name`; `claasbot.adapter_checksum` computes it from the folder."""
        manager = _manager(self)
        slots = {slot for adapter_id in _ids_of(manager, name) if (slot := _slot_of(manager, adapter_id)) is not None}
        if len(slots) != 1:
            return {"error": f"{name!r} is in {len(slots)} slots, expected 1; load it under a name of its own"}
        (slot,) = slots
        adapter_id = manager.lora_index_to_id[slot]
        try:
            return {"name": name, "slot": slot, "checksum": _checksum(manager, adapter_id, slot)}
        except _NotComparable as error:
            return {"error": str(error)}


class _NotComparable(Exception):
    """The slot holds what a PEFT folder of linear layers cannot explain."""


def _manager(worker: Any) -> Any:
    return worker.model_runner.lora_manager._adapter_manager


def _ids_of(manager: Any, name: str) -> list[int]:
    return [i for i, model in manager.list_adapters().items() if getattr(model, NAME, None) == name]


def _slot_of(manager: Any, adapter_id: int) -> int | None:
    return manager.lora_index_to_id.index(adapter_id) if adapter_id in manager.lora_index_to_id else None


def _running(worker: Any, adapter_id: int) -> int | None:
    """Requests in the worker, preempted ones included; None where this model runner keeps no such list."""
    requests = getattr(worker.model_runner, "requests", None)
    if isinstance(requests, dict):  # the first model runner
        loras = [request.lora_request for request in requests.values()]
    elif (state := getattr(worker.model_runner, "lora_state", None)) is not None:  # the second
        loras = list(state.lora_requests.values())
    else:
        return None
    return sum(lora is not None and lora.lora_int_id == adapter_id for lora in loras)


def _as_list(value: Any) -> list[Tensor | None]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _checksum(manager: Any, adapter_id: int, slot: int) -> str:
    halves: dict[str, tuple[Tensor, Tensor]] = {}
    for module_name, module in manager.modules.items():
        for part_name, a, b, n_rank in _slices(manager, adapter_id, module_name, module, slot):
            if a[n_rank:].any() or b[:, n_rank:].any():
                raise _NotComparable(f"{part_name!r} has weights beyond its rank {n_rank}; unload it and load it again")
            if n_rank:
                halves[_from_layer_number(part_name)] = a[:n_rank], b[:, :n_rank]
    digest = hashlib.sha256()
    for name, matrices in sorted(halves.items()):
        for part, matrix in zip(("lora_A", "lora_B"), matrices, strict=True):
            dtype = str(matrix.dtype).removeprefix("torch.")
            digest.update(f"{name}.{part} {dtype} {matrix.shape[0]}x{matrix.shape[1]}\n".encode())
            digest.update(matrix.contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _from_layer_number(name: str) -> str:
    """What stands before `layers.` differs between PEFT and vLLM."""
    _, found, tail = name.rpartition("layers.")
    return found + tail


def _slices(
    manager: Any, adapter_id: int, module_name: str, module: Any, slot: int
) -> Iterator[tuple[str, Tensor, Tensor, int]]:
    """(name as in PEFT, A (max R, in), B (out, max R), rank) of each slice in a slot; rank 0 where not adapted."""
    if getattr(module, "tp_size", 1) != 1:
        raise _NotComparable("weights are divided among workers; checksums need tensor parallel size 1")
    loaded = manager.list_adapters()[adapter_id].get_lora(module_name)
    names = manager.packed_modules.get(module_name, [module_name])
    a_stacked, b_stacked = module.lora_a_stacked, module.lora_b_stacked
    if not isinstance(a_stacked, tuple) or len(a_stacked) != len(names):
        if loaded is not None:
            raise _NotComparable(f"{module_name!r} is not a linear layer with a matrix pair per slice")
        return
    loaded_a = [None] * len(names) if loaded is None else _as_list(loaded.lora_a)
    for name, a, b, matrix in zip(names, a_stacked, b_stacked, loaded_a, strict=True):
        yield name, a[slot, 0], b[slot, 0], 0 if matrix is None else matrix.shape[0]
