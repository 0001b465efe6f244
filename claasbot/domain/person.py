"""Who may be learned from, and where. Nothing here is ticked for anybody beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ConsentState = Literal["unasked", "asked", "granted", "withdrawn"]

CONSENT_VERSION = "2026-11"
CONSENT_TEXT = (
    "I am an AI, and I can learn from you. If you agree, what you say about my answers in this chat "
    "trains a small add-on to the model that is yours alone: it answers nobody else, it stays on this "
    "machine, and /undo, /optout and /forget work at any time. If you do not agree, we just chat."
)
"""The same words on every surface. A change needs a new CONSENT_VERSION, and everybody is asked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """The last word of one person in one chat."""

    state: ConsentState
    text_version: str = ""

    @property
    def allows_learning(self) -> bool:
        """Only a yes to the text that stands now."""
        return self.state == "granted" and self.text_version == CONSENT_VERSION

    @property
    def must_be_asked(self) -> bool:
        """Once per text: somebody who saw the card and has not answered is left in peace."""
        return self.state == "unasked" or self.text_version != CONSENT_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    person_id: int
    display_name: str
    current_version_id: int | None
    is_blocked: bool
    """True while their data is being erased: they get no answer from weights that are going."""
