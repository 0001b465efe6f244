"""R-06 and R-07: no room, or a disk that fails, at any call of the store, of a version folder or of the log."""

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from claasbot import adapter_files
from claasbot.services.backing_up import restore
from claasbot.services.not_saved import NOT_SAVED
from tests.faults import durable
from tests.faults.conftest import scaled
from tests.faults.durable import Fault

SEED = 6
RESUMES_S = 10.0
"""One look of the slowest stage, and what a loaded machine adds."""


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A data folder whose one person has learned one lesson: p1.v1 answers."""
    data = tmp_path_factory.mktemp("taught")
    assert durable.run(data, "--lessons", "1").status == 0
    return data


@pytest.fixture(scope="module")
def second(taught, tmp_path_factory):
    """Of a second lesson, undisturbed: its weights, and how many calls it makes that need room, or that sync."""
    counts = {}
    for only in ("write", "sync"):
        data, log = tmp_path_factory.mktemp(only) / "data", tmp_path_factory.mktemp("log") / "calls"
        shutil.copytree(taught, data)
        ran = durable.run(data, "--lessons", "2", fault=Fault(only=only, log=log))
        counts[only] = durable.n_calls(log)
    return ran.the("done"), counts


class Bot:
    """A cycle process whose words are read while it runs."""

    def __init__(self, data, *arguments, **options):
        self.data = data
        self.process = durable.start(data, "--lights", *arguments, **options)
        self.said = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    def wait_for(self, matches, within_s=30.0):
        until = time.monotonic() + within_s
        while time.monotonic() < until and self.process.poll() is None:
            if found := [facts for facts in list(self.said) if matches(facts)]:
                return found[0]
            time.sleep(0.01)
        return next((facts for facts in self.said if matches(facts)), None)

    def end(self):
        """Until it is done; its last words."""
        with self.process:
            self.process.wait(durable.DEADLINE_S)
            self._reader.join(5)
            self.errors = self.process.stderr.read()
        return [facts["done"] for facts in self.said if "done" in facts]


def no_half_version(data):
    """What is there under a final name is whole, also while the disk is full."""
    for folder in data.glob("adapters/p*/v*"):
        adapter_files.verify(folder)


PLACES = [
    ("the journal", "claasbot.db-journal", "write"),
    ("the database", "claasbot.db", "write"),
    ("a version folder", "/adapters/", "write"),
    ("its manifest", "manifest.json", ""),
    ("the log", "bot.log", "write"),
    ("everywhere", "", ""),
]


@pytest.mark.parametrize(("place", "match", "only"), PLACES, ids=[place for place, _, _ in PLACES])
def test_the_bot_waits_for_room_and_goes_on_by_itself(place, match, only, taught, second, tmp_path, totals):
    weights, counts = second
    most = {"a version folder": 8, "its manifest": 2, "the log": 3}.get(place, counts["write"] // 2)
    for at in random.Random(SEED).sample(range(1, most + 1), min(most, scaled(8, 1))):
        data, gate, log = tmp_path / f"{at}", tmp_path / "full", tmp_path / f"calls{at}"
        shutil.copytree(taught, data)
        gate.touch()
        fault = Fault(do="ENOSPC", at=at, match=match, only=only, gate=gate, log=log)
        bot = Bot(data, "--lessons", "2", "--log", str(data / "logs" / "bot.log"), fault=fault)
        bot.wait_for(lambda _, log=log: log.exists() and log.stat().st_size > 0)
        time.sleep(0.3)
        no_half_version(data)
        gate.unlink()
        began = time.monotonic()
        assert bot.end() == [weights], bot.errors
        resumed_s = time.monotonic() - began
        left = durable.look(data, [facts["accepted"] for facts in bot.said if "accepted" in facts])
        left.add_to(totals)
        print(f"seed {SEED}, {place}: no room from call {at} on; done {resumed_s:.1f} s after there was room")
        assert left.is_right, left
        assert resumed_s < RESUMES_S


def test_on_a_full_disk_people_and_admins_are_told_and_nothing_is_called_noted(taught, second, tmp_path, totals):
    """Feedback that meets a full disk; the light says what to do, the person hears that it is not saved."""
    weights, _ = second
    data, gate = tmp_path / "data", tmp_path / "full"
    shutil.copytree(taught, data)
    gate.touch()
    bot = Bot(data, "--lessons", "2", fault=Fault(do="ENOSPC", at=40, match="claasbot.db", only="write", gate=gate))
    light = bot.wait_for(lambda facts: facts.get("light") == "store" and facts["state"] == "down")
    told = bot.wait_for(lambda facts: facts.get("text") == NOT_SAVED.text)
    assert light is not None and "the disk is full" in light["detail"] and "free space" in light["detail"]
    assert told is not None
    n_before = len(bot.said)
    time.sleep(0.5)
    while_full = bot.said[n_before:]
    assert not [facts for facts in while_full if facts.get("mark") == "noted" or "Noted" in facts.get("text", "")]
    gate.unlink()
    assert bot.end() == [weights]
    assert len([facts for facts in bot.said if facts.get("text") == NOT_SAVED.text]) == 1
    back = [facts["state"] for facts in bot.said if facts.get("light") == "store"]
    assert back[-1] == "ok"
    left = durable.look(data, [facts["accepted"] for facts in bot.said if "accepted" in facts])
    left.add_to(totals)
    assert left.is_right, left


def test_while_no_version_can_be_saved_the_one_before_answers(taught, second, tmp_path):
    weights, _ = second
    data, gate, log = tmp_path / "data", tmp_path / "full", tmp_path / "calls"
    shutil.copytree(taught, data)
    gate.touch()
    fault = Fault(do="ENOSPC", at=1, match="/adapters/", only="write", gate=gate, log=log)
    bot = Bot(data, "--lessons", "2", "--ask", "Still there?", fault=fault)
    reply = bot.wait_for(lambda facts: facts.get("shown") == "reply" and facts["reply_to"] == "person1-still")
    assert log.stat().st_size > 0
    assert reply is not None and reply["text"].startswith("p1.v1-")
    gate.unlink()
    assert bot.end() == [weights]


def test_a_limit_on_file_sizes_is_a_disk_that_fails_until_it_is_lifted(taught, second, tmp_path):
    """`ulimit -f`: the database may not grow."""
    weights, _ = second
    data = tmp_path / "data"
    shutil.copytree(taught, data)
    size = (data / "claasbot.db").stat().st_size
    bot = Bot(data, "--lessons", "2")
    resource.prlimit(bot.process.pid, resource.RLIMIT_FSIZE, (size // 8, resource.RLIM_INFINITY))
    light = bot.wait_for(lambda facts: facts.get("light") == "store" and facts["state"] == "down")
    assert light is not None and "is not safe" in light["detail"]
    resource.prlimit(bot.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert bot.end() == [weights]


def test_a_job_folder_that_cannot_be_written_waits_for_room(taught, second, tmp_path):
    """With a trainer process: its job.json, and what it writes itself."""
    weights, _ = second
    data, gate, log = tmp_path / "data", tmp_path / "full", tmp_path / "calls"
    shutil.copytree(taught, data)
    gate.touch()
    fault = Fault(do="ENOSPC", at=1, match="job.json", gate=gate, log=log)
    bot = Bot(data, "--lessons", "2", "--trainer", fault=fault)
    bot.wait_for(lambda _: log.exists() and log.stat().st_size > 0)
    time.sleep(0.3)
    no_half_version(data)
    gate.unlink()
    assert bot.end() == [weights], bot.errors
    assert not list((data / "jobs").glob("[0-9a-f]*/job.json"))


def test_a_backup_without_room_is_said_and_made_when_there_is_some(taught, tmp_path):
    data, gate = tmp_path / "data", tmp_path / "full"
    shutil.copytree(taught, data)
    gate.touch()
    fault = Fault(do="ENOSPC", at=2, match="/backups/", only="write", gate=gate)
    bot = Bot(data, "--lessons", "4", "--backup-minutes", "0.003", "--stdin", fault=fault)
    light = bot.wait_for(lambda facts: facts.get("light") == "store" and facts["state"] == "down")
    assert light is not None and "no backup was made" in light["detail"]
    assert bot.wait_for(lambda facts: facts.get("learned") == "p1.v4") is not None  # nothing else suffers
    assert not list(data.glob("backups/2*"))
    gate.unlink()
    assert bot.wait_for(lambda _: list(data.glob("backups/2*"))) is not None
    bot.process.stdin.close()
    bot.end()
    for folder in data.glob("backups/2*"):
        (tmp_path / folder.name).mkdir()
        restore(folder, tmp_path / folder.name)


def test_a_disk_that_stays_full_for_many_tries_parks_no_feedback(taught, second, tmp_path):
    """The version folders are on a disk of their own; libraries hide ENOSPC in errors of theirs."""
    weights, _ = second
    data, gate = tmp_path / "data", tmp_path / "full"
    shutil.copytree(taught, data)
    (data / "adapters").rename(tmp_path / "adapters")
    (data / "adapters").mkdir()
    gate.touch()
    script = f"""
    mount -t tmpfs -o size=8m none {data}/adapters
    cp -r {tmp_path}/adapters/* {data}/adapters
    dd if=/dev/zero of={data}/adapters/ballast bs=4k status=none 2>/dev/null
    ( while [ -e {gate} ]; do sleep 0.05; done; rm {data}/adapters/ballast ) &
    exec "$@"
    """
    log = data / "logs" / "bot.log"
    before = ("unshare", "--map-root-user", "--mount", "bash", "-c", script, "-")
    bot = Bot(data, "--lessons", "2", "--log", str(log), before=before)
    assert bot.wait_for(lambda _: log.exists() and log.read_text().count("waits for space on the disk") > 3) is not None
    gate.unlink()
    assert bot.end() == [weights], bot.errors


def failing_sync(at, taught, folder, weights):
    data = folder / f"sync{at}"
    shutil.copytree(taught, data)
    ran = durable.run(data, "--lessons", "2", fault=Fault(do="EIO", at=at, only="sync"))
    if ran.status:  # it failed while it started or stopped: the next start goes on
        ran_again = durable.run(data, "--lessons", "2")
        assert ran_again.status == 0, ran_again.errors
        ran.said += ran_again.said
    left = durable.look(data, ran.all("accepted"))
    shutil.rmtree(data)
    return at, left, ran.all("done")[-1:] == [weights], ran.errors


def test_a_failed_fsync_is_never_taken_for_success(taught, second, tmp_path, totals):
    """Each fsync of a lesson fails once: what it was for is done anew, nothing is lost, the weights are the same."""
    weights, counts = second
    chosen = range(1, counts["sync"] + 1)
    n_faults = scaled(counts["sync"], 4)
    if n_faults < counts["sync"]:
        chosen = sorted(random.Random(SEED).sample(chosen, n_faults))
    wrong = []
    with ThreadPoolExecutor(2) as pool:
        for at, left, is_same, errors in pool.map(lambda at: failing_sync(at, taught, tmp_path, weights), chosen):
            left.add_to(totals)
            if not (left.is_right and is_same):
                wrong.append((at, left, errors))
    print(f"seed {SEED}: {n_faults} of {counts['sync']} fsyncs failed once")
    assert wrong == []


_SEAL = """
import sys
from pathlib import Path
from claasbot import adapter_files
folder = Path(sys.argv[1]) / "adapters" / "p1" / "v1"
staged = adapter_files.stage(folder)
for name in (adapter_files.WEIGHTS, adapter_files.OPTIMIZER):
    (staged / name).write_bytes(b"weights" * 1000)
adapter_files.seal(staged, folder, version_name="p1.v1", parent="base", job_id="j", base_revision="r")
"""


def in_a_process(script, data, fault):
    data.mkdir()
    command = [sys.executable, "-c", script, str(data)]
    environment = os.environ | fault.environment(data)
    return subprocess.run(command, env=environment, cwd=durable.ROOT, capture_output=True, text=True, check=False)


def test_a_version_file_whose_flush_failed_is_made_anew(tmp_path):
    """Whichever flush fails: no version appears, and the next attempt makes a whole one."""
    log = tmp_path / "calls"
    assert in_a_process(_SEAL, tmp_path / "whole", Fault(only="sync", log=log)).returncode == 0
    n_syncs = durable.n_calls(log)
    assert n_syncs == 7  # two new folders, three files, their folder, the name
    for at in range(1, n_syncs + 1):
        data = tmp_path / f"{at}"
        assert "OSError" in in_a_process(_SEAL, data, Fault(do="EIO", at=at, only="sync")).stderr
        assert not list(data.glob("adapters/p1/v1"))
        shutil.copytree(data, tmp_path / f"again{at}")
        ran = subprocess.run([sys.executable, "-c", _SEAL, str(tmp_path / f"again{at}")], cwd=durable.ROOT, check=True)
        assert ran.returncode == 0
        adapter_files.verify(tmp_path / f"again{at}" / "adapters" / "p1" / "v1")


_WRITE = """
import asyncio, os, sys
from pathlib import Path
from claasbot.errors import StoreError
from claasbot.storage.rows import insert, rows
from claasbot.storage.store import Store
async def main():
    store = Store(Path(sys.argv[1]) / "claasbot.db")
    await store.open()
    connections, answers = [store._db.conn], []
    for n in range(8):
        try:
            await store.run(lambda db, n=n: insert(db, "switch", name=str(n), value="v", changed_at="t"))
            answers.append(str(n))
        except StoreError as error:
            assert "is not safe" in str(error)
        connections.append(store._db.conn)
    found = [row["name"] for row in await store.run(rows, "SELECT name FROM switch ORDER BY name")]
    await store.close()
    print(len(answers), set(found) >= set(answers), len(found) - len(answers), len({id(one) for one in connections}))
asyncio.run(main())
"""


def test_after_a_failed_fsync_the_database_is_read_anew(tmp_path):
    """What was said to be written is there; what was refused is there whole or not at all, as with any commit whose
    last answer is lost (redelivery finds it by its key). And the connection is another one.
    """
    log = tmp_path / "calls"
    in_a_process(_WRITE, tmp_path / "whole", Fault(match="claasbot.db", only="sync", log=log))
    n_syncs = durable.n_calls(log)
    for at in range(n_syncs - 12, n_syncs - 12 + scaled(8, 4)):
        said = in_a_process(_WRITE, tmp_path / f"{at}", Fault(do="EIO", at=at, match="claasbot.db", only="sync"))
        n_answers, all_there, n_more, n_connections = said.stdout.split()
        assert (n_answers, all_there, n_connections) == ("7", "True", "2"), (at, said.stderr)
        assert n_more in ("0", "1")


def test_an_8_mib_disk_that_is_full_to_the_last_byte(taught, second, tmp_path):
    """A real file system, in a namespace of its own."""
    weights, _ = second
    disk, gate = tmp_path / "disk", tmp_path / "full"
    disk.mkdir()
    gate.touch()
    script = f"""
    mount -t tmpfs -o size=8m none {disk}
    cp -r {taught} {disk}/data
    dd if=/dev/zero of={disk}/ballast bs=64k status=none 2>/dev/null
    ( while [ -e {gate} ]; do sleep 0.05; done; rm {disk}/ballast ) &
    exec "$@"
    """
    bot = Bot(
        disk / "data", "--lessons", "2", before=("unshare", "--map-root-user", "--mount", "bash", "-c", script, "-")
    )
    light = bot.wait_for(lambda facts: facts.get("light") == "store" and facts["state"] == "down")
    assert light is not None and "the disk is full" in light["detail"]
    gate.unlink()
    assert bot.end() == [weights], bot.errors
    assert [facts["state"] for facts in bot.said if facts.get("light") == "store"][-1] == "ok"
