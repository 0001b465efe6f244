"""The Makefile: what it promises to refuse and to leave alone."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def make(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(
        ["make", "--no-print-directory", *words],
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_chromium_the_tests_fail_and_say_how_to_get_it() -> None:
    done = make("programs", "CHROMIUM=")
    assert done.returncode != 0
    assert "apt-get install chromium" in done.stderr


def test_without_a_compiler_the_tests_fail_and_say_how_to_get_it(tmp_path: Path) -> None:
    for program in ("make", "sh"):
        (tmp_path / program).symlink_to(shutil.which(program) or "")
    done = make("programs", PATH=str(tmp_path))
    assert done.returncode != 0
    assert "apt-get install gcc" in done.stderr


def test_an_unknown_accelerator_is_refused() -> None:
    done = make("install", CLAASBOT_ACCELERATOR="tpu")
    assert done.returncode != 0
    assert "expected cpu or gpu" in done.stderr


def test_the_accelerator_can_be_chosen() -> None:
    assert (
        "requirements/install.py gpu"
        in make("--dry-run", "--always-make", "install", CLAASBOT_ACCELERATOR="gpu").stdout
    )
    assert (
        "requirements/install.py cpu"
        in make("--dry-run", "--always-make", "install", CLAASBOT_ACCELERATOR="cpu").stdout
    )


def test_running_the_bot_installs_no_test_tools() -> None:
    planned = make("--dry-run", "--always-make", "run", CLAASBOT_ACCELERATOR="cpu").stdout
    assert "claasbot run" in planned
    assert "install.py dev" not in planned


def test_clean_leaves_the_data_alone() -> None:
    removed = [line for line in make("--dry-run", "clean").stdout.splitlines() if "rm" in line]
    assert removed
    assert not [line for line in removed if "data" in line.split()]
    assert not [line for line in removed if "data/" in line]
