"""/start, /undo, /status …: the same on every surface. A command returns a Reply as data."""

from __future__ import annotations

from collections.abc import Mapping

from sqlite_utils import Database

from claasbot.domain.completion import BASE
from claasbot.domain.conversation import Commanded, Pressed, Reply
from claasbot.domain.job import result_from_json
from claasbot.errors import BadInput
from claasbot.ports import ChatClient
from claasbot.services.admin_commands import HELP as ADMIN_HELP
from claasbot.services.admitting import Guest
from claasbot.services.answering import Answering
from claasbot.services.call import Call, Handler, personal
from claasbot.services.clock import Clock
from claasbot.services.feedback_commands import number
from claasbot.services.promoting import Promoting
from claasbot.services.quotas import Quotas
from claasbot.storage import accounts, completions, conversations, lessons, people, switches, versions
from claasbot.storage.rows import Row
from claasbot.storage.store import Store

HELP = {
    "start": "what this bot is, and whether it may learn from you",
    "help": "this list",
    "ask": "ask something: /ask What is rain?",
    "reset": "begin a new conversation",
    "feedback": "say what was wrong with the last answer: /feedback shorter, please",
    "good": "the last answer was good",
    "bad": "the last answer was not good; you can say why: /bad too long",
    "correct": "give the answer that you wanted: /correct Paris.",
    "retry": "answer my last message again",
    "stop": "stop the answer that is being written",
    "compare": "your last question, answered by two versions without names",
    "learn": "what waits to be learned; /learn now begins at once",
    "learned": "what I learned from you",
    "undo": "take the last lesson back, or the last few: /undo 2",
    "unlearn": "take any one lesson back: /unlearn lists them, /unlearn 3 asks",
    "status": "which version answers you, and what waits",
    "usage": "how much you have used",
    "settings": "streaming, notices and what I learn from, in this chat",
    "persona": "who I am in this chat: /persona a patient teacher",
    "optin": "allow learning in this chat",
    "optout": "stop learning in this chat",
    "privacy": "what is stored, and where",
    "forget": "delete everything about you, weights included",
    "export": "get everything that is stored about you",
    "link": "join your accounts on other platforms with this one",
    "whoami": "how this bot knows you, for its lists",
}

WITH_ARGUMENT = frozenset(
    {"ask", "feedback", "good", "bad", "correct", "compare", "learn", "undo", "unlearn", "persona", "link"}
    | {"pair", "rollback", "block", "unblock"}
)
"""Commands that words may follow."""

ALIASES = {"new": "reset", "thumbsup": "good", "thumbsdown": "bad"}

_ONCE = frozenset({"undo", "link", "pair", "rollback"})
"""What must not be done twice: after a crash in the middle the person is told instead."""

_MOST_UNDONE = 20


class Commands:
    """What a person can ask of the bot besides an answer."""

    def __init__(
        self,
        store: Store,
        answering: Answering,
        promoting: Promoting,
        clock: Clock,
        *,
        quotas: Quotas,
        more: Mapping[str, Handler],
        more_buttons: Mapping[str, Handler],
    ) -> None:
        """`more`: handlers of the other command modules, by name."""
        self._store = store
        self._answering = answering
        self._promoting = promoting
        self._clock = clock
        self._quotas = quotas
        self._handlers: dict[str, Handler] = dict(more)
        for name in HELP.keys() - more.keys() - {"ask"}:  # that one is a message
            self._handlers[name] = getattr(self, f"_{name}")
        self._buttons: dict[str, Handler] = {
            **more_buttons,
            "undo": self._undo_that,
            "retry": self._retry,
        }

    def may_repeat(self, event: Commanded | Pressed) -> bool:
        """Whether doing it again after a crash changes nothing."""
        return _name(event) not in _ONCE

    async def run(self, client: ChatClient, guest: Guest, event: Commanded | Pressed, inbox_id: int) -> Reply | None:
        """The reply; None when the command showed its result itself. Raises BadInput for an unknown one."""
        name = _name(event)
        table = self._handlers if isinstance(event, Commanded) else self._buttons
        if name not in table:
            if isinstance(event, Commanded):
                raise BadInput(f"I do not know /{name[:32]}. /help lists what I know.")
            raise BadInput(f"The button {event.action[:40]!r} is not one of mine.")
        argument = event.argument if isinstance(event, Commanded) else event.action.partition(":")[2]
        call = Call(
            person=guest.person,
            is_admin=guest.is_admin,
            event=event,
            argument=argument.strip(),
            client=client,
            inbox_id=inbox_id,
        )
        return await table[name](call)

    async def _help(self, call: Call) -> Reply:
        known = HELP | ADMIN_HELP if call.is_admin else HELP
        return Reply(text="\n".join(f"/{name}: {text}" for name, text in known.items()), notice=True, personal=True)

    async def _reset(self, call: Call) -> Reply:
        await self._store.run(conversations.end_conversation, call.person.person_id, call.address, self._clock())
        return Reply(
            text="A new conversation: I read nothing of the old one any more. What I learned stays.",
            notice=True,
            data={"reset": True},
        )

    async def _retry(self, call: Call) -> None:
        await self._answering.retry(
            call.client,
            call.person,
            call.address,
            reply_to=call.event.own_key,
            message_key=call.event.message_key,
            inbox_id=call.inbox_id,
        )

    async def _stop(self, call: Call) -> Reply:
        """It was obeyed when it came in; this only says so."""
        return Reply(text="Stopped.", notice=True)

    async def _learned(self, call: Call) -> Reply:
        found = await self._store.run(lessons.lesson_list, call.person.person_id, 20)
        told = [line for row in found if (line := _lesson_line(row))]
        return personal(
            "\n".join(told) or "Nothing yet. Say what was wrong with an answer (/feedback …) and I learn from it."
        )

    async def _undo(self, call: Call) -> Reply:
        """`/undo 2` takes two lessons back. Raises BadInput for anything but a small number."""
        if call.argument and not (call.argument.isdecimal() and 1 <= int(call.argument[:3]) <= _MOST_UNDONE):
            raise BadInput(f"Say how many lessons, 1 to {_MOST_UNDONE}: /undo 2. {call.argument[:20]!r} is none.")
        n = int(call.argument or 1)
        undone = await self._promoting.undo_last(call.person.person_id, n)
        n_undone = undone.n_undone
        what = "Undone" if n == n_undone == 1 else f"Undone, {n_undone} {'lesson' if n_undone == 1 else 'lessons'}"
        all_there_was = ", all there was" if n_undone < n else ""
        return await self._undone(call, what + all_there_was, undone.version_name)

    async def _undo_that(self, call: Call) -> Reply:
        """The button of one lesson takes back that lesson only."""
        name = await self._promoting.undo(call.person.person_id, number(call.argument))
        return await self._undone(call, "Undone", name)

    async def _undone(self, call: Call, what: str, name: str) -> Reply:
        who = "the base model" if name == BASE else name
        waiting = await self._store.run(lessons.unsettled, call.person.person_id)
        is_learning = any(row.state == "leased" for row in waiting)
        more = " What I am learning now begins again from there." if is_learning else ""
        return Reply(text=f"{what}: {who} answers you now.{more}", notice=True, data={"version": name})

    async def _status(self, call: Call) -> Reply:
        def unit(db: Database) -> str:
            current = versions.current(db, call.person.person_id)
            consent = people.consent_of(db, call.person.person_id, call.address)
            paused = switches.is_paused(db)
            n_queued = len(lessons.queued(db, call.person.person_id, 100))
            that = ""
            if call.event.message_key is not None:
                sent = completions.completion_at(db, call.address, call.event.message_key)
                that = f"That answer came from {sent.version_name}. "
            return (
                f"{that}{'The base model' if current is None else current.name} answers you. "
                f"Learning here: {'on' if consent.allows_learning else 'off (/optin)'}"
                f"{', paused by an admin' if paused else ''}. Feedback that waits: {n_queued}."
                f" {self._quotas.left(db, call.person.person_id, self._clock())}".rstrip()
            )

        return Reply(text=await self._store.run(unit), notice=True)

    async def _usage(self, call: Call) -> Reply:
        used = await self._store.run(people.usage, call.person.person_id)
        lessons_told = f"{used.n_lessons:,} {'lesson' if used.n_lessons == 1 else 'lessons'}"
        return personal(
            f"{used.n_answers:,} answers with {used.n_tokens:,} tokens in {used.answering_s:.0f} s; "
            f"{lessons_told} in {used.lessons_s:.0f} s of training."
        )

    async def _whoami(self, call: Call) -> Reply:
        mine = await self._store.run(accounts.of_person, call.person.person_id)
        known = ", ".join(account.name for account in mine)
        chat = f"{call.address.platform}:{call.address.room.chat}"
        who = f"You are p{call.person.person_id} ({known}){', an admin' if call.is_admin else ''}."
        return personal(f"{who} Chat: {chat}.")


def _name(event: Commanded | Pressed) -> str:
    if isinstance(event, Pressed):
        return event.action.partition(":")[0]
    return ALIASES.get(event.command, event.command)


def _lesson_line(row: Row) -> str:
    """A lesson with what became of it; empty while it is being learned."""
    if row["is_rebuild"]:  # it taught nothing new
        return ""
    if row["state"] == "promoted":
        undone = "" if row["n_taught"] else " (undone)"
        return f"p{row['person_id']}.v{row['version_n']}: “{row['said']}”{_effect(row)}{undone}"
    if row["state"] == "rejected":
        return f"not learned: “{row['said']}”, it would have harmed other answers"
    return ""


def _effect(row: Row) -> str:
    """How far the answer moved towards what was asked, by the divergence from the teacher."""
    if not row["result_json"]:
        return ""
    scores = result_from_json(row["result_json"]).learned
    before, after = sum(score.before_nats for score in scores), sum(score.after_nats for score in scores)
    return f", {1 - after / before:.0%} of the way there" if before > after > 0 else ""
