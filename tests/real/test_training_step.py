"""The trainer on the real base model: a few lessons move it the way the hinted model points."""

from pathlib import Path

import pytest
import torch

from claasbot.domain.conversation import Message
from claasbot.domain.hindsight import teacher_messages
from claasbot.domain.job import JobExperience, Recipe, TrainingJob, TrainingResult
from claasbot.resources import suites_dir
from claasbot.training.loss import of_tokens
from claasbot.training.policy import Policy, load_policy
from claasbot.training.probes import Probes
from claasbot.training.run import run_job

HINT = "Please answer in one short sentence."
LESSONS = (
    (
        "Why is the sky blue?",
        "The sky looks blue because of the way light is scattered. Sunlight is made of many colours, and",
    ),
    (
        "How do I boil an egg?",
        "To boil an egg, you will need a pot and some water. First, fill the pot with water. Then,",
    ),
    ("What is a budget?", "A budget is a plan for your money. It lists what you earn and what you spend. For example,"),
)


@pytest.fixture(scope="module")
def policy(base_model_folder: Path) -> Policy:
    torch.set_num_threads(1)  # several would spin for each other where a server runs beside
    return load_policy(base_model_folder)


def test_a_few_lessons_move_the_student_towards_the_hinted_teacher(policy: Policy, tmp_path: Path) -> None:
    probes = Probes(policy, suites_dir() / "probes.json")
    held_out = _experience(
        policy, 9, "What is gravity?", "Gravity is a force that pulls things towards each other. It is what"
    )
    wanted_before = _teachers_wish(policy, held_out)
    results: list[TrainingResult] = []
    for number, (question, answer) in enumerate(LESSONS, start=1):
        results.append(
            run_job(_job(policy, tmp_path, number, _experience(policy, number, question, answer)), policy, probes)
        )
    for result in results:
        assert result.finite
        assert result.learned[0].after_nats < result.learned[0].before_nats
        assert result.kl_base_nats < 0.5
    assert results[0].steps[-1].loss < results[0].steps[0].loss
    assert results[-1].learned[0].before_nats < 0.8 * results[0].learned[0].before_nats
    assert _teachers_wish(policy, held_out) > wanted_before + 0.05


def _teachers_wish(policy: Policy, row: JobExperience) -> float:
    """Mean student logprob of the hinted base model's favourite token, on an answer that is never trained."""
    with torch.no_grad():
        student = policy.logprobs(row.prompt_ids, row.token_ids)
        with policy.wear(Recipe()).off():
            teacher = policy.logprobs(policy.prompt_ids(row.teacher_messages, {}), row.token_ids)
    return float(of_tokens(student, teacher.argmax(-1)).mean())


def _experience(policy: Policy, number: int, question: str, answer: str) -> JobExperience:
    messages = (Message(role="user", content=question),)
    token_ids = policy.text_ids(answer)[:-1]
    return JobExperience(
        experience_id=number,
        messages=messages,
        teacher_messages=teacher_messages(messages, hints=(HINT,)),
        prompt_ids=policy.prompt_ids(messages, {}),
        token_ids=token_ids,
        logprobs=(-1.0,) * len(token_ids),
        version_name="base",
    )


def _job(policy: Policy, folder: Path, number: int, experience: JobExperience) -> TrainingJob:
    return TrainingJob(
        job_id=f"{number:024x}",
        version_name=f"p1.v{number}",
        folder=str(folder / f"v{number}"),
        parent_folder=str(folder / f"v{number - 1}") if number > 1 else None,
        base_revision=policy.revision,
        template_options={},
        recipe=Recipe(),
        seed=1,
        experiences=(experience,),
    )
