"""`claasbot backup` and `claasbot restore`: the database and the versions that it names, whole or not at all.

A backup is made while the bot runs. Models, logs and job folders are not in it: they can be had again, or end with the
job. Refuses to write over anything.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from claasbot import adapter_files
from claasbot.errors import AdapterDamaged, BadInput
from claasbot.services.clock import Clock, utc_now
from claasbot.storage import putting_back, seal, snapshot
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


async def backup(store: Store, data: Path, to: Path, clock: Clock, *, before: Path | None = None) -> Contents:
    """Copy into a folder that does not exist yet; it appears when it is whole. `before`: an earlier backup on the same
    disk, to whose version files it links instead of copying them again.

    Raises BadInput when there is something already, AdapterDamaged when a version does not match its manifest.
    """
    staged = await asyncio.to_thread(_stage, to)
    made_at = text_of(clock())
    folders = await store.copy_to(staged / DATABASE)
    if before is not None:
        await asyncio.to_thread(_link_versions, data, before, staged, folders)
    kept = await asyncio.to_thread(_copy_versions, data, staged, folders)
    return await asyncio.to_thread(_finish, staged, to, made_at, kept)


def restore(
    backup_folder: Path, data: Path, *, key: str = "", aside_at: datetime | None = None, clock: Clock = utc_now
) -> Contents:
    """Check a backup whole, then put it into a data folder that has no database. `key`: the store's, when it was made.
    `aside_at`: the time now, to keep a database that is there under another name.

    No number that was given out since is given out again, as far as it is known here, and nobody stays signed in.

    Raises BadInput, AdapterDamaged, StoreError; whatever it raises, the data folder is as it was.
    """
    contents = read_contents(backup_folder)
    if (data / DATABASE).exists() and aside_at is None:
        raise BadInput(
            f"{str(data)!r} holds a database already: keep it under another name with --aside, or set CLAASBOT_DATA to "
            "another folder."
        )
    if adapter_files.sha256_of(backup_folder / DATABASE) != contents.database_sha256:
        raise BadInput(f"{backup_folder / DATABASE} is not the file that was backed up; use another backup.")
    snapshot.check(backup_folder / DATABASE, key)
    for folder in contents.folders:
        adapter_files.verify(backup_folder / folder)
        _refuse_another(backup_folder / folder, data / folder)
    _copy_versions(backup_folder, data, list(contents.folders))
    aside = data / f".{DATABASE}.restored"
    shutil.copyfile(backup_folder / DATABASE, aside)
    aside.chmod(0o600)
    putting_back.prepare(aside, key, putting_back.given_out_by(data / DATABASE, key, data / "adapters"), clock())
    adapter_files.fsync(aside)
    seal.remove(data / DATABASE)
    if aside_at is not None:
        _move_aside(data / DATABASE, aside_at)
    aside.rename(data / DATABASE)
    adapter_files.fsync(data)
    return contents


def _refuse_another(version: Path, there: Path) -> None:
    """A folder of the same name that holds other bytes: it would answer in place of the one that the rows mean."""
    if there.exists() and adapter_files.read_manifest(there) != adapter_files.read_manifest(version):
        raise BadInput(f"{there} is another version of that name; move it out of the data folder and restore again.")


def _move_aside(database: Path, now: datetime) -> None:
    """With its journal, which belongs to the file of its name: it must not be played back into another."""
    kept = database.with_name(f"{database.name}.until-{now:%Y%m%dT%H%M%SZ}")
    for suffix in ("", "-journal"):
        with suppress(FileNotFoundError):
            database.with_name(database.name + suffix).rename(kept.with_name(kept.name + suffix))
    adapter_files.fsync(database.parent)


def read_contents(backup_folder: Path) -> Contents:
    """Raises BadInput for a folder that is no whole backup."""
    try:
        facts = json.loads((backup_folder / CONTENTS).read_text(encoding="utf-8"))
        contents = Contents(**{**facts, "folders": tuple(facts["folders"])})
        for folder in map(PurePosixPath, contents.folders):
            if folder.is_absolute() or ".." in folder.parts:
                raise ValueError(f"{str(folder)!r} is outside of it")
        return contents
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


def _link_versions(data: Path, before: Path, staged: Path, folders: list[str]) -> None:
    """What cannot be linked, and what is not the same version, is copied afterwards."""
    for folder in folders:
        with suppress(OSError, AdapterDamaged):
            if adapter_files.read_manifest(before / folder) == adapter_files.read_manifest(data / folder):
                adapter_files.link(before / folder, staged / folder)


def _finish(staged: Path, to: Path, made_at: str, folders: tuple[str, ...]) -> Contents:
    (staged / DATABASE).chmod(0o600)
    adapter_files.fsync(staged / DATABASE)
    contents = Contents(made_at=made_at, database_sha256=adapter_files.sha256_of(staged / DATABASE), folders=folders)
    adapter_files.write_aside(staged / CONTENTS, json.dumps(asdict(contents), indent=1))
    staged.chmod(0o700)
    staged.rename(to)
    adapter_files.fsync(to.parent)
    return contents
