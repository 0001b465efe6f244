"""An experience: one completion with feedback that may train, and the states it passes.

received → queued → leased → consumed; or rejected, quarantined, withdrawn. Erasing a person
deletes the rows, so `deleted` needs no value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from claasbot.domain.feedback import FeedbackKind
from claasbot.domain.person import Consent
from claasbot.errors import ImpossibleTransition

LearningMode = Literal["off", "signals_only", "interactions", "full"]
"""What may train on a platform. Discord's developer policy (item 21) forbids training models on message content
without Discord's permission: `signals_only` keeps thumbs and trains nothing, `interactions` trains on what was typed
into the bot's own commands and forms, `full` on messages too."""

_MODE_REASONS: dict[LearningMode, str] = {
    "off": "the host has learning switched off on this platform",
    "signals_only": "on this platform I keep thumbs and train on nothing",
    "interactions": "on this platform I learn only from /ask and from my own buttons and forms, not from messages",
}

ExperienceState = Literal["received", "queued", "leased", "consumed", "rejected", "quarantined", "withdrawn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainable:
    """What the host lets experiences be."""

    is_on: bool
    max_staleness: int
    max_tokens: int
    """Prompt and completion together."""


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


def why_not_on_platform(mode: LearningMode, *, is_interaction: bool) -> str | None:
    """Why the host lets nothing train of this there; None when it may.

    `is_interaction`: the question and the feedback were both typed into the bot's own commands or forms.
    """
    return None if mode == "full" or (mode == "interactions" and is_interaction) else _MODE_REASONS[mode]


def why_not(
    *,
    consent: Consent,
    kind: FeedbackKind,
    is_whole: bool,
    n_tokens: int,
    n_prompt_tokens: int,
    staleness: int,
    limits: Trainable,
) -> str | None:
    """Why this experience must not train; None when it may.

    `staleness` counts the person's promoted versions since the completion was sampled.
    """
    if not limits.is_on:
        return "learning is switched off here"
    if not consent.allows_learning:
        return "you have not agreed to learning in this chat (/optin)"
    if n_tokens == 0:
        return "the answer has no tokens"
    if not is_whole and kind != "correction":
        return "the answer was cut off, so only a correction can teach from it"
    if n_prompt_tokens + n_tokens > limits.max_tokens:
        n_all = n_prompt_tokens + n_tokens
        return f"the conversation has {n_all:,} tokens, I learn from at most {limits.max_tokens:,} (/reset begins anew)"
    if staleness > limits.max_staleness:
        return f"the answer is {staleness} versions old, at most {limits.max_staleness} are used"
    return None
