"""Hashing and checking passwords, a few at a time and never in the event loop. Keeps and logs none.

argon2id with the library's defaults (RFC 9106, low memory): 64 MiB and three passes for each guess.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from claasbot.domain.password import why_refused
from claasbot.errors import BadInput, Busy

_AT_ONCE = 2
_MOST_WAITING = 20
_COMMON = Path(__file__).with_name("common_passwords.txt")


@functools.cache
def common_passwords() -> frozenset[str]:
    lines = _COMMON.read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if not line.startswith("# "))


class Passwords:
    """One for the whole bot: it bounds what sign-ins may cost."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._n_waiting = 0
        self._nobodys = _hash_of_nothing(self._hasher)

    async def hashed(self, password: str, *, of: str) -> str:
        """The hash to store for the admin `of`. Raises BadInput for a password that is too easily guessed."""
        refusal = why_refused(password, {"claasbot", of}, common_passwords())
        if refusal is not None:
            raise BadInput(refusal)
        return await self.hashed_again(password)

    async def hashed_again(self, password: str) -> str:
        """Of a password that is one already."""
        async with self._turn():
            return await asyncio.to_thread(self._hasher.hash, password)

    def is_outdated(self, password_hash: str) -> bool:
        """It was made with less work than is asked for now."""
        return self._hasher.check_needs_rehash(password_hash)

    async def is_right(self, password_hash: str, password: str) -> bool:
        """The same work for an empty hash, of nobody or of an admin without a password: never right."""
        async with self._turn():
            return await asyncio.to_thread(self._verify, password_hash or self._nobodys, password)

    def _verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._n_waiting >= _MOST_WAITING:
            raise Busy("Too many people are signing in at once; try again in a moment.")
        self._n_waiting += 1
        try:
            async with self._turns:
                yield
        finally:
            self._n_waiting -= 1


def _hash_of_nothing(hasher: PasswordHasher) -> str:
    """As costly to check as a real one, and no password fits: the digest is random."""
    cost = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    salt, digest = (b64encode(secrets.token_bytes(n)).decode().rstrip("=") for n in (hasher.salt_len, hasher.hash_len))
    return f"$argon2id$v=19${cost}${salt}${digest}"
