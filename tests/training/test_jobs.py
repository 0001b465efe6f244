"""The job folders' protocol, with a runner that needs no model."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from claasbot import adapter_files
from claasbot.domain.job import Recipe, TrainingJob, TrainingResult, job_to_json, result_from_json
from claasbot.errors import AdapterDamaged, JobRefused
from claasbot.training.jobs import do, open_jobs


def result_of(job: TrainingJob) -> TrainingResult:
    return TrainingResult(
        job_id=job.job_id,
        version_name=job.version_name,
        weights_sha256="0" * 64,
        finite=True,
        delta_norm=1.0,
        mismatch_nats=None,
        kl_new_old_nats=0.1,
        kl_base_nats=0.1,
        new_logprobs=(),
        parent_logprobs=(),
        steps=(),
        learned=(),
        earlier=(),
    )


def put(jobs: Path, job_id: str) -> Path:
    folder = jobs / job_id
    folder.mkdir()
    job = TrainingJob(
        job_id=job_id,
        version_name="p1.v1",
        folder="unused",
        parent_folder=None,
        base_revision="r",
        template_options={},
        recipe=Recipe(),
        seed=0,
        experiences=(),
    )
    (folder / "job.json").write_text(job_to_json(job))
    return folder


def failing(error: Exception) -> Callable[[TrainingJob], TrainingResult]:
    def run(job: TrainingJob) -> TrainingResult:
        raise error

    return run


def test_a_job_is_claimed_kept_alive_and_answered(tmp_path: Path) -> None:
    folder = put(tmp_path, "j1")
    seen: list[set[str]] = []

    def run(job: TrainingJob) -> TrainingResult:
        while not (folder / "heartbeat").exists():
            time.sleep(0.001)
        seen.append({path.name for path in folder.iterdir()})
        return result_of(job)

    do(folder, run)
    assert seen == [{"job.json", "claimed", "heartbeat"}]
    claimed = json.loads((folder / "claimed").read_text())
    assert isinstance(claimed["pid"], int) and claimed["started_at"].endswith("+00:00")
    assert result_from_json((folder / "result.json").read_text()).job_id == "j1"
    assert not (folder / "error.json").exists()
    assert (folder / "result.json").stat().st_mode & 0o077 == 0


def test_jobs_without_an_outcome_are_open_oldest_first_whoever_claimed_them(tmp_path: Path) -> None:
    for name in ("b", "a", "done", "failed", "claimed"):
        put(tmp_path, name)
        time.sleep(0.002)
    (tmp_path / "done" / "result.json").write_text("{}")
    (tmp_path / "failed" / "error.json").write_text("{}")
    (tmp_path / "claimed" / "claimed").write_text('{"pid": 1}')
    (tmp_path / "empty").mkdir()
    (tmp_path / "trainer.json").write_text("{}")
    assert [path.name for path in open_jobs(tmp_path)] == ["b", "a", "claimed"]


@pytest.mark.parametrize(
    ("error", "kind", "retry", "message"),
    [
        (JobRefused("experience 7 is empty; drop it"), "JobRefused", False, "experience 7 is empty; drop it"),
        (AdapterDamaged("v3 holds another"), "AdapterDamaged", False, "v3 holds another"),
        (RuntimeError("[enforce fail] can't allocate memory: 9 bytes"), "EngineError", True, "out of memory"),
        (MemoryError(), "EngineError", True, "out of memory"),
        (ValueError("my secret message"), "EngineError", True, "ValueError at test_jobs.py:"),
    ],
)
def test_a_failure_is_one_line_that_says_whether_to_try_again(
    tmp_path: Path, error: Exception, kind: str, retry: bool, message: str
) -> None:
    folder = put(tmp_path, "j1")
    do(folder, failing(error))
    report = json.loads((folder / "error.json").read_text())
    assert (report["kind"], report["retry"]) == (kind, retry)
    assert message in report["message"] and "\n" not in report["message"]
    assert not (folder / "result.json").exists()


def test_what_a_library_quotes_reaches_neither_log_nor_report(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = put(tmp_path, "j1")
    with caplog.at_level(logging.DEBUG):
        do(folder, failing(ValueError("my secret message")))
    assert "j1" in caplog.text
    assert "secret" not in caplog.text + (folder / "error.json").read_text()


@pytest.mark.parametrize("text", ["{", "[]", '{"recipe": {}}', "null"])
def test_a_job_that_is_no_job_is_refused(tmp_path: Path, text: str) -> None:
    folder = put(tmp_path, "j1")
    (folder / "job.json").write_text(text)
    do(folder, result_of)
    assert json.loads((folder / "error.json").read_text())["kind"] == "JobRefused"


def test_a_result_that_json_cannot_hold_is_an_error_not_a_broken_file(tmp_path: Path) -> None:
    folder = put(tmp_path, "j1")

    def run(job: TrainingJob) -> TrainingResult:
        result = result_of(job)
        object.__setattr__(result, "delta_norm", float("nan"))
        return result

    do(folder, run)
    assert not (folder / "result.json").exists()
    assert json.loads((folder / "error.json").read_text())["kind"] == "EngineError"


def test_a_job_that_is_taken_back_while_it_runs_is_left_alone(tmp_path: Path) -> None:
    folder = put(tmp_path, "j1")

    def run(job: TrainingJob) -> TrainingResult:
        adapter_files.remove(folder)  # as the bot does it
        return result_of(job)

    do(folder, run)
    assert not folder.exists()
    assert open_jobs(tmp_path) == []


def test_a_job_on_its_way_out_is_not_picked_up(tmp_path: Path) -> None:
    """The bot renames a folder before it deletes it, and its result may go first."""
    put(tmp_path, ".j1.doomed")
    assert open_jobs(tmp_path) == []
