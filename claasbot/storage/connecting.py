"""How a database file is opened, plain or encrypted, and what its errors mean. Refuses to know any table.

Encrypted files go through SQLCipher: every page is enciphered and carries an HMAC, so that a changed bit is noticed
when the page is read. Its errors are of classes of their own.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Literal

from claasbot.errors import StoreError
from claasbot.own_command import own_command

try:
    from sqlcipher3 import dbapi2
except ImportError:  # it is published for Linux only
    dbapi2 = None
sqlcipher: Any = dbapi2

Trouble = Literal["busy", "full", "disk", "damaged", "other"]

ERRORS: tuple[type[Exception], ...] = (sqlite3.Error, UnicodeDecodeError)
"""What a database raises; text of a damaged one may be none, also in its own messages."""
INTEGRITY: tuple[type[Exception], ...] = (sqlite3.IntegrityError,)
if sqlcipher is not None:
    ERRORS = (*ERRORS, sqlcipher.Error)
    INTEGRITY = (*INTEGRITY, sqlcipher.IntegrityError)

_PLAIN = b"SQLite format 3\0"
_NO_TEXT = "Could not decode to UTF-8"
_DISK = ("IOERR", "CANTOPEN", "READONLY", "NOMEM")


def connect(path: Path | None, key: str = "", *, is_read_only: bool = False) -> sqlite3.Connection:
    """A connection whose transactions are begun by hand; `path` None keeps everything in memory.

    `key` is 64 hex digits, or empty for a plain file. Raises StoreError where file and key do not belong together.
    """
    if path is not None:
        refuse_wrong_kind(path, key)
    where: Path | str = path or ":memory:"
    if is_read_only:
        where = f"file:{path}?mode=ro"
    if not key:
        return sqlite3.connect(where, isolation_level=None, uri=is_read_only)
    connection: sqlite3.Connection = _sqlcipher().connect(where, isolation_level=None, uri=is_read_only)
    connection.execute("PRAGMA cipher_log_level = NONE")  # it would say on stderr what we say in one line
    connection.execute(pragma_key(key))
    return connection


def cipher_connection(path: Path) -> sqlite3.Connection:
    """Of SQLCipher without a key: it reads and writes plain files, and attaches encrypted ones."""
    connection: sqlite3.Connection = _sqlcipher().connect(path, isolation_level=None)
    connection.execute("PRAGMA cipher_log_level = NONE")
    return connection


def pragma_key(key: str) -> str:
    """The 32 bytes themselves, not a passphrase to derive them from."""
    return f"PRAGMA key = \"x'{key}'\""


def is_encrypted(path: Path) -> bool:
    """Of a database that is there and not empty."""
    with path.open("rb") as file:
        start = file.read(len(_PLAIN))
    return bool(start) and start != _PLAIN


def refuse_wrong_kind(path: Path, key: str) -> None:
    if not path.is_file() or path.stat().st_size == 0:
        return
    if key and not is_encrypted(path):
        raise StoreError(f"{path} is not encrypted, but there is a store key; run `{own_command('store encrypt')}`")


def trouble_of(error: BaseException) -> Trouble:
    code = _code(error)
    if "BUSY" in code or "LOCKED" in code:
        return "busy"
    if "FULL" in code:
        return "full"
    if "CORRUPT" in code or "NOTADB" in code or isinstance(error, UnicodeDecodeError) or _NO_TEXT in str(error):
        return "damaged"
    return "disk" if any(name in code for name in _DISK) else "other"


def explain(error: BaseException, path: Path | None, key: str = "") -> str:
    """One line: what is wrong, what became of the file, what to do."""
    match trouble_of(error):
        case "busy":
            return f"{path} is locked by another program; close it and try again"
        case "full":
            return f"the disk is full: nothing was written to {path}; free space and try again"
        case "damaged" if "NOTADB" not in _code(error):
            return f"{path} is damaged ({error}); stop claasbot and run `{own_command('restore --aside')}`"
        case "damaged" if key:
            return f"{path} does not open with this store key; give the right one, or restore a backup"
        case "damaged":
            return f"{path} is damaged or encrypted ({error}); set store.key_file, or restore a backup"
        case "disk":
            return f"the disk failed: what was written to {path} last is not safe ({error}); see to the disk"
    return f"{path}: {error}"


def _code(error: BaseException) -> str:
    return getattr(error, "sqlite_errorname", "") or ""


def _sqlcipher() -> Any:
    if sqlcipher is None:
        raise StoreError("store.key needs the package sqlcipher3, which is published for Linux only; leave the key out")
    return sqlcipher
