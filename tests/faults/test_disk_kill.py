"""R-02: kill -9 at every call that changes the disk during one lesson, with the write before it torn or whole."""

import random
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults import durable
from tests.faults.conftest import scaled
from tests.faults.durable import Fault

SEED = 5
RECOVERY_S = 5.0


@pytest.fixture(scope="module")
def agreed(tmp_path_factory):
    """A data folder whose one person has agreed: what follows is one answer and one lesson."""
    data = tmp_path_factory.mktemp("agreed")
    assert durable.run(data, "--lessons", "0").status == 0
    return data


@pytest.fixture(scope="module")
def whole(agreed, tmp_path_factory):
    """The uninterrupted run: its final weights, and how many calls it made."""
    data, log = tmp_path_factory.mktemp("whole") / "data", tmp_path_factory.mktemp("log") / "calls"
    shutil.copytree(agreed, data)
    ran = durable.run(data, "--lessons", "1", fault=Fault(log=log))
    return ran.the("done"), durable.n_calls(log)


def killed_at(n, agreed, folder, weights):
    """Kill, look, start again to the end, look again."""
    data = folder / f"at{n}"
    shutil.copytree(agreed, data)
    killed = durable.run(data, "--lessons", "1", fault=Fault(do="tear" if n % 2 else "kill", at=n))
    again = durable.run(data, "--lessons", "1")
    left = durable.look(data, killed.all("accepted"))
    shutil.rmtree(data)
    return n, killed, again, left, again.status == 0 and again.the("done") == weights


def test_a_lesson_survives_kill_9_at_every_call_to_the_disk(agreed, whole, tmp_path, totals):
    weights, n_calls = whole
    chosen = range(1, n_calls + 1)
    n_kills = scaled(n_calls, 5)
    if n_kills < n_calls:
        chosen = sorted(random.Random(SEED).sample(chosen, n_kills))
    slowest_s, n_killed, wrong = 0.0, 0, []
    with ThreadPoolExecutor(2) as pool:
        for n, killed, again, left, is_same in pool.map(lambda n: killed_at(n, agreed, tmp_path, weights), chosen):
            n_killed += killed.was_killed
            left.add_to(totals)
            slowest_s = max(slowest_s, *again.all("ready"))
            if not (left.is_right and is_same):
                wrong.append((n, left, again.errors))
    totals["kills"] += n_killed
    print(f"seed {SEED}: {n_killed} kills at {n_calls} calls, slowest recovery {slowest_s:.2f} s")
    assert wrong == []
    assert n_killed >= 0.9 * n_kills  # near the end the number of calls varies by a few
    assert slowest_s < RECOVERY_S
