"""Whoever meets a failure is told a number, and an admin finds it: where it happened, not a word of what was said."""

from __future__ import annotations

import asyncio
import logging
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from claasbot import cli
from claasbot.errors import EngineDown, StoreError
from claasbot.logs import Failures
from claasbot.services.keeping_errors import KeepingErrors
from claasbot.storage import error_rows
from claasbot.storage.rows import rows
from claasbot.storage.store import Store
from tests.whole_bot import WholeBot, whole_bot

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SAID = "what only Ada may know"


async def breaks(bot: WholeBot, error: Exception) -> str:
    """What Ada is told when the server's client meets an error that nobody thought of."""

    async def broken() -> None:
        raise error

    bot.bot.server.faults.before_token = broken
    reply = await bot.chat.say("ada", SAID)
    return reply.text


def number_in(text: str) -> str:
    return re.search(r"\(error ([0-9a-f]{8})\)", text).group(1)


async def stored(bot: WholeBot, error_id: str) -> dict:
    await bot.bot.cycle.settled()
    for _ in range(200):
        found = await bot.bot.store.run(rows, "SELECT * FROM error WHERE error_id = ?", error_id)
        if found:
            return found[0]
    raise AssertionError(f"error {error_id} is not stored")


async def test_the_person_is_told_a_number_and_the_admin_finds_it(tmp_path):
    async with whole_bot(tmp_path / "d") as bot:
        told = await breaks(bot, KeyError(SAID))
        assert re.fullmatch(r"Something broke \(error [0-9a-f]{8}\)\. Tell the host that number\.", told)
        row = await stored(bot, number_in(told))
        assert (row["person_id"], row["kind"], row["n"]) == (1, "KeyError", 1)
        assert "scripted.py" in row["trace"]
        assert SAID not in str(row)
        page = await bot.get("/errors")
        assert number_in(told) in page and "KeyError" in page and SAID not in page
        assert number_in(told) in await bot.get(f"/api/errors/{number_in(told)}")
        assert "There is nothing" in await bot.get("/nowhere", status=404)
        await bot.get("/api/errors/00000000", status=404)


async def test_trouble_that_we_know_comes_with_its_sentence_and_a_number(tmp_path):
    async with whole_bot(tmp_path / "d") as bot:
        told = await breaks(bot, EngineDown("the trainer is away; it comes back by itself"))
        assert told.startswith("That went wrong: the trainer is away; it comes back by itself (error ")
        assert (await stored(bot, number_in(told)))["kind"] == "EngineDown"


def test_the_command_finds_it_when_the_bot_has_stopped(tmp_path: Path, monkeypatch, capsys):
    async def act() -> str:
        async with whole_bot(tmp_path / "d") as bot:
            told = number_in(await breaks(bot, KeyError(SAID)))
            await stored(bot, told)
            return told

    error_id = asyncio.run(act())
    monkeypatch.setenv("CLAASBOT_DATA", str(tmp_path / "d"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["errors"]) == 0
    assert f"{error_id}  1×  KeyError" in capsys.readouterr().out
    assert cli.main(["errors", error_id]) == 0
    assert "scripted.py" in capsys.readouterr().out
    assert cli.main(["errors", "00000000"]) == 1
    assert "there is no error '00000000'" in capsys.readouterr().err


async def test_who_is_forgotten_has_met_no_error(tmp_path):
    async with whole_bot(tmp_path / "d") as bot:
        await stored(bot, number_in(await breaks(bot, KeyError(SAID))))
        bot.bot.server.faults.before_token = None
        asked = await bot.chat.command("ada", "forget")
        await bot.chat.press("ada", asked.buttons[0].action)
        assert await bot.bot.store.run(rows, "SELECT * FROM error") == []


async def test_an_admin_is_told_a_number_too(site, caplog):
    site.failure = KeyError(SAID)
    answer = await site.post("/api/train-now", {})
    line = (await answer.json())["error"]
    assert answer.status == 500 and SAID not in line
    assert f"error {number_in(line)}" in caplog.text


async def test_an_error_of_ours_that_has_no_status_is_one_too(site, caplog):
    site.failure = EngineDown("the trainer died")
    answer = await site.post("/api/train-now", {})
    assert answer.status == 500 and number_in((await answer.json())["error"]) in caplog.text


@pytest.fixture
def failures():
    found = Failures()
    logging.getLogger().addHandler(found)
    yield found
    logging.getLogger().removeHandler(found)


def fail(message: str, *args: object) -> None:
    try:
        raise KeyError(SAID)
    except KeyError:
        logging.getLogger("claasbot.test").exception(message, *args)


async def test_what_happens_again_and_again_is_counted(failures):
    store = Store(None)
    await store.open()
    keeping = KeepingErrors(store, failures, lambda: NOON)
    for _ in range(3):
        fail("%s failed", "learning")
    await keeping.keep()
    fail("update %d failed, error %s", 1, "ab12cd34")
    fail("update %d failed, error %s", 2, "ab12cd35")
    await keeping.keep()
    found = await store.run(error_rows.latest)
    assert [(row["error_id"], row["n"]) for row in found[:2]] == [("ab12cd35", 1), ("ab12cd34", 1)]
    assert [row["n"] for row in found[2:]] == [3]
    await store.close()


async def test_a_store_that_takes_nothing_loses_nothing(failures):
    store = Store(None)
    keeping = KeepingErrors(store, failures, lambda: NOON)
    fail("update %d failed, error %s", 1, "ab12cd34")
    with pytest.raises(StoreError):
        await keeping.keep()
    await store.open()
    await keeping.keep()
    assert [row["error_id"] for row in await store.run(error_rows.latest)] == ["ab12cd34"]
    await store.close()


async def test_what_breaks_while_the_bot_ends_is_stored_too(tmp_path):
    async with whole_bot(tmp_path / "d"):
        fail("update %d failed, error %s", 1, "ab12cd34")
    store = Store(tmp_path / "d" / "claasbot.db")
    await store.open()
    assert [row["error_id"] for row in await store.run(error_rows.latest)] == ["ab12cd34"]
    await store.close()


async def test_they_are_kept_for_some_days_and_not_without_end():
    store = Store(None)
    await store.open()

    def fill(db) -> int:
        for n in range(error_rows.KEPT + 5):
            at = NOON + timedelta(seconds=n)
            error_rows.add(db, f"{n:08x}", at, place="x", kind="KeyError", trace="", is_quoted=True)
        return error_rows.prune(db, NOON + timedelta(hours=1))

    assert await store.run(fill) == 5
    assert await store.run(error_rows.prune, NOON + error_rows.LASTS + timedelta(seconds=10)) == 5
    assert await store.run(error_rows.prune, NOON + timedelta(days=60)) == error_rows.KEPT - 5
    await store.close()
