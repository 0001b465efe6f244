"""What lies in an adapter folder, judged before anything loads it: names, sizes, shapes, dtypes, numbers.

Reads with the standard library and numpy, so that no loader is the first to meet a file that somebody else made. Knows
what this program writes and refuses everything else. `adapter_files.verify` says whether the bytes are those that were
sealed; this says whether they are an adapter.
"""

from __future__ import annotations

import json
import math
import re
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from claasbot.adapter_checksum import UNSUPPORTED, UnsupportedAdapter, decoded
from claasbot.adapter_files import ADAPTER_CONFIG, MANIFEST, OPTIMIZER, WEIGHTS
from claasbot.domain.job import ALL_LINEAR
from claasbot.errors import AdapterDamaged

_FILES = frozenset({MANIFEST, WEIGHTS, ADAPTER_CONFIG, OPTIMIZER})
_MOST_JSON_BYTES = 1 << 20
_MOST_HEADER_BYTES = 8 << 20
"""The format allows 100 MB: enough to keep a parser busy for minutes."""
_MOST_FILE_BYTES = 16 << 30
_MOST_TENSORS = 20_000
_MOST_RANK = 512
_MOST_SCALING = 64.0
_MOST_WEIGHT = 100.0
"""Trained weights stay below 1; what is far above overflows the server's 16-bit floats or drowns the base model."""
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8}
_NAME = re.compile(r"base_model\.model\.(?P<module>[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*)\.lora_(?P<part>[AB])\.weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int
    """Offsets in the file."""


def check(folder: Path, *, weights_only: bool = False) -> None:
    """Raises AdapterDamaged for the first thing that is wrong. `weights_only`: as a server needs it."""
    _check_files(folder)
    rank, target_modules = _checked_config(folder / ADAPTER_CONFIG)
    _check_weights(folder / WEIGHTS, rank, target_modules)
    if not weights_only and (folder / OPTIMIZER).exists():
        _check_optimizer(folder / OPTIMIZER)


def _refused(path: Path, what: str) -> AdapterDamaged:
    return AdapterDamaged(f"{path.parent.name}/{path.name}: {what}; it is not loaded, roll back to an earlier version")


def _check_files(folder: Path) -> None:
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise _refused(folder, "no folder of its own")
        found = {path.name: path.lstat() for path in folder.iterdir()}
    except OSError as error:
        raise _refused(folder, f"not readable ({error.strerror})") from error
    for name, facts in sorted(found.items()):
        if name not in _FILES:
            raise _refused(folder / name[:80], "not a file of an adapter version")
        if not stat.S_ISREG(facts.st_mode):
            raise _refused(folder / name, "not a plain file")
        if facts.st_size > (_MOST_JSON_BYTES if name.endswith(".json") else _MOST_FILE_BYTES):
            raise _refused(folder / name, f"{facts.st_size:,} bytes are too many")
    for name in (WEIGHTS, ADAPTER_CONFIG):
        if name not in found:
            raise _refused(folder / name, "missing")


def _checked_config(path: Path) -> tuple[int, frozenset[str]]:
    """Rank and target modules."""
    config = _object(path, path.read_bytes())
    rank: Any = config.get("r")
    alpha, modules = config.get("lora_alpha"), config.get("target_modules")
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none":
        raise _refused(path, "not a LoRA adapter without biases")
    if odd := [key for key in UNSUPPORTED if config.get(key)]:
        raise _refused(path, f"sets {odd!r}")
    if not _is_whole(rank) or not 1 <= rank <= _MOST_RANK:
        raise _refused(path, f"r is {str(rank)[:40]!r}, expected 1 to {_MOST_RANK}")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha / rank <= _MOST_SCALING:
        raise _refused(path, f"lora_alpha is {str(alpha)[:40]!r}, expected up to {_MOST_SCALING:g} times r")
    if not isinstance(modules, list) or not modules or not all(module in ALL_LINEAR for module in modules):
        raise _refused(path, f"target_modules are {str(modules)[:80]!r}, expected some of {ALL_LINEAR}")
    return rank, frozenset(modules)


def _check_weights(path: Path, rank: int, target_modules: frozenset[str]) -> None:
    halves: dict[str, set[str]] = {}
    data, tensors = _opened(path)
    n_moved = 0
    for tensor in tensors:
        named = _NAME.fullmatch(tensor.name)
        if named is None or named["module"].rpartition(".")[2] not in target_modules:
            raise _refused(path, f"tensor {tensor.name[:120]!r} is not one of the adapter's")
        if len(tensor.shape) != 2 or tensor.shape[0 if named["part"] == "A" else 1] != rank:
            raise _refused(path, f"tensor {tensor.name!r} has shape {tensor.shape}, expected rank {rank}")
        halves.setdefault(named["module"], set()).add(named["part"])
        largest = _largest(path, data, tensor)
        if largest > _MOST_WEIGHT:
            raise _refused(path, f"tensor {tensor.name!r} holds {largest:.3g}, at most {_MOST_WEIGHT:g} is served")
        n_moved += named["part"] == "B" and largest > 0
    if alone := sorted(module for module, parts in halves.items() if len(parts) != 2):
        raise _refused(path, f"module {alone[0]!r} has one half only")
    if {module.rpartition(".")[2] for module in halves} != target_modules:
        raise _refused(path, f"not every one of {sorted(target_modules)} is there")
    if not n_moved:
        raise _refused(path, "every B is zero: it changes nothing")


def _check_optimizer(path: Path) -> None:
    data, tensors = _opened(path)
    for tensor in tensors:
        if tensor.dtype != "I64":
            _largest(path, data, tensor)


def _opened(path: Path) -> tuple[np.ndarray, list[_Tensor]]:
    """The file's bytes, mapped, and its tensors, which fill it without a gap."""
    size = path.stat().st_size
    if size < 8:
        raise _refused(path, f"{size} bytes are no safetensors file")
    data = np.memmap(path, dtype=np.uint8, mode="r")
    (n_header,) = struct.unpack("<Q", data[:8].tobytes())
    if n_header > min(_MOST_HEADER_BYTES, size - 8):
        raise _refused(path, f"a header of {n_header:,} bytes in a file of {size:,}")
    header = _object(path, data[8 : 8 + n_header].tobytes())
    header.pop("__metadata__", None)
    if not 0 < len(header) <= _MOST_TENSORS:
        raise _refused(path, f"{len(header):,} tensors, expected 1 to {_MOST_TENSORS:,}")
    tensors = sorted((_tensor(path, name, entry, 8 + n_header) for name, entry in header.items()), key=_start)
    at = 8 + n_header
    for tensor in tensors:
        if tensor.start != at or tensor.end > size:
            raise _refused(path, f"tensor {tensor.name[:120]!r} overlaps another, leaves a gap, or is cut off")
        at = tensor.end
    if at != size:
        raise _refused(path, f"{size - at:,} bytes belong to no tensor")
    return data, tensors


def _start(tensor: _Tensor) -> int:
    return tensor.start


def _tensor(path: Path, name: str, entry: object, offset: int) -> _Tensor:
    """Raises AdapterDamaged unless dtype, shape and offsets agree."""
    what = f"tensor {name[:120]!r}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _refused(path, f"{what} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise _refused(path, f"{what} has dtype {str(dtype)[:20]!r}, expected one of {sorted(_ITEM_BYTES)}")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(_is_whole(number) and number >= 0 for number in numbers):
            raise _refused(path, f"{what} has shape {str(shape)[:60]} at {str(offsets)[:60]}")
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * _ITEM_BYTES[dtype] or 0 in shape:
        raise _refused(path, f"{what} of shape {str(shape)[:60]} does not fill {str(offsets)[:60]}")
    return _Tensor(name=name, dtype=dtype, shape=tuple(shape), start=offset + offsets[0], end=offset + offsets[1])


def _largest(path: Path, data: np.ndarray, tensor: _Tensor) -> float:
    """The largest absolute value. Raises AdapterDamaged for one that is not finite."""
    try:
        values = decoded(data[tensor.start : tensor.end].tobytes(), tensor.dtype)
    except UnsupportedAdapter as error:
        raise _refused(path, str(error)) from error
    largest = float(np.abs(values).max())
    if not math.isfinite(largest):
        raise _refused(path, f"tensor {tensor.name!r} holds numbers that are not finite")
    return largest


def _object(path: Path, text: bytes) -> dict[str, object]:
    """A JSON object in which every key stands once."""
    try:
        found = json.loads(text, object_pairs_hook=_each_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _refused(path, f"not readable as JSON ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise _refused(path, "not a JSON object")
    return found


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no number of JSON")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
