"""Which passwords are refused, and the sentence that says why. Pure: the list of common ones is handed in.

No rules about kinds of characters and no expiry: both make people choose worse (OWASP ASVS 5.0, 6.2.5 and 6.2.10).
"""

from __future__ import annotations

import string
from collections.abc import Collection, Iterator

MIN_CHARS = 12
"""ASVS 6.2.1 asks for 8 and recommends 15, and so do we. Twelve that are on no list outlast ten tries in 15 minutes
by far, and a stolen argon2id hash at 15 guesses per second and core as well."""
RECOMMENDED_CHARS = 15
MAX_CHARS = 256
"""Hashing takes as long as the text is."""

_SHORTEST_UNIT = 8
"""Of what a password repeats: twice a short text is no harder to guess than once."""
_AROUND = string.digits + string.punctuation + string.whitespace


def why_refused(password: str, own_words: Collection[str], common: Collection[str]) -> str | None:
    """None for a password that may be used. `own_words`: guessed first here, such as the admin's own name."""
    if len(password) < MIN_CHARS:
        return f"The password has {len(password)} characters; use {MIN_CHARS} or more, best {RECOMMENDED_CHARS}."
    if len(password) > MAX_CHARS:
        return f"The password has {len(password)} characters; at most {MAX_CHARS} are allowed."
    folded = password.casefold()
    if len(_unit(folded)) < _SHORTEST_UNIT or any(word in common or word in own_words for word in _words_in(folded)):
        return "The password is a common or short one, repeated or with little around it; use a few words of your own."
    return None


def _words_in(text: str) -> Iterator[str]:
    """The text, what it repeats, and both with digits and signs at its ends left out, few or many of them."""
    yield from (text, _unit(text))
    core = text.strip(_AROUND)
    if not core:  # digits alone: as good as any others, unless the list has them as they are
        return
    yield _unit(core)
    before = text.find(core)
    after = len(text) - before - len(core)
    for start in range(before + 1):
        yield from (text[start : len(text) - end] for end in range(after + 1))


def _unit(text: str) -> str:
    """What a text repeats: `abc` of `abcabc`. The text itself where it repeats nothing."""
    return text[: (text + text).find(text, 1)] if text else text
