"""Who runs the bot from the dashboard. There is always an owner, and a name is never given to a second person:
it is also an account in the playground, and what was said under it belongs to the first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlite_utils import Database

from claasbot.domain.admin import FIRST_OWNER, Admin, AdminRole
from claasbot.errors import BadInput, NotFound
from claasbot.storage import api_keys
from claasbot.storage.rows import Row, change, insert, one, rows, text_of

ADMIN = """admin.id AS admin_id, admin.name, admin.role, admin.password_hash <> '' AS has_password,
    admin.totp_confirmed_at IS NOT NULL AS has_second_factor"""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Secrets:
    """What a sign-in is checked against. No repr: it must not end up in a log."""

    admin: Admin
    password_hash: str
    totp_secret: str
    """Also while it is being set up."""


def admin_of(row: Row) -> Admin:
    return Admin(
        admin_id=row["admin_id"],
        name=row["name"],
        role=row["role"],
        has_password=bool(row["has_password"]),
        has_second_factor=bool(row["has_second_factor"]),
    )


def everybody(db: Database) -> list[Admin]:
    found = rows(db, f"SELECT {ADMIN} FROM admin WHERE removed_at IS NULL ORDER BY id")  # noqa: S608
    return [admin_of(row) for row in found]


def named(db: Database, name: str) -> Admin:
    """Raises NotFound."""
    found = [admin for admin in everybody(db) if admin.name == name]
    if not found:
        raise NotFound(f"There is no admin {name[:40]!r}.")
    return found[0]


def first_owner(db: Database, now: datetime) -> Admin:
    """The owner of longest standing: made when there is no admin at all, without a password that could be guessed.

    Raises NotFound where admins are left and no owner: only a hand in the database leaves that.
    """
    if one(db, "SELECT 1 FROM admin LIMIT 1") is None:
        add(db, FIRST_OWNER, "owner", now)
    owner = next((admin for admin in everybody(db) if admin.role == "owner"), None)
    if owner is None:
        raise NotFound("There is no owner among the admins: restore a backup.")
    return owner


def add(db: Database, name: str, role: AdminRole, now: datetime) -> Admin:
    """Raises BadInput for a name that somebody has or had."""
    if one(db, "SELECT 1 FROM admin WHERE name = ?", name) is not None:
        raise BadInput(f"The name {name!r} is taken, or was before: choose another.")
    insert(db, "admin", name=name, role=role, created_at=text_of(now))
    return named(db, name)


def set_role(db: Database, admin: Admin, role: AdminRole, now: datetime) -> list[int]:
    """Keys go with the owner who made them: returns which. Raises BadInput for the last owner."""
    change(db, "UPDATE admin SET role = ? WHERE id = ?", role, admin.admin_id)
    return [] if role == "owner" else _is_no_owner(db, admin, now)


def remove(db: Database, admin: Admin, now: datetime) -> list[int]:
    """The name stays theirs; their sessions open nothing. Returns the keys that went with them. Raises BadInput for
    the last owner.
    """
    change(db, "DELETE FROM sign_in_token WHERE admin_id = ?", admin.admin_id)
    forget_second_factor(db, admin.admin_id)
    change(db, "UPDATE admin SET password_hash = '', removed_at = ? WHERE id = ?", text_of(now), admin.admin_id)
    return _is_no_owner(db, admin, now)


def secrets_of(db: Database, name: str) -> Secrets | None:
    row = one(
        db,
        f"SELECT {ADMIN}, password_hash, totp_secret FROM admin WHERE name = ? AND removed_at IS NULL",  # noqa: S608
        name,
    )
    if row is None:
        return None
    return Secrets(admin=admin_of(row), password_hash=row["password_hash"], totp_secret=row["totp_secret"])


def set_password(db: Database, admin_id: int, password_hash: str) -> None:
    change(db, "UPDATE admin SET password_hash = ? WHERE id = ?", password_hash, admin_id)


def renew_password(db: Database, admin_id: int, old_hash: str, new_hash: str) -> None:
    """The same password, hashed anew; unless another was set meanwhile."""
    change(db, "UPDATE admin SET password_hash = ? WHERE id = ? AND password_hash = ?", new_hash, admin_id, old_hash)


def begin_second_factor(db: Database, admin_id: int, secret: str) -> None:
    """The secret counts once a code of it was given."""
    forget_second_factor(db, admin_id)
    change(db, "UPDATE admin SET totp_secret = ? WHERE id = ?", secret, admin_id)


def confirm_second_factor(db: Database, admin_id: int, code_hashes: Iterable[str], now: datetime) -> None:
    change(db, "UPDATE admin SET totp_confirmed_at = ? WHERE id = ?", text_of(now), admin_id)
    for code_sha256 in code_hashes:
        insert(db, "recovery_code", code_sha256=code_sha256, admin_id=admin_id)


def forget_second_factor(db: Database, admin_id: int) -> None:
    change(db, "DELETE FROM recovery_code WHERE admin_id = ?", admin_id)
    change(
        db,
        "UPDATE admin SET totp_secret = '', totp_confirmed_at = NULL, totp_last_step = 0 WHERE id = ?",
        admin_id,
    )


def spend_step(db: Database, admin_id: int, step: int) -> bool:
    """True for a step later than every one before: no code is taken twice."""
    sql = "UPDATE admin SET totp_last_step = ?1 WHERE id = ?2 AND totp_last_step < ?1"
    return change(db, sql, step, admin_id) == 1


def spend_recovery_code(db: Database, admin_id: int, code_sha256: str) -> bool:
    """True once for each code."""
    sql = "DELETE FROM recovery_code WHERE admin_id = ? AND code_sha256 = ?"
    return change(db, sql, admin_id, code_sha256) == 1


def n_recovery_codes(db: Database, admin_id: int) -> int:
    return int(rows(db, "SELECT count(*) AS n FROM recovery_code WHERE admin_id = ?", admin_id)[0]["n"])


def _is_no_owner(db: Database, admin: Admin, now: datetime) -> list[int]:
    if all(one.role != "owner" for one in everybody(db)):
        raise BadInput(f"{admin.name!r} is the only owner: make somebody else an owner first.")
    return api_keys.revoke_of(db, f"playground:{admin.name}", now)
