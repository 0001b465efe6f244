"""Whole jobs on the tiny model: parent, steps, measures, version folder."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from claasbot import adapter_files
from claasbot.domain.conversation import Message
from claasbot.domain.job import job_from_json, job_to_json, result_from_json, result_to_json
from claasbot.errors import JobRefused
from claasbot.training.loss import of_tokens
from claasbot.training.policy import Policy
from claasbot.training.probes import Probes
from claasbot.training.run import run_job
from claasbot.training.version_folder import put_on_parent
from tests.training.conftest import RECIPE, make_experience, make_job


def test_the_student_moves_towards_the_teacher(policy: Policy, probes: Probes, tmp_path: Path) -> None:
    experience = make_experience(policy)
    teacher_prompt = policy.prompt_ids(experience.teacher_messages, {})
    wanted = policy.logprobs(teacher_prompt, experience.token_ids).argmax(-1)
    before = of_tokens(policy.logprobs(experience.prompt_ids, experience.token_ids), wanted).detach()
    result = run_job(make_job(policy, tmp_path, experience), policy, probes)
    after = of_tokens(policy.logprobs(experience.prompt_ids, experience.token_ids), wanted).detach()
    assert float(after.mean()) > float(before.mean()) + 0.1
    assert result.learned[0].after_nats < 0.7 * result.learned[0].before_nats
    losses = [step.loss for step in result.steps]
    assert len(losses) == 4 and losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_one_step_raises_what_the_teacher_prefers(policy: Policy, probes: Probes, tmp_path: Path, alpha: float) -> None:
    recipe = replace(RECIPE, n_steps=1, learning_rate=1e-3, alpha=alpha)
    result = run_job(make_job(policy, tmp_path, recipe=recipe), policy, probes)
    assert result.learned[0].after_nats < result.learned[0].before_nats


def test_running_a_job_twice_gives_the_same_bytes(policy: Policy, probes: Probes, tmp_path: Path) -> None:
    first = run_job(make_job(policy, tmp_path / "one"), policy, probes)
    run_job(make_job(policy, tmp_path / "between", seed=99, job_id="c" * 24), policy, probes)
    again = run_job(make_job(policy, tmp_path / "two"), policy, probes)
    one, two = (adapter_files.verify(tmp_path / name / "v1") for name in ("one", "two"))
    assert one == two
    assert replace(first, seconds={}) == replace(again, seconds={})
    other = adapter_files.verify(tmp_path / "between" / "v1")
    assert other.weights_sha256 != one.weights_sha256


def test_running_a_job_again_over_its_own_version_leaves_it(policy: Policy, probes: Probes, tmp_path: Path) -> None:
    job = make_job(policy, tmp_path)
    run_job(job, policy, probes)
    before = (tmp_path / "v1" / "adapter_model.safetensors").stat().st_mtime_ns
    run_job(job, policy, probes)
    assert (tmp_path / "v1" / "adapter_model.safetensors").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["v1"]


def test_two_steps_and_two_more_are_four_steps(policy: Policy, probes: Probes, tmp_path: Path) -> None:
    """The optimizer's moments and step count pass through the version folder bit for bit."""
    four = make_job(policy, tmp_path / "four", recipe=replace(RECIPE, n_steps=4))
    two = make_job(policy, tmp_path / "two", recipe=replace(RECIPE, n_steps=2))
    more = replace(two, parent_folder=two.folder, folder=str(tmp_path / "more"), version_name="p1.v2")
    for job in (four, two, more):
        run_job(job, policy, probes)
    one, other = (adapter_files.verify(Path(job.folder)).files for job in (four, more))
    assert one == other
    assert adapter_files.verify(Path(two.folder)).files != one


def test_the_base_model_is_bit_for_bit_what_it_was(policy: Policy, probes: Probes, tmp_path: Path) -> None:
    before = _checksum(policy)
    run_job(make_job(policy, tmp_path), policy, probes)
    assert _checksum(policy) == before


def test_the_result_says_what_the_sealed_version_does(policy: Policy, probes: Probes, tmp_path: Path) -> None:
    job = make_job(policy, tmp_path)
    result = run_job(job, policy, probes)
    experience = job.experiences[0]
    put_on_parent(policy.adapter, replace(job, parent_folder=job.folder))
    new = policy.logprobs(experience.prompt_ids, experience.token_ids).detach()
    with policy.adapter.off():
        base = policy.logprobs(experience.prompt_ids, experience.token_ids)
    ids = torch.tensor(experience.token_ids)
    assert result.new_logprobs == (tuple(of_tokens(new, ids).tolist()),)
    assert result.parent_logprobs[0] == pytest.approx(experience.logprobs, abs=1e-6)
    assert result.kl_new_old_nats == pytest.approx(float((new.exp() * (new - base)).sum(-1).mean()), rel=1e-5)
    assert result.kl_base_nats > 0.0
    assert result.delta_norm > 0.0
    assert result.finite
    assert result.weights_sha256 == adapter_files.sha256_of(tmp_path / "v1" / "adapter_model.safetensors")
    assert adapter_files.verify(tmp_path / "v1").parent == "base"
    assert {"load", "teacher", "student", "backward", "optimizer", "score", "save"} == result.seconds.keys()


def test_the_mismatch_is_measured_on_what_the_parent_sampled(policy: Policy, probes: Probes, tmp_path: Path) -> None:
    own = make_experience(policy)
    shifted = replace(own, logprobs=tuple(value + 0.25 for value in own.logprobs))
    foreign = replace(shifted, experience_id=8, version_name="p1.v9")
    assert _mismatch(policy, probes, tmp_path / "a", own) == pytest.approx(0.0, abs=1e-6)
    assert _mismatch(policy, probes, tmp_path / "b", shifted) == pytest.approx(0.25, abs=1e-5)
    assert _mismatch(policy, probes, tmp_path / "c", own, foreign) == pytest.approx(0.0, abs=1e-6)
    assert _mismatch(policy, probes, tmp_path / "d", foreign) is None


def test_a_result_without_mismatch_is_valid_json(policy: Policy, probes: Probes, tmp_path: Path) -> None:
    result = run_job(make_job(policy, tmp_path, make_experience(policy, version_name="p1.v9")), policy, probes)
    text = result_to_json(result)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert result_from_json(text) == result


def test_the_kl_stop_ends_the_job_early(policy: Policy, probes: Probes, tmp_path: Path) -> None:
    free = run_job(make_job(policy, tmp_path / "free"), policy, probes)
    limit = (free.steps[1].kl_from_start_nats + free.steps[2].kl_from_start_nats) / 2
    stopped = run_job(make_job(policy, tmp_path / "s", recipe=replace(RECIPE, kl_stop_nats=limit)), policy, probes)
    assert stopped.steps == free.steps[:2]
    assert stopped.kl_new_old_nats == free.steps[2].kl_from_start_nats > limit


def test_all_experiences_train_and_each_counts_the_same(policy: Policy, probes: Probes, tmp_path: Path) -> None:
    one = make_experience(policy)
    shorter = policy.text_ids("Hm")
    two = make_experience(policy, experience_id=8, token_ids=shorter, logprobs=(-1.0,) * len(shorter))
    recipe = replace(RECIPE, n_steps=1)
    losses = [
        run_job(make_job(policy, tmp_path / name, *rows, recipe=recipe), policy, probes).steps[0].loss
        for name, rows in (("a", (one,)), ("b", (two,)), ("both", (one, two)))
    ]
    assert losses[2] == pytest.approx((losses[0] + losses[1]) / 2, rel=1e-6)


def test_a_correction_raises_the_persons_own_words(policy: Policy, probes: Probes, tmp_path: Path) -> None:
    text = "No, XYZ!"
    prompt_ids, ids = policy.prompt_ids((Message(role="user", content="Hi?"),), {}), policy.text_ids(text)

    def log_probability(name: str, correction: str | None, weight: float) -> float:
        recipe = replace(RECIPE, correction_weight=weight)
        experience = make_experience(policy, correction=correction)
        run_job(make_job(policy, tmp_path / name, experience, recipe=recipe), policy, probes)
        return float(of_tokens(policy.logprobs(prompt_ids, ids).detach(), torch.tensor(ids)).sum())

    without = log_probability("without", None, 1.0)
    assert log_probability("zero", text, 0.0) == pytest.approx(without, abs=1e-4)
    assert log_probability("with", text, 1.0) > without + 1.0


def test_the_correction_term_is_the_mean_cross_entropy_with_end_of_turn(
    policy: Policy, probes: Probes, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, n_steps=1, correction_weight=0.1)
    experience = make_experience(policy, correction="No.")
    ids = policy.text_ids("No.")
    assert ids[-1] == policy.tokenizer.eos_token_id
    logprobs = policy.logprobs(experience.prompt_ids, ids).detach()
    entropy = -float(of_tokens(logprobs, torch.tensor(ids)).mean())
    plain = run_job(make_job(policy, tmp_path / "a", recipe=recipe), policy, probes).steps[0].loss
    corrected = run_job(make_job(policy, tmp_path / "b", experience, recipe=recipe), policy, probes).steps[0].loss
    assert corrected == pytest.approx(plain + 0.1 * entropy, rel=1e-5)


def test_earlier_lessons_are_scored_and_never_trained_on(policy: Policy, probes: Probes, tmp_path: Path) -> None:
    old = make_experience(policy, experience_id=3, token_ids=policy.text_ids("Aha"), logprobs=(-1.0,) * 4)
    alone = run_job(make_job(policy, tmp_path / "alone"), policy, probes)
    beside = run_job(make_job(policy, tmp_path / "beside", earlier=(old,)), policy, probes)
    assert beside.weights_sha256 == alone.weights_sha256
    assert [score.experience_id for score in beside.earlier] == [3]
    assert beside.earlier[0].before_nats > 0.0 and beside.earlier[0].after_nats != beside.earlier[0].before_nats


def test_a_loss_that_is_not_finite_makes_no_step(policy: Policy, probes: Probes, tmp_path: Path) -> None:
    recipe = replace(RECIPE, correction_weight=1e300)
    job = make_job(policy, tmp_path, make_experience(policy, correction="No."), recipe=recipe)
    result = run_job(job, policy, probes)
    assert not result.finite
    assert result.steps == ()
    assert result.delta_norm == result.kl_new_old_nats == 0.0
    assert result_from_json(result_to_json(result)) == result


@pytest.mark.parametrize("n_steps", [1, 2])
def test_a_step_that_breaks_the_weights_brings_the_parent_back(
    policy: Policy, probes: Probes, tmp_path: Path, n_steps: int
) -> None:
    recipe = replace(RECIPE, learning_rate=1e30, n_steps=n_steps)
    result = run_job(make_job(policy, tmp_path, recipe=recipe), policy, probes)
    assert not result.finite
    assert len(result.steps) == 1
    assert result.delta_norm == result.kl_new_old_nats == 0.0
    assert result.new_logprobs == result.parent_logprobs
    assert result_from_json(result_to_json(result)) == result


def test_a_prompt_that_renders_differently_is_refused_by_position(
    policy: Policy, probes: Probes, tmp_path: Path
) -> None:
    experience = make_experience(policy)
    moved = (*experience.prompt_ids[:9], 5, *experience.prompt_ids[10:])
    _refused(policy, probes, tmp_path, replace(experience, prompt_ids=moved), "experience 7.*from position 9 on")
    short = experience.prompt_ids[:-2]
    _refused(policy, probes, tmp_path, replace(experience, prompt_ids=short), f"from position {len(short)} on")


def test_a_conversation_that_is_too_long_is_refused_with_both_numbers(
    policy: Policy, probes: Probes, tmp_path: Path
) -> None:
    experience = make_experience(policy)
    n_tokens = len(experience.prompt_ids) + len(experience.token_ids)
    job = make_job(policy, tmp_path, recipe=replace(RECIPE, max_tokens=n_tokens - 1))
    with pytest.raises(JobRefused, match=f"experience 7 has {n_tokens} tokens.* at most {n_tokens - 1};"):
        run_job(job, policy, probes)
    run_job(replace(job, recipe=replace(RECIPE, max_tokens=n_tokens)), policy, probes)


def test_experiences_that_cannot_be_trained_are_refused(policy: Policy, probes: Probes, tmp_path: Path) -> None:
    row = make_experience(policy)
    for changes, words in (
        ({"token_ids": (), "logprobs": ()}, "empty completion"),
        ({"prompt_ids": ()}, "empty prompt"),
        ({"logprobs": row.logprobs[:-1]}, "10 tokens but 9 logprobs"),
        ({"logprobs": (*row.logprobs[:-1], float("nan"))}, "not finite"),
        ({"token_ids": (*row.token_ids[:-1], 99_999)}, "token id 99999, the base model knows 0 to 98"),
        ({"teacher_messages": (Message(role="user", content="x" * 600),)}, "512 positions"),
    ):
        _refused(policy, probes, tmp_path, replace(row, **changes), f"experience 7.*{words}|{words}.*experience 7")


def test_jobs_that_ask_for_what_the_trainer_does_not_do_are_refused(
    policy: Policy, probes: Probes, tmp_path: Path
) -> None:
    job = make_job(policy, tmp_path)
    for wrong, words in (
        (replace(job, experiences=()), "no experience"),
        (replace(job, recipe=replace(RECIPE, alpha=1.5)), "alpha is 1.5"),
        (replace(job, recipe=replace(RECIPE, n_steps=0)), "n_steps is 0"),
        (replace(job, recipe=replace(RECIPE, teacher="ema")), "teacher is 'ema'"),
        (replace(job, base_revision="0" * 64), "start it with the other model"),
    ):
        with pytest.raises(JobRefused, match=words):
            run_job(wrong, policy, probes)
    assert not (tmp_path / "v1").exists()


def test_a_version_made_by_another_job_is_never_made_again(policy: Policy, probes: Probes, tmp_path: Path) -> None:
    run_job(make_job(policy, tmp_path), policy, probes)
    with pytest.raises(JobRefused, match=r"p1\.v1 was made by job aaaa"):
        run_job(make_job(policy, tmp_path, job_id="d" * 24), policy, probes)


def test_a_job_survives_json(policy: Policy, tmp_path: Path) -> None:
    job = make_job(policy, tmp_path, earlier=(make_experience(policy, correction="No."),))
    assert job_from_json(job_to_json(job)) == job


def test_the_probes_see_no_padding_and_no_distance_of_the_base_from_itself(policy: Policy, probes: Probes) -> None:
    adapter = policy.wear(RECIPE)
    adapter.start_fresh(0)
    assert probes.kl_from_base({}) == 0.0
    adapter.weights.copy_(torch.randn(adapter.weights.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    rows = []
    for question, answer in (("Who?", "Me."), ("Why so?", "Because.")):
        prompt_ids, ids = policy.prompt_ids((Message(role="user", content=question),), {}), policy.text_ids(answer)
        new = policy.logprobs(prompt_ids, ids).detach()
        with adapter.off():
            base = policy.logprobs(prompt_ids, ids)
        rows.append((base.exp() * (base - new)).sum(-1))
    assert probes.kl_from_base({}) == pytest.approx(float(torch.cat(rows).mean()), rel=1e-5)


def _refused(policy: Policy, probes: Probes, tmp_path: Path, experience: object, words: str) -> None:
    with pytest.raises(JobRefused, match=words) as refusal:
        run_job(make_job(policy, tmp_path, experience), policy, probes)  # type: ignore[arg-type]
    assert "Hi" not in str(refusal.value) and "Shout" not in str(refusal.value)
    assert not (tmp_path / "v1").exists()


def _mismatch(policy: Policy, probes: Probes, folder: Path, *experiences: object) -> float | None:
    return run_job(make_job(policy, folder, *experiences), policy, probes).mismatch_nats  # type: ignore[arg-type]


def _checksum(policy: Policy) -> str:
    digest = hashlib.sha256()
    for name, weight in sorted(policy.model.named_parameters()):
        if not name.endswith((".a", ".b")):
            digest.update(name.replace(".linear.", ".").encode() + weight.detach().numpy().tobytes())
    return digest.hexdigest()
