"""A person's adapter on disk: a plain PEFT folder with the optimizer's state beside it.

Reading checks everything against the manifest before a tensor is used. Writing gives the same bytes for the same
weights: no clock, no path of this machine, sorted keys. Refuses to overwrite a version (`adapter_files.seal`).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import peft
import safetensors
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from claasbot import adapter_files
from claasbot.adapter_files import ADAPTER_CONFIG, OPTIMIZER, WEIGHTS, Manifest
from claasbot.domain.job import TrainingJob
from claasbot.errors import AdapterDamaged, JobRefused
from claasbot.training.lora import Adapter
from claasbot.training.optimizer import AdamState

BASE = "base"
"""What the parent of a first version is called."""

_PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """Where a job starts from. Its weights are on the adapter."""

    name: str
    state: AdamState


def put_on_parent(adapter: Adapter, job: TrainingJob) -> Parent:
    """Swap the parent version's weights in, or a fresh adapter when the parent is the base model.

    Raises AdapterDamaged when the folder does not match its manifest, JobRefused when it is for another base or shape.
    """
    if job.parent_folder is None:
        adapter.start_fresh(job.seed)
        return Parent(name=BASE, state=AdamState.fresh(adapter.weights))
    folder = Path(job.parent_folder)
    manifest = adapter_files.verify(folder)
    if manifest.base_revision != job.base_revision:
        raise JobRefused(
            f"parent {manifest.version_name} was trained on base {manifest.base_revision[:12]!r}, the job is for "
            f"{job.base_revision[:12]!r}; rebuild it on the new base"
        )
    _check_scaling(folder, adapter, manifest)
    tensors = _load(folder / WEIGHTS)
    names = {_peft_key(name): view for name, view in adapter.factors(adapter.weights).items()}
    _copy(tensors, names, what=f"parent {manifest.version_name}")
    if not bool(torch.isfinite(adapter.weights).all()):
        raise JobRefused(f"parent {manifest.version_name} holds weights that are not finite; roll back")
    state = AdamState.fresh(adapter.weights)
    if OPTIMIZER in manifest.files:
        _read_state(folder, adapter, state)
    return Parent(name=manifest.version_name, state=state)


def write_version(adapter: Adapter, state: AdamState, job: TrainingJob, *, parent: str, base_name: str) -> Manifest:
    """Weights, config and optimizer state, sealed under the job's folder."""
    folder = Path(job.folder)
    staged = adapter_files.stage(folder)
    save_file(_arrays(adapter, adapter.weights, _peft_key), staged / WEIGHTS, metadata={"format": "pt"})
    (staged / ADAPTER_CONFIG).write_text(_peft_config(adapter, base_name))
    moments = {
        **_arrays(adapter, state.first, _first_key),
        **_arrays(adapter, state.second, _second_key),
        "n_steps": np.array(state.n_steps, dtype=np.int64),
    }
    save_file(moments, staged / OPTIMIZER)
    return adapter_files.seal(
        staged,
        folder,
        version_name=job.version_name,
        parent=parent,
        job_id=job.job_id,
        base_revision=job.base_revision,
    )


def _check_scaling(folder: Path, adapter: Adapter, manifest: Manifest) -> None:
    """Shapes say the rank, not alpha: with another one the same weights would be another adapter."""
    lora_alpha = json.loads((folder / ADAPTER_CONFIG).read_text()).get("lora_alpha")
    if lora_alpha != adapter.lora_alpha:
        raise JobRefused(
            f"parent {manifest.version_name} has lora_alpha {lora_alpha!r}, the recipe says {adapter.lora_alpha}; "
            "keep it or rebuild"
        )


def _peft_config(adapter: Adapter, base_name: str) -> str:
    """adapter_config.json as PEFT writes it, but with sets sorted: PEFT's order differs from process to process."""
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.rank,
        lora_alpha=adapter.lora_alpha,
        target_modules=list(adapter.target_modules),
        base_model_name_or_path=base_name,
        inference_mode=True,
    ).to_dict()
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    return json.dumps(plain, indent=2, sort_keys=True)


def _read_state(folder: Path, adapter: Adapter, state: AdamState) -> None:
    tensors = _load(folder / OPTIMIZER)
    if "n_steps" not in tensors:
        raise AdapterDamaged(f"{folder / OPTIMIZER} has no 'n_steps', so it was not written by claasbot; roll back")
    state.n_steps = int(tensors.pop("n_steps"))
    targets = {_first_key(name): view for name, view in adapter.factors(state.first).items()}
    targets |= {_second_key(name): view for name, view in adapter.factors(state.second).items()}
    _copy(tensors, targets, what=f"the optimizer state in {folder}")


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise AdapterDamaged(f"{path} is not readable as safetensors ({error}); roll back") from error


def _copy(tensors: dict[str, np.ndarray], targets: dict[str, Tensor], *, what: str) -> None:
    found = {name: tuple(array.shape) for name, array in tensors.items()}
    expected = {name: tuple(view.shape) for name, view in targets.items()}
    if found != expected:
        odd = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        raise JobRefused(
            f"{what} has other layers or another rank than the recipe: {len(odd)} tensors differ, first {odd[0]!r} "
            f"is {found.get(odd[0])}, expected {expected.get(odd[0])}; keep the recipe's rank or rebuild"
        )
    for name, view in targets.items():
        view.copy_(torch.from_numpy(tensors[name]))


def _arrays(adapter: Adapter, vector: Tensor, key: Callable[[str], str]) -> dict[str, np.ndarray]:
    return {key(name): view.numpy() for name, view in adapter.factors(vector.cpu()).items()}


def _peft_key(name: str) -> str:
    return f"{_PEFT_PREFIX}{name}.weight"


def _first_key(name: str) -> str:
    return f"first.{name}"


def _second_key(name: str) -> str:
    return f"second.{name}"
