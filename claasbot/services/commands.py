"""/start, /feedback, /undo …: the same on every surface. A command returns a Reply as data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sqlite_utils import Database

from claasbot.domain.completion import BASE, SentCompletion
from claasbot.domain.conversation import Button, Commanded, Pressed, Reply
from claasbot.domain.feedback import REASONS, FeedbackKind
from claasbot.domain.person import CONSENT_TEXT, CONSENT_VERSION, ConsentState, Person
from claasbot.errors import BadInput, NotFound
from claasbot.ports import ChatClient
from claasbot.services.answering import CONSENT_CARD, Answering
from claasbot.services.clock import Clock
from claasbot.services.erasing import Erasing
from claasbot.services.listening import Listening, Noted
from claasbot.services.promoting import Promoting
from claasbot.storage import conversations, lessons, people, switches, versions
from claasbot.storage.rows import Row
from claasbot.storage.store import Store

HELP = {
    "start": "what this bot is, and whether it may learn from you",
    "help": "this list",
    "reset": "begin a new conversation",
    "feedback": "say what was wrong with the last answer: /feedback shorter, please",
    "good": "the last answer was good",
    "bad": "the last answer was not good; you can say why: /bad too long",
    "correct": "give the answer that you wanted: /correct Paris.",
    "retry": "answer my last message again",
    "learned": "what I learned from you",
    "undo": "take the last lesson back",
    "status": "which version answers you, and what waits",
    "optin": "allow learning in this chat",
    "optout": "stop learning in this chat",
    "privacy": "what is stored, and where",
    "forget": "delete everything about you, weights included",
    "export": "get everything that is stored about you",
}

PRIVACY = (
    "Stored on this machine only: your messages and my answers with their tokens, your feedback, your consent, and the "
    "adapters trained from it. Nobody else's answers use them. /optout stops learning, /undo takes a lesson back, "
    "/export hands everything out, /forget deletes it all, the weights included."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One command by one person."""

    person: Person
    event: Commanded | Pressed
    argument: str
    client: ChatClient


_MAX_DIGITS = 18
"""SQLite's integers have 63 bits."""

Handler = Callable[[Call], Awaitable[Reply | None]]


class Commands:
    """What a person can ask of the bot besides an answer."""

    def __init__(
        self,
        store: Store,
        answering: Answering,
        listening: Listening,
        promoting: Promoting,
        erasing: Erasing,
        clock: Clock,
    ) -> None:
        self._store = store
        self._answering = answering
        self._listening = listening
        self._promoting = promoting
        self._erasing = erasing
        self._clock = clock
        self._handlers: dict[str, Handler] = {name: getattr(self, f"_{name}") for name in HELP}

    async def run(self, client: ChatClient, person: Person, event: Commanded) -> Reply | None:
        """The reply; None when the command showed its result itself. Raises BadInput for an unknown command."""
        name = event.command.lower().lstrip("/")
        if name not in self._handlers:
            raise BadInput(f"I do not know /{name[:32]}. /help lists what I know.")
        call = Call(person=person, event=event, argument=event.argument.strip(), client=client)
        return await self._handlers[name](call)

    async def press(self, client: ChatClient, person: Person, event: Pressed) -> Reply | None:
        """A button under one of our replies. Raises BadInput for an action that no button has."""
        action, _, rest = event.action.partition(":")
        call = Call(person=person, event=event, argument=rest, client=client)
        match action, rest:
            case "consent", "yes":
                return await self._optin(call)
            case "consent", "no":
                return await self._optout(call)
            case "undo", number if number.isdecimal() and len(number) < _MAX_DIGITS:
                return await self._undo(call, int(number))
            case "forget", "yes" | "no":
                return await self._forget(call)
            case "reason", _:
                return await self._reason(call)
        raise BadInput(f"The button {event.action[:40]!r} is not one of mine.")

    async def _start(self, call: Call) -> Reply:
        consent = await self._store.run(people.consent_of, call.person.person_id, call.event.address)
        if consent.allows_learning:
            return Reply(
                text="I am an AI that learns from what you say about my answers. /help lists what I know.", notice=True
            )
        if consent.must_be_asked:
            await self._record_consent(call, "asked")
        return CONSENT_CARD

    async def _help(self, call: Call) -> Reply:
        return Reply(text="\n".join(f"/{name}: {text}" for name, text in HELP.items()), notice=True)

    async def _reset(self, call: Call) -> Reply:
        event = call.event
        await self._store.run(conversations.end_conversation, call.person.person_id, event.address, self._clock())
        return Reply(text="A new conversation. What I learned stays.", notice=True, data={"reset": True})

    async def _feedback(self, call: Call) -> Reply:
        return await self._note(call, "text", call.argument)

    async def _good(self, call: Call) -> Reply:
        return await self._note(call, "thumbs_up", "")

    async def _bad(self, call: Call) -> Reply:
        if call.argument:
            return await self._note(call, "text", call.argument)
        return await self._note(call, "thumbs_down", "")

    async def _correct(self, call: Call) -> Reply:
        return await self._note(call, "correction", call.argument)

    async def _reason(self, call: Call) -> Reply:
        """A one-tap reason after a thumbs-down, `too_long:17`: it becomes words."""
        name, _, number = call.argument.partition(":")
        if name not in REASONS or not number.isdecimal() or len(number) >= _MAX_DIGITS:
            raise BadInput(f"The button {call.argument[:40]!r} is not one of mine.")
        key = f"{_source(call)}:{name}"
        return _noted(await self._listening.note(call.person, int(number), "text", REASONS[name][1], key))

    async def _retry(self, call: Call) -> None:
        await self._answering.retry(call.client, call.person, call.event.address, None)

    async def _learned(self, call: Call) -> Reply:
        found = await self._store.run(lessons.lesson_list, call.person.person_id, 20)
        told = [_lesson_line(row) for row in found if row["version_state"] in ("promoted", "retired")]
        text = "\n".join(told) or "Nothing yet. Say what was wrong with an answer (/feedback …) and I learn from it."
        return Reply(text=text, notice=True)

    async def _undo(self, call: Call, version_id: int | None = None) -> Reply:
        name = await self._promoting.undo(call.person.person_id, version_id)
        who = "the base model" if name == BASE else name
        return Reply(text=f"Undone: {who} answers you now.", notice=True, data={"version": name})

    async def _status(self, call: Call) -> Reply:
        def unit(db: Database) -> str:
            current = versions.current(db, call.person.person_id)
            consent = people.consent_of(db, call.person.person_id, call.event.address)
            paused = switches.switch(db, switches.LEARNING) == "paused"
            n_queued = len(lessons.queued(db, call.person.person_id, 100))
            return (
                f"{'The base model' if current is None else current.name} answers you. "
                f"Learning here: {'on' if consent.allows_learning else 'off (/optin)'}"
                f"{', paused by an admin' if paused else ''}. Feedback that waits: {n_queued}."
            )

        return Reply(text=await self._store.run(unit), notice=True)

    async def _optin(self, call: Call) -> Reply:
        await self._record_consent(call, "granted")
        return Reply(
            text="Thank you: what you say about my answers here teaches me from now on. /optout stops it.",
            notice=True,
            data={"consent": "granted"},
        )

    async def _optout(self, call: Call) -> Reply:
        await self._record_consent(call, "withdrawn")
        return Reply(
            text="I do not learn in this chat. What I learned stays until /undo or /forget. /optin allows it again.",
            notice=True,
            data={"consent": "withdrawn"},
        )

    async def _privacy(self, call: Call) -> Reply:
        return Reply(text=f"{CONSENT_TEXT}\n\n{PRIVACY}", notice=True)

    async def _forget(self, call: Call) -> Reply:
        if call.argument == "no":
            return Reply(text="Nothing was deleted.", notice=True)
        if call.argument != "yes":
            return Reply(
                text="Delete your messages, your feedback and all that I learned from you? This cannot be undone.",
                notice=True,
                buttons=(Button(label="Delete it all", action="forget:yes"), Button(label="Keep", action="forget:no")),
            )
        receipt = await self._erasing.forget(call.person.person_id)
        counted = ", ".join(f"{n} {what}" for what, n in receipt.items())
        return Reply(text=f"Forgotten. Deleted: {counted}.", notice=True, data={"forgotten": True, "receipt": receipt})

    async def _export(self, call: Call) -> Reply:
        return Reply(
            text="Here is everything that is stored about you.",
            notice=True,
            data={
                "file_name": f"claasbot-p{call.person.person_id}.json",
                "file_text": await self._erasing.export(call.person.person_id),
            },
        )

    async def _record_consent(self, call: Call, state: ConsentState) -> None:
        def unit(db: Database) -> None:
            person_id, address, now = call.person.person_id, call.event.address, self._clock()
            people.record_consent(db, person_id, address, state, CONSENT_VERSION, now)
            if state == "withdrawn":
                for row in lessons.unsettled(db, person_id):
                    if row.address == address:
                        lessons.move(db, row.experience_id, "withdrawn", "you withdrew your consent", now)

        await self._store.run(unit)

    async def _note(self, call: Call, kind: FeedbackKind, text: str) -> Reply:
        answer = await self._meant(call)
        return _noted(await self._listening.note(call.person, answer.completion_id, kind, text, _source(call)))

    async def _meant(self, call: Call) -> SentCompletion:
        """The answer that the command is about: the one it replies to, or the last one. Raises NotFound."""
        address = call.event.address
        if call.event.message_key is not None:
            return await self._store.run(conversations.completion_at, address, call.event.message_key)
        last = await self._store.run(conversations.last_completion, call.person.person_id, address)
        if last is None:
            raise NotFound("There is no answer to judge in this conversation yet. Say something first.")
        return last


def reaction_reply(noted: Noted) -> Reply | None:
    """After a thumbs-down: ask once what was wrong. Other reactions need no words."""
    return _noted(noted) if noted.asks_why else None


def _noted(noted: Noted) -> Reply:
    if noted.will_teach:
        return Reply(text="Noted: I am learning from that.", notice=True, data=_facts(noted))
    if not noted.asks_why:
        return Reply(text=f"Noted, but it teaches nothing: {noted.reason}.", notice=True, data=_facts(noted))
    return Reply(
        text="What was wrong? Pick a reason or say it with /feedback.",
        notice=True,
        buttons=tuple(
            Button(label=label, action=f"reason:{name}:{noted.completion_id}") for name, (label, _) in REASONS.items()
        ),
        data=_facts(noted),
    )


def _facts(noted: Noted) -> dict[str, object]:
    return {"noted": noted.feedback_id, "completion_id": noted.completion_id, "will_teach": noted.will_teach}


def _source(call: Call) -> str:
    """The same update notes the same feedback, however often it comes."""
    address = call.event.address
    return f"{address.platform}:{address.bot_account}:{call.event.update_key}"


def _lesson_line(row: Row) -> str:
    undone = " (undone)" if row["version_state"] == "retired" and row["state"] == "promoted" else ""
    return f"p{row['person_id']}.v{row['version_n']}: “{row['said']}”{undone}"
