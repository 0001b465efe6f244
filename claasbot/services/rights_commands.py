"""/optin, /optout, /privacy, /export, /forget: what people decide about what is stored of them."""

from __future__ import annotations

import logging

from sqlite_utils import Database

from claasbot.domain.conversation import Button, Commanded, Reply
from claasbot.domain.person import CONSENT_TEXT, CONSENT_VERSION, ConsentState
from claasbot.errors import BadInput, ServerError
from claasbot.services.answering import CONSENT_CARD
from claasbot.services.call import Call, Handler, personal
from claasbot.services.clock import Clock
from claasbot.services.erasing import Erasing, Receipt
from claasbot.services.exporting import Exporting, file_name
from claasbot.storage import lessons, outbox, people
from claasbot.storage.store import Store

log = logging.getLogger(__name__)

PRIVACY = (
    "Stored on this machine only: your messages and my answers with their tokens, your feedback, your consent, and the "
    "adapters trained from it. Nobody else's answers use them. /optout stops learning, /undo and /unlearn take lessons "
    "back, /export hands everything out, /forget deletes it all, the weights included."
)
_ALL_OF_IT = "Here is everything that is stored about you."
_FORGOTTEN_LATER = (
    "From now on nothing of yours answers or teaches. My model has to let go of your adapter before everything can be "
    "deleted; that happens by itself as soon as it can be reached."
)


class RightsCommands:
    def __init__(
        self, store: Store, erasing: Erasing, exporting: Exporting, clock: Clock, *, privacy: str = ""
    ) -> None:
        """`privacy`: the host's own words; empty: ours."""
        self._store = store
        self._erasing = erasing
        self._exporting = exporting
        self._clock = clock
        self._privacy_words = privacy or PRIVACY

    def handlers(self) -> dict[str, Handler]:
        return {
            "start": self._start,
            "optin": self._optin,
            "optout": self._optout,
            "privacy": self._privacy,
            "export": self._export,
            "forget": self._forget,
        }

    def buttons(self) -> dict[str, Handler]:
        return {"consent": self._consent, "forget": self._forget}

    async def _start(self, call: Call) -> Reply:
        consent = await self._store.run(people.consent_of, call.person.person_id, call.address)
        if consent.allows_learning:
            return Reply(
                text="I am an AI that learns from what you say about my answers. /help lists what I know.", notice=True
            )
        if consent.must_be_asked:
            await self._record_consent(call, "asked")
        return CONSENT_CARD

    async def _optin(self, call: Call) -> Reply:
        await self._record_consent(call, "granted")
        return Reply(
            text="Thank you: what you say about my answers here teaches me from now on. /optout stops it.",
            notice=True,
            data={"consent": "granted"},
        )

    async def _optout(self, call: Call) -> Reply:
        n_dropped = await self._record_consent(call, "withdrawn")
        remarks = "remark of yours" if n_dropped == 1 else "remarks of yours"
        dropped = f" Not yet learned, and dropped: {n_dropped} {remarks}." if n_dropped else ""
        return Reply(
            text=f"I do not learn in this chat.{dropped} What I learned stays until /undo or /forget. "
            "/optin allows it again.",
            notice=True,
            data={"consent": "withdrawn"},
        )

    async def _consent(self, call: Call) -> Reply:
        if call.argument not in ("yes", "no"):
            raise BadInput(f"The button {call.argument[:40]!r} is not one of mine.")
        return await (self._optin(call) if call.argument == "yes" else self._optout(call))

    async def _privacy(self, call: Call) -> Reply:
        return Reply(text=f"{CONSENT_TEXT}\n\n{self._privacy_words}", notice=True, personal=True)

    async def _export(self, call: Call) -> Reply | None:
        """Sent while the file is there: it is gone when the person has it."""
        person_id, at_most_bytes = call.person.person_id, call.client.max_file_bytes
        if not at_most_bytes:
            return personal(_ALL_OF_IT, file_name=file_name(person_id))
        async with self._exporting.made(person_id, at_most_bytes=at_most_bytes) as made:
            missing = f" Not in it: {made.left_out}." if made.left_out else ""
            reply = personal(f"{_ALL_OF_IT}{missing}", file_name=made.name, file_path=str(made.path))
            await call.client.send(call.address, reply, call.event.own_key)
        return None

    async def _forget(self, call: Call) -> Reply:
        person_id = call.person.person_id
        choice, _, whose = call.argument.partition(":")
        if isinstance(call.event, Commanded) or choice not in ("yes", "no"):
            return _forget_card(person_id)
        call.for_its_owner(whose)
        if choice == "no":
            return personal("Nothing was deleted.")
        try:
            receipt = await self._erasing.forget(person_id)
        except ServerError as error:
            log.warning("p%d is forgotten later: %s", person_id, error)
            return personal(_FORGOTTEN_LATER, forgotten=True)
        return personal(_words_of(receipt), forgotten=True, receipt=receipt.counts, number=receipt.number)

    async def _record_consent(self, call: Call, state: ConsentState) -> int:
        """How many remarks a withdrawal dropped before they were learned."""

        def unit(db: Database) -> int:
            person_id, address, now = call.person.person_id, call.address, self._clock()
            people.record_consent(db, person_id, address, state, CONSENT_VERSION, now)
            if state != "withdrawn":
                return 0
            dropped = [row for row in lessons.unsettled(db, person_id) if row.address.room == address.room]
            for row in dropped:
                lessons.move(db, row.experience_id, "withdrawn", "you withdrew your consent", now)
                outbox.clear_dropped(db, row, now)
            return len(dropped)

        n_dropped = await self._store.run(unit)
        self._store.stages.outbox.set()
        return n_dropped


def _forget_card(person_id: int) -> Reply:
    return Reply(
        text="Delete your messages, your feedback and all that I learned from you? This cannot be undone.",
        notice=True,
        personal=True,
        buttons=(
            Button(label="Delete it all", action=f"forget:yes:{person_id}"),
            Button(label="Keep", action=f"forget:no:{person_id}"),
        ),
    )


def _words_of(receipt: Receipt) -> str:
    counted = ", ".join(f"{n} {what}" for what, n in receipt.counts.items()) or "nothing was left"
    text = f"Forgotten. Deleted: {counted}. Receipt {receipt.number}, {receipt.done_at:%Y-%m-%d %H:%M} UTC."
    for one in receipt.backups:
        until = "the host deletes it" if one.expires_at is None else f"{one.expires_at:%Y-%m-%d}"
        text += f" Backup {one.name} still holds you, until {until}."
    return f"{text} If a backup is put back, you are forgotten again." if receipt.backups else text
