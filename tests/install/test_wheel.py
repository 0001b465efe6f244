"""The wheel: code, templates and suites in, everything else out."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_carries_code_templates_and_suites_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"claasbot"}
    assert "claasbot/errors.py" in names
    assert not [name for name in names if "/var/" in name or name.endswith(".pyc")]
    for top, inside in (("templates", "claasbot/_templates"), ("data/suites", "claasbot/_suites")):
        tracked = {path.relative_to(ROOT / top) for path in (ROOT / top).rglob("*") if path.is_file()}
        assert tracked, f"{top} is empty"
        assert {f"{inside}/{path.as_posix()}" for path in tracked} <= set(names)


def test_code_finds_the_shipped_files_in_a_checkout_and_in_a_wheel(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    ask = "from claasbot import resources; print(resources.templates_dir()); print(resources.suites_dir())"

    def places(root: Path) -> list[str]:
        command = [sys.executable, "-P", "-c", ask]
        environment = os.environ | {"PYTHONPATH": str(root)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    assert places(ROOT) == [str(ROOT / "templates"), str(ROOT / "data/suites")]
    assert places(tmp_path) == [str(tmp_path / "claasbot/_templates"), str(tmp_path / "claasbot/_suites")]


def test_the_wheel_offers_the_command_and_the_servers_plugin(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")]
    offered = archive.read(name).decode()
    assert "claasbot = claasbot.cli:main" in offered
    assert "[vllm.general_plugins]" in offered
