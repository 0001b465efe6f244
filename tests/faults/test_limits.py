"""A host that gives too little, or says something wrong: one clear line, no damage, and no restart once it is mended.

Shows R-27 (64 descriptors) and R-28 (a start that must fail).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from claasbot.storage.store import Store
from tests.chat.telegram.world import Chat
from tests.faults.dry_bot import DryBot
from tests.real.bot_process import ROOT, free_port

MOST_S = 10.0
SAVES_NOTHING = "I cannot save anything right now"


class SmallBot(DryBot):
    command = ("bash", "-c", 'ulimit -n 64; exec "$@"', "bash", *DryBot.command)


async def test_with_no_descriptor_left_people_are_told_and_answered_once_there_is_one(fake, tmp_path):
    """R-27: 80 idle connections take every one of 64 descriptors; nothing is restarted."""
    bot = SmallBot(tmp_path, fake)
    person = fake.person("Ada")
    chat = fake.private_chat(person)
    await asyncio.to_thread(bot.start)
    try:
        person.say(chat, "/ask one.")
        await fake.until(lambda: _heard(chat, "one."), within_s=10)
        pid = bot.pid
        with _idle_connections(bot.url, 80):
            await asyncio.to_thread(bot.wait_for, lambda: len(os.listdir(f"/proc/{pid}/fd")) >= 64)  # noqa: PTH208
            person.say(chat, "/ask two.")
            await fake.until(lambda: _said(chat, SAVES_NOTHING), within_s=15)
        await fake.until(lambda: _heard(chat, "two."), within_s=30)
        assert bot.process is not None
        assert (bot.process.poll(), bot.pid) == (None, pid)
        assert [len(_heard(chat, words)) for words in ("one.", "two.")] == [1, 1]
        assert len(_said(chat, SAVES_NOTHING)) == 1
        assert "Traceback" not in (tmp_path / "logs" / "bot.log").read_text()
    finally:
        await asyncio.to_thread(bot.stop)


def _heard(chat: Chat, words: str) -> list[str]:
    return _said(chat, f"heard: {words}")


def _said(chat: Chat, words: str) -> list[str]:
    return [message.text for message in chat.messages if message.sender.is_bot and words in message.text]


@contextmanager
def _idle_connections(url: str, n: int) -> Iterator[None]:
    """Somebody who connects and says nothing."""
    where = urlsplit(url)
    assert where.hostname is not None
    connections = [socket.create_connection((where.hostname, where.port or 80)) for _ in range(n)]
    try:
        yield
    finally:
        for connection in connections:
            connection.close()


@contextmanager
def _taken_port() -> Iterator[int]:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


BROKEN = {
    "an unknown setting": ({"CLAASBOT_SERVER__PROT": "1"}, "did you mean 'CLAASBOT_SERVER__PORT'"),
    "a value out of range": ({"CLAASBOT_WEB__PORT": "99999"}, "web.port"),
    "a model that is not there": ({"CLAASBOT_SERVER__MODEL": "/no/such/model"}, "/no/such/model"),
    "a token that is none": ({"CLAASBOT_TELEGRAM_TOKEN": "hunter2"}, "telegram.tokens"),
    "a privacy text that is not there": ({"CLAASBOT_CHAT__PRIVACY_FILE": "/no/such/text"}, "chat.privacy_file"),
    "a data folder that cannot be": ({"CLAASBOT_DATA": "/proc/claasbot"}, "CLAASBOT_DATA"),
    "a settings file that is no TOML": ({"CLAASBOT_CONFIG": "broken.toml"}, "is not valid TOML"),
    "the web's port taken": ({"CLAASBOT_WEB__PORT": "TAKEN"}, "set web.port"),
    "the server's port taken": ({"CLAASBOT_SERVER__PORT": "TAKEN"}, "set server.port"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_start_that_must_fail_fails_at_once_with_one_line_and_touches_nothing(name, tmp_path):
    """R-28: within 10 seconds, exit status 1, the database as it was."""
    store = Store(tmp_path / "claasbot.db")
    await store.open()
    await store.close()
    before = hashlib.sha256((tmp_path / "claasbot.db").read_bytes()).digest()
    (tmp_path / "broken.toml").write_text("[server\nport = ")
    settings, expected = BROKEN[name]
    with _taken_port() as taken:
        given = {key: str(taken) if value == "TAKEN" else value for key, value in settings.items()}
        began = time.monotonic()
        done = await asyncio.to_thread(_run, tmp_path, given)
        took_s = time.monotonic() - began
    assert done.returncode == 1
    assert took_s < MOST_S
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("claasbot: ")
    assert expected in line
    assert hashlib.sha256((tmp_path / "claasbot.db").read_bytes()).digest() == before
    assert not (tmp_path / "models").exists()


def _run(data: Path, given: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLAASBOT_")}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "CLAASBOT_DATA": str(data),
        "CLAASBOT_ACCELERATOR": "cpu",
        "CLAASBOT_WEB__PORT": "0",
        "CLAASBOT_SERVER__PORT": str(free_port()),
        **given,
    }
    command = [sys.executable, "-m", "claasbot", "run"]
    return subprocess.run(command, cwd=data, env=environment, capture_output=True, text=True, timeout=60, check=False)
