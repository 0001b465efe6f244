"""Who may talk to the bot, and who may command it. Fails closed: an unknown account is nobody.

Pure: a visit and the rules in, an entry out. Pairing follows OpenClaw: a stranger gets a code that
only somebody who is let in already can use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["", "allowed", "admin", "blocked"]
"""What the store says of an account; empty: nothing."""

AccessMode = Literal["pairing", "listed", "open"]

Entry = Literal["admin", "guest", "pairing", "out"]
"""`pairing`: not yet, but a code may be asked for. `out`: not, and nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRules:
    """What the host decides. Accounts, chats and roles are written `telegram:123`."""

    mode: AccessMode = "pairing"
    admins: frozenset[str] = frozenset()
    accounts: frozenset[str] = frozenset()
    blocked: frozenset[str] = frozenset()
    chats: frozenset[str] = frozenset()
    """Groups and channels in which everybody may talk to the bot."""
    roles: frozenset[str] = frozenset()
    at_home: frozenset[str] = frozenset()
    """Platforms whose people sit at the machine or have signed in: they are admins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """Somebody at the door."""

    platform: str
    account: str
    room: str
    is_group: bool
    roles: tuple[str, ...] = ()


def is_blocked(visit: Visit, role: Role, rules: AccessRules) -> bool:
    return role == "blocked" or f"{visit.platform}:{visit.account}" in rules.blocked


def entry(visit: Visit, role: Role, rules: AccessRules) -> Entry:
    """Blocking wins over everything but the host's own list of admins."""

    def listed(names: frozenset[str], *found: str) -> bool:
        return any(f"{visit.platform}:{name}" in names for name in found)

    if visit.platform in rules.at_home or listed(rules.admins, visit.account):
        return "admin"
    if is_blocked(visit, role, rules):
        return "out"
    if role == "admin":
        return "admin"
    is_welcome = (
        role == "allowed"
        or rules.mode == "open"
        or listed(rules.accounts, visit.account)
        or listed(rules.roles, *visit.roles)
        or (visit.is_group and listed(rules.chats, visit.room))
    )
    if is_welcome:
        return "guest"
    # A group is not the place for codes: everybody would read them.
    return "pairing" if rules.mode == "pairing" and not visit.is_group else "out"


def makes_admin(who: str, rules: AccessRules, *, has_admin: bool) -> bool:
    """Whether the stranger whom `who` (`console:owner`) lets in becomes an admin.

    Only the first one, let in by the host at the machine, where the host names no admins. `has_admin`: whether any
    account on any platform is one already.
    """
    platform, _, _ = who.partition(":")
    return platform in rules.at_home and not rules.admins and not has_admin
