"""An engine that needs no hardware: makes real, tiny version folders and a result that hangs together with them.

Its weights are drawn from the job, so the same job makes the same bytes. It learns nothing. What it promises of the new
version's logprobs comes from the function that it is given: the scripted server's, so that the canary can pass.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from claasbot import adapter_files
from claasbot.adapter_files import ADAPTER_CONFIG, OPTIMIZER, WEIGHTS, Manifest
from claasbot.domain.completion import BASE
from claasbot.domain.job import ExperienceScore, JobExperience, StepMetrics, TrainingJob, TrainingResult
from claasbot.errors import AdapterDamaged, EngineDown, JobRefused

LogprobsOf = Callable[[str, tuple[int, ...], tuple[int, ...]], tuple[float, ...]]
"""(SHA-256 of the weights or `base`, prompt ids, token ids) → logprobs in nats."""

Tensors = dict[str, np.ndarray]

_WIDTH = 8
_LAYERS = 2


async def _no_wait() -> None:
    await asyncio.sleep(0)


@dataclass(slots=True, kw_only=True)
class EngineFaults:
    """Switches. All off: an engine that works."""

    n_deaths: int = 0
    """So many of the next jobs die half-way."""
    refusal: str | None = None
    is_finite: bool = True
    drift_nats: float = 0.0
    """Added to every divergence that the gate looks at."""
    before_step: Callable[[], Awaitable[None]] = _no_wait
    """Awaited before a job's work: hold it, and the engine hangs."""


@dataclass(slots=True, kw_only=True)
class JobsSeen:
    ran: list[TrainingJob] = field(default_factory=list)
    discarded: list[str] = field(default_factory=list)


class DryRunEngine:
    """TrainingEngine without hardware."""

    def __init__(self, logprobs_of: LogprobsOf) -> None:
        self.faults = EngineFaults()
        self.seen = JobsSeen()
        self._logprobs_of = logprobs_of
        self._wanted: set[str] = set()
        self._is_closed = False

    async def run(self, job: TrainingJob) -> TrainingResult:
        if self._is_closed:
            raise EngineDown("the dry-run engine is closed; make another one")
        self.seen.ran.append(job)
        self._wanted.add(job.job_id)
        await self.faults.before_step()
        if job.job_id not in self._wanted:
            raise EngineDown(f"job {job.job_id} was discarded while it ran")
        if self.faults.n_deaths > 0:
            self.faults.n_deaths -= 1
            raise EngineDown(f"the trainer died during job {job.job_id}; try again")
        if self.faults.refusal is not None:
            raise JobRefused(f"job {job.job_id}: {self.faults.refusal}")
        _check(job)
        parent = _parent_of(job)
        return self._result(job, parent, _write_version(job, parent))

    def is_ready(self) -> bool:
        return not self._is_closed

    async def discard(self, job_id: str) -> None:
        self.seen.discarded.append(job_id)
        self._wanted.discard(job_id)

    async def discard_all_but(self, job_ids: Collection[str]) -> None:
        """Keeps nothing of a job but its id; discards what it ran."""
        for job_id in sorted(self._wanted - set(job_ids)):
            await self.discard(job_id)

    async def close(self) -> None:
        self._is_closed = True

    def _result(self, job: TrainingJob, parent: Manifest | None, made: Manifest) -> TrainingResult:
        before = BASE if parent is None else parent.weights_sha256
        new = tuple(self._logprobs_of(made.weights_sha256, row.prompt_ids, row.token_ids) for row in job.experiences)
        old = tuple(self._logprobs_of(before, row.prompt_ids, row.token_ids) for row in job.experiences)
        n_steps, drift, finite = job.recipe.n_steps, self.faults.drift_nats, self.faults.is_finite
        loss = 0.5 if finite else math.nan
        return TrainingResult(
            job_id=job.job_id,
            version_name=job.version_name,
            weights_sha256=made.weights_sha256,
            finite=finite,
            delta_norm=0.1 if finite else math.nan,
            mismatch_nats=_mismatch(job, BASE if parent is None else parent.version_name, old),
            kl_new_old_nats=0.05 + drift,
            kl_base_nats=0.05 + drift,
            new_logprobs=new,
            parent_logprobs=old,
            steps=tuple(
                StepMetrics(loss=loss / (i + 1), grad_norm=0.5, kl_from_start_nats=0.01 * i, ratio_clipped_share=0.0)
                for i in range(n_steps)
            ),
            learned=tuple(_score(row, 0.5, 0.2) for row in job.experiences),
            earlier=tuple(_score(row, 0.2, 0.2 + drift) for row in job.earlier),
            seconds={"load": 0.0, "teacher": 0.0, "student": 0.0, "backward": 0.0, "score": 0.0, "save": 0.0},
        )


def _score(row: JobExperience, before: float, after: float) -> ExperienceScore:
    return ExperienceScore(experience_id=row.experience_id, before_nats=before, after_nats=after)


def _mismatch(job: TrainingJob, parent: str, old: tuple[tuple[float, ...], ...]) -> float | None:
    """Over the completions that the parent itself sampled, as the real trainer measures it."""
    gaps = [
        abs(sampled - now)
        for row, values in zip(job.experiences, old, strict=True)
        if row.version_name == parent
        for sampled, now in zip(row.logprobs, values, strict=True)
    ]
    return sum(gaps) / len(gaps) if gaps else None


def _check(job: TrainingJob) -> None:
    """Refuses what the real trainer refuses, as far as it can be seen without a tokenizer."""
    if not job.experiences:
        raise JobRefused(f"job {job.job_id} has no experience; send at least one")
    for row in (*job.experiences, *job.earlier):
        if not row.token_ids or not row.prompt_ids or len(row.token_ids) != len(row.logprobs):
            raise JobRefused(
                f"experience {row.experience_id} has {len(row.prompt_ids)} prompt ids, {len(row.token_ids)} token ids"
                f" and {len(row.logprobs)} logprobs; send as many logprobs as token ids, and some of each"
            )
        if not all(math.isfinite(value) for value in row.logprobs):
            raise JobRefused(f"experience {row.experience_id} has logprobs that are not finite; leave it out")
    for row in job.experiences:
        n_tokens = len(row.prompt_ids) + len(row.token_ids)
        if n_tokens > job.recipe.max_tokens:
            raise JobRefused(
                f"experience {row.experience_id} has {n_tokens} tokens, the recipe trains at most"
                f" {job.recipe.max_tokens}; raise recipe.max_tokens or leave it out"
            )


def _parent_of(job: TrainingJob) -> Manifest | None:
    if job.parent_folder is None:
        return None
    try:
        parent = adapter_files.verify(Path(job.parent_folder))
    except AdapterDamaged as error:
        raise JobRefused(f"job {job.job_id}: {error}") from error
    if parent.base_revision != job.base_revision:
        raise JobRefused(
            f"parent {parent.version_name} was trained on base {parent.base_revision[:12]!r}, the job is for"
            f" {job.base_revision[:12]!r}; rebuild it on the new base"
        )
    return parent


def _write_version(job: TrainingJob, parent: Manifest | None) -> Manifest:
    """A folder that PEFT could read, with an optimizer state; parent weights plus what the job's seed draws."""
    folder = Path(job.folder)
    if folder.exists():
        try:
            there = adapter_files.verify(folder)
        except AdapterDamaged as error:
            raise JobRefused(f"job {job.job_id}: {error}") from error
        if there.job_id != job.job_id:
            raise JobRefused(f"{job.version_name} was made by job {there.job_id}; a version is never made again")
    start: Tensors = {} if job.parent_folder is None else load_file(Path(job.parent_folder) / WEIGHTS)
    staged = adapter_files.stage(folder)
    weights = _moved(start, job)
    save_file(weights, staged / WEIGHTS, metadata={"format": "pt"})
    save_file({name: np.zeros_like(tensor) for name, tensor in weights.items()}, staged / OPTIMIZER)
    (staged / ADAPTER_CONFIG).write_text(_config(job))
    return adapter_files.seal(
        staged,
        folder,
        version_name=job.version_name,
        parent=BASE if parent is None else parent.version_name,
        job_id=job.job_id,
        base_revision=job.base_revision,
    )


def _moved(start: Tensors, job: TrainingJob) -> Tensors:
    random = np.random.default_rng([job.seed, *job.job_id.encode()])
    weights = {}
    for layer in range(_LAYERS):
        for module in sorted(job.recipe.target_modules):
            block = "mlp" if module.endswith(("gate_proj", "up_proj", "down_proj")) else "self_attn"
            name = f"base_model.model.model.layers.{layer}.{block}.{module}"
            for part, shape in (("lora_A", (job.recipe.rank, _WIDTH)), ("lora_B", (_WIDTH, job.recipe.rank))):
                key = f"{name}.{part}.weight"
                drawn = random.normal(0.0, 0.01, shape).astype(np.float32)
                before = start.get(key)
                weights[key] = drawn if before is None or before.shape != shape else before + drawn
    return weights


def _config(job: TrainingJob) -> str:
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": job.recipe.rank,
        "lora_alpha": job.recipe.lora_alpha,
        "target_modules": sorted(job.recipe.target_modules),
        "base_model_name_or_path": "scripted",
        "bias": "none",
        "inference_mode": True,
    }
    return json.dumps(config, indent=2, sort_keys=True)
