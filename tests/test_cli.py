"""The command line: quick, clear, and without torch."""

import subprocess
import sys

import pytest

from claasbot.cli import main


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
        f"(in {config} or the environment; see `claasbot settings`)\n"
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
    assert "claasbot run" in capsys.readouterr().err


def test_settings_from_file_and_environment_meet_in_one_tree(tmp_path, monkeypatch, capsys):
    config = tmp_path / "claasbot.toml"
    config.write_text("[chat]\nmax_tokens = 99\n")
    monkeypatch.setenv("CLAASBOT_RECIPE__N_STEPS", "2")
    assert main(["--config", str(config), "settings"]) == 0
    out = capsys.readouterr().out
    assert "chat.max_tokens = 99 (default 256)" in out
    assert "recipe.n_steps = 2 (default 4)" in out
