"""/unlearn: the lessons that the version which answers stands on, and any one of them taken back."""

from __future__ import annotations

from sqlite_utils import Database

from claasbot.domain.completion import BASE
from claasbot.domain.conversation import Button, Commanded, Reply
from claasbot.errors import BadInput
from claasbot.services.call import Call, Handler, personal
from claasbot.services.feedback_commands import number
from claasbot.services.revoking import Foreseen, Revoked, Revoking
from claasbot.storage import revocations
from claasbot.storage.revocations import StandingLesson
from claasbot.storage.store import Store

_SHOWN = 10
_LONGEST = 80


class UnlearnCommands:
    def __init__(self, store: Store, revoking: Revoking) -> None:
        self._store = store
        self._revoking = revoking

    def handlers(self) -> dict[str, Handler]:
        return {"unlearn": self._unlearn}

    def buttons(self) -> dict[str, Handler]:
        return {"unlearn": self._press}

    async def _unlearn(self, call: Call) -> Reply:
        """`/unlearn` lists, `/unlearn 3` asks. Raises BadInput for anything but a number, NotFound for no lesson."""
        assert isinstance(call.event, Commanded)
        if not call.argument:
            return await self._list(call)
        if not call.argument.isdecimal():
            raise BadInput(f"Say which lesson: /unlearn 3. {call.argument[:20]!r} is none; /unlearn lists them.")
        return await self._ask(call, number(call.argument))

    async def _press(self, call: Call) -> Reply:
        """`3:7` asks about lesson 3 of p7, `yes:3:7` takes it back, `yes:those:7` what was taken back since."""
        choice, _, rest = call.argument.partition(":")
        if choice not in ("yes", "no"):
            call.for_its_owner(rest)
            return await self._ask(call, number(choice))
        which, _, whose = rest.partition(":")
        call.for_its_owner(whose)
        if choice == "no":
            return personal("It stays learned.")
        person_id = call.person.person_id
        if which == "those":
            return _outcome(await self._revoking.revoke_taken_back(person_id))
        return _outcome(await self._revoking.revoke(person_id, number(which)))

    async def _list(self, call: Call) -> Reply:
        def unit(db: Database) -> list[StandingLesson]:
            return revocations.standing_lessons(db, call.person.person_id)

        found = (await self._store.run(unit))[-_SHOWN:]
        if not found:
            return personal("There is nothing to take back: the base model answers you.")
        whose = call.person.person_id
        lines = [f"{one.lesson_n}: {_quoted(one.said)}, {one.learned_at[:10]}" for one in reversed(found)]
        return Reply(
            text="\n".join(("Which lesson shall I take back?", *lines)),
            notice=True,
            personal=True,
            buttons=tuple(
                Button(label=f"Lesson {one.lesson_n}", action=f"unlearn:{one.lesson_n}:{whose}")
                for one in reversed(found)
            ),
        )

    async def _ask(self, call: Call, lesson_n: int) -> Reply:
        whose = call.person.person_id
        foreseen = await self._revoking.foresee(whose, lesson_n)
        return Reply(
            text=_question(lesson_n, foreseen),
            notice=True,
            personal=True,
            buttons=(
                Button(label="Take it back", action=f"unlearn:yes:{lesson_n}:{whose}"),
                Button(label="Keep", action=f"unlearn:no:{lesson_n}:{whose}"),
            ),
        )


def _question(lesson_n: int, foreseen: Foreseen) -> str:
    lines = [f"Take lesson {lesson_n} back, {_quoted(foreseen.said)}? It cannot be given back."]
    if foreseen.n_again:
        what = "The lesson after it is" if foreseen.n_again == 1 else f"The {foreseen.n_again} lessons after it are"
        lines.append(f"{what} learned again without it; until then {foreseen.version_name} goes on answering you.")
    if foreseen.lost:
        n = len(foreseen.lost)
        why = "; ".join(dict.fromkeys(foreseen.lost))
        lines.append(f"{n} later {'piece' if n == 1 else 'pieces'} of feedback would go too: {why}.")
    return " ".join(lines)


def _outcome(revoked: Revoked) -> Reply:
    if revoked.is_rebuilding:
        return personal(
            f"Taken back. {revoked.version_name} goes on answering you until the rest is learned again without it; "
            "I tell you when that is done."
        )
    who = "the base model" if revoked.version_name == BASE else revoked.version_name
    return personal(f"Taken back: {who} answers you now.", version=revoked.version_name)


def _quoted(said: str) -> str:
    """A lesson can be older than its words."""
    return f"“{said if len(said) <= _LONGEST else f'{said[: _LONGEST - 1]}…'}”" if said else "its words are not kept"
