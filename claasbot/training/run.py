"""One job from its parent version to the sealed new version, and what was measured on the way.

The same job gives the same bytes. Refuses to know job folders and processes: see `jobs`.
"""

from pathlib import Path

import torch

from claasbot import adapter_files
from claasbot.domain.job import ExperienceScore, JobExperience, JobLesson, Recipe, TrainingJob, TrainingResult
from claasbot.errors import AdapterDamaged, JobRefused
from claasbot.training.experiences import scored_experience, trained_experience
from claasbot.training.lora import Adapter
from claasbot.training.loss import divergence, of_tokens
from claasbot.training.optimizer import AdamState
from claasbot.training.policy import Policy
from claasbot.training.probes import Probes
from claasbot.training.step import Experience, Learned, Lesson, Reading, mean_over_tokens
from claasbot.training.stopwatch import Stopwatch
from claasbot.training.version_folder import Parent, put_on_parent, write_version

TEACHERS = ("base", "base+digest")
"""The teacher kinds that this trainer has. In both the base model reads `teacher_messages`."""


def run_job(job: TrainingJob, policy: Policy, probes: Probes) -> TrainingResult:
    """Train, measure, write the version. Raises JobRefused when the job can never work, and AdapterDamaged when other
    bytes lie in the way of its version.
    """
    _check(job, policy)
    watch = Stopwatch()
    torch.manual_seed(job.seed)
    with watch("load"):
        adapter = policy.wear(job.recipe)
        parent = _put_on_parent(adapter, job)
        parent_weights = adapter.weights.clone()
    last = job.lessons[-1]
    with watch("teacher"):
        earlier = tuple(scored_experience(policy, last, row) for row in job.earlier)
    with watch("score"):
        gaps_before = [_gap(policy, experience, job.recipe) for experience in earlier]
        at_parent = _token_logprobs(policy, job.experiences) if job.lessons_before else None
    taught = _teach(job, policy, parent.state, watch)
    with watch("score"):
        gaps_after = [_gap(policy, experience, job.recipe) for experience in earlier]
        kl_base_nats = probes.kl_from_base(job.template_options)
    with watch("save"):
        manifest = write_version(adapter, parent.state, job, parent=parent.name, base_name=policy.name)
    return TrainingResult(
        job_id=job.job_id,
        version_name=job.version_name,
        weights_sha256=manifest.weights_sha256,
        finite=all(learned.finite for _, learned in taught),
        delta_norm=adapter.change_norm(parent_weights),
        mismatch_nats=_mismatch(job.lessons[0].experiences, taught[0][1].before, parent.name),
        kl_new_old_nats=max(mean_over_tokens([row.kl_from_start for row in learned.after]) for _, learned in taught),
        kl_base_nats=kl_base_nats,
        new_logprobs=_logprobs(taught[-1][1].after),
        parent_logprobs=_logprobs(taught[-1][1].before) if at_parent is None else at_parent,
        steps=tuple(step for _, learned in taught for step in learned.steps),
        learned=tuple(score for experiences, learned in taught for score in _learned_scores(experiences, learned)),
        earlier=tuple(
            ExperienceScore(experience_id=experience.experience_id, before_nats=before, after_nats=after)
            for experience, before, after in zip(earlier, gaps_before, gaps_after, strict=True)
        ),
        seconds={name: round(seconds, 4) for name, seconds in watch.seconds.items()},
    )


def _put_on_parent(adapter: Adapter, job: TrainingJob) -> Parent:
    try:
        return put_on_parent(adapter, job)
    except AdapterDamaged as error:
        raise JobRefused(str(error)) from error


def _teach(
    job: TrainingJob, policy: Policy, state: AdamState, watch: Stopwatch
) -> list[tuple[tuple[Experience, ...], Learned]]:
    """Every lesson on the weights and the optimizer state that the one before it left: what jobs of their own would do,
    because a version folder holds both bit for bit. Steps and KL stop count from each lesson's own start.
    """
    taught = []
    for lesson in job.lessons:
        with watch("teacher"):
            experiences = tuple(trained_experience(policy, lesson, row) for row in lesson.experiences)
        learned = Lesson(policy, experiences, lesson.recipe, watch).learn(state)
        _check_start(learned, experiences)
        taught.append((experiences, learned))
    return taught


def _check(job: TrainingJob, policy: Policy) -> None:
    """What can be refused before any time is spent."""
    for lesson in job.lessons:
        _check_lesson(lesson)
    shapes = {(row.recipe.rank, row.recipe.lora_alpha, row.recipe.target_modules) for row in job.lessons}
    wrong = [
        (len(shapes) > 1, f"the lessons have {len(shapes)} adapter shapes", "rebuild lessons of one shape"),
        (
            job.base_revision != policy.revision,
            f"the job is for base {job.base_revision[:12]!r}",
            f"this trainer holds {policy.revision[:12]!r}; start it with the other model",
        ),
    ]
    _refuse(wrong)
    folder = Path(job.folder)
    if folder.exists() and (there := adapter_files.verify(folder)).job_id != job.job_id:
        raise JobRefused(f"{job.version_name} was made by job {there.job_id}; a version is never made again")


def _check_lesson(lesson: JobLesson) -> None:
    recipe = lesson.recipe
    _refuse(
        [
            (not lesson.experiences, "the job has no experience", "send at least one"),
            (not 0.0 <= recipe.alpha <= 1.0, f"recipe.alpha is {recipe.alpha!r}", "use 0 to 1"),
            (recipe.n_steps < 1, f"recipe.n_steps is {recipe.n_steps!r}", "use 1 or more"),
            (recipe.rank < 1, f"recipe.rank is {recipe.rank!r}", "use 1 or more"),
            (recipe.kl_stop_nats < 0, f"recipe.kl_stop_nats is {recipe.kl_stop_nats!r}", "use 0 or more"),
            (recipe.teacher not in TEACHERS, f"recipe.teacher is {recipe.teacher!r}", f"this trainer has {TEACHERS}"),
        ]
    )


def _refuse(wrong: list[tuple[bool, str, str]]) -> None:
    for is_wrong, what, instead in wrong:
        if is_wrong:
            raise JobRefused(f"{what}; {instead}")


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


@torch.no_grad()
def _token_logprobs(policy: Policy, rows: tuple[JobExperience, ...]) -> tuple[tuple[float, ...], ...]:
    """Logprobs of the rows' own tokens at the weights as they are."""
    found = [
        of_tokens(policy.logprobs(row.prompt_ids, row.token_ids), torch.tensor(row.token_ids, device=policy.device))
        for row in rows
    ]
    return tuple(tuple(row.tolist()) for row in found)


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
