"""What the bot asks about the machine that it runs on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_ASK = """
from claasbot.machines import base_model_name, is_gpu, wants_embedded_model
from claasbot.settings import Settings
settings = Settings()
print(is_gpu(settings), wants_embedded_model(settings), base_model_name(settings))
"""


def test_whether_there_is_a_gpu_is_asked_once(tmp_path: Path) -> None:
    asked, tool = tmp_path / "asked", tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho once >> {asked}\n")
    tool.chmod(0o700)
    told = subprocess.run(
        [sys.executable, "-c", _ASK], env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.split()[:2] == ["True", "False"]
    assert asked.read_text() == "once\n"
