"""/users, /pair, /pause, /resume, /rollback, /block, /unblock, /health: for admins; what changes is written down."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from claasbot.domain.completion import BASE
from claasbot.domain.conversation import Reply
from claasbot.errors import BadInput
from claasbot.services.admitting import Admitting
from claasbot.services.call import Call, Handler, personal
from claasbot.services.clock import Clock
from claasbot.services.feedback_commands import number
from claasbot.services.health import Status
from claasbot.services.steering import Steering
from claasbot.storage import accounts, people
from claasbot.storage.rows import Row
from claasbot.storage.store import Store

HELP = {
    "users": "who talks to this bot, and how much",
    "pair": "let a stranger in: /pair CODE",
    "pause": "stop learning for everybody, until /resume",
    "resume": "go on learning",
    "rollback": "take a person's last lesson back: /rollback p3; or all since a version: /rollback p3 v2",
    "block": "keep somebody out: /block p3",
    "unblock": "let somebody in again: /unblock p3",
    "health": "how server, trainer and platforms stand",
}


class AdminCommands:
    def __init__(
        self,
        store: Store,
        admitting: Admitting,
        steering: Steering,
        status: Callable[[], Awaitable[Status]],
        clock: Clock,
    ) -> None:
        self._store = store
        self._admitting = admitting
        self._steering = steering
        self._status = status
        self._clock = clock

    def handlers(self) -> dict[str, Handler]:
        return {
            "users": self._users,
            "pair": self._pair,
            "pause": self._pause,
            "resume": self._resume,
            "rollback": self._rollback,
            "block": self._block,
            "unblock": self._unblock,
            "health": self._health,
        }

    async def _users(self, call: Call) -> Reply:
        call.for_admins()
        lines = [_user_line(row) for row in (await self._store.run(people.overview))[:40]]
        return personal("\n".join(lines))

    async def _pair(self, call: Call) -> Reply:
        call.for_admins()
        now = self._clock()
        if not call.argument:
            waiting = await self._store.run(accounts.strangers, now)
            lines = [f"{one.code}: {one.display_name} on {one.address.platform} ({one.account})" for one in waiting]
            return personal("\n".join(lines) or "Nobody waits. Who is not let in gets a code by writing to me.")
        stranger, is_told = await self._admitting.let_in(call.argument, _who(call))
        told = "told so" if is_told else "not to be reached just now"
        as_what = " as an admin, the first: /help lists what they may do" if stranger.is_admin else ""
        return personal(f"{stranger.display_name} ({stranger.address.platform}) is let in{as_what}, and {told}.")

    async def _pause(self, call: Call) -> Reply:
        call.for_admins()
        await self._steering.set_paused(True, _who(call))
        return personal("Learning is paused for everybody; feedback is kept. /resume goes on.")

    async def _resume(self, call: Call) -> Reply:
        call.for_admins()
        await self._steering.set_paused(False, _who(call))
        return personal("Learning goes on.")

    async def _rollback(self, call: Call) -> Reply:
        call.for_admins()
        whose, _, version = call.argument.partition(" ")
        person_id = _person(replace(call, argument=whose), "whose lesson: /rollback p3")
        if version:
            n = 0 if version.strip() == BASE else number(version.strip().removeprefix("v"))
            name = await self._steering.roll_back(person_id, n, _who(call))
        else:
            name = await self._steering.undo(person_id, _who(call))
        return personal(f"{'The base model' if name == BASE else name} answers p{person_id} now.")

    async def _block(self, call: Call) -> Reply:
        call.for_admins()
        person_id = _person(call, "whom: /block p3")
        await self._steering.set_blocked(person_id, True, _who(call))
        return personal(f"p{person_id} hears nothing from me any more. /unblock p{person_id} lets them in again.")

    async def _unblock(self, call: Call) -> Reply:
        call.for_admins()
        person_id = _person(call, "whom: /unblock p3")
        await self._steering.set_blocked(person_id, False, _who(call))
        return personal(f"p{person_id} is let in again, as a guest.")

    async def _health(self, call: Call) -> Reply:
        call.for_admins()
        status = await self._status()
        lines = [f"{light.name}: {light.state}{', ' + light.detail if light.detail else ''}" for light in status.lights]
        queues = status.queues
        lines.append(f"waiting: {queues.inbox} messages, {queues.lessons} lessons, {queues.outbox} notices")
        return personal("\n".join(lines))


def _user_line(row: Row) -> str:
    blocked = ", blocked" if row["is_kept_out"] else ""
    version = BASE if row["current_n"] is None else f"v{row['current_n']}"
    return (
        f"p{row['id']} {row['display_name']} ({row['platforms'] or 'no account'}){blocked}: {version}, "
        f"{row['n_answers']} answers, {row['n_tokens']:,} tokens, {row['n_lessons']} lessons"
    )


def _person(call: Call, wanted: str) -> int:
    """The person that the command names. Raises BadInput."""
    if not call.argument.startswith("p"):
        raise BadInput(f"Say {wanted}. /users lists them.")
    return number(call.argument[1:])


def _who(call: Call) -> str:
    return f"{call.address.platform}:{call.event.account}"
