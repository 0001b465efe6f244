"""Secrets, known by their value: whatever text leaves this process shows a dot for each.

Process-wide, as the log is. `keep_secret` is for what lives as long as the process (bot tokens, keys of servers);
what belongs to one request lives as long as the request. Knows no pattern of a secret: values are certain, patterns
guess.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from html import escape
from urllib.parse import quote

MASK = "…"
SHORTEST = 6
"""Shorter values are words that stand everywhere: masking them would hide the log, not the secret."""

_kept: set[str] = set()
_pattern: re.Pattern[str] | None = None
_of_this_request: ContextVar[frozenset[str]] = ContextVar("secrets of this request", default=frozenset())


def keep_secret(value: str) -> str:
    """The value itself, from now on masked everywhere."""
    global _pattern
    spellings = _spellings(value) - _kept
    if spellings:
        _kept.update(spellings)
        _pattern = re.compile("|".join(re.escape(one) for one in sorted(_kept, key=len, reverse=True)))
    return value


@contextmanager
def one_process() -> Iterator[None]:
    """What `keep_secret` was told inside is forgotten at the end: tests are many bots in one process."""
    global _pattern
    kept, pattern = set(_kept), _pattern
    try:
        yield
    finally:
        _kept.intersection_update(kept)
        _pattern = pattern


@contextmanager
def one_request() -> Iterator[None]:
    """What `keep_secret_here` was told inside is forgotten at the end."""
    token = _of_this_request.set(frozenset())
    try:
        yield
    finally:
        _of_this_request.reset(token)


def keep_secret_here(*values: str) -> None:
    """For the rest of this request."""
    spellings = frozenset().union(*(_spellings(value) for value in values))
    _of_this_request.set(_of_this_request.get() | spellings)


def masked(text: str) -> str:
    """For logs, errors and reports: neither the secrets of the process nor those of this request."""
    for value in sorted(_of_this_request.get(), key=len, reverse=True):
        text = text.replace(value, MASK)
    return masked_for_its_sender(text)


def masked_for_its_sender(text: str) -> str:
    """For an answer to who sent the request: their own token may stand in their own page."""
    return text if _pattern is None else _pattern.sub(MASK, text)


def _spellings(value: str) -> frozenset[str]:
    """As it is, without the account that stands before a colon, and each of these in an address, in JSON, on a page."""
    wholes = {value, value.rpartition(":")[2]}
    ways = (str, partial(quote, safe="", errors="surrogateescape"), lambda one: json.dumps(one)[1:-1], escape)
    return frozenset(spelled for one in wholes if len(one) >= SHORTEST for spelled in (way(one) for way in ways))
