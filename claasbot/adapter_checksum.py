"""What a server must hold after loading a version folder, as one checksum. Imports neither torch nor vLLM.

`vllm_plugins.adapter_control` computes the same over the slot that answers. Equal means that every matrix arrived,
cast and scaled as it should be; log-probs cannot say that where two versions differ by less than the noise.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors

Dtype = Literal["bfloat16", "float16", "float32"]

UNSUPPORTED = ("rank_pattern", "alpha_pattern", "modules_to_save", "use_dora", "lora_bias")


class UnsupportedAdapter(ValueError):
    """The folder uses a PEFT feature whose effect on the server is not modelled here."""


def expected_checksum(folder: Path, dtype: Dtype) -> str:
    """Hex SHA-256 over every A and B of a PEFT folder as a vLLM server of `dtype` holds them.

    The server casts both to its dtype, then folds alpha / r into B, rounding again. Per module in the order of its
    name: name, dtype, shape and little-endian bytes of A (R, in), then of B (out, R).
    """
    config = json.loads((folder / "adapter_config.json").read_text())
    odd = [key for key in UNSUPPORTED if config.get(key)]
    if odd:
        raise UnsupportedAdapter(f"{folder} sets {odd!r}; train it without, or compare log-probs instead")
    rank, alpha = config["r"], config["lora_alpha"]
    scaling = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    digest = hashlib.sha256()
    for name, a, b in _matrices(folder / "adapter_model.safetensors"):
        served_b = _cast(b, dtype)
        if scaling != 1:
            served_b = _cast(_as_float32(served_b, dtype) * np.float32(scaling), dtype)
        for part, matrix in (("lora_A", _cast(a, dtype)), ("lora_B", served_b)):
            digest.update(f"{name}.{part} {dtype} {matrix.shape[0]}x{matrix.shape[1]}\n".encode())
            digest.update(matrix.tobytes())
    return digest.hexdigest()


def _from_layer_number(name: str) -> str:
    """What stands before `layers.` differs between PEFT and vLLM."""
    _, found, tail = name.rpartition("layers.")
    return found + tail


def _matrices(path: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(module, A, B) as float32, sorted by module."""
    halves: dict[str, dict[str, np.ndarray]] = {}
    for tensor_name, tensor in safetensors.deserialize(path.read_bytes()):  # type: ignore[no-untyped-call]
        module, part = tensor_name.removesuffix(".weight").rsplit(".", 1)
        if part not in ("lora_A", "lora_B"):
            raise UnsupportedAdapter(f"{path} holds {tensor_name!r}; expected lora_A and lora_B of linear layers only")
        matrix = decoded(tensor["data"], tensor["dtype"]).reshape(tensor["shape"])
        halves.setdefault(_from_layer_number(module), {})[part] = matrix
    return [(name, parts["lora_A"], parts["lora_B"]) for name, parts in sorted(halves.items())]


def decoded(data: bytes, dtype: str) -> np.ndarray:
    """As float32. Raises UnsupportedAdapter for a dtype that adapters do not have."""
    match dtype:
        case "F32":
            return np.frombuffer(data, "<f4")
        case "F16":
            return np.frombuffer(data, "<f2").astype(np.float32)
        case "BF16":
            return _as_float32(np.frombuffer(data, "<u2"), "bfloat16")
    raise UnsupportedAdapter(f"tensors of dtype {dtype!r}; expected F32, F16 or BF16")


def _cast(values: np.ndarray, dtype: Dtype) -> np.ndarray:
    """Float32 to the server's dtype, ties to even; bfloat16 as its 16 bits."""
    match dtype:
        case "float32":
            return values.astype("<f4")
        case "float16":
            return values.astype("<f2")
        case "bfloat16":
            bits: np.ndarray = np.ascontiguousarray(values, "<f4").view("<u4")
            rounded: np.ndarray = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
            return rounded


def _as_float32(values: np.ndarray, dtype: Dtype) -> np.ndarray:
    if dtype == "bfloat16":
        return (values.astype("<u4") << 16).view("<f4")
    return values.astype("<f4")
