"""The trainer as the bot meets it: a process, signals, folders."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from claasbot import adapter_files
from claasbot.domain.job import TrainingJob, job_to_json, result_from_json
from claasbot.resources import suites_dir
from claasbot.training.policy import load_policy
from claasbot.training.probes import Probes
from claasbot.training.run import run_job
from tests.training.conftest import RECIPE, make_job

START_S = 120  # torch alone takes 20 s to import on a busy machine
LONG = replace(RECIPE, n_steps=400, learning_rate=1e-4)


def test_a_job_that_was_killed_is_done_once_and_a_signal_ends_the_trainer(model_folder: Path, tmp_path: Path) -> None:
    """One story, because each start of the process costs seconds."""
    jobs = tmp_path / "jobs"
    torch.set_num_threads(1)
    policy = load_policy(model_folder)  # as the process loads it: bfloat16
    short = make_job(policy, tmp_path / "versions")
    long = replace(short, job_id="b" * 24, folder=str(tmp_path / "versions" / "v2"), version_name="p1.v2", recipe=LONG)

    with trainer(jobs, model_folder, hash_seed="1") as process:
        ready = json.loads(_wait_for(jobs / "trainer.json", process).read_text())
        assert ready["pid"] == process.pid
        assert (ready["device"], ready["threads"], ready["base_revision"]) == ("cpu", 1, policy.revision)
        send(jobs, short)
        _wait_for(jobs / short.job_id / "result.json", process)
        send(jobs, replace(long, recipe=replace(LONG, n_steps=100_000)))
        _wait_for(jobs / long.job_id / "heartbeat", process)
        process.kill()
        process.wait()
    assert not (jobs / long.job_id / "result.json").exists()
    assert not Path(long.folder).exists()

    (jobs / long.job_id / "job.json").write_text(job_to_json(long))
    with trainer(jobs, model_folder, hash_seed="2") as process:
        result = result_from_json(_wait_for(jobs / long.job_id / "result.json", process).read_text())
        endless = replace(long, job_id="c" * 24, recipe=replace(LONG, n_steps=100_000), version_name="p1.v3")
        endless = replace(endless, folder=str(tmp_path / "versions" / "v3"))
        send(jobs, endless)
        _wait_for(jobs / endless.job_id / "heartbeat", process)
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
        assert time.monotonic() - start < 2.0
    assert not (jobs / "trainer.json").exists()
    assert {path.name for path in (jobs / endless.job_id).iterdir()} == {"job.json", "claimed", "heartbeat"}

    here = replace(long, folder=str(tmp_path / "here"))
    probes = Probes(policy, suites_dir() / "probes.json")
    assert replace(run_job(here, policy, probes), seconds={}) == replace(result, seconds={})
    assert adapter_files.verify(Path(here.folder)) == adapter_files.verify(Path(long.folder))


def test_a_model_that_is_not_there_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    with trainer(tmp_path / "jobs", tmp_path / "none", hash_seed="1") as process:
        assert process.stderr is not None
        message = process.stderr.read()
        assert process.wait() == 1
    assert "no base model at" in message and "Traceback" not in message


@contextmanager
def trainer(jobs: Path, model: Path, *, hash_seed: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "claasbot.training", "--jobs", jobs, "--model", model, "--threads", "1"]
    env = os.environ | {"PYTHONHASHSEED": hash_seed}
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def send(jobs: Path, job: TrainingJob) -> None:
    """As the bot does it: the folder first, then the job by rename."""
    folder = jobs / job.job_id
    folder.mkdir()
    adapter_files.write_aside(folder / "job.json", job_to_json(job))


def _wait_for(path: Path, process: "subprocess.Popen[str]") -> Path:
    deadline = time.monotonic() + START_S
    while not path.exists():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        error = path.with_name("error.json")
        assert not error.exists(), error.read_text()
        assert time.monotonic() < deadline, f"{path.name} did not appear"
        time.sleep(0.01)
    return path
