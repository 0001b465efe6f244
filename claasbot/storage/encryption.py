"""Encrypts a database that nobody has open, decrypts it, or gives it another key.

The new file is made aside, compared row by row with the old one, and takes its name in one step. What a kill leaves
behind is removed by the next try. Refuses to say "encrypted" while the readable file still lies there.
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

from claasbot import adapter_files
from claasbot.errors import StoreError
from claasbot.storage import seal, snapshot
from claasbot.storage.connecting import ERRORS, cipher_connection, connect, explain, is_encrypted, pragma_key

_BLOCK = 1 << 20


def change_key(path: Path, key: str, new_key: str) -> int:
    """Returns how many rows there are. An empty key stands for a file that is not encrypted.

    Raises StoreError; whatever it raises, and wherever it is killed, one whole database has the name.
    """
    made, before = path.with_name(f".{path.name}.made"), path.with_name(f".{path.name}.before")
    wipe_leftovers(path)
    if key != new_key and path.exists() and _opens_with(path, new_key):
        return _n_rows(path, new_key)  # it was done, and killed on the way to saying so
    try:
        _export(path, key, made, new_key)
        snapshot.check(made, new_key)
        digest, n_rows = _content(path, key)
        if _content(made, new_key) != (digest, n_rows):
            raise StoreError(f"{made} does not hold what {path} holds; the old file stays, try again")
    except ERRORS as error:
        raise StoreError(explain(error, path, key)) from error
    made.chmod(0o600)
    adapter_files.fsync(made)
    before.hardlink_to(path)
    seal.remove(path)
    made.rename(path)
    adapter_files.fsync(path.parent)
    _wipe(before)
    return n_rows


def _export(path: Path, key: str, made: Path, new_key: str) -> None:
    with closing(cipher_connection(path)) as connection:
        if key:
            connection.execute(pragma_key(key))
        connection.execute("PRAGMA quick_check").fetchall()  # plays back what a crash left in the journal
        connection.execute("ATTACH ? AS made KEY ?", (str(made), f"x'{new_key}'" if new_key else ""))
        connection.execute("SELECT sqlcipher_export('made')").fetchall()
        connection.execute("DETACH made")


def _opens_with(path: Path, key: str) -> bool:
    if is_encrypted(path) != bool(key):
        return False
    try:
        with closing(connect(path, key, is_read_only=True)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except StoreError:
        return False
    except ERRORS:
        return False
    return True


def _content(path: Path, key: str) -> tuple[str, int]:
    """A hash over every row of every table, and how many rows there are."""
    found, n_rows = hashlib.sha256(), 0
    with closing(connect(path, key, is_read_only=True)) as connection:
        for name, sql in _tables(connection):
            found.update(f"{name} {sql}\n".encode())
            for row in connection.execute(f'SELECT * FROM "{name}" ORDER BY rowid'):  # noqa: S608 - from the schema
                found.update(repr(tuple(row)).encode())
                n_rows += 1
    return found.hexdigest(), n_rows


def _n_rows(path: Path, key: str) -> int:
    return _content(path, key)[1]


def _tables(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    return connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall()


def wipe_leftovers(path: Path) -> None:
    """What a killed `change_key` left beside a database: it may be readable."""
    _wipe(path.with_name(f".{path.name}.before"))
    path.with_name(f".{path.name}.made").unlink(missing_ok=True)


def _wipe(path: Path) -> None:
    """Overwritten before it goes, as far as the disk overwrites in place."""
    if not path.exists():
        return
    if path.stat().st_nlink == 1:  # killed before the new file took the name: it is the database itself, twice named
        with path.open("r+b") as file:
            for _ in range(0, path.stat().st_size, _BLOCK):
                file.write(bytes(_BLOCK))
            file.flush()
        adapter_files.fsync(path)
    path.unlink()
    adapter_files.fsync(path.parent)
