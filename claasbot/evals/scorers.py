"""Scores of one answer: plain functions of its text and of how it ended."""

from __future__ import annotations

import re
from collections.abc import Callable

from claasbot.errors import NotFound

Scorer = Callable[[str, str], float]
"""(text, finish reason) → score in [0, 1]."""

MAX_WORDS = 25
# A full stop inside a number (3.5) or before a small letter (e.g. tea) ends nothing. "Dr. Jones"
# counts as two sentences: the score may be too low, never too high.
_SENTENCE_END = re.compile(r"""(?<![.!?])[.!?]++["')\]]*+(?=\s+["'(]?[A-Z0-9]|$)""")


def one_short_sentence(text: str, finish_reason: str) -> float:
    """1 if the answer ended by itself, is one sentence and has at most 25 words."""
    said = text.strip()
    if finish_reason != "stop" or not said or len(said.split()) > MAX_WORDS:
        return 0.0
    if "\n" in said:
        return 0.0
    return 1.0 if len(_SENTENCE_END.findall(said.rstrip(".!?") + ".")) == 1 else 0.0


SCORERS: dict[str, Scorer] = {"one_short_sentence": one_short_sentence}


def scorer(name: str) -> Scorer:
    """Raises NotFound."""
    if name not in SCORERS:
        raise NotFound(f"there is no scorer {name!r}; there are {sorted(SCORERS)!r}")
    return SCORERS[name]
