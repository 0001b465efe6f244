"""`claasbot backup` and `claasbot restore`: the database and the versions that it names, whole or not at all.

A backup is made while the bot runs. Models, logs and job folders are not in it: they can be had again, or end with the
job. Refuses to write over anything.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from claasbot import adapter_files
from claasbot.errors import AdapterDamaged, BadInput
from claasbot.services.clock import Clock
from claasbot.storage import snapshot
from claasbot.storage.rows import text_of
from claasbot.storage.store import Store

DATABASE = "claasbot.db"
CONTENTS = "backup.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a backup holds; written last."""

    made_at: str
    database_sha256: str
    folders: tuple[str, ...]


async def backup(store: Store, data: Path, to: Path, clock: Clock) -> Contents:
    """Copy into a folder that does not exist yet; it appears when it is whole.

    Raises BadInput when there is something already, AdapterDamaged when a version does not match its manifest.
    """
    staged = await asyncio.to_thread(_stage, to)
    made_at = text_of(clock())
    folders = await store.run(snapshot.copy_to, staged / DATABASE)
    kept = await asyncio.to_thread(_copy_versions, data, staged, folders)
    return await asyncio.to_thread(_finish, staged, to, made_at, kept)


def restore(backup_folder: Path, data: Path) -> Contents:
    """Check a backup whole, then put it into a data folder that has no database. Raises BadInput, AdapterDamaged,
    StoreError; whatever it raises, the data folder is as it was.
    """
    contents = read_contents(backup_folder)
    if (data / DATABASE).exists():
        raise BadInput(
            f"{str(data)!r} holds a database already: move the folder away, or set CLAASBOT_DATA to another."
        )
    if adapter_files.sha256_of(backup_folder / DATABASE) != contents.database_sha256:
        raise BadInput(f"{backup_folder / DATABASE} is not the file that was backed up; use another backup.")
    snapshot.check(backup_folder / DATABASE)
    for folder in contents.folders:
        adapter_files.verify(backup_folder / folder)
    _copy_versions(backup_folder, data, list(contents.folders))
    aside = data / f".{DATABASE}.restored"
    shutil.copyfile(backup_folder / DATABASE, aside)
    aside.chmod(0o600)
    adapter_files.fsync(aside)
    aside.rename(data / DATABASE)
    adapter_files.fsync(data)
    return contents


def read_contents(backup_folder: Path) -> Contents:
    """Raises BadInput for a folder that is no whole backup."""
    try:
        facts = json.loads((backup_folder / CONTENTS).read_text(encoding="utf-8"))
        return Contents(**{**facts, "folders": tuple(facts["folders"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{str(backup_folder)!r} is no whole backup of claasbot ({error}).") from error


def _stage(to: Path) -> Path:
    if to.exists():
        raise BadInput(f"{str(to)!r} exists already: give the name of a new folder.")
    return adapter_files.stage(to)


def _copy_versions(source: Path, target: Path, folders: list[str]) -> tuple[str, ...]:
    """Every folder with its bytes checked after the copy; what was forgotten meanwhile is left out."""
    kept = []
    for folder in folders:
        try:
            adapter_files.copy(source / folder, target / folder)
        except AdapterDamaged:
            if (source / folder).exists():
                raise
            continue
        kept.append(folder)
    return tuple(kept)


def _finish(staged: Path, to: Path, made_at: str, folders: tuple[str, ...]) -> Contents:
    (staged / DATABASE).chmod(0o600)
    adapter_files.fsync(staged / DATABASE)
    contents = Contents(made_at=made_at, database_sha256=adapter_files.sha256_of(staged / DATABASE), folders=folders)
    adapter_files.write_aside(staged / CONTENTS, json.dumps(asdict(contents), indent=1))
    staged.chmod(0o700)
    staged.rename(to)
    adapter_files.fsync(to.parent)
    return contents
