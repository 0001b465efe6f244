"""Keys of programs: shown once, stored as hashes, good until a day."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlite_utils import Database

from claasbot.domain.admin import ApiKey, Scope
from claasbot.errors import NotFound
from claasbot.storage.digests import digest
from claasbot.storage.rows import Row, change, insert, one, rows, text_of, time_of

_USED_EVERY = timedelta(minutes=1)
"""Each write waits for the disk: a use is noted at most this often."""


def add(
    db: Database, token: str, name: str, scopes: frozenset[Scope], made_by: str, now: datetime, expires_at: datetime
) -> int:
    return insert(
        db,
        "api_key",
        token_sha256=digest(token),
        name=name,
        scopes=" ".join(sorted(scopes)),
        made_by=made_by,
        created_at=text_of(now),
        expires_at=text_of(expires_at),
    )


def key_of(db: Database, token: str, now: datetime) -> ApiKey | None:
    """The key, if it is still good."""
    row = _good(db, token, now)
    return None if row is None else _key(row)


def use(db: Database, token: str, now: datetime) -> ApiKey | None:
    """`key_of`, and its use is noted."""
    row = _good(db, token, now)
    if row is None:
        return None
    if row["last_used_at"] is None or abs(now - time_of(row["last_used_at"])) >= _USED_EVERY:
        change(db, "UPDATE api_key SET last_used_at = ? WHERE id = ?", text_of(now), row["id"])
    return _key(row)


def everything(db: Database) -> list[Row]:
    """For the owner: every key that is not revoked, without its hash."""
    return rows(
        db,
        "SELECT id, name, scopes, made_by, created_at, expires_at, last_used_at FROM api_key"
        " WHERE revoked_at IS NULL ORDER BY id",
    )


def revoke(db: Database, key_id: int, now: datetime) -> str:
    """The name of the key that opens nothing any more. Raises NotFound."""
    row = one(db, "SELECT name FROM api_key WHERE id = ? AND revoked_at IS NULL", key_id)
    if row is None:
        raise NotFound("There is no such key.")
    change(db, "UPDATE api_key SET revoked_at = ? WHERE id = ?", text_of(now), key_id)
    return str(row["name"])


def revoke_of(db: Database, made_by: str, now: datetime) -> list[int]:
    """Which keys open nothing any more."""
    found = rows(db, "SELECT id FROM api_key WHERE made_by = ? AND revoked_at IS NULL", made_by)
    for row in found:
        revoke(db, row["id"], now)
    return [row["id"] for row in found]


def _good(db: Database, token: str, now: datetime) -> Row | None:
    sql = "SELECT * FROM api_key WHERE token_sha256 = ? AND revoked_at IS NULL AND expires_at > ?"
    return one(db, sql, digest(token), text_of(now))


def _key(row: Row) -> ApiKey:
    scopes: frozenset[Scope] = frozenset(row["scopes"].split())
    return ApiKey(key_id=row["id"], name=row["name"], scopes=scopes)
