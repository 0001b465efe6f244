"""What the contract suites need of every implementation: adapters that it can load, jobs that it can run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from claasbot import adapter_files


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraShape:
    """One linear layer's LoRA, by its path in the Hugging Face model."""

    n_in: int
    n_out: int
    layers: tuple[str, ...]


TINY = LoraShape(n_in=8, n_out=8, layers=("model.layers.0.self_attn.q_proj",))
SMOLLM2 = LoraShape(n_in=576, n_out=576, layers=tuple(f"model.layers.{i}.self_attn.q_proj" for i in range(30)))


def make_version(folder: Path, shape: LoraShape, *, seed: int, rank: int = 8, scale: float = 0.02) -> Path:
    """A version folder with its manifest; another seed moves the model another way, scale 0 leaves the base."""
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in shape.layers:
        name = f"base_model.model.{layer}"
        tensors[f"{name}.lora_A.weight"] = random.normal(0, 0.1, (rank, shape.n_in)).astype(np.float32)
        tensors[f"{name}.lora_B.weight"] = random.normal(0, scale, (shape.n_out, rank)).astype(np.float32)
    staged = adapter_files.stage(folder)
    save_file(tensors, staged / adapter_files.WEIGHTS)
    modules = sorted({layer.rpartition(".")[2] for layer in shape.layers})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": modules,
        "bias": "none",
        "base_model_name_or_path": "base",
    }
    (staged / adapter_files.ADAPTER_CONFIG).write_text(json.dumps(config))
    adapter_files.seal(
        staged, folder, version_name=folder.name, parent="base", job_id=f"job{seed}", base_revision="0" * 64
    )
    return folder
