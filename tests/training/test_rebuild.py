"""A rebuild goes through several lessons as one job: the same bytes as their own jobs make, one after the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from claasbot import adapter_files
from claasbot.domain.conversation import Message
from claasbot.domain.job import (
    JobLesson,
    TrainingJob,
    job_from_json,
    job_to_json,
    lesson_seed,
    result_from_json,
    result_to_json,
)
from claasbot.errors import JobRefused
from claasbot.training.loss import of_tokens
from claasbot.training.policy import Policy
from claasbot.training.probes import Probes
from claasbot.training.run import run_job
from claasbot.training.version_folder import put_on_parent
from tests.training.conftest import RECIPE, make_experience, make_job

ANSWERS = {1: "Hello you", 2: "Go away", 3: "Well, hm", 4: "Oh"}
SHORT = replace(RECIPE, n_steps=2)
STOPPED = replace(RECIPE, kl_stop_nats=0.002)
RECIPES = {1: RECIPE, 2: SHORT, 3: STOPPED, 4: RECIPE}


def lesson(policy: Policy, *numbers: int) -> JobLesson:
    """Of these experiences; the first one's number chooses the recipe."""
    rows = []
    for number in numbers:
        ids = policy.text_ids(ANSWERS[number])
        hinted = (Message(role="user", content=f"Hi? Shout {number}!"),)
        rows.append(
            make_experience(
                policy,
                experience_id=number,
                token_ids=ids,
                logprobs=(-1.5,) * len(ids),
                teacher_messages=hinted,
                correction="No." if number == 2 else None,
            )
        )
    return JobLesson(experiences=tuple(rows), recipe=RECIPES[numbers[0]], template_options={})


def job(policy: Policy, inside: Path, n: int, parent: TrainingJob | None, *lessons: JobLesson) -> TrainingJob:
    *before, last = lessons
    first = lessons[0]
    return make_job(
        policy,
        inside,
        *last.experiences,
        job_id=f"{n:024x}",
        version_name=f"p1.v{n}",
        folder=str(inside / f"v{n}"),
        parent_folder=None if parent is None else parent.folder,
        recipe=last.recipe,
        seed=lesson_seed(first.experiences, first.recipe),
        lessons_before=tuple(before),
    )


def bytes_of(made: TrainingJob) -> dict[str, str]:
    """The hashes of every file: weights, optimizer state and configuration."""
    return adapter_files.verify(Path(made.folder)).files


def taught_in_turn(policy: Policy, probes: Probes, inside: Path, *lessons: JobLesson) -> list[TrainingJob]:
    made: list[TrainingJob] = []
    for n, one in enumerate(lessons, start=1):
        made.append(job(policy, inside, n, made[-1] if made else None, one))
        run_job(made[-1], policy, probes)
    return made


def test_several_lessons_in_one_job_make_the_bytes_that_their_own_jobs_make(
    policy: Policy, probes: Probes, tmp_path: Path
) -> None:
    """Other numbers of steps, a KL stop of each lesson's own, a correction, and the optimizer's state go through."""
    lessons = (lesson(policy, 1), lesson(policy, 2, 4), lesson(policy, 3))
    *_, last = taught_in_turn(policy, probes, tmp_path / "in turn", *lessons)
    at_once = job(policy, tmp_path / "at once", 9, None, *lessons)
    result = run_job(at_once, policy, probes)
    assert bytes_of(at_once) == bytes_of(last)
    assert [score.experience_id for score in result.learned] == [1, 2, 4, 3]
    assert len(result.steps) < RECIPE.n_steps + SHORT.n_steps + STOPPED.n_steps


def test_a_rebuild_is_bit_identical_to_one_from_a_log_that_never_held_the_lesson(
    policy: Policy, probes: Probes, tmp_path: Path
) -> None:
    """Lesson 2 of four is taken back: onto version 1, from the base model, or never taught at all."""
    first, second, third, fourth = (lesson(policy, number) for number in (1, 2, 3, 4))
    taught = taught_in_turn(policy, probes, tmp_path / "taught", first, second, third, fourth)
    onto = job(policy, tmp_path / "onto", 5, taught[0], third, fourth)
    from_base = job(policy, tmp_path / "from base", 6, None, first, third, fourth)
    for rebuilt in (onto, from_base):
        run_job(rebuilt, policy, probes)
    *_, never = taught_in_turn(policy, probes, tmp_path / "never", first, third, fourth)
    assert bytes_of(onto) == bytes_of(from_base) == bytes_of(never)
    assert bytes_of(onto) != bytes_of(taught[-1])


def test_the_first_lesson_taken_back_leaves_no_seed_of_its_own(policy: Policy, probes: Probes, tmp_path: Path) -> None:
    """A new adapter begins with random factors: of the first lesson that stands, whichever was first once."""
    first, second, third = (lesson(policy, number) for number in (1, 2, 3))
    taught_in_turn(policy, probes, tmp_path / "taught", first, second, third)
    rebuilt = job(policy, tmp_path / "rebuilt", 4, None, second, third)
    run_job(rebuilt, policy, probes)
    *_, never = taught_in_turn(policy, probes, tmp_path / "never", second, third)
    assert bytes_of(rebuilt) == bytes_of(never)


def test_a_rebuild_that_runs_again_makes_the_same_bytes(policy: Policy, probes: Probes, tmp_path: Path) -> None:
    rebuilt = job(policy, tmp_path, 4, None, lesson(policy, 1), lesson(policy, 3))
    before = run_job(rebuilt, policy, probes)
    assert replace(run_job(rebuilt, policy, probes), seconds={}) == replace(before, seconds={})


def test_a_rebuild_is_measured_against_its_parent_and_each_lesson_from_its_own_start(
    policy: Policy, probes: Probes, tmp_path: Path
) -> None:
    [parent] = taught_in_turn(policy, probes, tmp_path, lesson(policy, 1))
    rebuilt = job(policy, tmp_path, 2, parent, lesson(policy, 2), lesson(policy, 3))
    result = run_job(rebuilt, policy, probes)
    in_turn = job(policy, tmp_path, 3, parent, lesson(policy, 2))
    alone = run_job(in_turn, policy, probes)
    last = run_job(job(policy, tmp_path, 4, in_turn, lesson(policy, 3)), policy, probes)
    assert result.kl_new_old_nats == max(alone.kl_new_old_nats, last.kl_new_old_nats)
    assert result.new_logprobs == last.new_logprobs
    assert result.delta_norm > max(alone.delta_norm, last.delta_norm)
    put_on_parent(policy.wear(RECIPE), replace(rebuilt, parent_folder=parent.folder))
    [row] = rebuilt.experiences
    with torch.no_grad():
        at_parent = of_tokens(policy.logprobs(row.prompt_ids, row.token_ids), torch.tensor(row.token_ids))
    assert result.parent_logprobs == (tuple(at_parent.tolist()),)
    assert result.parent_logprobs != last.parent_logprobs


def test_a_lesson_that_breaks_the_weights_fails_the_whole_rebuild(
    policy: Policy, probes: Probes, tmp_path: Path
) -> None:
    broken = replace(lesson(policy, 1), recipe=replace(RECIPE, learning_rate=1e30))
    result = run_job(job(policy, tmp_path, 1, None, broken, lesson(policy, 3)), policy, probes)
    assert not result.finite
    assert result_from_json(result_to_json(result)) == result


def test_a_lesson_that_can_never_work_refuses_the_whole_rebuild(policy: Policy, probes: Probes, tmp_path: Path) -> None:
    odd = lesson(policy, 1)
    [row] = odd.experiences
    odd = replace(odd, experiences=(replace(row, prompt_ids=row.prompt_ids[:-1]),))
    with pytest.raises(JobRefused, match="experience 1 renders to other ids"):
        run_job(job(policy, tmp_path, 1, None, odd, lesson(policy, 3)), policy, probes)
    other_shape = replace(lesson(policy, 1), recipe=replace(RECIPE, rank=8))
    with pytest.raises(JobRefused, match="2 adapter shapes"):
        run_job(job(policy, tmp_path, 2, None, other_shape, lesson(policy, 3)), policy, probes)
    with pytest.raises(JobRefused, match="no experience"):
        run_job(job(policy, tmp_path, 3, None, replace(odd, experiences=()), lesson(policy, 3)), policy, probes)


def test_a_rebuild_passes_through_a_job_folder_unchanged(policy: Policy, tmp_path: Path) -> None:
    rebuilt = job(policy, tmp_path, 1, None, lesson(policy, 2, 4), lesson(policy, 3))
    assert job_from_json(job_to_json(rebuilt)) == rebuilt
