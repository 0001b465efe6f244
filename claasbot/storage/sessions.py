"""Sign-in links and the sessions of admins: only hashes are stored, so a stolen database opens no door."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlite_utils import Database

from claasbot.domain.admin import Admin
from claasbot.errors import NotFound
from claasbot.storage import admins
from claasbot.storage.digests import digest
from claasbot.storage.rows import Row, change, insert, one, rows, text_of, time_of

_SEEN_EVERY = timedelta(minutes=1)
"""Each write waits for the disk: a session is seen at most this often."""
_CLOCK_SLACK = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One browser in which an admin has signed in."""

    session_id: int
    admin: Admin
    csrf_token: str
    is_by_link: bool
    """It was opened by a link from the terminal, which proves more than a password."""
    address: str
    browser: str
    created_at: str
    last_seen_at: str
    expires_at: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NewSession:
    token: str
    csrf_token: str
    is_by_link: bool
    address: str
    browser: str


def add_sign_in_token(
    db: Database, token: str, not_older_than: datetime, now: datetime, *, admin_id: int | None = None
) -> None:
    """What is over goes: older tokens, used or not, and sessions. `admin_id` None: whoever is the first owner then."""
    change(db, "DELETE FROM sign_in_token WHERE created_at < ?", text_of(not_older_than))
    change(db, "DELETE FROM admin_session WHERE expires_at < ?", text_of(now))
    insert(db, "sign_in_token", token_sha256=digest(token), created_at=text_of(now), admin_id=admin_id)


def spend_sign_in_token(db: Database, token: str, not_older_than: datetime, now: datetime) -> Admin | None:
    """Whom the token signs in: once, while it is young enough."""
    sql = "UPDATE sign_in_token SET used_at = ? WHERE token_sha256 = ? AND used_at IS NULL AND created_at >= ?"
    if change(db, sql, text_of(now), digest(token), text_of(not_older_than)) != 1:
        return None
    spent = rows(db, "SELECT admin_id FROM sign_in_token WHERE token_sha256 = ?", digest(token))[0]["admin_id"]
    if spent is None:
        return admins.first_owner(db, now)
    return next(admin for admin in admins.everybody(db) if admin.admin_id == spent)


def add_session(db: Database, admin_id: int, new: NewSession, now: datetime, expires_at: datetime) -> int:
    return insert(
        db,
        "admin_session",
        token_sha256=digest(new.token),
        csrf_token=new.csrf_token,
        admin_id=admin_id,
        is_by_link=int(new.is_by_link),
        address=new.address,
        browser=new.browser,
        created_at=text_of(now),
        last_seen_at=text_of(now),
        expires_at=text_of(expires_at),
    )


def session_of(db: Database, token: str, now: datetime, idle: timedelta) -> Session | None:
    """The session that the token opens, if it is still good."""
    row = one(db, f"{_SESSION} AND token_sha256 = ?", digest(token))
    return _session(row) if row is not None and _is_good(row, now, idle) else None


def use(db: Database, token: str, now: datetime, idle: timedelta) -> Session | None:
    """`session_of`, and the session is not idle."""
    found = session_of(db, token, now, idle)
    if found is not None and now - time_of(found.last_seen_at) >= min(_SEEN_EVERY, idle / 10):
        change(db, "UPDATE admin_session SET last_seen_at = ? WHERE id = ?", text_of(now), found.session_id)
    return found


def open_now(db: Database, admin_id: int | None, now: datetime, idle: timedelta) -> list[Session]:
    """The good sessions of one admin, or of everybody; latest use first."""
    found = rows(db, f"{_SESSION} AND ? IN (admin_id, 0) ORDER BY last_seen_at DESC", admin_id or 0)
    return [_session(row) for row in found if _is_good(row, now, idle)]


def end(db: Database, session_id: int, admin_id: int | None) -> None:
    """Raises NotFound for a session that is none of `admin_id`; None may end everybody's."""
    sql = "DELETE FROM admin_session WHERE id = ? AND ? IN (admin_id, 0)"
    if change(db, sql, session_id, admin_id or 0) != 1:
        raise NotFound("There is no such session.")


def end_all_of(db: Database, admin_id: int, but: int | None = None) -> list[int]:
    """Which sessions ended: all of the admin's, `but` the one that asks."""
    found = rows(db, "SELECT id FROM admin_session WHERE admin_id = ? AND id IS NOT ?", admin_id, but)
    change(db, "DELETE FROM admin_session WHERE admin_id = ? AND id IS NOT ?", admin_id, but)
    return [row["id"] for row in found]


def end_all(db: Database, but: int) -> list[int]:
    """Which sessions ended: everybody's, `but` the one that asks."""
    found = rows(db, "SELECT id FROM admin_session WHERE id <> ?", but)
    change(db, "DELETE FROM admin_session WHERE id <> ?", but)
    return [row["id"] for row in found]


def end_token(db: Database, token: str) -> int | None:
    """The session that ended with its token."""
    row = one(db, "SELECT id FROM admin_session WHERE token_sha256 = ?", digest(token))
    change(db, "DELETE FROM admin_session WHERE token_sha256 = ?", digest(token))
    return None if row is None else int(row["id"])


_SESSION = f"""
    SELECT admin_session.id AS session_id, csrf_token, is_by_link, address, browser,
        admin_session.created_at, last_seen_at, expires_at, {admins.ADMIN}
    FROM admin_session JOIN admin ON admin.id = admin_id WHERE removed_at IS NULL"""  # noqa: S608


def _is_good(row: Row, now: datetime, idle: timedelta) -> bool:
    """A clock that was set back ends a session instead of prolonging it."""
    seen = time_of(row["last_seen_at"])
    return seen <= now + _CLOCK_SLACK and now < seen + idle and now < time_of(row["expires_at"])


def _session(row: Row) -> Session:
    return Session(
        session_id=row["session_id"],
        admin=admins.admin_of(row),
        csrf_token=row["csrf_token"],
        is_by_link=bool(row["is_by_link"]),
        address=row["address"],
        browser=row["browser"],
        created_at=row["created_at"],
        last_seen_at=row["last_seen_at"],
        expires_at=row["expires_at"],
    )
