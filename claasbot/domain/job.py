"""One lesson as an engine sees it: a job goes in, a result comes out.

Refuses to know people: an engine gets token ids, messages and a folder to write to.
A job is data that can be written as JSON and run again; the same job makes the same version.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from claasbot.domain.conversation import Message

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The hyperparameters of a job. Defaults: the table in `docs/learning.md`."""

    alpha: float = 0.0
    """Divergence: 0 forward KL, 1 reverse KL, between them the generalised Jensen-Shannon."""
    teacher: str = "base+digest"
    """`base`: reads this hindsight; `base+digest`: reads the standing preferences too."""
    contrast: float = 0.75
    """How much further than the hindsight moves the base model the teacher goes: 0 not at all, 1 twice as far."""
    n_steps: int = 4
    """Most optimizer steps on one job."""
    kl_stop_nats: float = 0.1
    """No further step once the mean KL(now || start of the job) per token is above this."""
    learning_rate: float = 3e-4
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ratio_cap: float = 2.0
    """Upper bound of the importance ratio student / completion, per token."""
    correction_weight: float = 0.1
    """Weight of the cross-entropy on the person's own text, where they gave one."""
    rank: int = 16
    lora_alpha: int = 32
    target_modules: tuple[str, ...] = ALL_LINEAR
    max_tokens: int = 2048
    """Longest prompt + completion that is trained, in tokens; longer ones are refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobExperience:
    """One experience, with all that a step needs and nothing about the person."""

    experience_id: int
    messages: tuple[Message, ...]
    """The student's prompt as it was sent; must render to `prompt_ids`."""
    teacher_messages: tuple[Message, ...]
    """The same with the hindsight in the last user turn (`domain.hindsight`)."""
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    """The sampled completion, end-of-turn token included when it was sampled."""
    logprobs: tuple[float, ...]
    """Completion logprobs in nats, one per token id."""
    version_name: str
    """Who sampled it: `base` or `p1.v3`."""
    correction: str | None = None
    """What the person says the answer should have been."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLesson:
    """What is trained together, and how: the experiences of one job."""

    experiences: tuple[JobExperience, ...]
    recipe: Recipe
    template_options: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """Everything an engine needs to make version `version_name` out of its parent."""

    job_id: str
    version_name: str
    folder: str
    """Where the version folder must appear: absolute, does not exist yet."""
    parent_folder: str | None
    """Folder of the parent version; None means the base model."""
    base_revision: str
    template_options: dict[str, object]
    recipe: Recipe
    seed: int
    experiences: tuple[JobExperience, ...]
    earlier: tuple[JobExperience, ...] = ()
    """Lessons already learned: scored before and after, never trained on."""
    lessons_before: tuple[JobLesson, ...] = ()
    """Of a rebuild: gone through first, in this order, each as a job of its own would have."""

    @property
    def lessons(self) -> tuple[JobLesson, ...]:
        """All of them in order; an ordinary job has one."""
        last = JobLesson(experiences=self.experiences, recipe=self.recipe, template_options=self.template_options)
        return (*self.lessons_before, last)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperienceScore:
    """How one experience moved: divergence teacher to student, mean nats per token."""

    experience_id: int
    before_nats: float
    after_nats: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetrics:
    """One optimizer step."""

    loss: float
    grad_norm: float
    kl_from_start_nats: float
    """Mean per token KL(before this step || start of the job)."""
    ratio_clipped_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """What a job measured. The weights are in the job's folder, under its manifest."""

    job_id: str
    version_name: str
    weights_sha256: str
    finite: bool
    delta_norm: float
    """Frobenius norm of the change of all B·A·(alpha/R) against the parent."""
    mismatch_nats: float | None
    """Mean |completion - student logprobs| at the parent's weights; None if the parent sampled none of them."""
    kl_new_old_nats: float
    """Mean per token KL(new || parent) on the job's completions; of several lessons the farthest, each from where it
    began."""
    kl_base_nats: float
    """Mean per token KL(base || new) on the fixed probes."""
    new_logprobs: tuple[tuple[float, ...], ...]
    """Per experience of the last lesson: logprobs of its token ids under the new version (the canary's target)."""
    parent_logprobs: tuple[tuple[float, ...], ...]
    steps: tuple[StepMetrics, ...]
    learned: tuple[ExperienceScore, ...]
    earlier: tuple[ExperienceScore, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    """load, teacher, student, backward, optimizer, score, save: wall seconds."""


_OUTSIDE_TRAINING = frozenset({"queue", "stage", "load", "canary", "gate"})


def stage_seconds(seconds: Mapping[str, float]) -> dict[str, float]:
    """The stages of a lesson side by side, so that they may be added up.

    `train` spans what the trainer reports of itself: only its rest is kept, as `hand-over`.
    """
    spent = {name: value for name, value in seconds.items() if math.isfinite(value) and value > 0}
    whole = spent.pop("train", 0.0)
    inside = sum(value for name, value in spent.items() if name not in _OUTSIDE_TRAINING)
    return spent | ({"hand-over": whole - inside} if whole > inside else {})


def lesson_s(seconds: Mapping[str, float]) -> float:
    """How long a lesson took, from the feedback to its verdict."""
    return sum(stage_seconds(seconds).values())


def job_identity(*, parent: str, version_name: str, experience_ids: tuple[int, ...], recipe: Recipe) -> str:
    """Same parent, version, experiences and recipe: same id, whoever asks and however often."""
    facts = {
        "parent": parent,
        "version": version_name,
        "experiences": sorted(experience_ids),
        "recipe": asdict(recipe),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def rebuild_identity(*, parent: str, version_name: str, lessons: tuple[tuple[tuple[int, ...], Recipe], ...]) -> str:
    """Same parent, version and lessons in the same order: same id. A lesson: its experiences and its recipe."""
    facts = {
        "parent": parent,
        "version": version_name,
        "lessons": [(sorted(experience_ids), asdict(recipe)) for experience_ids, recipe in lessons],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def lesson_seed(experiences: tuple[JobExperience, ...], recipe: Recipe) -> int:
    """31 bits of what a lesson is made of.

    Of nothing else: the same lessons in the same order make the same weights, under whatever version numbers, and so
    does the log in which a lesson that was taken back never stood. Not of the numbers of its rows either: those grow
    with what other people say, and nobody's words may move anybody else's weights.
    """
    made_of = sorted((row.prompt_ids, row.token_ids) for row in experiences)
    facts = json.dumps([made_of, asdict(recipe)], sort_keys=True)
    return int(hashlib.sha256(facts.encode()).hexdigest()[:8], 16) & 0x7FFF_FFFF


def job_to_json(job: TrainingJob) -> str:
    return json.dumps(asdict(job))


def job_from_json(text: str) -> TrainingJob:
    """The inverse of `job_to_json`. Raises TypeError or KeyError on anything else."""
    facts = json.loads(text)
    facts["earlier"] = tuple(_experience(row) for row in facts["earlier"])
    facts["lessons_before"] = tuple(JobLesson(**_lesson(row)) for row in facts["lessons_before"])
    return TrainingJob(**_lesson(facts))


def _lesson(facts: dict[str, Any]) -> dict[str, Any]:
    """What a job and each lesson in it have in common, as values."""
    recipe = facts["recipe"]
    return facts | {
        "recipe": Recipe(**{**recipe, "target_modules": tuple(recipe["target_modules"])}),
        "experiences": tuple(_experience(row) for row in facts["experiences"]),
    }


def _experience(row: dict[str, object]) -> JobExperience:
    fields = dict(row)
    for name in ("messages", "teacher_messages"):
        fields[name] = tuple(Message(**message) for message in fields[name])  # type: ignore[attr-defined]
    for name in ("prompt_ids", "token_ids", "logprobs"):
        fields[name] = tuple(fields[name])  # type: ignore[arg-type]
    return JobExperience(**fields)  # type: ignore[arg-type]


def result_to_json(result: TrainingResult) -> str:
    """Raises ValueError on NaN or infinity: JSON has no such numbers."""
    return json.dumps(asdict(result), allow_nan=False)


def result_from_json(text: str) -> TrainingResult:
    """The inverse of `result_to_json`."""
    facts = json.loads(text)
    facts["steps"] = tuple(StepMetrics(**row) for row in facts["steps"])
    for name in ("learned", "earlier"):
        facts[name] = tuple(ExperienceScore(**row) for row in facts[name])
    for name in ("new_logprobs", "parent_logprobs"):
        facts[name] = tuple(tuple(row) for row in facts[name])
    return TrainingResult(**facts)
