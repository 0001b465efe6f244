"""R-23: two bots on one data folder, two trainers on one jobs folder: one works, the other says so in one line."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.conftest import scaled

ROOT = Path(__file__).parents[2]
N_RACES = scaled(50, 2)


def started(module: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        (sys.executable, "-m", module, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def test_of_two_bots_on_one_data_folder_one_teaches_and_the_other_refuses_in_one_line(
    tmp_path: Path, totals: Counter[str]
) -> None:
    for race in range(N_RACES):
        data = tmp_path / f"race{race}"
        both = [started("tests.faults.cycle_process", "--data", str(data), "--lessons", "1") for _ in range(2)]
        said = [process.communicate(timeout=120) for process in both]
        connection = sqlite3.connect(data / "claasbot.db")
        jobs = connection.execute("SELECT state FROM job").fetchall()
        consumed = connection.execute("SELECT state FROM experience").fetchall()
        connection.close()
        totals.update({"rows in": 1, "consumed": len(consumed)})
        totals["doubled"] += len(jobs) - 1
        refused = [error for process, (_, error) in zip(both, said, strict=True) if process.returncode == 1]
        # Where the first was over before the second began, the second finds all done.
        assert [process.returncode for process in both].count(0) == 2 - len(refused)
        assert len(refused) <= 1
        for line in refused:
            assert line.count("\n") == 1
            assert "uses" in line
            assert "CLAASBOT_DATA" in line
        assert (jobs, consumed) == ([("promoted",)], [("consumed",)])
        done = [json.loads(out.splitlines()[-1])["done"] for out, _ in said if '"done"' in out]
        assert len({str(weights) for weights in done}) == 1


@pytest.mark.parametrize("race", range(scaled(10, 1)))
def test_of_two_trainers_on_one_jobs_folder_the_second_refuses_in_one_line(tmp_path: Path, race: int) -> None:
    """Before it has loaded anything. No model is there, so the first ends by itself in the end."""
    (tmp_path / "model").mkdir()
    holder = subprocess.Popen(
        (sys.executable, "-c", _HOLD, str(tmp_path)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    words = ("--jobs", str(tmp_path), "--model", str(tmp_path / "model"))
    second = started("claasbot.training", *words)
    _, error = second.communicate(timeout=60)
    holder.communicate("\n")
    assert second.returncode == 1
    assert error == f"trainer: another trainer works on {tmp_path}; stop it, or give --jobs another folder\n"


_HOLD = """
import sys
from pathlib import Path
from claasbot.training.__main__ import _lock
with _lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""
