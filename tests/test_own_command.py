"""A command that is printed can be typed."""

import os
import sys

import pytest

from claasbot.own_command import own_command


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An environment as `make install` makes it, seen from the folder above it."""
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "claasbot"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(tmp_path)
    return folder


def test_outside_an_activated_environment_it_is_the_path_from_here(installed):
    assert own_command("chat") == ".venv/bin/claasbot chat"


def test_far_away_it_is_the_whole_path(installed, monkeypatch, tmp_path):
    far = tmp_path / "a" / "b" / "c" / "d"
    far.mkdir(parents=True)
    monkeypatch.chdir("/")
    assert own_command("chat") in (f"{installed}/claasbot chat", f"{str(installed)[1:]}/claasbot chat")


def test_on_the_path_it_is_its_name(installed, monkeypatch):
    monkeypatch.setenv("PATH", f"{installed}{os.pathsep}/usr/bin")
    assert own_command("run") == "claasbot run"


def test_another_claasbot_on_the_path_is_not_meant(installed, monkeypatch, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "claasbot").write_text("#!/bin/sh\n")
    (other / "claasbot").chmod(0o755)
    monkeypatch.setenv("PATH", str(other))
    assert own_command("run") == ".venv/bin/claasbot run"


def test_without_a_script_it_is_the_module(installed):
    (installed / "claasbot").unlink()
    assert own_command("run") == ".venv/bin/python -m claasbot run"
