"""The experiences of a job as tensors: checked against what was sampled, and read once by the teacher.

What was sampled is what is trained: a prompt that renders to other ids than the recorded ones is refused, because every
logprob of its completion would be about another prompt. Refusals say positions, numbers and ids, never text.
"""

import math

import torch

from claasbot.domain.job import JobExperience, JobLesson
from claasbot.domain.markers import plain
from claasbot.errors import JobRefused
from claasbot.training.loss import contrasted
from claasbot.training.policy import Policy
from claasbot.training.step import Experience


def trained_experience(policy: Policy, lesson: JobLesson, experience: JobExperience) -> Experience:
    """An experience that this lesson trains on. Raises JobRefused."""
    _check_ids(policy, experience)
    with_name = f"experience {experience.experience_id}"
    correction_ids = policy.text_ids(plain(experience.correction)) if experience.correction else ()
    longest = len(experience.prompt_ids) + max(len(experience.token_ids), len(correction_ids))
    if longest > lesson.recipe.max_tokens:
        raise JobRefused(
            f"{with_name} has {longest} tokens, the recipe trains at most {lesson.recipe.max_tokens}; "
            "raise recipe.max_tokens or leave it out"
        )
    rendered = policy.prompt_ids(experience.messages, lesson.template_options)
    if rendered != experience.prompt_ids:
        raise JobRefused(
            f"the prompt of {with_name} renders to other ids than the recorded ones from position "
            f"{_first_difference(rendered, experience.prompt_ids)} on ({len(rendered)} tokens, recorded "
            f"{len(experience.prompt_ids)}); is the chat template still the one that the server used?"
        )
    return _experience(policy, lesson, experience, correction_ids)


def scored_experience(policy: Policy, lesson: JobLesson, experience: JobExperience) -> Experience:
    """An earlier lesson, scored beside this one and never trained on: its recorded prompt stands, whatever the template
    is now.
    """
    _check_ids(policy, experience)
    return _experience(policy, lesson, experience, ())


def _experience(
    policy: Policy, lesson: JobLesson, experience: JobExperience, correction_ids: tuple[int, ...]
) -> Experience:
    """With the teacher's logprobs: the base model reading the hindsight, computed once per job and detached."""
    teacher_prompt = policy.prompt_ids(experience.teacher_messages, lesson.template_options)
    n_tokens = len(teacher_prompt) + len(experience.token_ids)
    if n_tokens > policy.max_positions:
        raise JobRefused(
            f"the teacher would read {n_tokens} tokens on experience {experience.experience_id}, the base model has "
            f"{policy.max_positions} positions; shorten the hindsight or leave it out"
        )
    with torch.no_grad(), policy.adapter.off():
        teacher_logprobs = policy.logprobs(teacher_prompt, experience.token_ids)
        if lesson.recipe.contrast:
            plain_logprobs = policy.logprobs(experience.prompt_ids, experience.token_ids)
            teacher_logprobs = contrasted(teacher_logprobs, plain_logprobs, lesson.recipe.contrast)
    return Experience(
        experience_id=experience.experience_id,
        prompt_ids=experience.prompt_ids,
        token_ids=experience.token_ids,
        completion_logprobs=torch.tensor(experience.logprobs, device=policy.device),
        teacher_logprobs=teacher_logprobs,
        correction_ids=correction_ids,
    )


def _check_ids(policy: Policy, experience: JobExperience) -> None:
    who = f"experience {experience.experience_id}"
    n_tokens, n_logprobs = len(experience.token_ids), len(experience.logprobs)
    if not n_tokens or not experience.prompt_ids:
        raise JobRefused(f"{who} has an empty {'prompt' if n_tokens else 'completion'}, expected token ids; drop it")
    if n_tokens != n_logprobs:
        raise JobRefused(f"{who} has {n_tokens} tokens but {n_logprobs} logprobs, expected one each; drop it")
    if not all(math.isfinite(logprob) for logprob in experience.logprobs):
        raise JobRefused(f"{who} has a completion logprob that is not finite; drop it")
    largest = max(max(experience.prompt_ids), max(experience.token_ids))
    if largest >= policy.n_vocabulary or min(min(experience.prompt_ids), min(experience.token_ids)) < 0:
        raise JobRefused(
            f"{who} holds token id {largest}, the base model knows 0 to {policy.n_vocabulary - 1}; "
            "was it sampled from another model?"
        )


def _first_difference(ours: tuple[int, ...], theirs: tuple[int, ...]) -> int:
    pairs = zip(ours, theirs, strict=False)
    return next((at for at, (left, right) in enumerate(pairs) if left != right), min(len(ours), len(theirs)))
