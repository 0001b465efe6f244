"""/learn: what waits for a lesson, and `/learn now` to begin it without the usual pause."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from claasbot.domain.conversation import Reply
from claasbot.services.call import Call, Handler, personal
from claasbot.storage import lessons
from claasbot.storage.store import Store

_SHOWN = 10


class LearnCommands:
    def __init__(self, store: Store, train_now: Callable[[int], Awaitable[None]]) -> None:
        self._store = store
        self._train_now = train_now

    def handlers(self) -> dict[str, Handler]:
        return {"learn": self._learn}

    async def _learn(self, call: Call) -> Reply:
        waiting = await self._store.run(lessons.unsettled, call.person.person_id)
        if not waiting:
            return personal("Nothing waits. Say what was wrong with an answer (/feedback …) and I learn from it.")
        lines = [
            f"{'learning' if row.state == 'leased' else 'waiting'}: “{row.feedback.text[:80]}”"
            for row in waiting[:_SHOWN]
        ]
        if len(waiting) > _SHOWN:
            lines.append(f"and {len(waiting) - _SHOWN} more")
        if call.argument.lower() == "now":
            await self._train_now(call.person.person_id)
            lines.append("I begin now.")
        return personal("\n".join(lines))
