"""Who runs the bot from the dashboard, and what each may open there. Pure; chats ask `domain/access.py` instead.

A key opens the API for a program. It can never do more than an admin: nobody becomes an owner by a key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from claasbot.errors import BadInput

AdminRole = Literal["viewer", "admin", "owner"]
"""A viewer reads; an admin also changes; an owner also decides about admins and keys."""
ROLES: tuple[AdminRole, ...] = get_args(AdminRole)
"""Each may do what those before it may."""

Scope = Literal["read", "write", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

FIRST_OWNER = "admin"
"""Whoever opens the first link. Also their account in the playground."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """One person who runs the bot."""

    admin_id: int
    name: str
    role: AdminRole
    has_password: bool
    has_second_factor: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What a program shows instead of a session."""

    key_id: int
    name: str
    scopes: frozenset[Scope]


def may(role: AdminRole, needed: AdminRole) -> bool:
    return ROLES.index(role) >= ROLES.index(needed)


def scope_for(needed: AdminRole | Literal["metrics"], *, is_read: bool) -> Scope | None:
    """The scope with which a key opens what people of the role `needed` may; None where no key does."""
    if needed == "metrics":
        return "metrics"
    if needed == "viewer" and is_read:
        return "read"
    return "write" if needed == "admin" else None


def checked_name(name: str) -> str:
    """Raises BadInput for what cannot be an admin's name: it is an account and a part of addresses."""
    if not _NAME.fullmatch(name):
        raise BadInput(f"The name {name[:40]!r} cannot be used: take 1 to 32 of a-z, 0-9, _ and -.")
    return name
