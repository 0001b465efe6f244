"""An engine that needs no hardware: makes real, tiny version folders and a result that hangs together with them.

Its weights are drawn from what the lessons hold, one after the other: the same lessons make the same bytes, in one job
or in several. It learns nothing. What it promises of the new version's logprobs comes from the function that it is
given: the scripted server's, so that the canary can pass.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from claasbot import adapter_files
from claasbot.adapter_files import ADAPTER_CONFIG, OPTIMIZER, WEIGHTS, Manifest
from claasbot.domain.completion import BASE
from claasbot.domain.job import (
    ExperienceScore,
    JobExperience,
    JobLesson,
    Recipe,
    StepMetrics,
    TrainingJob,
    TrainingResult,
)
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
    """False: as where a loss or gradient is not, so that no step is made."""
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
        drift, finite = self.faults.drift_nats, self.faults.is_finite
        n_steps = sum(lesson.recipe.n_steps for lesson in job.lessons) if finite else 0
        return TrainingResult(
            job_id=job.job_id,
            version_name=job.version_name,
            weights_sha256=made.weights_sha256,
            finite=finite,
            delta_norm=0.1 if finite else 0.0,
            mismatch_nats=_mismatch(job, BASE if parent is None else parent.version_name, old),
            kl_new_old_nats=0.05 + drift,
            kl_base_nats=0.05 + drift,
            new_logprobs=new,
            parent_logprobs=old,
            steps=tuple(
                StepMetrics(loss=0.5 / (i + 1), grad_norm=0.5, kl_from_start_nats=0.01 * i, ratio_clipped_share=0.0)
                for i in range(n_steps)
            ),
            learned=tuple(_score(row, 0.5, 0.2) for lesson in job.lessons for row in lesson.experiences),
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
    if not all(lesson.experiences for lesson in job.lessons):
        raise JobRefused(f"job {job.job_id} has no experience; send at least one")
    for row in (*(row for lesson in job.lessons for row in lesson.experiences), *job.earlier):
        if not row.token_ids or not row.prompt_ids or len(row.token_ids) != len(row.logprobs):
            raise JobRefused(
                f"experience {row.experience_id} has {len(row.prompt_ids)} prompt ids, {len(row.token_ids)} token ids"
                f" and {len(row.logprobs)} logprobs; send as many logprobs as token ids, and some of each"
            )
        if not all(math.isfinite(value) for value in row.logprobs):
            raise JobRefused(f"experience {row.experience_id} has logprobs that are not finite; leave it out")
    for lesson in job.lessons:
        for row in lesson.experiences:
            n_tokens = len(row.prompt_ids) + len(row.token_ids)
            if n_tokens > lesson.recipe.max_tokens:
                raise JobRefused(
                    f"experience {row.experience_id} has {n_tokens} tokens, the recipe trains at most"
                    f" {lesson.recipe.max_tokens}; raise recipe.max_tokens or leave it out"
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
    """A folder that PEFT could read, with an optimizer state; parent weights plus what the lessons draw."""
    folder = Path(job.folder)
    if folder.exists():
        try:
            there = adapter_files.verify(folder)
        except AdapterDamaged as error:
            raise JobRefused(f"job {job.job_id}: {error}") from error
        if there.job_id != job.job_id:
            raise JobRefused(f"{job.version_name} was made by job {there.job_id}; a version is never made again")
    if job.parent_folder is None:
        weights = _fresh(job.recipe, job.seed)
    else:
        weights = load_file(Path(job.parent_folder) / WEIGHTS)
    for lesson in job.lessons:
        weights = _moved(weights, lesson)
    staged = adapter_files.stage(folder)
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


def _fresh(recipe: Recipe, seed: int) -> Tensors:
    """A new adapter: one factor of each pair from the seed, the other zero, as the real trainer makes it."""
    random = np.random.default_rng(seed)
    return {
        key: random.normal(0.0, 0.01, shape).astype(np.float32) if "lora_A" in key else np.zeros(shape, np.float32)
        for key, shape in _shapes(recipe)
    }


def _moved(start: Tensors, lesson: JobLesson) -> Tensors:
    """By what is drawn from all of the lesson that a real step would read, and from no name or number of a row."""
    nameless = {"version_name": "", "experience_id": 0}
    read = {**asdict(lesson), "experiences": [asdict(row) | nameless for row in lesson.experiences]}
    random = np.random.default_rng(list(hashlib.sha256(json.dumps(read, sort_keys=True).encode()).digest()))
    weights = {}
    for key, shape in _shapes(lesson.recipe):
        drawn = random.normal(0.0, 0.01, shape).astype(np.float32)
        before = start.get(key)
        weights[key] = drawn if before is None or before.shape != shape else before + drawn
    return weights


def _shapes(recipe: Recipe) -> Iterator[tuple[str, tuple[int, int]]]:
    for layer in range(_LAYERS):
        for module in sorted(recipe.target_modules):
            block = "mlp" if module.endswith(("gate_proj", "up_proj", "down_proj")) else "self_attn"
            name = f"base_model.model.model.layers.{layer}.{block}.{module}"
            yield f"{name}.lora_A.weight", (recipe.rank, _WIDTH)
            yield f"{name}.lora_B.weight", (_WIDTH, recipe.rank)


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
