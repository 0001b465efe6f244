"""The key of an encrypted database: 32 random bytes as 64 hex digits, in a file for the owner's eyes."""

from __future__ import annotations

import os
import re
import secrets
import shlex
from pathlib import Path

from claasbot import adapter_files
from claasbot.errors import StoreError
from claasbot.masking import keep_secret

_KEY = re.compile(r"[0-9a-f]{64}")


def write_new(path: Path) -> None:
    """Raises StoreError for a file that is there: another database may depend on it."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise StoreError(f"{path} cannot be made ({error.strerror}); give the name of a new file") from error
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{secrets.token_hex(32)}\n")
        file.flush()
        os.fsync(descriptor)
    adapter_files.fsync(path.absolute().parent)


def read(path: Path) -> str:
    """Raises StoreError for a file that is no key, or that others than its owner may read."""
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"store.key_file {str(path)!r} cannot be read ({error}); say where the key is") from error
    if mode & 0o077:
        raise StoreError(f"others than its owner may read {path}; run `chmod 600 {shlex.quote(str(path))}`")
    return checked(text, str(path))


def checked(text: str, where: str) -> str:
    key = text.strip().lower()
    if not _KEY.fullmatch(key):
        raise StoreError(f"{where} holds no store key: 64 hex digits are needed; `claasbot store key` makes one")
    return keep_secret(key)
