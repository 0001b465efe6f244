"""kill -9 of every process at its worst moment: the feedback is there, it teaches once, and nothing is left behind."""

import os
import signal
import sqlite3

import pytest

from tests.real.bot_process import BotProcess, alive

HINT = "Please answer in one short sentence."


@pytest.fixture
def bot(tmp_path, base_model_folder):
    bot = BotProcess(tmp_path, base_model_folder, CLAASBOT_CHAT__MAX_TOKENS="48")
    bot.start()
    yield bot
    if bot.process.poll() is None:
        bot.stop()


def rows(bot, sql):
    connection = sqlite3.connect(f"file:{bot.data / 'claasbot.db'}?mode=ro", uri=True)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_killed_trainer_killed_server_killed_bot(bot):
    """One story, because a start costs half a minute: each crash, then that all is as it should be."""
    bot.post("commanded", command="optin")
    first = bot.say("How do I boil an egg?")
    assert first["version_name"] == "base"

    # The trainer dies in the middle of a step.
    key = first["message_key"]
    bot.post("commanded", command="feedback", argument=HINT, message_key=key)
    bot.wait_for(lambda: list((bot.data / "jobs").glob("*/claimed")))
    os.kill(bot.pid_of("claasbot.training"), signal.SIGKILL)
    bot.wait_for(lambda: rows(bot, "SELECT 1 FROM adapter_version WHERE state = 'promoted'"))
    assert rows(bot, "SELECT state, attempts FROM job") == [("promoted", 1)]
    assert rows(bot, "SELECT state, consumed_by FROM experience") == [("consumed", 1)]

    # The server dies in the middle of an answer: it is answered again, by the person's own version.
    n_turns = len(bot.turns())
    bot.post("said", text="Tell me about the sea.")
    bot.wait_for(lambda: rows(bot, "SELECT 1 FROM inbox WHERE handled_at IS NULL"))
    os.kill(bot.pid_of("api_server"), signal.SIGKILL)
    answered = bot.wait_for(lambda: bot.turns()[n_turns + 1 :])[0]
    assert answered["version_name"] == "p1.v1"
    bot.wait_for(lambda: not rows(bot, "SELECT 1 FROM inbox WHERE handled_at IS NULL"))

    # The bot dies right after "noted".
    bot.post("commanded", command="feedback", argument="Please use simple words.", message_key=answered["message_key"])
    bot.wait_for(lambda: rows(bot, "SELECT 1 FROM feedback_event WHERE text LIKE '%simple%'"))
    below = set(bot.descendants())
    assert len(below) >= 4  # two keepers, a trainer, a server with its engine
    bot.kill()
    bot.wait_for(lambda: not alive(below), within_s=25)

    bot.start()
    bot.wait_for(lambda: rows(bot, "SELECT 1 FROM adapter_version WHERE state = 'promoted' AND n > 1"))
    consumed = rows(bot, "SELECT feedback_event_id, count(*) FROM experience WHERE state = 'consumed' GROUP BY 1")
    assert consumed == [(1, 1), (2, 1)]
    assert bot.say("Hello?")["version_name"].startswith("p1.v")

    # Ctrl-C leaves nothing within 20 seconds.
    below = set(bot.descendants())
    assert bot.stop() < 20
    assert not alive(below)
