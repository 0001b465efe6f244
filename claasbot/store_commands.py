"""Backups, the store's key, exports and what is on record: by the running bot, or with the lock where none runs."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import quote, urlencode

from claasbot.app import store_key
from claasbot.data_folder import DataFolder
from claasbot.errors import BadInput, NotFound
from claasbot.own_command import own_command
from claasbot.running_bot import ask, ask_for_file
from claasbot.services.backing_up import Contents, backup, restore
from claasbot.services.burying import buried, bury
from claasbot.services.clock import utc_now
from claasbot.services.exporting import Exporting
from claasbot.services.snapshots import Kept, kept_in, name_at
from claasbot.settings import Settings
from claasbot.storage import audit, error_rows, keys
from claasbot.storage.audit import Chain
from claasbot.storage.encryption import change_key
from claasbot.storage.rows import Row
from claasbot.storage.store import Store


async def back_up(settings: Settings, to: Path) -> Contents:
    """By the running bot, or with the data folder's lock where none runs. `to` is absolute. Raises BadInput."""
    data = DataFolder(root=settings.data.absolute())
    if data.is_locked():
        facts = await ask(data.socket, "POST", "/api/backup", {"to": str(to)})
        return Contents(**{**facts, "folders": tuple(facts["folders"])})
    async with _own_store(data, store_key(settings)) as store:
        await store.run(audit.add, _host(), "made a backup", utc_now())
        return await backup(store, data.root, to, utc_now)


def backups(settings: Settings) -> list[Kept]:
    """Those that the bot made and keeps, the newest first."""
    return kept_in(settings.data.absolute() / settings.backup.folder)


def new_backup(settings: Settings) -> Path:
    """The folder of one that is made now, beside those that are kept."""
    return settings.data.absolute() / settings.backup.folder / name_at(utc_now())


async def put_back(settings: Settings, backup_folder: Path | None, *, is_aside: bool = False) -> Contents:
    """A backup (its absolute path; None: the newest that is kept) into a data folder that no bot uses.

    A database that is there is kept under another name where `is_aside`, else it refuses.
    Raises BadInput, AdapterDamaged, StoreError.
    """
    data = DataFolder(root=settings.data.absolute())
    if backup_folder is None:
        if not (kept := backups(settings)):
            raise BadInput(f"no backup is kept in {data.root / settings.backup.folder}; say which folder to restore.")
        backup_folder = kept[0].folder
    with data.lock():
        # First: a kill after the restore must not leave a database that nobody knows to forget somebody in.
        await asyncio.to_thread(bury, [data.root], buried(backup_folder.parent))
        contents = await asyncio.to_thread(
            restore, backup_folder, data.root, key=store_key(settings), aside_at=utc_now() if is_aside else None
        )
    async with _own_store(data, store_key(settings)) as store:
        did = f"restored the backup of {contents.made_at[:16]}; sessions and API keys ended"
        await store.run(audit.add, _host(), did, utc_now())
    return contents


async def rekey(settings: Settings, what: Literal["encrypt", "decrypt", "rekey"], new_key_file: Path | None) -> str:
    """Encrypt the database with the key of the settings, decrypt it, or give it the key of another file.

    No bot may run. Returns what is to be done now. Raises DataFolderInUse, NotFound, BadInput, StoreError.
    """
    data, key = DataFolder(root=settings.data.absolute()), store_key(settings)
    if not data.database.is_file():
        raise NotFound(f"there is no database in {data.root}; set CLAASBOT_DATA to the folder of your bot")
    if not key:
        raise BadInput(f"set store.key_file first; `{own_command('store key --to FILE')}` makes a key")
    if (what == "rekey") != (new_key_file is not None):
        raise BadInput("`store rekey` needs the file with the new key behind --to, and no other does")
    new_key = "" if what == "decrypt" else key if new_key_file is None else keys.read(new_key_file)
    with data.lock():
        n_rows = await asyncio.to_thread(change_key, data.database, "" if what == "encrypt" else key, new_key)
    async with _own_store(data, new_key) as store:
        await store.run(audit.add, _host(), f"store: {what}", utc_now())
    todo = {
        "encrypt": "Keep the key apart from the backups: without it they are lost. "
        "Backups from before and databases that a restore put aside stay readable",
        "decrypt": "Take store.key_file out of the settings",
        "rekey": f"Set store.key_file to {new_key_file}; backups from before keep the old key",
    }
    return f"{data.database}: {n_rows} rows checked. {todo[what]}."


async def hand_out(settings: Settings, person_id: int, to: Path) -> None:
    """Everything about one person into a zip that does not exist yet, by the running bot or by ourselves.

    Raises BadInput for a file that is there, NotFound for nobody.
    """
    data = DataFolder(root=settings.data.absolute())
    with _new_file(to) as file:
        if data.is_locked():
            await ask_for_file(data.socket, f"/api/people/{person_id}/export", file)
        else:
            await _export_ourselves(data, store_key(settings), person_id, file)


async def failures(settings: Settings, error_id: str = "") -> list[Row]:
    """What nobody expected, newest first, or the one of that number. Raises NotFound, and BadInput for no such one."""
    data = DataFolder(root=settings.data.absolute())
    if data.is_locked():
        found = await ask(data.socket, "GET", f"/api/errors{f'/{quote(error_id)}' if error_id else ''}")
        return [found] if error_id else list(found)
    async with _own_store(data, store_key(settings)) as store:
        if error_id:
            return [await store.run(error_rows.found, error_id)]
        return await store.run(error_rows.latest)


async def acts(settings: Settings, seen: str = "") -> tuple[list[Row], Chain]:
    """What admins did, newest first, and whether the chain holds. Raises NotFound where there is no bot at all."""
    data = DataFolder(root=settings.data.absolute())
    if data.is_locked():
        found = await ask(data.socket, "GET", f"/api/audit?{urlencode({'seen': seen} if seen else {})}")
        return found["rows"], Chain(**found["chain"])
    async with _own_store(data, store_key(settings)) as store:
        await store.run(audit.begin, utc_now())
        return await store.run(audit.latest), await store.run(audit.verify, seen)


@contextmanager
def _new_file(to: Path) -> Iterator[BinaryIO]:
    """Written aside, for the owner's eyes; there when it is whole, or not at all. Raises BadInput."""
    aside = to.with_name(f".{to.name}.aside")
    if to.exists():
        raise BadInput(f"{str(to)!r} exists already: give the name of a new file.")
    try:
        file = os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
    except OSError as error:
        raise BadInput(f"{str(to)!r} cannot be written ({error.strerror}): give the name of another file.") from error
    try:
        with file:
            yield file
        aside.rename(to)
    finally:
        aside.unlink(missing_ok=True)


async def _export_ourselves(data: DataFolder, key: str, person_id: int, file: BinaryIO) -> None:
    async with _own_store(data, key) as store, Exporting(store, data.root, utc_now).made(person_id) as made:
        with made.path.open("rb") as source:
            await asyncio.to_thread(shutil.copyfileobj, source, file)


@asynccontextmanager
async def _own_store(data: DataFolder, key: str) -> AsyncIterator[Store]:
    """Where no bot runs. Raises NotFound."""
    if not data.database.is_file():
        raise NotFound(f"there is no database in {data.root}; set CLAASBOT_DATA to the folder of your bot")
    with data.lock():
        store = Store(data.database, key=key)
        await store.open()
        try:
            yield store
        finally:
            await store.close()


def _host() -> str:
    """Whoever sits at the machine, as the audit calls them over the socket too."""
    return f"console:local:{getpass.getuser()}"
