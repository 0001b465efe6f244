"""S-14: canaries for every secret through every error path: none in logs, answers, pages, the database or any file."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

import aiohttp
import pytest

from claasbot import cli, settings
from claasbot.doctor import Finding
from claasbot.errors import SettingsError
from claasbot.inference.launch import ServerPlan, command
from claasbot.logs import JsonLines, TextLines
from claasbot.masking import MASK, keep_secret, keep_secret_here, masked, masked_for_its_sender, one_request
from claasbot.services.clock import utc_now
from claasbot.storage import audit
from claasbot.web.access import ACCESS
from tests.chat.telegram.fake_bot_api import FakeBotApi
from tests.faults.dry_bot import DryBot
from tests.whole_bot import whole_bot

CANARY = "canary-4f1d0c2b-do-not-show"
PASSWORD = 'correct "horse" battery & staple'


# How a secret is masked.


@pytest.mark.parametrize(
    "shown",
    [
        f"POST https://api.example/bot7:{CANARY}/getMe",
        f"POST https://api.example/bot7%3A{CANARY}/getMe",
        f"token {CANARY}.",
        repr({"token": CANARY}),
        json.dumps({"token": f"7:{CANARY}"}),
    ],
)
def test_a_secret_is_masked_however_it_is_written(shown):
    keep_secret(f"7:{CANARY}")
    assert "canary" not in masked(shown)
    assert MASK in masked(shown)


def test_a_password_is_masked_in_json_and_on_a_page():
    with one_request():
        keep_secret_here(PASSWORD)
        for shown in (PASSWORD, json.dumps(PASSWORD), "correct &quot;horse&quot; battery &amp; staple", repr(PASSWORD)):
            assert "horse" not in masked(shown)


def test_a_word_that_stands_everywhere_hides_nothing():
    keep_secret("key")
    keep_secret("")
    assert masked("the key of the server") == "the key of the server"


def test_what_belongs_to_a_request_is_forgotten_with_it_and_may_stand_in_its_answer():
    fresh = token_hex()
    with one_request():
        keep_secret_here(fresh)
        assert masked(f"it is {fresh}") == f"it is {MASK}"
        assert masked_for_its_sender(fresh) == fresh
    assert masked(fresh) == fresh


def test_the_log_masks_arguments_traces_and_the_lines_of_libraries():
    keep_secret(CANARY)
    try:
        raise OSError(13, "denied", f"/{CANARY}")
    except OSError as error:
        failure = (OSError, error, error.__traceback__)
    for name, message, args, info in (
        ("claasbot.x", "update %d: %s", (1, f"refused {CANARY}"), None),
        ("httpx", "HTTP Request: %s %s", ("POST", f"https://api.telegram.org/bot7:{CANARY}/getMe"), None),
        ("claasbot.x", "saving failed", (), failure),
        (CANARY, CANARY, (), None),
    ):
        record = logging.LogRecord(name, logging.ERROR, "", 1, message, args, info)
        assert "canary" not in JsonLines().format(record) + TextLines().format(record)


# Settings.

WRONG = (
    f'[telegram]\ntokens = "{CANARY}"',
    f'[telegram]\ntokens = [["{CANARY}"]]',
    f'telegram = "{CANARY}"',
    f'[telegram]\ntokens = ["{CANARY}"]\nnonsense = 1',
    f'[telegram]\ntokens = ["{CANARY}"]\n[chat]\nmax_tokens = 99999',
    f'[telegram]\ntokens = ["{CANARY}"]\n[chat]\nmax_tokens = "many"',
    f'[server]\napi_key = ["{CANARY}"]',
    f'[server]\napi_key = {{ a = "{CANARY}" }}',
    f'[discord]\ntokens = {{ a = "{CANARY}" }}',
    f'[telegram]\ntokens = ["{CANARY}"',
    f'[server]\napi_key = "{CANARY}"\n[log]\nlevel = "loud"',
)


@pytest.mark.parametrize("written", WRONG)
def test_no_mistake_in_the_settings_shows_a_secret(tmp_path, written):
    config = tmp_path / "claasbot.toml"
    config.write_text(written)
    config.chmod(0o600)
    with pytest.raises(SettingsError) as caught:
        settings.load(config)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("name", ["CLAASBOT_TELEGRAM__TOKENS", "CLAASBOT_DISCORD__TOKENS", "CLAASBOT_TELEGRAM"])
def test_no_mistake_in_the_environment_shows_a_secret(monkeypatch, name):
    monkeypatch.setenv(name, CANARY)
    with pytest.raises(SettingsError) as caught:
        settings.load()
    assert "canary" not in str(caught.value)


def test_what_is_loaded_is_masked_from_then_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLAASBOT_TELEGRAM_TOKEN", f"7:{CANARY}")
    monkeypatch.setenv("CLAASBOT_SERVER__API_KEY", f"key-{CANARY}")
    chosen = settings.load()
    assert "canary" not in repr(chosen) + str(chosen.model_dump())
    assert "canary" not in masked(f"7:{CANARY} key-{CANARY}")
    assert cli.main(["settings"]) == 0
    assert cli.main(["settings", "--markdown"]) == 0
    assert "canary" not in capsys.readouterr().out


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
@pytest.mark.parametrize(
    "secret",
    [f'[telegram]\ntokens = ["7:{CANARY}"]', f'[server]\napi_key = "{CANARY}"', f'[discord]\ntokens = ["{CANARY}"]'],
)
def test_a_file_with_a_secret_that_others_may_read_is_refused_with_the_line_to_type(tmp_path, mode, secret, capsys):
    config = tmp_path / "claasbot.toml"
    config.write_text(secret)
    config.chmod(mode)
    assert cli.main(["--config", str(config), "settings"]) == 1
    said = capsys.readouterr().err
    assert f"chmod 600 {config}" in said and "canary" not in said
    config.chmod(0o600)
    assert cli.main(["--config", str(config), "settings"]) == 0


def test_a_file_without_a_secret_may_be_read_by_everybody(tmp_path):
    config = tmp_path / "claasbot.toml"
    config.write_text("[chat]\ntemperature = 0.25\n[telegram]\ntokens = []\n")
    config.chmod(0o644)
    assert settings.load(config).chat.temperature == 0.25


# Reports and crashes.


def test_a_finding_of_the_doctor_is_masked():
    keep_secret(CANARY)
    shown = Finding(
        name="server", level="problem", detail=f"refused {CANARY}", todo=f"use another than {CANARY}"
    ).masked()
    assert "canary" not in repr(shown)


def test_a_crash_is_printed_without_secrets():
    keep_secret(CANARY)
    try:
        raise RuntimeError(f"https://api.example/bot{CANARY}/getMe")
    except RuntimeError as error:
        told = cli.crash_report(error)
    assert "RuntimeError" in told and "canary" not in told


def test_children_get_no_key_of_a_platform_and_show_none_to_others():
    plan = ServerPlan(model=Path("model"), base_model="base", port=1, accelerator="cpu", max_lora_rank=16)
    argv, environment = command(plan, inherited={"CLAASBOT_TELEGRAM_TOKEN": CANARY, "PATH": "/bin"}, api_key="the-key")
    assert CANARY not in environment.values()
    assert not [word for word in argv if "the-key" in word]
    assert environment["VLLM_API_KEY"] == "the-key"


async def test_a_wrong_field_that_holds_a_secret_is_not_quoted(tmp_path):
    async with whole_bot(tmp_path / "d") as bot:
        for wrong in ({"password": [CANARY]}, {"password": {"a": CANARY}}):
            async with bot.owner.post("/api/admins/admin/password", json=wrong) as answer:
                line = await answer.text()
                assert answer.status == 400 and "password" in line and "canary" not in line


async def test_no_answer_hands_out_what_the_process_keeps_secret(tmp_path):
    token = keep_secret(f"7:{token_hex()}")
    async with whole_bot(tmp_path / "d") as bot:
        await bot.bot.store.run(audit.add, "host", f"wrote {token} where it does not belong", utc_now())
        for path in ("/audit", "/api/audit"):
            found = await bot.get(path)
            assert "where it does not belong" in found and token not in found


async def test_a_problem_quotes_no_secret_of_its_request(tmp_path):
    key = token_hex(8)
    async with whole_bot(tmp_path / "d") as bot:
        headers = {"Authorization": f"Bearer {key}"}
        async with bot.owner.post("/api/learning", json={"paused": True, key: 1}, headers=headers) as answer:
            assert (await answer.json())["error"] == f"The field '{MASK}' is unknown here."


def test_half_a_character_in_a_secret_breaks_nothing():
    with one_request():
        keep_secret_here("half \udcff a character")
        assert masked("it is half \udcff a character") == f"it is {MASK}"


# The whole bot, as a process, against a platform that fails in every way.


@dataclass
class Search:
    """Where a canary was looked for, and where it was found."""

    canaries: dict[str, str]
    found: list[str] = field(default_factory=list)
    looked: Counter[str] = field(default_factory=Counter)

    def look(self, what: str, where: str, text: str, *, but: tuple[str, ...] = ()) -> None:
        self.looked[what] += 1
        self.found += [
            f"{name} in {where}" for name, value in self.canaries.items() if name not in but and value in text
        ]


async def test_a_bot_in_trouble_shows_no_secret_anywhere(tmp_path):
    fake = FakeBotApi()
    await fake.start()
    search = Search({"token": fake.bot.token, "half": fake.bot.token.partition(":")[2], "api key": CANARY})
    bot = DryBot(
        tmp_path,
        fake,
        CLAASBOT_SERVER__API_KEY=CANARY,
        CLAASBOT_LOG__LEVEL="debug",
        CLAASBOT_WEB__WRITES_PER_MINUTE="9999",
    )
    try:
        await asyncio.to_thread(bot.start)
        await _trouble_on_the_platform(fake)
        await _trouble_over_http(bot, search)
        await _commands_beside_it(bot, search)
        for pid, words in bot.descendants().items():
            search.look("command lines", f"the command line of {pid}", words)
    finally:
        await asyncio.to_thread(bot.stop)
        await fake.stop()
        fake.take_problems()
    for file in tmp_path.rglob("*"):
        if file.is_file():
            # the link of the first sign-in is printed for the host
            but = ("link",) if file.name == "said.txt" else ()
            search.look("files", str(file.relative_to(tmp_path)), file.read_bytes().decode(errors="replace"), but=but)
    print(json.dumps({"canaries": len(search.canaries), **search.looked, "found": len(search.found)}))
    assert search.found == []
    assert search.looked["answers"] > 150 and search.looked["files"] >= 3


async def _trouble_on_the_platform(fake: FakeBotApi) -> None:
    """Every call has the token in its address, and libraries quote addresses."""
    ada = fake.person("Ada")
    chat = fake.private_chat(ada)
    for status, description in ((400, "Bad Request: chat not found"), (500, None), (403, "Forbidden: bot was kicked")):
        fake.fail_next("sendMessage", status, description or "Internal Server Error")
        ada.say(chat, f"What is {status}?")
        await fake.all_read()
    fake.drop_next("sendMessage", times=2)
    fake.drop_next("getUpdates", times=2)
    ada.say(chat, "And now?")
    await fake.until(
        lambda: any("heard: " in one.text and "And now?" in one.text for one in chat.messages), within_s=20
    )
    fake.bot.is_revoked = True
    await asyncio.sleep(0.5)


async def _trouble_over_http(bot: DryBot, search: Search) -> None:
    """Every route, with what proves who somebody is, right and wrong, in every place that takes any."""
    token = bot.sign_in_url.partition("token=")[2]
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(bot.url, cookie_jar=jar) as browser:
        async with browser.post("/sign-in", data={"token": token}) as answer:
            page = await answer.text()
        csrf = re.search(r'name="csrf-token" content="([^"]+)"', page).group(1)
        [session] = [cookie.value for cookie in jar]
        fields = {"csrf_token": csrf, "password": "", "new_password": PASSWORD, "again": PASSWORD}
        async with browser.post("/security/password", data=fields) as answer:
            assert answer.status == 200
        key = (await asyncio.to_thread(bot.ask, "POST", "/api/keys", {"name": "k", "scopes": ["read"]}))["key"]
        search.canaries |= {"session": session, "password": PASSWORD, "key": key, "link": token}
        wrong = {"password": PASSWORD, "token": token, "code": key, "text": CANARY, "kind": 7, "paused": PASSWORD}
        bearer, basic = {"Authorization": f"Bearer {key}"}, {"Authorization": f"Basic {key}"}
        looks = [({}, {}), ({"params": {"before": PASSWORD, "seen": key}}, {}), ({}, bearer), ({}, basic)]
        bodies = [
            ({"json": wrong}, {}),
            ({"json": {"password": [PASSWORD]}}, {}),
            ({"data": {"csrf_token": csrf, **wrong, "kind": "7"}}, {}),
            ({"data": b"{" + key.encode()}, bearer),
        ]
        for method, path in ACCESS:
            if path in ("/api/stream", "/sign-out", "/security/sessions/end-others", "/security/password"):
                continue
            address = re.sub(r"\{\w+\}", "999", path)
            for body, more in bodies if method == "POST" else looks:
                headers = {"X-CSRF-Token": csrf, "X-Telegram-Bot-Api-Secret-Token": session}
                async with browser.request(
                    method, address, headers=headers | more, allow_redirects=False, **body
                ) as answer:
                    where = f"the answer to {method} {path} ({answer.status})"
                    search.looked[f"answered {answer.status}"] += 1
                    search.look("answers", where, await answer.text() + str(answer.headers), but=_own(where))


def _own(where: str) -> tuple[str, ...]:
    """What an answer is there to hand out."""
    return ("session",) if "POST /sign-in " in where else ()


async def _commands_beside_it(bot: DryBot, search: Search) -> None:
    environment = {**os.environ, "CLAASBOT_DATA": str(bot.data), "CLAASBOT_SERVER__API_KEY": CANARY}
    environment |= {"CLAASBOT_TELEGRAM_TOKEN": search.canaries["token"]}
    for words in (
        ["doctor", "--json"],
        ["errors"],
        ["run"],
        ["backup", "/proc/x"],
    ):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "claasbot", *words, env=environment, cwd=bot.data,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
        search.look("commands", f"what `{' '.join(words)}` says", said.decode())
