"""One job from its parent version to the sealed new version, and what was measured on the way.

The same job gives the same bytes. Refuses to know job folders and processes: see `jobs`.
"""

from pathlib import Path

import torch

from claasbot import adapter_files
from claasbot.domain.job import ExperienceScore, JobExperience, Recipe, TrainingJob, TrainingResult
from claasbot.errors import JobRefused
from claasbot.training.experiences import scored_experience, trained_experience
from claasbot.training.loss import divergence
from claasbot.training.policy import Policy
from claasbot.training.probes import Probes
from claasbot.training.step import Experience, Learned, Lesson, Reading, mean_over_tokens
from claasbot.training.stopwatch import Stopwatch
from claasbot.training.version_folder import put_on_parent, write_version

TEACHERS = ("base", "base+digest")
"""The teacher kinds that this trainer has. In both the base model reads `teacher_messages`."""


def run_job(job: TrainingJob, policy: Policy, probes: Probes) -> TrainingResult:
    """Train, measure, write the version. Raises JobRefused or AdapterDamaged when the job can never work."""
    _check(job, policy)
    watch = Stopwatch()
    torch.manual_seed(job.seed)
    with watch("load"):
        adapter = policy.wear(job.recipe)
        parent = put_on_parent(adapter, job)
        parent_weights = adapter.weights.clone()
    with watch("teacher"):
        experiences = tuple(trained_experience(policy, job, row) for row in job.experiences)
        earlier = tuple(scored_experience(policy, job, row) for row in job.earlier)
    with watch("score"):
        gaps_before = [_gap(policy, experience, job.recipe) for experience in earlier]
    learned = Lesson(policy, experiences, job.recipe, watch).learn(parent.state)
    _check_start(learned, experiences)
    with watch("score"):
        gaps_after = [_gap(policy, experience, job.recipe) for experience in earlier]
        kl_base_nats = probes.kl_from_base(job.template_options)
    with watch("save"):
        manifest = write_version(adapter, parent.state, job, parent=parent.name, base_name=policy.name)
    return TrainingResult(
        job_id=job.job_id,
        version_name=job.version_name,
        weights_sha256=manifest.weights_sha256,
        finite=learned.finite,
        delta_norm=adapter.change_norm(parent_weights),
        mismatch_nats=_mismatch(job.experiences, learned.before, parent.name),
        kl_new_old_nats=mean_over_tokens([row.kl_from_start for row in learned.after]),
        kl_base_nats=kl_base_nats,
        new_logprobs=_logprobs(learned.after),
        parent_logprobs=_logprobs(learned.before),
        steps=learned.steps,
        learned=_learned_scores(experiences, learned),
        earlier=tuple(
            ExperienceScore(experience_id=experience.experience_id, before_nats=before, after_nats=after)
            for experience, before, after in zip(earlier, gaps_before, gaps_after, strict=True)
        ),
        seconds={name: round(seconds, 4) for name, seconds in watch.seconds.items()},
    )


def _check(job: TrainingJob, policy: Policy) -> None:
    """What can be refused before any time is spent."""
    recipe = job.recipe
    wrong = [
        (not job.experiences, "the job has no experience", "send at least one"),
        (not 0.0 <= recipe.alpha <= 1.0, f"recipe.alpha is {recipe.alpha!r}", "use 0 to 1"),
        (recipe.n_steps < 1, f"recipe.n_steps is {recipe.n_steps!r}", "use 1 or more"),
        (recipe.rank < 1, f"recipe.rank is {recipe.rank!r}", "use 1 or more"),
        (recipe.kl_stop_nats < 0, f"recipe.kl_stop_nats is {recipe.kl_stop_nats!r}", "use 0 or more"),
        (recipe.teacher not in TEACHERS, f"recipe.teacher is {recipe.teacher!r}", f"this trainer has {TEACHERS}"),
        (
            job.base_revision != policy.revision,
            f"the job is for base {job.base_revision[:12]!r}",
            f"this trainer holds {policy.revision[:12]!r}; start it with the other model",
        ),
    ]
    for is_wrong, what, instead in wrong:
        if is_wrong:
            raise JobRefused(f"{what}; {instead}")
    folder = Path(job.folder)
    if folder.exists() and (there := adapter_files.verify(folder)).job_id != job.job_id:
        raise JobRefused(f"{job.version_name} was made by job {there.job_id}; a version is never made again")


def _check_start(learned: Learned, experiences: tuple[Experience, ...]) -> None:
    for experience, reading in zip(experiences, learned.before, strict=True):
        if not bool(torch.isfinite(reading.divergence).all()):
            raise JobRefused(
                f"experience {experience.experience_id} has logprobs that are not finite already at the parent's "
                "weights; roll the adapter back"
            )


@torch.no_grad()
def _gap(policy: Policy, experience: Experience, recipe: Recipe) -> float:
    """Divergence teacher to student on one experience now, mean nats per token."""
    logprobs = policy.logprobs(experience.prompt_ids, experience.token_ids)
    return mean_over_tokens([divergence(logprobs, experience.teacher_logprobs, recipe.alpha)])


def _mismatch(rows: tuple[JobExperience, ...], before: tuple[Reading, ...], parent: str) -> float | None:
    """Mean |completion - student logprobs| over the completions that the parent itself sampled."""
    gaps = [
        (torch.tensor(row.logprobs, device=reading.token_logprobs.device) - reading.token_logprobs).abs()
        for row, reading in zip(rows, before, strict=True)
        if row.version_name == parent
    ]
    return mean_over_tokens(gaps) if gaps else None


def _logprobs(readings: tuple[Reading, ...]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row.token_logprobs.tolist()) for row in readings)


def _learned_scores(experiences: tuple[Experience, ...], learned: Learned) -> tuple[ExperienceScore, ...]:
    return tuple(
        ExperienceScore(
            experience_id=experience.experience_id,
            before_nats=mean_over_tokens([before.divergence]),
            after_nats=mean_over_tokens([after.divergence]),
        )
        for experience, before, after in zip(experiences, learned.before, learned.after, strict=True)
    )
