"""The base model's folder: where it is, what its revision is, which chat template it has.

The bot and the trainer both ask here, so that both mean the same base. Reads names, small files and hashes, of weights
in several files a little of every tensor; makes no folder (`claasbot.training.prepare` does).
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path

from claasbot.adapter_files import sha256_of
from claasbot.errors import ModelMissing

PREPARED = "claasbot-model.json"
_INDEX, _ONE_FILE = "model.safetensors.index.json", "model.safetensors"
_BLOCK_BYTES = 4096


def find_model(model: str, hub_cache: Path | None = None) -> Path:
    """The folder of `model`: a path, or a Hugging Face name that is in the hub's cache already."""
    folder = Path(model)
    if folder.is_dir():
        return folder
    cache = hub_cache or Path.home() / ".cache/huggingface/hub"
    repository = cache / f"models--{model.replace('/', '--')}"
    try:
        return _snapshot(repository)
    except OSError as error:
        raise ModelMissing(
            f"base model {model!r} is neither a folder nor in {cache};"
            f" run `make model`, or `hf download {model}`, or set server.model"
        ) from error


def base_revision(folder: Path) -> str:
    """SHA-256 over the files that make the model what it is; the same folder, the same revision."""
    try:
        prepared = json.loads((folder / PREPARED).read_bytes())["files"]
        hashes = {name: entry["sha256"] for name, entry in prepared.items()}
    except OSError:
        weights = _weights_file(folder)
        hashes = {name: sha256_of(folder / name) for name in ("config.json", weights)}
        if weights == _INDEX:
            hashes |= {name: _fingerprint(folder / name) for name in _shards(folder / _INDEX)}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelMissing(f"{folder / PREPARED} is damaged ({error!r}); prepare the base model again") from error
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def template_hash(folder: Path) -> str:
    """SHA-256 of the chat template's text: answers under another one must not be trained together."""
    try:
        template = (folder / "chat_template.jinja").read_text()
    except OSError:
        template = _template_of_tokenizer(folder)
    return hashlib.sha256(template.encode()).hexdigest()


def _template_of_tokenizer(folder: Path) -> str:
    try:
        found = json.loads((folder / "tokenizer_config.json").read_bytes()).get("chat_template")
    except (OSError, ValueError) as error:
        raise ModelMissing(f"{folder} has no readable tokenizer_config.json ({error}); prepare it again") from error
    if isinstance(found, list):  # several, by name
        found = next((entry["template"] for entry in found if entry.get("name") == "default"), None)
    if not isinstance(found, str):
        raise ModelMissing(f"{folder} has no chat template; set server.model to a model that was made for chat")
    return found


def _weights_file(folder: Path) -> str:
    for name in (_INDEX, _ONE_FILE):
        if (folder / name).is_file() and (folder / "config.json").is_file():
            return name
    raise ModelMissing(
        f"{folder} has no config.json with safetensors weights; prepare the base model, or set server.model"
    )


def _shards(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelMissing(f"{index} lists no shards ({error!r}); download the base model again") from error


def _fingerprint(shard: Path) -> str:
    """SHA-256 over the size, the header, and a block from the middle of every tensor.

    All of it would be gigabytes at each start of the bot and the trainer. Size and header alone are the same for every
    fine-tune of an architecture; training moves whole tensors, so a block of each tells them apart.
    """
    digest = hashlib.sha256()
    try:
        with shard.open("rb") as file:
            n_bytes = file.seek(0, os.SEEK_END)
            file.seek(0)
            (n_header,) = struct.unpack("<Q", file.read(8))
            header = file.read(min(n_header, n_bytes))
            digest.update(struct.pack("<QQ", n_bytes, n_header) + header)
            tensors = [entry for name, entry in json.loads(header).items() if name != "__metadata__"]
            offsets = sorted(tuple(entry["data_offsets"]) for entry in tensors)
            if 8 + n_header + max(end for _, end in offsets) != n_bytes:
                raise ValueError(f"{n_bytes} bytes are not all of it")
            for start, end in offsets:
                file.seek(8 + n_header + max(start, (start + end - _BLOCK_BYTES) // 2))
                digest.update(file.read(min(_BLOCK_BYTES, end - start)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ModelMissing(f"{shard} is not whole ({error}); download the base model again") from error
    return digest.hexdigest()


def _snapshot(repository: Path) -> Path:
    """The revision that the hub's cache calls `main`. Raises OSError when there is none."""
    folder = repository / "snapshots" / (repository / "refs/main").read_text().strip()
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    return folder
