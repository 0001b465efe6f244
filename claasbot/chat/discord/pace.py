"""How fast Discord may be bothered."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    preview_s: float = 1.0
    """Least time between two previews of an answer; it grows with the text."""
    retry_s: float = 2.0
    """First pause before something is tried again; each one doubles."""
    notice_s: float = 30.0
    """The most that a notice or a mark waits; an answer waits as long as Discord asks."""
