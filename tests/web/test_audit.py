"""S-26: every way to change something for others leaves its row in the audit, and the chain holds afterwards."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pyotp
import pytest

from claasbot import cli
from claasbot.services.admin_commands import HELP as ADMIN_HELP
from claasbot.settings import Settings
from claasbot.storage import audit
from claasbot.storage.rows import change, rows
from claasbot.storage.store import Store
from claasbot.store_commands import back_up, put_back
from claasbot.web.access import ACCESS
from tests.whole_bot import WholeBot, whole_bot

PASSWORD = "a long enough sentence to sign in with"


@dataclass(slots=True, kw_only=True)
class Desk:
    """An owner at the machine, and an owner's browser."""

    bot: WholeBot
    browser: aiohttp.ClientSession
    csrf: str = ""

    async def form(self, path: str, **fields: str) -> str:
        async with self.browser.post(path, data={"csrf_token": self.csrf, **fields}) as answer:
            text = await answer.text()
            assert answer.status == 200, (path, answer.status, text)
            return text

    async def sign_in(self) -> None:
        link = await self.bot.bot.sign_in_link()
        await self.form("/sign-in", token=link.partition("token=")[2])
        async with self.browser.get("/people") as page:
            self.csrf = re.search(r'name="csrf-token" content="([^"]+)"', await page.text()).group(1)

    async def did(self) -> list[str]:
        return [row["did"] for row in await self.bot.bot.store.run(audit.latest)]


@asynccontextmanager
async def desk(data: Path):
    async with whole_bot(data) as bot:
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(bot.bot.url, cookie_jar=jar) as browser:
            yield Desk(bot=bot, browser=browser)


Act = Callable[[Desk], Awaitable[object]]


async def undo(desk: Desk) -> None:
    await desk.bot.taught()
    await desk.bot.post("/api/people/1/undo")


async def roll_back(desk: Desk) -> None:
    await desk.bot.taught()
    await desk.bot.post("/api/people/1/versions/0/roll-back")


async def revoke(desk: Desk) -> None:
    await desk.bot.taught()
    [job] = await desk.bot.bot.store.run(rows, "SELECT id FROM job")
    await desk.bot.post(f"/api/people/1/lessons/{job['id']}/revoke")


async def requeue(desk: Desk) -> None:
    await desk.bot.taught()
    park = "UPDATE experience SET state = 'quarantined', consumed_by = NULL"
    await desk.bot.bot.store.run(change, park)
    await desk.bot.post("/api/people/1/feedback/1/requeue")


async def pair(desk: Desk) -> None:
    stranger = (
        "INSERT INTO pairing (platform, bot_account, chat, account, display_name, code, expires_at)"
        " VALUES ('elsewhere', 'main', '7', '7', 'Eve', 'CODE1234', '2999-01-01')"
    )
    await desk.bot.bot.store.run(change, stranger)
    await desk.bot.post("/api/pair", {"code": "CODE1234"})


async def sign_in_wrongly(desk: Desk) -> None:
    async with desk.browser.post("/sign-in", data={"name": "admin", "password": "guessed wrong"}) as answer:
        assert answer.status == 403


async def with_password(desk: Desk) -> None:
    await desk.sign_in()
    await desk.form("/security/password", password="", new_password=PASSWORD, again=PASSWORD)


async def begin_second_factor(desk: Desk) -> str:
    await with_password(desk)
    page = await desk.form("/security/second-factor", password=PASSWORD)
    return re.search(r"\b[A-Z2-7]{32}\b", page).group()


async def confirm_second_factor(desk: Desk) -> None:
    secret = await begin_second_factor(desk)
    await desk.form("/security/second-factor/confirm", code=pyotp.TOTP(secret).now())


async def drop_second_factor(desk: Desk) -> None:
    await confirm_second_factor(desk)
    await desk.form("/security/second-factor/off", password=PASSWORD)


async def end_session(desk: Desk) -> None:
    """That of another browser."""
    async with aiohttp.ClientSession(desk.bot.bot.url, cookie_jar=aiohttp.CookieJar(unsafe=True)) as other:
        await Desk(bot=desk.bot, browser=other).sign_in()
    await desk.sign_in()
    await desk.form("/security/sessions/1/end")


async def end_others(desk: Desk) -> None:
    await desk.sign_in()
    await desk.form("/security/sessions/end-others")


async def with_bob(desk: Desk) -> None:
    await desk.bot.post("/api/admins", {"name": "bob", "role": "viewer"})


async def revoke_key(desk: Desk) -> None:
    await desk.bot.post("/api/keys", {"name": "graphs", "scopes": ["metrics"]})
    await desk.bot.post("/api/keys/1/revoke")


def about_bob(path: str, facts: object = None) -> Act:
    async def act(desk: Desk) -> None:
        await with_bob(desk)
        await desk.bot.post(f"/api/admins/bob/{path}", facts)

    return act


async def export(desk: Desk) -> None:
    await desk.bot.chat.say("ada", "What is rain?")
    async with desk.bot.owner.post("/api/people/1/export") as answer:
        assert answer.status == 200


ACTS: dict[tuple[str, str], tuple[Act, str]] = {
    ("POST", "/sign-in"): (sign_in_wrongly, "sign-in: refused"),
    ("POST", "/api/learning"): (lambda desk: desk.bot.post("/api/learning", {"paused": True}), "learning: paused"),
    ("POST", "/api/train-now"): (lambda desk: desk.bot.post("/api/train-now"), "began what waits"),
    ("POST", "/api/people/{person_id}/undo"): (undo, "rolled p1 back to base"),
    ("POST", "/api/people/{person_id}/versions/{n}/roll-back"): (roll_back, "rolled p1 back to base"),
    ("POST", "/api/people/{person_id}/lessons/{job_id}/revoke"): (revoke, "p1"),
    ("POST", "/api/people/{person_id}/feedback/{experience_id}/requeue"): (requeue, "queued feedback of p1"),
    ("POST", "/api/people/{person_id}/export"): (export, "exported p1"),
    ("POST", "/api/pair"): (pair, "let in"),
    ("POST", "/api/backup"): (
        lambda desk: desk.bot.post("/api/backup", {"to": str(desk.bot.data.parent / "backup")}), "made a backup",
    ),
    ("POST", "/security/password"): (with_password, "own password: changed"),
    ("POST", "/security/second-factor"): (begin_second_factor, "own second factor: begun"),
    ("POST", "/security/second-factor/confirm"): (confirm_second_factor, "own second factor: on"),
    ("POST", "/security/second-factor/off"): (drop_second_factor, "own second factor: off"),
    ("POST", "/security/sessions/{session_id}/end"): (end_session, "session 1: ended"),
    ("POST", "/security/sessions/end-others"): (end_others, "own other sessions: ended"),
    ("POST", "/api/admins"): (with_bob, "admin: added as viewer playground:bob"),
    ("POST", "/api/admins/{admin}/role"): (about_bob("role", {"role": "admin"}), "admin: now admin"),
    ("POST", "/api/admins/{admin}/link"): (about_bob("link", {}), "admin: new link"),
    ("POST", "/api/admins/{admin}/remove"): (about_bob("remove"), "admin: removed"),
    ("POST", "/api/admins/{admin}/password"): (about_bob("password", {"password": PASSWORD}), "admin: password set"),
    ("POST", "/api/keys"): (
        lambda desk: desk.bot.post("/api/keys", {"name": "graphs", "scopes": ["metrics"]}), "key 1: made for metrics",
    ),
    ("POST", "/api/keys/{key_id}/revoke"): (revoke_key, "key 1: revoked"),
}  # fmt: skip

EXEMPT = {
    ("POST", "/sign-out"): "ends one's own session; who comes in is written down",
    ("POST", "/api/events"): "what people say; what is an admin's command has a row of its own",
    ("POST", "/api/compare"): "asks, and changes nothing",
    ("POST", "/webhooks/{platform}/{account}"): "what people say, on a platform",
    ("POST", "/api/sign-in-link"): "a link is written down when it is spent",
}

COMMANDS = {
    "pause": ("", "learning: paused"),
    "resume": ("", "learning: on"),
    "rollback": ("p1", "rolled p1 back to base"),
    "block": ("p1", "blocked p1"),
    "unblock": ("p1", "let in again p1"),
    "pair": ("CODE1234", "let in"),
}
LOOKS = {"users", "health"}


def test_every_route_that_changes_something_is_here_or_has_a_reason():
    changing = {rule for rule in ACCESS if rule[0] != "GET"}
    assert changing == ACTS.keys() | EXEMPT.keys()
    assert not ACTS.keys() & EXEMPT.keys()
    assert ADMIN_HELP.keys() == COMMANDS.keys() | LOOKS


async def test_every_act_over_http_leaves_its_row(tmp_path):
    for n, (rule, (act, did)) in enumerate(ACTS.items()):
        async with desk(tmp_path / str(n)) as at:
            await act(at)
            assert [row for row in await at.did() if did in row], (rule, await at.did())
            assert (await at.bot.bot.store.run(audit.verify)).trouble == ""
    print(json.dumps({"acts": len(ACTS), "exempt": len(EXEMPT)}))


async def test_every_admin_command_in_a_chat_leaves_its_row(tmp_path):
    async with whole_bot(tmp_path / "d", access={"mode": "open", "admins": ["elsewhere:host"]}) as bot:
        await bot.taught()
        await pair_code(bot)
        for command, (argument, did) in COMMANDS.items():
            await bot.chat.command("host", command, argument)
            [newest] = await bot.bot.store.run(audit.latest, 1)
            assert did in newest["did"] and newest["who"] == "elsewhere:host", command
        assert (await bot.bot.store.run(audit.verify)).n_rows == len(COMMANDS)


async def pair_code(bot: WholeBot) -> None:
    await pair(SimpleNamespace(bot=SimpleNamespace(bot=bot.bot, post=_nothing)))


async def _nothing(*_: object) -> None:
    pass


async def test_what_is_done_at_the_machine_without_a_bot_leaves_its_row(tmp_path):
    async with whole_bot(tmp_path / "old"):
        pass
    await back_up(Settings(data=tmp_path / "old"), tmp_path / "backup")
    await put_back(Settings(data=tmp_path / "new"), tmp_path / "backup")
    store = Store(tmp_path / "new" / "claasbot.db")
    await store.open()
    found = await store.run(audit.latest)
    await store.close()
    assert [row["did"].partition(" of ")[0] for row in found] == ["restored the backup", "made a backup"]
    assert found[0]["who"].startswith("console:local:")


async def test_a_setting_that_was_changed_between_two_starts_leaves_its_row(tmp_path):
    async with whole_bot(tmp_path / "d"):
        pass
    async with whole_bot(tmp_path / "d", chat={"temperature": 0.25}) as bot:
        [row] = await bot.bot.store.run(audit.latest)
    assert row["did"] == "changed settings: chat.temperature"


async def test_the_page_shows_the_rows_and_says_when_somebody_touched_them(tmp_path):
    async with whole_bot(tmp_path / "d") as bot:
        await bot.post("/api/learning", {"paused": True})
        page = await bot.get("/audit")
        assert "learning: paused" in page and "1 row, whole" in page
        for trigger in ("audit_rows_stay", "audit_rows_do_not_change"):
            await bot.bot.store.run(change, f"DROP TRIGGER {trigger}")
        await bot.bot.store.run(change, "UPDATE audit SET did = 'nothing'")
        assert "The audit was touched:" in await bot.get("/audit")
        assert "does not follow" in (json.loads(await bot.get("/api/audit")))["chain"]["trouble"]


@pytest.fixture
def command(tmp_path: Path, monkeypatch, capsys):
    """`claasbot …` on the data folder of this test; (status, out, err)."""
    monkeypatch.setenv("CLAASBOT_DATA", str(tmp_path / "d"))
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        status = cli.main(words)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def written(tmp_path: Path):
    """Rows of a bot that has stopped."""

    async def act() -> None:
        async with whole_bot(tmp_path / "d") as bot:
            await bot.post("/api/learning", {"paused": True})

    asyncio.run(act())
    return tmp_path / "d" / "claasbot.db"


def test_the_command_lists_and_verifies(written, command):
    status, out, _ = command("audit")
    assert status == 0 and "learning: paused" in out
    head = out.rpartition("Head: ")[2].strip()
    assert command("audit", "--verify", "--seen", head)[:2] == (0, f"1 row, whole. Head: {head}\n")
    status, _, err = command("audit", "--verify", "--seen", "0" * 64)
    assert status == 1 and "no row has the hash" in err


def test_command_and_doctor_notice_a_row_that_was_changed(written, command):
    assert '"audit", "level": "ok", "detail": "1 row, whole"' in command("doctor", "--json")[1]
    with sqlite3.connect(written) as database:
        database.execute("DROP TRIGGER audit_rows_do_not_change")
        database.execute("UPDATE audit SET did = 'nothing'")
    written.with_name("claasbot.db.sha256").unlink()
    status, _, err = command("audit", "--verify")
    assert status == 1 and "row 1 does not follow" in err
    assert "touched: row 1 does not follow" in command("doctor", "--json")[1]
