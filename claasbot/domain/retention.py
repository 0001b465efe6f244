"""How long things stay, as the host decides."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRules:
    """In days; 0: for ever."""

    messages_days: int = 0
    lessons_days: int = 0
    inbox_days: int = 30
    log_days: int = 0
    versions: int = 0
    """Earlier versions of one person that stay for /undo, besides the one that answers; 0: all."""
