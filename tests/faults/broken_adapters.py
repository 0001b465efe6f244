"""Adapter folders that are broken or made to do harm, one way at a time, each under a manifest that vouches for it."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from claasbot.adapter_files import ADAPTER_CONFIG, MANIFEST, OPTIMIZER, WEIGHTS, read_manifest, sha256_of

Break = Callable[[Path], None]


def seal_again(folder: Path, **said: str) -> None:
    """A manifest that fits what lies there now."""
    files = {
        path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST and path.is_file()
    }
    there = read_manifest(folder)
    manifest = replace(there, files=files, weights_sha256=files.get(WEIGHTS, ""), **said)
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest)))


def _weights(change: Callable[[dict[str, np.ndarray]], Any]) -> Break:
    def broken(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        seal_again(folder)

    return broken


def _value(value: float, part: str = "lora_B", *, everywhere: bool = False) -> Break:
    def change(tensors: dict[str, np.ndarray]) -> None:
        for name in [name for name in tensors if part in name][: None if everywhere else 1]:
            tensors[name].flat[:: 1 if everywhere else 7] = value

    return _weights(change)


def _renamed(new: Callable[[str], str]) -> Break:
    def change(tensors: dict[str, np.ndarray]) -> None:
        for name in [name for name in tensors if "layers.0" in name][:1]:
            tensors[new(name)] = tensors.pop(name)

    return _weights(change)


def _cast(dtype: type) -> Break:
    return _weights(lambda tensors: tensors.update({name: array.astype(dtype) for name, array in tensors.items()}))


def _config(**facts: object) -> Break:
    def broken(folder: Path) -> None:
        config = json.loads((folder / ADAPTER_CONFIG).read_text())
        (folder / ADAPTER_CONFIG).write_text(json.dumps(config | facts))
        seal_again(folder)

    return broken


def _bytes(name: str, change: Callable[[bytes], bytes]) -> Break:
    def broken(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))
        seal_again(folder)

    return broken


def _header(change: Callable[[dict[str, Any]], Any]) -> Break:
    """The tensors' description alone: their bytes stay."""

    def changed(data: bytes) -> bytes:
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + size])
        header = change(header) or header
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + size :]

    return _bytes(WEIGHTS, changed)


def _first(header: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = header[sorted(name for name in header if name != "__metadata__")[0]]
    return entry


def _twice(header: dict[str, Any]) -> bytes:
    name = sorted(name for name in header if name != "__metadata__")[0]
    return (json.dumps(header)[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}}}").encode()


def _extra(name: str, data: bytes) -> Break:
    def broken(folder: Path) -> None:
        (folder / name).write_bytes(data)
        seal_again(folder)

    return broken


def _linked(name: str, to: Callable[[Path], Path]) -> Break:
    def broken(folder: Path) -> None:
        target = to(folder / name)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
        seal_again(folder)

    return broken


def _moved_out(path: Path) -> Path:
    away = path.parent.parent / f"elsewhere-{path.name}"
    return path.rename(away)


def _manifest(**said: str) -> Break:
    return lambda folder: seal_again(folder, **said)


def _optimizer(value: float) -> Break:
    def broken(folder: Path) -> None:
        tensors = load_file(folder / OPTIMIZER)
        next(iter(tensors.values())).flat[0] = value
        save_file(tensors, folder / OPTIMIZER)
        seal_again(folder)

    return broken


def _without(name: str) -> Break:
    def broken(folder: Path) -> None:
        (folder / name).unlink()
        seal_again(folder)

    return broken


def _no_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def _fifo(folder: Path) -> None:
    (folder / OPTIMIZER).unlink()
    os.mkfifo(folder / OPTIMIZER)


def _is_link(folder: Path) -> None:
    away = folder.with_name(f"elsewhere{len(list(folder.parent.iterdir()))}")
    folder.rename(away)
    folder.symlink_to(away)


_CODE = b"\x80\x04cposix\nsystem\n(S'true'\ntR."

IN_ITSELF: dict[str, Break] = {
    "NaN in B": _value(float("nan")),
    "NaN in A": _value(float("nan"), "lora_A"),
    "infinity": _value(float("inf")),
    "minus infinity": _value(float("-inf"), "lora_A"),
    "a huge number": _value(1e30),
    "huge numbers everywhere": _value(1e4, everywhere=True),
    "a huge negative number": _value(-1e6, "lora_A"),
    "zero delta": _value(0.0, everywhere=True),
    "64-bit floats": _cast(np.float64),
    "whole numbers": _cast(np.int64),
    "bytes": _cast(np.uint8),
    "another rank": _weights(
        lambda t: t.update({k: np.ascontiguousarray(v[:1]) for k, v in t.items() if "lora_A" in k})
    ),
    "transposed": _weights(lambda t: t.update({k: np.ascontiguousarray(v.T) for k, v in t.items() if "lora_A" in k})),
    "three dimensions": _weights(lambda t: t.update({k: v[None] for k, v in t.items() if "lora_B" in k})),
    "no dimension": _weights(lambda t: t.update({next(iter(t)): np.array(1.0, np.float32)})),
    "an empty tensor": _weights(lambda t: t.update({next(iter(t)): np.zeros((0, 8), np.float32)})),
    "half a module": _weights(lambda t: t.pop(next(iter(t)))),
    "no tensors": _weights(lambda t: t.clear()),
    "only one layer kind": _weights(lambda t: [t.pop(k) for k in list(t) if "q_proj" in k]),
    "a base weight": _renamed(lambda name: "model.layers.0.self_attn.q_proj.weight"),
    "an embedding": _renamed(lambda name: name.replace("self_attn.q_proj", "embed_tokens").replace("mlp.", "lm_head.")),
    "a path as a name": _renamed(lambda name: "../../" + name),
    "a name with a NUL": _renamed(lambda name: name + "\x00"),
    "a very long name": _renamed(lambda name: "base_model.model." + "x." * 5_000 + "q_proj.lora_A.weight"),
    "a magnitude vector": _renamed(lambda name: name.replace(".lora_A.weight", ".lora_magnitude_vector")),
    "rank 0": _config(r=0),
    "a rank of words": _config(r="sixteen"),
    "rank true": _config(r=True),
    "a rank beyond all": _config(r=10**9),
    "an alpha beyond all": _config(lora_alpha=1e12),
    "alpha infinity": _bytes(ADAPTER_CONFIG, lambda data: data.replace(b'"lora_alpha": 32', b'"lora_alpha": Infinity')),
    "no alpha": _config(lora_alpha=None),
    "other target modules": _config(target_modules=["q_proj", "lm_head"]),
    "all target modules by a word": _config(target_modules="all-linear"),
    "modules to save": _config(modules_to_save=["lm_head"]),
    "DoRA": _config(use_dora=True),
    "a rank pattern": _config(rank_pattern={"q_proj": 64}),
    "trained biases": _config(bias="all"),
    "prompt tuning": _config(peft_type="PROMPT_TUNING"),
    "a config that is a list": _bytes(ADAPTER_CONFIG, lambda data: b"[" + data + b"]"),
    "a config of nested lists": _bytes(ADAPTER_CONFIG, lambda data: b"[" * 100_000),
    "a config with a key twice": _bytes(ADAPTER_CONFIG, lambda data: data[:-1] + b', "r": 4}'),
    "a config of 2 MB": _bytes(ADAPTER_CONFIG, lambda data: data + b" " * 2_000_000),
    "an empty config": _bytes(ADAPTER_CONFIG, lambda data: b""),
    "no config": _without(ADAPTER_CONFIG),
    "no weights": _without(WEIGHTS),
    "empty weights": _bytes(WEIGHTS, lambda data: b""),
    "truncated weights": _bytes(WEIGHTS, lambda data: data[:-1]),
    "half of the weights": _bytes(WEIGHTS, lambda data: data[: len(data) // 2]),
    "one byte more": _bytes(WEIGHTS, lambda data: data + b"!"),
    "a giant header": _bytes(WEIGHTS, lambda data: struct.pack("<Q", 9_000_000) + b" " * 9_000_000 + data),
    "a header longer than the file": _bytes(WEIGHTS, lambda data: struct.pack("<Q", 2**63) + data[8:]),
    "a header of garbage": _bytes(WEIGHTS, lambda data: data[:8] + b"\xff" * (len(data) - 8)),
    "too many tensors": _header(lambda h: h | {f"t{n}": _first(h) for n in range(25_000)}),
    "a tensor twice": _header(_twice),
    "tensors that overlap": _header(lambda h: _first(h).update(data_offsets=[4, 516])),
    "tensors behind the end": _header(lambda h: _first(h).update(data_offsets=[10**9, 10**9 + 512])),
    "offsets backwards": _header(lambda h: _first(h).update(data_offsets=[512, 0])),
    "a negative shape": _header(lambda h: _first(h).update(shape=[-16, -8])),
    "a shape beyond all": _header(lambda h: _first(h).update(shape=[2**62, 2**62])),
    "a shape of halves": _header(lambda h: _first(h).update(shape=[0.5, 256])),
    "an unknown dtype": _header(lambda h: _first(h).update(dtype="F8_E4M3")),
    "a tensor without offsets": _header(lambda h: _first(h).pop("data_offsets")),
    "a pickle beside it": _extra("adapter_model.bin", _CODE),
    "a pickle as weights": _bytes(WEIGHTS, lambda data: _CODE),
    "code beside it": _extra("modeling.py", b"raise SystemExit\n"),
    "a hidden file": _extra(".hidden", b""),
    "a template beside it": _extra("chat_template.jinja", b"{{ cycler }}"),
    "weights behind a link": _linked(WEIGHTS, _moved_out),
    "a config behind a link": _linked(ADAPTER_CONFIG, _moved_out),
    "a link to a system file": _linked(OPTIMIZER, lambda path: Path("/etc/hostname")),
    "a link to a device": _linked(OPTIMIZER, lambda path: Path("/dev/zero")),
    "a pipe": _fifo,
    "a folder that is a link": _is_link,
    "optimizer state of NaN": _optimizer(float("nan")),
    "optimizer state of infinity": _optimizer(float("inf")),
    "an empty optimizer state": _bytes(OPTIMIZER, lambda data: b""),
}
"""What is no adapter, whoever vouches for it."""

NOT_WHAT_WAS_ASKED: dict[str, Break] = {
    "a stale parent": _manifest(parent="p1.v77"),
    "another base": _manifest(base_revision="0" * 64),
    "another job": _manifest(job_id="f" * 24),
    "another version's name": _manifest(version_name="p9.v1"),
    "a manifest of garbage": lambda folder: (folder / MANIFEST).write_text("{") and None,
    "no manifest": _no_manifest,
}
"""A whole adapter, but not the one that the job was to make."""

ALL = IN_ITSELF | NOT_WHAT_WAS_ASKED
