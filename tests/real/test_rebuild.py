"""One lesson taken back on the real base model: the rebuilt weights are those of a log that never held it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from claasbot import adapter_files
from claasbot.domain.conversation import Message
from claasbot.domain.hindsight import teacher_messages
from claasbot.domain.job import JobExperience, JobLesson, Recipe, TrainingJob, lesson_seed
from claasbot.resources import suites_dir
from claasbot.training.loss import of_tokens
from claasbot.training.policy import Policy, load_policy
from claasbot.training.probes import Probes
from claasbot.training.run import run_job

LESSONS = (
    (
        "Why is the sky blue?",
        "The sky looks blue because of the way light is scattered.",
        "One short sentence, please.",
    ),
    ("How do I boil an egg?", "To boil an egg, you will need a pot and some water. First,", "Answer in capitals."),
    ("What is a budget?", "A budget is a plan for your money. It lists what you earn.", "Be friendlier."),
)


@pytest.fixture(scope="module")
def policy(base_model_folder: Path) -> Policy:
    torch.set_num_threads(1)
    return load_policy(base_model_folder)


def test_a_lesson_taken_back_leaves_the_bytes_of_a_log_without_it(policy: Policy, tmp_path: Path) -> None:
    """Three lessons as three jobs, the second one taken back: onto version 1, and from the base model, in one job."""
    probes = Probes(policy, suites_dir() / "probes.json")
    first, second, third = (_lesson(policy, number) for number in (1, 2, 3))
    taught = [_job(policy, tmp_path, 1, None, first)]
    taught.append(_job(policy, tmp_path, 2, taught[0], second))
    taught.append(_job(policy, tmp_path, 3, taught[1], third))
    never = _job(policy, tmp_path / "never", 2, taught[0], third)
    from_base = _job(policy, tmp_path, 4, None, first, third)
    results = [run_job(job, policy, probes) for job in (*taught, never, from_base)]
    assert all(result.finite for result in results)
    hashes = [adapter_files.verify(Path(job.folder)).files for job in (*taught, never, from_base)]
    print({"lessons": 3, "taken back": 1, "weights": [result.weights_sha256[:12] for result in results]})
    assert hashes[4] == hashes[3]
    assert hashes[4] != hashes[2]
    assert results[4].new_logprobs == results[3].new_logprobs


def _lesson(policy: Policy, number: int) -> JobLesson:
    question, answer, wish = LESSONS[number - 1]
    messages = (Message(role="user", content=question),)
    prompt_ids, token_ids = policy.prompt_ids(messages, {}), policy.text_ids(answer)[:-1]
    with torch.no_grad(), policy.wear(Recipe()).off():
        logprobs = of_tokens(policy.logprobs(prompt_ids, token_ids), torch.tensor(token_ids))
    experience = JobExperience(
        experience_id=number,
        messages=messages,
        teacher_messages=teacher_messages(messages, hints=(wish,)),
        prompt_ids=prompt_ids,
        token_ids=token_ids,
        logprobs=tuple(logprobs.tolist()),
        version_name="base",
    )
    return JobLesson(experiences=(experience,), recipe=Recipe(), template_options={})


def _job(policy: Policy, folder: Path, n: int, parent: TrainingJob | None, *lessons: JobLesson) -> TrainingJob:
    *before, last = lessons
    first = lessons[0]
    return TrainingJob(
        job_id=f"{n:024x}",
        version_name=f"p1.v{n}",
        folder=str(folder / f"v{n}"),
        parent_folder=None if parent is None else parent.folder,
        base_revision=policy.revision,
        template_options={},
        recipe=last.recipe,
        seed=lesson_seed(first.experiences, first.recipe),
        experiences=last.experiences,
        lessons_before=tuple(before),
    )
