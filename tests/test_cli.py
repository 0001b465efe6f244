"""The command line: quick, clear, and without torch."""

import logging
import stat
import subprocess
import sys

import pytest
from pydantic import ValidationError

from claasbot.cli import main
from claasbot.data_folder import DataFolder
from claasbot.logs import PrivateLog
from claasbot.own_command import own_command
from claasbot.settings import ServerSettings


def test_help_loads_neither_torch_nor_vllm_nor_aiohttp():
    code = (
        "import sys\nfrom claasbot.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'vllm', 'transformers', 'aiohttp', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_an_unknown_setting_is_one_line_with_the_nearest_name(tmp_path, capsys):
    config = tmp_path / "claasbot.toml"
    config.write_text("[server]\nprot = 8000\n")
    assert main(["--config", str(config), "settings"]) == 1
    assert capsys.readouterr().err == (
        f"claasbot: unknown setting 'server.prot'; did you mean 'server.port'? "
        f"(in {config}; see `{own_command('settings')}`)\n"
    )


def test_an_unknown_variable_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("CLAASBOT_SERVER__PROT", "8000")
    assert main(["settings"]) == 1
    assert "did you mean 'CLAASBOT_SERVER__PORT'" in capsys.readouterr().err


def test_a_settings_file_that_is_named_must_exist(capsys):
    assert main(["--config", "nowhere.toml", "settings"]) == 1
    assert "no settings file 'nowhere.toml'" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["chat"], ["sign-in"]])
def test_commands_for_a_running_bot_say_how_to_start_one(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLAASBOT_DATA", str(tmp_path))
    assert main(command) == 1
    assert capsys.readouterr().err == (
        f"claasbot: no claasbot runs on this data folder; start it with `{own_command('run')}`\n"
    )


@pytest.mark.parametrize("command", [["chat"], ["sign-in"], ["key", "list"]])
def test_commands_for_a_bot_that_is_starting_do_not_say_to_start_one(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLAASBOT_DATA", str(tmp_path))
    with DataFolder(root=tmp_path).lock():
        assert main(command) == 1
    assert "is starting or stopping; try again in a moment" in capsys.readouterr().err


def test_settings_from_file_and_environment_meet_in_one_tree(tmp_path, monkeypatch, capsys):
    config = tmp_path / "claasbot.toml"
    config.write_text("[chat]\nmax_tokens = 99\n")
    monkeypatch.setenv("CLAASBOT_RECIPE__N_STEPS", "2")
    assert main(["--config", str(config), "settings"]) == 0
    out = capsys.readouterr().out
    chat, recipe = (out.split(f"[{name}]\n")[1].split("\n[")[0] for name in ("chat", "recipe"))
    assert "max_tokens = 99  (default 256)\n" in chat
    assert "enable_thinking = false  (default)\n" in chat
    assert "n_steps = 2  (default 4)\n" in recipe


@pytest.mark.parametrize(("from_file", "from_environment"), [(True, False), (False, True), (True, True)])
def test_a_wrong_value_names_where_it_was_given(tmp_path, monkeypatch, capsys, from_file, from_environment):
    config = tmp_path / "claasbot.toml"
    config.write_text("[web]\nport = 99999\n" if from_file else "")
    if from_environment:
        monkeypatch.setenv("CLAASBOT_SERVER__PORT", "many")
    assert main(["--config", str(config), "settings"]) == 1
    error = capsys.readouterr().err
    assert (f"in {config}" in error or f", {config}" in error) == from_file
    assert ("the variable CLAASBOT_SERVER__PORT" in error) == from_environment
    assert "or the environment" not in error


def test_without_a_command_it_shows_its_help(capsys):
    assert main([]) == 2
    assert "usage: claasbot" in capsys.readouterr().out


def test_the_log_is_for_its_owner_only_also_after_rotation(tmp_path):
    path = tmp_path / "bot.log"
    path.touch(mode=0o644)
    log = PrivateLog(path, maxBytes=10, backupCount=1)
    for number in range(2):
        log.emit(logging.makeLogRecord({"msg": f"a line that fills the file, {number}"}))
    log.close()
    assert [stat.S_IMODE(one.stat().st_mode) for one in sorted(tmp_path.glob("bot.log*"))] == [0o600, 0o600]


@pytest.mark.parametrize("url", ["http://192.168.1.5:8000", "http://gpu.example:8000", "http://[2001:db8::1]:8000"])
def test_a_server_beyond_this_machine_is_attached_over_tls_or_not_at_all(url):
    with pytest.raises(ValidationError, match=r"server\.allow_plain_http"):
        ServerSettings(url=url)
    assert ServerSettings(url=url, allow_plain_http=True).url == url
    assert ServerSettings(url=url.replace("http://", "https://")).url
    assert ServerSettings(url="http://127.0.0.1:8000").url
    assert ServerSettings(url="http://localhost:8000").url
