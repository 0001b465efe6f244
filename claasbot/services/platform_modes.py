"""What the host lets train on each platform: asked when feedback comes, when a lesson begins, and when it ends.

The host may have said less since, so that what waits or was being trained is judged by what holds now.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlite_utils import Database

from claasbot.domain.experience import LearningMode, why_not_on_platform
from claasbot.storage import completions


class PlatformModes:
    def __init__(self, modes: Mapping[str, LearningMode]) -> None:
        """By platform, where it is not `full`."""
        self._modes = modes

    def why_not(self, db: Database, platform: str, completion_id: int, *, is_interaction: bool) -> str | None:
        """Why feedback on that answer must not train; None when it may.

        `is_interaction`: of the feedback. The question counts too, as it was when the answer was given.
        """
        mode = self._modes.get(platform, "full")
        read = completions.read_by(db, completion_id) if mode == "interactions" else ()
        return why_not_on_platform(mode, is_interaction=is_interaction and all(turn.is_interaction for turn in read))
