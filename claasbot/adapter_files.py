"""Version folders: written aside, flushed, renamed, and checked against their manifest.

A folder under its final name is whole and never changes. Refuses to know what the files mean:
adapters are plain PEFT folders, and the optimizer state lies beside them as safetensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from claasbot.errors import AdapterDamaged

MANIFEST = "manifest.json"
WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
OPTIMIZER = "optimizer.safetensors"

_DELETE_TRIES = 20  # each failure of two that delete the same folder is progress of the other


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a version folder is and what every file in it must hash to. No clock: the same job, the same bytes."""

    version_name: str
    parent: str
    job_id: str
    base_revision: str
    weights_sha256: str
    files: dict[str, str]
    """File name → SHA-256, the manifest itself excepted."""


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stage(folder: Path) -> Path:
    """An empty folder beside `folder` to write into; what a crash left there is removed."""
    staged = folder.with_name(f".{folder.name}.staged")
    if staged.exists():
        shutil.rmtree(staged)
    _make(staged.parent)
    staged.mkdir()
    return staged


def _make(folder: Path) -> None:
    """A folder whose name, and those of its parents, are on the disk: else power loss takes what is in it too."""
    if not folder.exists():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync(folder.parent)


def seal(staged: Path, folder: Path, *, version_name: str, parent: str, job_id: str, base_revision: str) -> Manifest:
    """Write the manifest, flush every file, then rename: readers trust the final name only.

    A folder that is already there stays if it holds the same bytes (a job that ran twice).
    Raises AdapterDamaged if it holds others: a version never changes.
    """
    files = {path.name: sha256_of(path) for path in sorted(staged.iterdir())}
    manifest = Manifest(
        version_name=version_name,
        parent=parent,
        job_id=job_id,
        base_revision=base_revision,
        weights_sha256=files[WEIGHTS],
        files=files,
    )
    (staged / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1, sort_keys=True))
    for path in staged.iterdir():
        path.chmod(0o644)
        fsync(path)
    fsync(staged)
    if folder.exists():
        return _same_or_refuse(staged, folder, manifest)
    _put(staged, folder)
    return manifest


def _put(staged: Path, folder: Path) -> None:
    """Rename, and be sure of it. A name that may not outlive the power is taken back: the next attempt begins anew."""
    staged.rename(folder)
    try:
        fsync(folder.parent)
    except OSError:
        folder.rename(staged)
        raise


def _same_or_refuse(staged: Path, folder: Path, manifest: Manifest) -> Manifest:
    there = verify(folder)
    if there != manifest:
        raise AdapterDamaged(f"{folder} already holds another {there.version_name!r}; versions are never overwritten")
    shutil.rmtree(staged)
    fsync(folder.parent)  # it may have been renamed by a process that was killed before it was sure
    return there


def read_manifest(folder: Path) -> Manifest:
    """Raises AdapterDamaged when the manifest is missing or not one of ours."""
    try:
        return Manifest(**json.loads((folder / MANIFEST).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise AdapterDamaged(
            f"{folder} has no readable {MANIFEST} ({error}); roll back to an earlier version"
        ) from error


def verify(folder: Path) -> Manifest:
    """The manifest of a folder whose every file hashes to what the manifest says."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_symlink() or not path.is_file():  # a pipe would be read for ever
            raise AdapterDamaged(f"{path} is not a plain file; roll back to an earlier version")
    manifest = read_manifest(folder)
    there = {path.name for path in folder.iterdir()} - {MANIFEST}
    if there != set(manifest.files):
        odd = sorted(there ^ set(manifest.files))
        raise AdapterDamaged(f"{folder}: files {odd!r} do not match the manifest; roll back to an earlier version")
    for name, expected in manifest.files.items():
        found = sha256_of(folder / name)
        if found != expected:
            raise AdapterDamaged(f"{folder / name} hashes to {found[:12]}, expected {expected[:12]}; roll back")
    return manifest


def copy(folder: Path, to: Path) -> Manifest:
    """A copy whose bytes are checked, under its final name when it is whole. Raises AdapterDamaged.

    A whole copy that is there already stays.
    """
    if to.exists():
        return verify(to)
    if not folder.exists():
        raise AdapterDamaged(f"there is no version folder {folder}; roll back to an earlier version")
    staged = stage(to)
    for path in folder.iterdir():
        shutil.copyfile(path, staged / path.name)
        fsync(staged / path.name)
    manifest = verify(staged)
    fsync(staged)
    _put(staged, to)
    return manifest


def link(folder: Path, to: Path) -> None:
    """The same files under another name, without a copy; the name appears when all are there. Raises OSError."""
    staged = stage(to)
    for path in folder.iterdir():
        os.link(path, staged / path.name)
    fsync(staged)
    _put(staged, to)


def remove(folder: Path) -> None:
    """Delete a folder. A crash leaves no half of it under its final name, and the next call deletes what is left."""
    doomed = folder.with_name(f".{folder.name}.doomed")
    _delete(doomed)
    with suppress(FileNotFoundError):
        folder.rename(doomed)
    _delete(doomed)


def _delete(folder: Path) -> None:
    """Also while another process writes into it under its old name, or deletes it too. No such folder is fine."""
    if folder.is_symlink():  # what it leads to is not ours to delete
        folder.unlink()
    for n_left in reversed(range(_DELETE_TRIES)):
        if not folder.exists():
            return
        try:
            shutil.rmtree(folder)
        except OSError:
            if n_left == 0:
                raise


def write_aside(path: Path, text: str, *, mode: int = 0o600) -> None:
    """A file that appears whole or not at all, and is on the disk when this returns."""
    aside = path.with_name(f".{path.name}.aside")
    aside.write_text(text)
    aside.chmod(mode)
    fsync(aside)
    aside.rename(path)
    fsync(path.parent)


def fsync(path: Path) -> None:
    """Return when a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
