"""How long a step takes here, against what its arithmetic cannot go below: `python -m claasbot.training.bench_step`.

Times whole jobs of four steps through the trainer's own code, on about 200 prompt and 100 completion tokens, and writes
their versions to a temporary folder.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from claasbot.domain.conversation import Message
from claasbot.domain.job import JobExperience, Recipe, TrainingJob
from claasbot.training.environment import set_environment

if TYPE_CHECKING:
    from claasbot.training.policy import Policy

N_STEPS = 4
N_COMPLETION = 100
QUESTION = "How do I boil an egg so that it is soft inside, and what should I look out for?"
HINT = "Please answer in one short sentence."
ANSWER = "First bring some water to a boil in a small pot. Then put the egg in and wait for six minutes."


def main(argv: list[str] | None = None) -> None:
    options = _parser().parse_args(argv)
    report = measure(options.model, repeat=options.repeat, threads=options.threads, device=options.device)
    for name, value in report.items():
        print(f"{name:<18} {value:.4g}" if isinstance(value, float) else f"{name:<18} {value}")
    if options.json:
        print(json.dumps(report))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m claasbot.training.bench_step", description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--repeat", type=int, default=5, help="jobs to time, after one to warm up (default 5)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch decides)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on the last line")
    return parser


def measure(model: Path, *, repeat: int, threads: int | None, device: str) -> dict[str, float | int]:
    """Seconds of a step and its parts (medians), its floor, and their ratio. The teacher is once per job, not in it."""
    set_environment()
    import torch

    from claasbot.resources import suites_dir
    from claasbot.training.flops import count, peak_flops
    from claasbot.training.memory import keep_freed_memory
    from claasbot.training.policy import load_policy
    from claasbot.training.probes import Probes
    from claasbot.training.run import run_job

    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    policy = load_policy(model, device=device)
    probes = Probes(policy, suites_dir() / "probes.json")
    experience, n_teacher = _experience(policy)
    n_prompt, n_completion = len(experience.prompt_ids), len(experience.token_ids)
    jobs, parts = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for index in range(repeat + 1):
            start = time.perf_counter()
            result = run_job(_job(policy.revision, experience, Path(scratch) / f"v{index}"), policy, probes)
            jobs.append(time.perf_counter() - start)
            parts.append(result.seconds)
    step_parts = {name: [row[name] / N_STEPS for row in parts[1:]] for name in ("student", "backward", "optimizer")}
    step_seconds = [sum(row) for row in zip(*step_parts.values(), strict=True)]
    flops = count(
        policy, n_student=n_prompt + n_completion - 1, n_teacher=n_teacher + n_completion - 1, n_completion=n_completion
    )
    peak = peak_flops(policy, n_prompt + n_completion)
    floor = (flops.forward + flops.backward) / peak
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_completion,
        "threads": torch.get_num_threads(),
        "seconds": statistics.median(step_seconds),
        "best_seconds": min(step_seconds),
        "floor_seconds": floor,
        "ratio_to_floor": statistics.median(step_seconds) / floor,
        "step_gflop": (flops.forward + flops.backward) / 1e9,
        "peak_gflops": peak / 1e9,
        "forward_s": statistics.median(step_parts["student"]),
        "backward_s": statistics.median(step_parts["backward"]),
        "optimizer_s": statistics.median(step_parts["optimizer"]),
        "teacher_s": statistics.median(row["teacher"] for row in parts[1:]),
        "teacher_floor_s": flops.teacher / peak,
        "score_s": statistics.median(row["score"] for row in parts[1:]),
        "save_s": statistics.median(row["save"] for row in parts[1:]),
        "job_s": statistics.median(jobs[1:]),
        "best_job_s": min(jobs[1:]),
    }


def _experience(policy: "Policy") -> tuple[JobExperience, int]:
    """About 200 prompt tokens and exactly N_COMPLETION completion tokens; the teacher's prompt length beside it."""
    messages: tuple[Message, ...] = ()
    n_repeats = 1
    while not messages or len(policy.prompt_ids(messages, {})) < 200:
        messages = (Message(role="user", content=" ".join([QUESTION] * n_repeats)),)
        n_repeats += 1
    teacher = (replace(messages[0], content=f"{messages[0].content} {HINT}"),)
    answer = policy.text_ids(" ".join([ANSWER] * N_COMPLETION))
    experience = JobExperience(
        experience_id=1,
        messages=messages,
        teacher_messages=teacher,
        prompt_ids=policy.prompt_ids(messages, {}),
        token_ids=(*answer[: N_COMPLETION - 1], answer[-1]),
        logprobs=(-1.0,) * N_COMPLETION,
        version_name="base",
    )
    return experience, len(policy.prompt_ids(teacher, {}))


def _job(base_revision: str, experience: JobExperience, folder: Path) -> TrainingJob:
    return TrainingJob(
        job_id=folder.name,
        version_name=folder.name,
        folder=str(folder),
        parent_folder=None,
        base_revision=base_revision,
        template_options={},
        recipe=Recipe(n_steps=N_STEPS, kl_stop_nats=1e9),
        seed=1,
        experiences=(experience,),
    )


if __name__ == "__main__":
    main()
