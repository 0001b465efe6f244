"""The doctor names what is wrong and what to do about it."""

import json
import socket

import pytest

from claasbot import doctor, settings
from claasbot.cli import main
from claasbot.data_folder import DataFolder
from claasbot.platforms import bot_accounts
from claasbot.settings import Settings


def findings(chosen, model, **facts):
    facts = {"is_gpu": False, "bot_runs": False, "accounts": bot_accounts(chosen), **facts}
    found = doctor.examine(chosen, model, **facts)
    return {finding.name: finding for finding in found}


def test_a_taken_port_is_a_problem_that_names_its_setting(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        found = findings(Settings(data=tmp_path, server={"port": port}), tmp_path)["server.port"]
    assert (found.level, found.detail) == ("problem", f"{port} is taken")
    assert "set server.port" in found.todo


def test_the_ports_of_the_running_bot_are_no_problem(tmp_path):
    assert findings(Settings(data=tmp_path), tmp_path, bot_runs=True)["web.port"].level == "ok"


def test_a_missing_model_says_how_to_get_it(tmp_path):
    assert "make model" in findings(Settings(data=tmp_path), tmp_path / "model")["model"].todo
    named = Settings(data=tmp_path, server={"model": str(tmp_path / "mine")})
    assert "server.model" in findings(named, tmp_path / "mine")["model"].todo


def test_a_whole_model_is_fine(tmp_path):
    (tmp_path / "config.json").touch()
    (tmp_path / "model.safetensors").touch()
    assert findings(Settings(data=tmp_path), tmp_path)["model"].level == "ok"


def test_a_token_that_is_none_is_a_problem_that_does_not_show_it(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAASBOT_TELEGRAM_TOKEN", "123:secret")
    found = findings(settings.load(), tmp_path)["telegram"]
    assert (found.level, "@BotFather" in found.todo) == ("problem", True)
    assert "secret" not in found.detail + found.todo


def test_a_discord_token_that_is_none_is_a_problem_that_does_not_show_it(tmp_path):
    found = findings(Settings(data=tmp_path, discord={"tokens": ["hunter2", "swordfish"]}), tmp_path)["discord"]
    assert (found.level, found.detail) == ("problem", "2 of 2 tokens do not look like one")
    assert "developer portal" in found.todo
    assert "hunter2" not in found.todo


def test_several_accounts_of_a_platform_are_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAASBOT_TELEGRAM_TOKEN", f"1:{'a' * 35}, 2:{'b' * 35}")
    chosen = settings.load()
    assert findings(chosen, tmp_path)["telegram"].detail == "2 bot account(s)"
    assert settings.value_of(chosen, "telegram.tokens") == ("…", "…")


def test_a_discord_token_comes_with_its_invitation(tmp_path):
    found = findings(
        Settings(data=tmp_path, discord={"tokens": ["MTIzNDU2Nzg5MDEyMzQ1Njc4.abcdef." + "x" * 30]}), tmp_path
    )
    assert "client_id=123456789012345678&" in found["discord"].detail
    assert "xxx" not in found["discord"].detail


def test_an_open_bot_on_a_platform_is_noted(tmp_path):
    chosen = Settings(data=tmp_path, access={"mode": "open"}, telegram={"tokens": [f"1:{'a' * 35}"]})
    assert findings(chosen, tmp_path)["access"].level == "note"
    assert findings(Settings(data=tmp_path), tmp_path)["access"].level == "ok"


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_the_command_prints_every_finding(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLAASBOT_DATA", str(tmp_path))
    main(["doctor", *words])
    out = capsys.readouterr().out
    for name in ("python", "packages", "model", "disk", "sqlite", "platforms", "access", "gpu", "server"):
        assert name in out


def test_the_line_for_programs_keeps_its_shape(tmp_path, monkeypatch, capsys):
    """docs/operations.md promises these fields."""
    monkeypatch.setenv("CLAASBOT_DATA", str(tmp_path))
    status = main(["doctor", "--json"])
    [line] = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found.keys() == {"schema", "version", "worst", "findings"}
    assert found["schema"] == 1
    assert all(one.keys() == {"name", "level", "detail", "todo"} for one in found["findings"])
    levels = [one["level"] for one in found["findings"]]
    assert set(levels) <= {"ok", "note", "problem"} and found["worst"] in levels
    assert status == (found["worst"] == "problem")
    assert {"privacy", "audit"} <= {one["name"] for one in found["findings"]}


def test_a_database_that_does_not_open_is_a_finding_among_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLAASBOT_DATA", str(tmp_path))
    (tmp_path / "claasbot.db").write_bytes(b"not a database at all, " * 400)
    assert main(["doctor", "--json"]) == 1
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert found["audit"]["level"] == "problem" and "is damaged or encrypted" in found["audit"]["detail"]
    assert "restore a backup" in found["audit"]["todo"] and "restore a backup" not in found["audit"]["detail"]
    assert "disk" in found


def test_while_the_bot_starts_the_doctor_says_what_it_can(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLAASBOT_DATA", str(tmp_path))
    with DataFolder(root=tmp_path).lock():
        main(["doctor", "--json"])
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert found["bot"]["level"] == "note" and "is starting or stopping" in found["bot"]["detail"]
    assert "disk" in found


def test_a_data_folder_that_others_may_look_into_is_a_problem(tmp_path):
    data = tmp_path / "d"
    data.mkdir(mode=0o700)
    assert findings(Settings(data=data), tmp_path)["privacy"].level == "ok"
    data.chmod(0o750)
    found = findings(Settings(data=data), tmp_path)["privacy"]
    assert (found.level, found.todo) == ("problem", f"chmod 700 {data}")
