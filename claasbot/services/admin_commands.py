"""/users, /pair, /pause, /resume, /rollback, /health: for admins, and written down."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sqlite_utils import Database

from claasbot.domain.completion import BASE
from claasbot.domain.conversation import Reply
from claasbot.errors import BadInput
from claasbot.services.admitting import Admitting
from claasbot.services.call import Call, Handler, personal
from claasbot.services.clock import Clock
from claasbot.services.feedback_commands import number
from claasbot.services.health import Status
from claasbot.services.promoting import Promoting
from claasbot.storage import accounts, audit, people, switches
from claasbot.storage.store import Store

HELP = {
    "users": "who talks to this bot, and how much",
    "pair": "let a stranger in: /pair CODE",
    "pause": "stop learning for everybody, until /resume",
    "resume": "go on learning",
    "rollback": "take a person's last lesson back: /rollback p3",
    "health": "how server, trainer and platforms stand",
}


class AdminCommands:
    def __init__(
        self,
        store: Store,
        admitting: Admitting,
        promoting: Promoting,
        status: Callable[[], Awaitable[Status]],
        clock: Clock,
    ) -> None:
        self._store = store
        self._admitting = admitting
        self._promoting = promoting
        self._status = status
        self._clock = clock

    def handlers(self) -> dict[str, Handler]:
        return {
            "users": self._users,
            "pair": self._pair,
            "pause": self._pause,
            "resume": self._resume,
            "rollback": self._rollback,
            "health": self._health,
        }

    async def _users(self, call: Call) -> Reply:
        call.for_admins()
        lines = [
            f"p{row['id']} {row['display_name']} ({row['platforms'] or 'no account'}): "
            f"{BASE if row['current_n'] is None else 'v' + str(row['current_n'])}, {row['n_answers']} answers, "
            f"{row['n_tokens']:,} tokens, {row['n_lessons']} lessons"
            for row in await self._store.run(people.overview)
        ]
        return personal("\n".join(lines[:40]))

    async def _pair(self, call: Call) -> Reply:
        call.for_admins()
        now = self._clock()
        if not call.argument:
            waiting = await self._store.run(accounts.strangers, now)
            lines = [f"{one.code}: {one.display_name} on {one.address.platform} ({one.account})" for one in waiting]
            return personal("\n".join(lines) or "Nobody waits. Who is not let in gets a code by writing to me.")
        stranger, is_told = await self._admitting.let_in(call.argument, _who(call))
        told = "told so" if is_told else "not to be reached just now"
        return personal(f"{stranger.display_name} ({stranger.address.platform}) is let in, and {told}.")

    async def _pause(self, call: Call) -> Reply:
        await self._set_learning(call, "paused")
        return personal("Learning is paused for everybody; feedback is kept. /resume goes on.")

    async def _resume(self, call: Call) -> Reply:
        await self._set_learning(call, "on")
        return personal("Learning goes on.")

    async def _set_learning(self, call: Call, value: str) -> None:
        call.for_admins()

        def unit(db: Database) -> None:
            switches.set_switch(db, switches.LEARNING, value, self._clock())
            self._write_down(db, call, f"learning: {value}")

        await self._store.run(unit)
        self._store.stages.experience.set()

    async def _rollback(self, call: Call) -> Reply:
        call.for_admins()
        if not call.argument.startswith("p"):
            raise BadInput("Say whose lesson: /rollback p3. /users lists them.")
        person_id = number(call.argument[1:])
        await self._store.run(people.person, person_id)
        name = await self._promoting.undo(person_id)
        await self._store.run(self._write_down, call, f"rolled p{person_id} back to {name}")
        return personal(f"{'The base model' if name == BASE else name} answers p{person_id} now.")

    async def _health(self, call: Call) -> Reply:
        call.for_admins()
        status = await self._status()
        lines = [f"{light.name}: {light.state}{', ' + light.detail if light.detail else ''}" for light in status.lights]
        queues = status.queues
        lines.append(f"waiting: {queues.inbox} messages, {queues.lessons} lessons, {queues.outbox} notices")
        return personal("\n".join(lines))

    def _write_down(self, db: Database, call: Call, did: str) -> None:
        audit.add(db, _who(call), did, self._clock())


def _who(call: Call) -> str:
    return f"{call.address.platform}:{call.event.account}"
