"""From a name, a password and a code to an admin. Says never which of them was wrong, and takes as long for unknown
names: an answer or a clock that tells them apart would tell who is an admin.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlite_utils import Database

from claasbot.domain.admin import Admin
from claasbot.services.clock import Clock
from claasbot.services.passwords import Passwords
from claasbot.services.second_factor import normal, step_of
from claasbot.services.tries import Tries
from claasbot.storage import admins, audit
from claasbot.storage.admins import Secrets
from claasbot.storage.digests import digest
from claasbot.storage.store import Store

log = logging.getLogger(__name__)

MOST_TRIES = 10
MOST_TRIES_OF_ADDRESS = 100
MOST_WRITTEN = 200
WINDOW = timedelta(minutes=15)
_MAX_CODE_CHARS = 60

Refused = Literal["wrong", "too many"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Credentials:
    """What somebody typed. No repr: it must not end up in a log."""

    name: str
    password: str
    code: str = ""
    """Of the second factor, or a recovery code."""


class SigningIn:
    """Checks what people type, and counts how often they are wrong."""

    def __init__(self, store: Store, clock: Clock, passwords: Passwords) -> None:
        self._store = store
        self._clock = clock
        self._passwords = passwords
        self._tries = Tries(MOST_TRIES, WINDOW)
        self._of_address = Tries(MOST_TRIES_OF_ADDRESS, WINDOW)
        self._codes = Tries(MOST_TRIES, WINDOW)
        self._refusals = Tries(MOST_WRITTEN, WINDOW)

    async def check(self, given: Credentials, address: str, *, needs_code: bool = False) -> Admin | Refused:
        """The admin who may come in. Every outcome is written down, without what was typed.

        `needs_code`: a password alone is not enough, also for who has no second factor yet.
        """
        refused = await self._too_many(given.name, address)
        if refused is not None:
            return refused
        secrets = await self._store.run(admins.secrets_of, given.name)
        is_right = await self._passwords.is_right("" if secrets is None else secrets.password_hash, given.password)
        found = await self._store.run(self._decide, secrets, is_right, given.code, needs_code, self._clock())
        if found is None:
            return "wrong"
        self._tries.forgive(_key(given.name, address))
        if secrets is not None and self._passwords.is_outdated(secrets.password_hash):
            await self._renew(found, secrets.password_hash, given.password)
        return found

    async def is_still(self, admin: Admin, password: str, address: str) -> bool:
        """Whether it is still the admin who sits there, before they change how they sign in."""
        if await self._too_many(admin.name, address) is not None:
            return False
        secrets = await self._store.run(admins.secrets_of, admin.name)
        is_right = await self._passwords.is_right("" if secrets is None else secrets.password_hash, password)
        if is_right:
            self._tries.forgive(_key(admin.name, address))
        return is_right

    async def _renew(self, admin: Admin, old_hash: str, password: str) -> None:
        new_hash = await self._passwords.hashed_again(password)
        await self._store.run(admins.renew_password, admin.admin_id, old_hash, new_hash)

    async def _too_many(self, name: str, address: str) -> Refused | None:
        """By name and address, so that a stranger elsewhere locks nobody out; by address, so that names cannot be
        tried one after the other. Only the first try too many is written down.
        """
        now = self._clock()
        taken = {self._tries.take(_key(name, address), now), self._of_address.take(address, now)}
        if "first too many" in taken:
            await self._store.run(self._write_down, "playground:somebody", "sign-in: too many tries", now)
        return None if taken == {"ok"} else "too many"

    def _decide(
        self, db: Database, secrets: Secrets | None, is_right: bool, code: str, needs_code: bool, now: datetime
    ) -> Admin | None:
        is_in = secrets is not None and is_right and self._passes_second(db, secrets, code, needs_code, now)
        # An unknown name is not written down: people type passwords into the wrong field.
        who = "somebody" if secrets is None else secrets.admin.name
        if is_in:
            audit.add(db, f"playground:{who}", "sign-in: by password", now)
        else:
            self._write_down(db, f"playground:{who}", "sign-in: refused", now)
        return secrets.admin if secrets is not None and is_in else None

    def _write_down(self, db: Database, who: str, did: str, now: datetime) -> None:
        """In the audit, which keeps everything for ever, so many that strangers cannot fill it; in the log, all."""
        log.warning("%s", did)
        taken = self._refusals.take("everybody", now)
        if taken == "first too many":
            audit.add(db, "playground:somebody", "sign-in: more refused than are listed here", now)
        elif taken == "ok":
            audit.add(db, who, did, now)

    def _passes_second(self, db: Database, secrets: Secrets, code: str, needs_code: bool, now: datetime) -> bool:
        """Codes are counted by name alone: who knows a password has them guessed from a thousand addresses."""
        name, given = secrets.admin.name, code.strip()[:_MAX_CODE_CHARS]
        there = admins.secrets_of(db, name)
        if there is None or there.password_hash != secrets.password_hash:  # changed while the old one was checked
            return False
        if not there.admin.has_second_factor:
            return not needs_code
        if not given or self._codes.take(name, now) != "ok" or not _is_code(db, there, given, now):
            return False
        self._codes.forgive(name)
        return True


def _is_code(db: Database, secrets: Secrets, given: str, now: datetime) -> bool:
    admin_id, step = secrets.admin.admin_id, step_of(secrets.totp_secret, given, now)
    if step is not None:
        return admins.spend_step(db, admin_id, step)
    return admins.spend_recovery_code(db, admin_id, digest(normal(given)))


def _key(name: str, address: str) -> str:
    return f"{digest(name)[:16]} {address}"
