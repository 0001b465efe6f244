"""Admin sign-in tokens and sessions: only hashes are stored, so a stolen database opens no door."""

from __future__ import annotations

import hashlib
from datetime import datetime

from sqlite_utils import Database

from claasbot.storage.rows import change, insert, one, text_of


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def add_sign_in_token(db: Database, token: str, not_older_than: datetime, now: datetime) -> None:
    """What is over goes: older tokens, used or not, and ended sessions."""
    change(db, "DELETE FROM sign_in_token WHERE created_at < ?", text_of(not_older_than))
    change(db, "DELETE FROM admin_session WHERE expires_at < ?", text_of(now))
    insert(db, "sign_in_token", token_sha256=digest(token), created_at=text_of(now))


def spend_sign_in_token(db: Database, token: str, not_older_than: datetime, now: datetime) -> bool:
    """True once per token, while it is young enough."""
    return (
        change(
            db,
            "UPDATE sign_in_token SET used_at = ? WHERE token_sha256 = ? AND used_at IS NULL AND created_at >= ?",
            text_of(now),
            digest(token),
            text_of(not_older_than),
        )
        == 1
    )


def add_session(db: Database, token: str, csrf_token: str, expires_at: datetime, now: datetime) -> None:
    insert(
        db,
        "admin_session",
        token_sha256=digest(token),
        csrf_token=csrf_token,
        created_at=text_of(now),
        expires_at=text_of(expires_at),
    )


def csrf_of_session(db: Database, token: str, now: datetime) -> str | None:
    """The CSRF token of a session that is still good."""
    row = one(
        db,
        "SELECT csrf_token FROM admin_session WHERE token_sha256 = ? AND expires_at > ?",
        digest(token),
        text_of(now),
    )
    return None if row is None else str(row["csrf_token"])


def end_session(db: Database, token: str) -> None:
    change(db, "DELETE FROM admin_session WHERE token_sha256 = ?", digest(token))
