"""/good, /bad, /feedback, /correct, the thumbs under an answer, and what is said back."""

from __future__ import annotations

from claasbot.domain.completion import SentCompletion
from claasbot.domain.conversation import Button, Reply
from claasbot.domain.feedback import REASONS, FeedbackKind, NewFeedback, signal_of
from claasbot.errors import BadInput, NotFound
from claasbot.services.call import Call, Handler
from claasbot.services.listening import Listening, Noted
from claasbot.storage import completions
from claasbot.storage.store import Store

_KEPT_UP = "Noted: I keep it up. There is nothing to change, so nothing is trained."

_MAX_DIGITS = 18
"""SQLite's integers have 63 bits."""


class FeedbackCommands:
    def __init__(self, store: Store, listening: Listening) -> None:
        self._store = store
        self._listening = listening

    def handlers(self) -> dict[str, Handler]:
        return {"feedback": self._feedback, "good": self._good, "bad": self._bad, "correct": self._correct}

    def buttons(self) -> dict[str, Handler]:
        return {"good": self._press_good, "bad": self._press_bad, "reason": self._reason}

    async def _feedback(self, call: Call) -> Reply:
        return await self._note(call, "text", call.argument)

    async def _good(self, call: Call) -> Reply:
        return await self._note(call, "thumbs_up", call.argument)

    async def _bad(self, call: Call) -> Reply:
        """With words it is feedback that teaches; without, a thumbs-down."""
        if call.argument:
            return await self._note(call, "text", call.argument)
        return await self._note(call, "thumbs_down", "")

    async def _correct(self, call: Call) -> Reply:
        return await self._note(call, "correction", call.argument)

    async def _press_good(self, call: Call) -> Reply:
        return await self._keep(call, number(call.argument), "thumbs_up", "")

    async def _press_bad(self, call: Call) -> Reply:
        return await self._keep(call, number(call.argument), "thumbs_down", "")

    async def _reason(self, call: Call) -> Reply:
        """A one-tap reason after a thumbs-down, `too_long:17`: it becomes words."""
        name, _, completion_id = call.argument.partition(":")
        if name not in REASONS:
            raise BadInput(f"The button {call.argument[:40]!r} is not one of mine.")
        feedback = NewFeedback(
            completion_id=number(completion_id),
            kind="text",
            text=REASONS[name][1],
            source_key=f"reason:{completion_id}:{name}",
            is_interaction=call.event.is_interaction,
            is_reason=True,
        )
        return said_back(await self._listening.note(call.person, feedback))

    async def _note(self, call: Call, kind: FeedbackKind, text: str) -> Reply:
        answer = await self._meant(call)
        return await self._keep(call, answer.completion_id, kind, text)

    async def _keep(self, call: Call, completion_id: int, kind: FeedbackKind, text: str) -> Reply:
        feedback = NewFeedback(
            completion_id=completion_id,
            kind=kind,
            text=text,
            source_key=call.source_key,
            is_interaction=call.event.is_interaction,
        )
        return said_back(await self._listening.note(call.person, feedback))

    async def _meant(self, call: Call) -> SentCompletion:
        """The answer that the command is about: the one it replies to, or the last one. Raises NotFound."""
        if call.event.message_key is not None:
            return await self._store.run(completions.completion_at, call.address, call.event.message_key)
        last = await self._store.run(completions.last_completion, call.person.person_id, call.address)
        if last is None:
            raise NotFound("There is no answer to judge in this conversation yet. Say something first.")
        return last


def number(text: str) -> int:
    """An id in a button's action. Raises BadInput."""
    if not (text.isascii() and text.isdecimal() and len(text) < _MAX_DIGITS):
        raise BadInput(f"The button with {text[:40]!r} is not one of mine.")
    return int(text)


def reaction_reply(noted: Noted) -> Reply | None:
    """After a thumbs-down: ask once what was wrong. Other reactions need no words."""
    return said_back(noted) if noted.asks_why else None


def said_back(noted: Noted) -> Reply:
    facts: dict[str, object] = {
        "noted": noted.feedback_id,
        "completion_id": noted.completion_id,
        "will_teach": noted.will_teach,
    }
    if noted.will_teach:
        return Reply(text="Noted: I am learning from that.", notice=True, data=facts)
    if not noted.asks_why:
        is_praise = noted.reason == signal_of("thumbs_up", "").reason
        text = _KEPT_UP if is_praise else f"Noted, but it teaches nothing: {noted.reason}."
        return Reply(text=text, notice=True, data=facts)
    return Reply(
        text="What was wrong? Pick a reason or say it.",
        notice=True,
        buttons=tuple(
            Button(label=label, action=f"reason:{name}:{noted.completion_id}") for name, (label, _) in REASONS.items()
        ),
        data=facts,
    )
