"""R-03: the power goes at any moment of two lessons; what was not synced is dropped, torn or out of order."""

import random
import shutil
import sqlite3
from contextlib import closing

import pytest

from tests.faults import durable
from tests.faults.conftest import scaled
from tests.faults.durable import Fault
from tests.faults.power_loss import Disk, read_log

SEED = 3


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Every call of a bot that starts on an empty folder and teaches two lessons; and its final weights."""
    data, log = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("log") / "calls"
    ran = durable.run(data, "--lessons", "2", fault=Fault(do="record", log=log))
    assert ran.status == 0, ran.errors
    return data, read_log(log), ran.the("done")


def test_the_replay_of_every_call_is_the_folder_that_was_left(recorded, tmp_path):
    """The recorder misses nothing that counts."""
    data, calls, _ = recorded
    disk = Disk(data)
    for call in calls:
        disk.replay(call)

    class Kept(random.Random):
        def choice(self, _):
            return 1.0

        def random(self):
            return 0.99

    disk.survives(tmp_path / "after", Kept())
    files = {path.relative_to(data): path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert {
        path.relative_to(tmp_path / "after"): path.read_bytes()
        for path in (tmp_path / "after").rglob("*")
        if path.is_file()
    } == files


def test_nothing_that_was_acknowledged_is_lost_with_the_power(recorded, tmp_path, totals):
    data, calls, weights = recorded
    luck = random.Random(SEED)
    n_replays, n_resumed = scaled(100, 20), scaled(20, 1)
    moments = sorted(luck.randrange(1, len(calls)) for _ in range(n_replays))
    disk, done, wrong, n_noted_rows = Disk(data), 0, [], 0
    for n, moment in enumerate(moments):
        for call in calls[done:moment]:
            disk.replay(call)
        done = moment
        after = tmp_path / f"{n}"
        disk.survives(after, luck)
        facts = list(disk.facts())
        left = durable.look(after, [fact["accepted"] for fact in facts if "accepted" in fact])
        left.add_to(totals)
        n_noted = sum("Noted: I am learning" in str(fact.get("text")) for fact in facts)
        with closing(sqlite3.connect(after / "claasbot.db")) as connection:
            [(n_rows,)] = connection.execute("SELECT count(*) FROM feedback_event")
        n_noted_rows += n_noted
        totals["lost"] += max(0, n_noted - n_rows)
        if not left.is_right or n_rows < n_noted:
            wrong.append((moment, left, n_noted, n_rows))
        elif n % (n_replays // n_resumed) == 0:
            again = durable.run(after, "--lessons", "2")
            if again.status or again.the("done") != weights:
                wrong.append((moment, again.errors))
        shutil.rmtree(after)
    print(f"seed {SEED}: {n_replays} power losses in {len(calls)} calls, {n_resumed} taken to the end")
    assert wrong == []
    assert n_noted_rows > 0
