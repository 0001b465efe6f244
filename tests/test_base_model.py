"""What makes a base model this one and no other, asked of its folder at every start."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from claasbot.base_model import base_revision
from claasbot.errors import ModelMissing

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


def shard(path: Path, *, seed: int = 0, trained: str = "", shape: tuple[int, int] = (64, 96)) -> None:
    """Two tensors; `trained` is the one that a fine-tune moved, so that layout and size stay the same."""
    rng = np.random.default_rng(seed)
    tensors = {name: rng.standard_normal(shape, dtype=np.float32) for name in ("layers.0.w", "layers.1.w")}
    for name in tensors.keys() & {trained}:
        tensors[name] = tensors[name] + np.float32(0.5)
    save_file(tensors, path)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[0]}}))
    for seed, name in enumerate(SHARDS):
        shard(tmp_path / name, seed=seed)
    return tmp_path


def test_a_fine_tune_of_the_same_layout_is_another_base_also_where_one_tensor_of_one_shard_moved(
    sharded: Path,
) -> None:
    before = base_revision(sharded)
    shard(sharded / SHARDS[1], seed=1, trained="layers.1.w")
    assert base_revision(sharded) != before
    shard(sharded / SHARDS[1], seed=1)
    assert base_revision(sharded) == before


def test_the_layout_of_a_shard_is_part_of_the_base(sharded: Path) -> None:
    before = base_revision(sharded)
    shard(sharded / SHARDS[0], shape=(96, 64))  # the same bytes in another shape
    assert base_revision(sharded) != before


def test_a_shard_that_is_missing_or_cut_short_is_named(sharded: Path) -> None:
    whole = (sharded / SHARDS[1]).read_bytes()
    for broken in (whole[:-4], whole[:20], b"", b"version https://git-lfs.github.com/spec/v1"):
        (sharded / SHARDS[1]).write_bytes(broken)
        with pytest.raises(ModelMissing, match=SHARDS[1]):
            base_revision(sharded)
    (sharded / SHARDS[1]).unlink()
    with pytest.raises(ModelMissing, match=SHARDS[1]):
        base_revision(sharded)
    (sharded / INDEX).write_text("{}")
    with pytest.raises(ModelMissing, match=INDEX):
        base_revision(sharded)


def test_a_model_in_one_file_keeps_the_revision_that_versions_were_trained_on(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    hashes = {
        "config.json": hashlib.sha256(b"{}").hexdigest(),
        "model.safetensors": hashlib.sha256(b"weights").hexdigest(),
    }
    assert base_revision(tmp_path) == hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
