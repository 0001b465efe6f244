"""What each kind of feedback means as a training signal, with its reason.

Words teach: the teacher reads them (hindsight). A bare thumb is a scalar without content: a
thumbs-up would distil an answer that was already right (SRPO, arXiv:2604.02288: 77.4 with
successes routed away, 71.1 with them distilled); a thumbs-down only has a sign. So both are
kept, and after a thumbs-down the bot asks what was wrong, because the reason is words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from claasbot.errors import BadInput

FeedbackKind = Literal["thumbs_up", "thumbs_down", "text", "correction"]

MAX_FEEDBACK_CHARS = 2_000

# Worded as instructions: appended to the question, the base model obeys an instruction
# (0.90) where it hardly reacts to a complaint.
REASONS = {
    "too_long": ("Too long", "Please answer in one short sentence."),
    "too_short": ("Too short", "Please answer in more detail."),
    "off_topic": ("Off topic", "Please answer only what was asked."),
    "hard_to_read": ("Hard to read", "Please use simple words and short sentences."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackEvent:
    feedback_id: int
    person_id: int
    completion_id: int
    kind: FeedbackKind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFeedback:
    """What came in, before anybody judged it."""

    completion_id: int
    kind: FeedbackKind
    text: str
    source_key: str
    """The same source twice is one event."""
    mark_key: str | None = None
    """The message on which the person sees what became of it; None: the answer itself."""
    is_interaction: bool = False
    """Typed or tapped in the bot's own commands, buttons and forms."""
    is_reaction: bool = False
    is_reason: bool = False
    """Says why there is a thumbs-down: it goes with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What a feedback event gives the teacher. `teaches` False: kept, but no lesson comes of it."""

    teaches: bool
    reason: str
    hint: str | None = None
    demonstration: str | None = None
    asks_why: bool = False
    """The bot asks once what was wrong: the reason is words, and words teach."""


def signal_of(kind: FeedbackKind, text: str) -> Signal:
    """The signal in one feedback event."""
    match kind:
        case "text":
            return Signal(teaches=True, reason="what you said about the answer", hint=text)
        case "correction":
            return Signal(teaches=True, reason="the answer that you would have wanted", demonstration=text)
        case "thumbs_up":
            return Signal(teaches=False, reason="a thumbs-up says keep it up: there is nothing to change")
        case "thumbs_down":
            return Signal(
                teaches=False, asks_why=True, reason="a thumbs-down has no words: say what was wrong and I learn that"
            )


def checked_text(kind: FeedbackKind, text: str) -> str:
    """The text without outer blanks. Raises BadInput when words are needed and missing, or too many."""
    words = text.strip()
    if kind == "correction" and not words:
        raise BadInput("Give the answer that you wanted: /correct Paris.")
    if kind == "text" and not words:
        raise BadInput("The feedback is empty: say in words what was wrong, or use a thumb.")
    if len(words) > MAX_FEEDBACK_CHARS:
        raise BadInput(
            f"The feedback has {len(words):,} characters; I learn from at most {MAX_FEEDBACK_CHARS:,}. Shorten it."
        )
    return words


GOOD_REACTIONS = ("👍", "❤", "🔥", "👏", "🎉", "🤩", "💯", "🏆", "😍", "⚡", "🙏", "👌", "🆒")
BAD_REACTIONS = ("👎", "💩", "🤮", "🤬", "😡", "🥱", "🤡", "💔", "🖕")
"""What people mean by them is clear enough; 😁 and 🤔 are not, so nobody keeps those."""

_VARIATION = "\ufe0f"
"""Written after ❤ by some keyboards and not by others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reactions:
    """Which reactions are feedback."""

    good: frozenset[str] = frozenset(GOOD_REACTIONS)
    bad: frozenset[str] = frozenset(BAD_REACTIONS)

    def kind_of(self, reaction: str) -> FeedbackKind | None:
        """None for a reaction that says nothing about the answer."""
        plain = reaction.replace(_VARIATION, "")
        if plain in self.good:
            return "thumbs_up"
        return "thumbs_down" if plain in self.bad else None
