"""Roles of accounts, codes that let strangers in, and codes that join two accounts."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlite_utils import Database

from claasbot.domain.access import Role
from claasbot.domain.conversation import ChatAddress
from claasbot.storage import people
from claasbot.storage.rows import Row, change, insert, one, rows, text_of

_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Without those that are read as each other. Eight of them are 40 bits, for an hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """Somebody who asks to be let in."""

    code: str
    account: str
    display_name: str
    address: ChatAddress
    is_admin: bool = False
    """Let in as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Under which name a platform knows somebody."""

    platform: str
    account: str
    role: Role

    @property
    def name(self) -> str:
        """As the host's lists write it."""
        return f"{self.platform}:{self.account}"


def role_of(db: Database, platform: str, account: str) -> Role:
    row = one(db, "SELECT role FROM account WHERE platform = ? AND account = ?", platform, account)
    found: Role = "" if row is None else row["role"]
    return found


def set_role(db: Database, platform: str, account: str, role: Role) -> None:
    change(db, "UPDATE account SET role = ? WHERE platform = ? AND account = ?", role, platform, account)


def set_blocked(db: Database, person_id: int, blocked: bool) -> None:
    """All accounts of a person; whoever is let in again is a guest, and an admin who was never blocked stays one."""
    if blocked:
        change(db, "UPDATE account SET role = 'blocked' WHERE person_id = ?", person_id)
    else:
        change(db, "UPDATE account SET role = 'allowed' WHERE person_id = ? AND role = 'blocked'", person_id)


def has_admin(db: Database) -> bool:
    """On any platform; admins that the settings name are not in the store."""
    return one(db, "SELECT 1 FROM account WHERE role = 'admin'") is not None


def ask_to_pair(
    db: Database, stranger: ChatAddress, account: str, name: str, now: datetime, *, lasts: timedelta, max_pending: int
) -> str | None:
    """The stranger's code, the same one while it lasts; None while too many strangers wait."""
    change(db, "DELETE FROM pairing WHERE expires_at <= ?", text_of(now))
    known = one(db, "SELECT code FROM pairing WHERE platform = ? AND account = ?", stranger.platform, account)
    if known is not None:
        return str(known["code"])
    waiting = one(db, "SELECT count(*) AS n FROM pairing WHERE platform = ?", stranger.platform)
    if waiting is not None and waiting["n"] >= max_pending:
        return None
    code = _new_code()
    insert(
        db,
        "pairing",
        code=code,
        platform=stranger.platform,
        account=account,
        display_name=name[:80],
        bot_account=stranger.bot_account,
        chat=stranger.chat,
        expires_at=text_of(now + lasts),
    )
    return code


def strangers(db: Database, now: datetime) -> list[Stranger]:
    found = rows(db, "SELECT * FROM pairing WHERE expires_at > ? ORDER BY expires_at", text_of(now))
    return [_stranger(row) for row in found]


def pair(db: Database, code: str, now: datetime, *, as_admin: bool) -> Stranger | None:
    """Let a stranger in; None for a code that nobody has or that is over."""
    row = one(db, "SELECT * FROM pairing WHERE code = ? AND expires_at > ?", code.strip().upper(), text_of(now))
    if row is None:
        return None
    stranger = _stranger(row)
    change(db, "DELETE FROM pairing WHERE code = ?", stranger.code)
    platform = stranger.address.platform
    people.person_of(db, platform, stranger.account, stranger.display_name, now)
    set_role(db, platform, stranger.account, "admin" if as_admin else "allowed")
    return replace(stranger, is_admin=as_admin)


def offer_link(db: Database, person_id: int, now: datetime, *, lasts: timedelta) -> str:
    """A code that another account of the same person may use once."""
    change(db, "DELETE FROM link_code WHERE expires_at <= ? OR person_id = ?", text_of(now), person_id)
    code = _new_code()
    insert(db, "link_code", code=code, person_id=person_id, expires_at=text_of(now + lasts))
    return code


def link_of(db: Database, code: str, now: datetime) -> int | None:
    """Whose code it is; None for a code that nobody has or that is over."""
    row = one(
        db, "SELECT person_id FROM link_code WHERE code = ? AND expires_at > ?", code.strip().upper(), text_of(now)
    )
    return None if row is None else int(row["person_id"])


def end_link(db: Database, code: str) -> None:
    """A code works once."""
    change(db, "DELETE FROM link_code WHERE code = ?", code.strip().upper())


def of_person(db: Database, person_id: int) -> list[Account]:
    found = rows(db, "SELECT platform, account, role FROM account WHERE person_id = ? ORDER BY id", person_id)
    return [Account(**row) for row in found]


def _stranger(row: Row) -> Stranger:
    return Stranger(
        code=row["code"],
        account=row["account"],
        display_name=row["display_name"],
        address=ChatAddress(platform=row["platform"], bot_account=row["bot_account"], chat=row["chat"]),
    )


def _new_code() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(8))
