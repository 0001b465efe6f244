"""R-01: kill -9 at random moments, inside a step and between any two rows, changes nothing but the time it takes."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from claasbot import adapter_files, tensor_check
from tests.faults.conftest import scaled

ROOT = Path(__file__).parents[2]
N_KILLS, N_LESSONS = scaled(200, 12), scaled(100, 8)
SEED = 20261120
_N_LEARNED = "SELECT count(*) FROM experience WHERE state = 'consumed'"


def cycle(data: Path) -> subprocess.Popen[str]:
    words = (sys.executable, "-m", "tests.faults.cycle_process", "--data", str(data), "--lessons", str(N_LESSONS))
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)


@dataclass(slots=True)
class Run:
    """One process, from its start to its end or its kill, and what it said."""

    process: subprocess.Popen[str]
    accepted: set[str] = field(default_factory=set)
    n_learned: int = 0
    done: list[str] | None = None

    def reads(self, *, until_learned: int | None = None) -> None:
        """To the end, or until it has said that often that a lesson was learned."""
        assert self.process.stdout is not None
        while self.n_learned != until_learned and (line := self.process.stdout.readline()):
            with suppress(ValueError):  # a kill may cut the last line in two
                self._hear(json.loads(line))

    def _hear(self, facts: dict[str, Any]) -> None:
        self.accepted |= {facts["accepted"]} if "accepted" in facts else set()
        self.n_learned += "learned" in facts
        self.done = facts.get("done", self.done)

    def is_killed_after(self, seconds: float) -> bool:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        was_running = self.process.poll() is None
        self.process.kill()
        self.ends()
        return was_running

    def ends(self) -> int:
        """Its status, once it has said everything."""
        self.reads()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait()


def undisturbed(data: Path) -> tuple[list[str], float, float]:
    """The weights in the end; seconds until the first lesson, and of each lesson."""
    began = time.monotonic()
    run = Run(cycle(data))
    run.reads(until_learned=1)
    start_s = time.monotonic() - began
    assert run.ends() == 0
    assert run.done
    return run.done, start_s, (time.monotonic() - began - start_s) / (N_LESSONS - 1)


def rows(data: Path, sql: str) -> list[tuple[Any, ...]]:
    """None of a database that was not made yet."""
    if not (data / "claasbot.db").exists():
        return []
    connection = sqlite3.connect(data / "claasbot.db")
    try:
        is_made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'outbox'").fetchall()
        return connection.execute(sql).fetchall() if is_made else []
    finally:
        connection.close()


def broken_promises(data: Path, accepted: set[str], totals: Counter[str]) -> list[str]:
    """What must hold after any kill, and does not."""
    wrong = []
    known = {str(key) for (key,) in rows(data, "SELECT update_key FROM inbox")}
    totals["lost"] += len(accepted - known)
    wrong += [f"{key} was accepted and is gone" for key in accepted - known]
    for name, sql in {
        "an experience of a job that is over is leased": (
            "SELECT experience.id FROM experience LEFT JOIN job ON job.id = experience.job_id"
            " WHERE experience.state = 'leased' AND coalesce(job.state, '') NOT IN ('leased', 'trained')"
        ),
        "consumed by a version that never answered": (
            "SELECT experience.id FROM experience JOIN adapter_version ON adapter_version.id = consumed_by"
            " WHERE adapter_version.state NOT IN ('promoted', 'retired')"
        ),
        "the pointer names no promoted version": (
            "SELECT person.id FROM person JOIN adapter_version ON adapter_version.id = current_version_id"
            " WHERE adapter_version.state != 'promoted'"
        ),
        "feedback without an experience": (
            "SELECT id FROM feedback_event WHERE id NOT IN (SELECT feedback_event_id FROM experience)"
        ),
    }.items():
        wrong += [f"{name}: {row}" for row in rows(data, sql)]
    doubled = rows(data, "SELECT feedback_event_id FROM experience GROUP BY 1 HAVING count(*) > 1")
    totals["doubled"] += len(doubled)
    for (folder,) in rows(
        data, "SELECT folder FROM adapter_version WHERE state IN ('promoted', 'retired', 'candidate')"
    ):
        adapter_files.verify(data / str(folder))
        tensor_check.check(data / str(folder))
    return wrong + [f"doubled: {row}" for row in doubled]


def test_any_number_of_kills_leaves_the_weights_of_an_undisturbed_run(tmp_path: Path, totals: Counter[str]) -> None:
    """One in ten falls into the start, the others into the lessons that are new, at random moments from a seed."""
    expected, start_s, lesson_s = undisturbed(tmp_path / "undisturbed")
    moments = random.Random(SEED)
    data, accepted, n_kills = tmp_path / "killed", set[str](), 0
    while n_kills < N_KILLS:  # the last few fall into the end, where all is learned
        run = Run(cycle(data))
        if moments.random() < 0.1:
            seconds = moments.uniform(0.0, start_s)
        else:
            n_learned = sum(n for (n,) in rows(data, _N_LEARNED))
            run.reads(until_learned=min(n_learned, N_LESSONS - 1))
            is_ahead = n_learned * N_KILLS > n_kills * N_LESSONS  # of the kills: the machine is faster than it was
            seconds = moments.uniform(0.0, (0.5 if is_ahead else 2.0) * lesson_s * N_LESSONS / N_KILLS)
        was_killed = run.is_killed_after(seconds)
        n_kills, accepted = n_kills + was_killed, accepted | run.accepted
        totals["kills"] += was_killed
        assert broken_promises(data, accepted, totals) == []
    last = Run(cycle(data))
    assert last.ends() == 0
    states = rows(data, "SELECT state, count(*) FROM experience GROUP BY 1")
    totals.update({"rows in": N_LESSONS, "consumed": sum(n for state, n in states if state == "consumed")})
    print(f"seed {SEED}: {n_kills} kills in {N_LESSONS} lessons of {lesson_s:.3f} s; {dict(totals)}")
    assert broken_promises(data, accepted, totals) == []
    assert states == [("consumed", N_LESSONS)]
    assert rows(data, "SELECT count(*) FROM job WHERE state != 'promoted'") == [(0,)], "a kill is no failed attempt"
    assert last.done == expected
