"""What was set in one chat: persona, streaming, notices, what to learn from. Never global."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LearnsFrom = Literal["everything", "words"]
"""`words`: only /feedback, /correct, /bad and buttons; reactions, replies and next messages teach nothing there."""

MAX_PERSONA_CHARS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A chat with its topics."""

    is_group: bool = False
    persona: str = ""
    """System message there; empty: the host's."""
    is_streaming: bool = True
    has_notices: bool | None = None
    """Whether lessons are told in words; None: in private chats only."""
    learns_from: LearnsFrom = "everything"
    is_gone: bool = False

    @property
    def tells_lessons(self) -> bool:
        return not self.is_group if self.has_notices is None else self.has_notices
