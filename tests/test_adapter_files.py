"""Version folders are whole or absent, and never change."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from claasbot import adapter_files
from claasbot.adapter_files import ADAPTER_CONFIG, MANIFEST, OPTIMIZER, WEIGHTS
from claasbot.errors import AdapterDamaged

FACTS = {"version_name": "p1.v1", "parent": "base", "job_id": "j", "base_revision": "r"}


def made(folder, weights=b"weights"):
    staged = adapter_files.stage(folder)
    for name, content in ((WEIGHTS, weights), (OPTIMIZER, b"state"), (ADAPTER_CONFIG, b"{}")):
        (staged / name).write_bytes(content)
    return adapter_files.seal(staged, folder, **FACTS)


def test_a_sealed_folder_verifies_and_leaves_nothing_beside_it(tmp_path):
    manifest = made(tmp_path / "v1")
    assert adapter_files.verify(tmp_path / "v1") == manifest
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]


def test_the_same_job_twice_finds_the_same_version(tmp_path):
    assert made(tmp_path / "v1") == made(tmp_path / "v1")


def test_a_version_is_never_overwritten(tmp_path):
    made(tmp_path / "v1")
    with pytest.raises(AdapterDamaged, match="never overwritten"):
        made(tmp_path / "v1", b"others")
    assert (tmp_path / "v1" / WEIGHTS).read_bytes() == b"weights"


@pytest.mark.parametrize("name", [WEIGHTS, OPTIMIZER, ADAPTER_CONFIG])
def test_a_changed_file_is_noticed(tmp_path, name):
    made(tmp_path / "v1")
    (tmp_path / "v1" / name).write_bytes(b"changed")
    with pytest.raises(AdapterDamaged, match="expected"):
        adapter_files.verify(tmp_path / "v1")


def test_a_missing_or_added_file_is_noticed(tmp_path):
    made(tmp_path / "v1")
    (tmp_path / "v1" / "extra").write_text("x")
    with pytest.raises(AdapterDamaged, match="'extra'"):
        adapter_files.verify(tmp_path / "v1")
    (tmp_path / "v1" / "extra").unlink()
    (tmp_path / "v1" / OPTIMIZER).unlink()
    with pytest.raises(AdapterDamaged, match="optimizer"):
        adapter_files.verify(tmp_path / "v1")


def test_a_folder_without_a_manifest_is_no_version(tmp_path):
    made(tmp_path / "v1")
    (tmp_path / "v1" / MANIFEST).write_text("{")
    with pytest.raises(AdapterDamaged, match="no readable manifest"):
        adapter_files.verify(tmp_path / "v1")


def test_what_a_crash_left_staged_is_thrown_away(tmp_path):
    (adapter_files.stage(tmp_path / "v1") / "half").write_text("x")
    assert list(adapter_files.stage(tmp_path / "v1").iterdir()) == []


def test_removing_goes_on_where_a_crash_stopped_it(tmp_path):
    made(tmp_path / "p1")
    (tmp_path / "p1").rename(tmp_path / ".p1.doomed")
    adapter_files.remove(tmp_path / "p1")
    assert list(tmp_path.iterdir()) == []


def test_removing_takes_the_leftover_of_a_crash_along(tmp_path):
    made(tmp_path / "p1")
    (tmp_path / "p1").rename(tmp_path / ".p1.doomed")
    made(tmp_path / "p1", b"others")
    adapter_files.remove(tmp_path / "p1")
    adapter_files.remove(tmp_path / "p1")
    assert list(tmp_path.iterdir()) == []


def test_two_may_remove_the_same_folder(tmp_path):
    for n in range(50):
        for version in ("v1", "v2"):
            made(tmp_path / "p1" / version, str(n).encode())
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(adapter_files.remove, [tmp_path / "p1"] * 2))
        assert list(tmp_path.iterdir()) == []
