"""An experience: one completion with feedback that may train, and the states it passes.

received → queued → leased → consumed; or rejected, quarantined, withdrawn. Erasing a person
deletes the rows, so `deleted` needs no value.
"""

from __future__ import annotations

from typing import Literal

from claasbot.domain.feedback import FeedbackKind
from claasbot.domain.person import Consent
from claasbot.errors import ImpossibleTransition

ExperienceState = Literal["received", "queued", "leased", "consumed", "rejected", "quarantined", "withdrawn"]

TRANSITIONS: dict[ExperienceState, frozenset[ExperienceState]] = {
    "received": frozenset({"queued", "rejected", "withdrawn"}),
    "queued": frozenset({"leased", "rejected", "withdrawn"}),
    "leased": frozenset({"queued", "consumed", "rejected", "quarantined", "withdrawn"}),
    "consumed": frozenset({"withdrawn"}),
    "rejected": frozenset({"withdrawn"}),
    "quarantined": frozenset({"queued", "withdrawn"}),
    "withdrawn": frozenset(),
}


def moved(old: ExperienceState, new: ExperienceState) -> ExperienceState:
    """`new`, if the table allows it. Raises ImpossibleTransition."""
    if new not in TRANSITIONS[old]:
        raise ImpossibleTransition(f"an experience cannot go from {old!r} to {new!r}")
    return new


def why_not(
    *, consent: Consent, kind: FeedbackKind, is_whole: bool, n_tokens: int, staleness: int, max_staleness: int
) -> str | None:
    """Why this experience must not train; None when it may.

    `staleness` counts the person's promoted versions since the completion was sampled.
    """
    if not consent.allows_learning:
        return "you have not agreed to learning in this chat (/optin)"
    if n_tokens == 0:
        return "the answer has no tokens"
    if not is_whole and kind != "correction":
        return "the answer was cut off, so only a correction can teach from it"
    if staleness > max_staleness:
        return f"the answer is {staleness} versions old, at most {max_staleness} are used"
    return None
