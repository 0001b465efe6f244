"""The teacher's prompt: the student's own messages, plus what was said afterwards.

Built here and nowhere else. The failed answer is never in it (arXiv:2601.20802, feedback
ablation: with the own failed attempt 44.5, without 48.3). System message and history stay;
only the last user turn grows, so both prompts share everything before it.
"""

from __future__ import annotations

from dataclasses import replace

from claasbot.domain.conversation import Message
from claasbot.domain.feedback import MAX_FEEDBACK_CHARS
from claasbot.domain.markers import plain
from claasbot.errors import BadInput

MAX_STANDING_CHARS = 4_000
"""All earlier preferences together: the newest stay, and the lesson at hand always has room."""

# SDFT's wording (arXiv:2601.19897): the answer is shown as an example, not as the thing to copy.
_DEMONSTRATION = (
    "{question}\n\nThis is an example for a response to the question:\n{answer}\n\n"
    "Now answer with a response of your own."
)


def teacher_messages(
    messages: tuple[Message, ...],
    *,
    hints: tuple[str, ...],
    demonstration: str | None = None,
    standing: tuple[str, ...] = (),
) -> tuple[Message, ...]:
    """`messages` with the person's words appended to the last user turn.

    `standing` are the preferences they gave before, oldest first; what `hints` repeat of them
    is said once. Raises BadInput when there is no user turn or nothing to add.
    """
    if not messages or messages[-1].role != "user":
        raise BadInput(f"the prompt ends with {messages[-1].role if messages else 'nothing'!r}, expected a user turn")
    said = [*_newest(standing), *(_bounded(text) for text in hints)]
    new_last = dict.fromkeys(reversed([text for text in said if text]))
    lines = list(reversed(new_last))
    if not lines and not demonstration:
        raise BadInput("there is no hindsight to read: the feedback has no words")
    content = messages[-1].content
    if lines:
        content = f"{content} {' '.join(lines)}"
    if demonstration:
        content = _DEMONSTRATION.format(question=content, answer=_bounded(demonstration))
    return (*messages[:-1], replace(messages[-1], content=content))


def _bounded(text: str) -> str:
    """Feedback is refused above this length; what was stored before that, or comes by another way, is cut."""
    return plain(text.strip()[:MAX_FEEDBACK_CHARS])


def _newest(standing: tuple[str, ...]) -> list[str]:
    """As many of them as fit, the newest first to stay; oldest first, as they were said."""
    kept: list[str] = []
    for text in (_bounded(text) for text in reversed(standing)):
        if sum(map(len, kept)) + len(text) > MAX_STANDING_CHARS:
            break
        kept.append(text)
    return kept[::-1]
