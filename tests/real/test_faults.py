"""kill -9 of the real trainer, server and bot at random moments; and who can reach any of them from outside.

Shows R-01 and R-13 on the real engine, R-11 on the real server, and S-16. The trainer is deterministic with one thread,
so that a run that was killed must end in the same bytes as one that was not.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from claasbot import adapter_files
from claasbot.base_model import base_revision
from claasbot.children import BackOff
from claasbot.domain.conversation import Message
from claasbot.domain.hindsight import teacher_messages
from claasbot.domain.job import JobExperience, Recipe, TrainingJob, TrainingResult, job_identity, lesson_seed
from claasbot.engines.local import LocalEngine
from claasbot.errors import EngineDown
from claasbot.web.server import ROUTES
from tests.faults.conftest import IS_FULL
from tests.real.bot_process import BotProcess, alive

SEED = 1
HINTS = ("Shorter, please.", "Please use simple words.", "Say it in one sentence.")
_LESSON_S = 4.0
"""About what one takes: kills are drawn from as long, so that they fall into every part of it."""


# --- the engine alone: many kills are cheap here


def jobs_of(home: Path, model: Path, n: int) -> list[TrainingJob]:
    """A chain: each version is the parent of the next."""
    revision, tokenizer = base_revision(model), AutoTokenizer.from_pretrained(model)
    jobs: list[TrainingJob] = []
    for number in range(1, n + 1):
        recipe, name = Recipe(n_steps=2), f"p1.v{number}"
        parent = jobs[-1] if jobs else None
        job_id = job_identity(
            parent="base" if parent is None else parent.version_name,
            version_name=name,
            experience_ids=(number,),
            recipe=recipe,
        )
        jobs.append(
            TrainingJob(
                job_id=job_id,
                version_name=name,
                folder=str(home / f"v{number}"),
                parent_folder=None if parent is None else parent.folder,
                base_revision=revision,
                template_options={},
                recipe=recipe,
                seed=lesson_seed((_experience(number, tokenizer),), recipe),
                experiences=(_experience(number, tokenizer),),
            )
        )
    return jobs


def _experience(number: int, tokenizer: Any) -> JobExperience:
    """The prompt is what the template makes; the completion's ids say nothing, and train as well as any."""
    messages = (Message(role="user", content=f"What is number {number}?"),)
    plain = [{"role": message.role, "content": message.content} for message in messages]
    prompt_ids = tokenizer.apply_chat_template(plain, add_generation_prompt=True, return_dict=False)
    token_ids = random.Random(number).choices(range(1_000, 40_000), k=24)
    return JobExperience(
        experience_id=number,
        messages=messages,
        teacher_messages=teacher_messages(messages, hints=(HINTS[number % len(HINTS)],)),
        prompt_ids=tuple(prompt_ids),
        token_ids=tuple(token_ids),
        logprobs=(-3.0,) * 24,
        version_name="base",
    )


async def _hashes(home: Path, model: Path, jobs: list[TrainingJob], kills: list[list[float]]) -> list[str]:
    """The weights of each version. `kills`: for each job, the seconds into its attempts at which the trainer dies."""
    engine = LocalEngine(
        jobs=home / "jobs",
        model=model,
        log_path=home / "trainer.log",
        threads=1,
        back_off=BackOff(first_s=0.05, most_s=0.05),
    )
    await engine.start()
    try:
        for job, seconds in zip(jobs, kills, strict=True):
            for into_s in seconds:
                running = asyncio.create_task(engine.run(job))
                await _claimed(home / "jobs" / job.job_id, running)
                await asyncio.wait([running], timeout=into_s)
                while _kill_trainer(home) == 0:  # noqa: ASYNC110 - the one before may not be up again yet
                    await asyncio.sleep(0.01)
                with suppress(EngineDown):
                    await running
            await engine.run(job)
        return [adapter_files.verify(Path(job.folder)).weights_sha256 for job in jobs]
    finally:
        await engine.close()


async def _claimed(folder: Path, running: asyncio.Task[TrainingResult]) -> None:
    """Return when the trainer has begun, or is done already."""
    while not (folder / "claimed").exists() and not running.done():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def _kill_trainer(home: Path) -> int:
    """Those whose command line names this test's folder; keepers are left to see their child die."""
    n = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"claasbot.training" in words and str(home / "jobs").encode() in words and b"--grace" not in words:
                os.kill(int(entry.name), signal.SIGKILL)
                n += 1
    return n


async def test_the_real_trainer_is_killed_at_random_and_makes_the_same_versions(base_model_folder, tmp_path, totals):
    """R-01 on the real engine: 30 kills."""
    n_jobs, n_each, drawn = (10, 3, random.Random(SEED)) if IS_FULL else (2, 2, random.Random(SEED))
    kills = [[drawn.uniform(0.0, _LESSON_S) for _ in range(n_each)] for _ in range(n_jobs)]
    made = []
    for name, seconds in (("whole", [[]] * n_jobs), ("killed", kills)):
        home = tmp_path / name
        home.mkdir()
        jobs = jobs_of(home / "adapters", base_model_folder, n_jobs)
        made.append(await _hashes(home, base_model_folder, jobs, seconds))
    whole, killed = made
    n_torn = sum(one != other for one, other in zip(whole, killed, strict=True))
    totals["kills"] += n_jobs * n_each
    totals["torn"] += n_torn
    print(f"seed {SEED}: {n_jobs * n_each} kills of the trainer in {n_jobs} lessons, {n_torn} versions differ")
    assert len(set(whole)) == n_jobs
    assert killed == whole


# --- the whole bot


@pytest.fixture(scope="module")
def bot(base_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BotProcess]:
    bot = BotProcess(tmp_path_factory.mktemp("faults"), base_model_folder, CLAASBOT_CHAT__MAX_TOKENS="24")
    bot.start()
    yield bot
    if bot.process is not None and bot.process.poll() is None:
        bot.stop()


def rows(bot: BotProcess, sql: str) -> list[tuple]:
    connection = sqlite3.connect(f"file:{bot.data / 'claasbot.db'}?mode=ro", uri=True, timeout=10)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_nothing_listens_beyond_this_machine_and_the_trainer_nowhere(bot: BotProcess):
    """S-16, on the default deployment: every listening socket of every process of ours."""
    bot.say("Hello?")
    found = {(pid, words): _listening(pid) for pid, words in [*bot.descendants().items(), (bot.pid, "claasbot run")]}
    everything = [address for addresses in found.values() for address in addresses]
    of_trainer = [a for (_, words), addresses in found.items() if "claasbot.training" in words for a in addresses]
    print(f"{len(found)} processes, {len(everything)} listening sockets: {sorted(set(everything))}")
    assert len(everything) >= 2  # the web's and the server's
    assert {host for host, _ in everything} <= {"127.0.0.1", "::1"}
    assert of_trainer == []


def test_no_route_of_ours_reaches_vllms(bot: BotProcess):
    """S-16: our web forwards nothing, so that vLLM's open control routes cannot be reached through it."""
    paths = {route.path for route in ROUTES}
    controls = ("/v1", "/pause", "/resume", "/sleep", "/wake_up", "/collective_rpc", "/update_weights", "/invocations",
                "/tokenize", "/score", "/reset_prefix_cache")  # fmt: skip
    assert not [path for path in paths if path.startswith(controls)]
    assert not [path for path in paths if "{tail" in path or ":.*" in path or ":.+" in path]
    for path in controls:
        assert _status(bot.url, path) in (401, 404, 405)


def _status(url: str, path: str) -> int:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"{url}{path}", timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def _listening(pid: int) -> list[tuple[str, int]]:
    """(address, port) of the TCP sockets on which this process listens, from /proc."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = []
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                host, port = fields[1].split(":")
                raw = b"".join(bytes.fromhex(host[i : i + 8])[::-1] for i in range(0, len(host), 8))
                found.append((socket.inet_ntop(family, raw).removeprefix("::ffff:"), int(port, 16)))
    return found


def test_random_kills_of_every_process_lose_nothing_and_teach_once(bot: BotProcess):
    """R-01, R-04 and R-13 on the real stack. A server costs half a minute, so it dies once; the trainer dies mostly."""
    drawn = random.Random(SEED)
    bot.post("commanded", command="optin")
    victims = ["claasbot.training"] * (8 if IS_FULL else 1) + ["api_server", "bot"]
    n_feedbacks = 0
    for number, victim in enumerate(victims):
        key = bot.say(f"What is number {number}?")["message_key"]
        bot.post("commanded", command="feedback", argument=HINTS[number % len(HINTS)], message_key=key)
        n_feedbacks += 1
        bot.wait_for(lambda n=n_feedbacks: rows(bot, "SELECT count(*) FROM feedback_event") == [(n,)])
        time.sleep(drawn.uniform(0.0, _LESSON_S))
        if victim == "bot":
            below = set(bot.descendants())
            bot.kill()
            bot.wait_for(lambda b=below: not alive(b), within_s=25)  # no orphan
            bot.start()
        else:
            os.kill(bot.pid_of(victim), signal.SIGKILL)
        bot.wait_for(lambda: rows(bot, _OPEN) == [(0, 0)], within_s=240)
    consumed = rows(bot, "SELECT feedback_event_id, count(*) FROM experience GROUP BY 1")
    ended = rows(bot, "SELECT DISTINCT state FROM experience")
    versions = rows(bot, "SELECT folder, weights_sha256 FROM adapter_version")
    print(f"seed {SEED}: {len(victims)} kills, {n_feedbacks} feedbacks, {len(versions)} versions, ended as {ended}")
    assert len(consumed) == n_feedbacks
    assert {n for _, n in consumed} == {1}
    assert set(ended) <= {("consumed",), ("rejected",)}
    for folder, weights in versions:
        assert adapter_files.verify(bot.data / folder).weights_sha256 == weights
    assert bot.say("Still there?")["version_name"].startswith("p1.v")


_OPEN = """
SELECT (SELECT count(*) FROM inbox WHERE handled_at IS NULL),
       (SELECT count(*) FROM experience WHERE state IN ('received', 'queued', 'leased'))
"""
