"""/settings and /persona: what holds in one chat, never elsewhere."""

from __future__ import annotations

from dataclasses import replace

from sqlite_utils import Database

from claasbot.domain.conversation import Button, Reply
from claasbot.domain.room import MAX_PERSONA_CHARS, Room
from claasbot.errors import BadInput, NotYours
from claasbot.services.call import Call, Handler
from claasbot.storage import chats
from claasbot.storage.store import Store


class RoomCommands:
    def __init__(self, store: Store) -> None:
        self._store = store

    def handlers(self) -> dict[str, Handler]:
        return {"settings": self._settings, "persona": self._persona}

    def buttons(self) -> dict[str, Handler]:
        return {"set": self._set}

    async def _settings(self, call: Call) -> Reply:
        return _card(await self._store.run(chats.room, call.address))

    async def _set(self, call: Call) -> Reply:
        _refuse_guests_in_groups(call)

        def unit(db: Database) -> Room:
            room = _changed(chats.room(db, call.address), call.argument)
            chats.keep(db, call.address, room)
            return room

        return _card(await self._store.run(unit))

    async def _persona(self, call: Call) -> Reply:
        """`/persona off` takes it away; without an argument it is shown."""
        if not call.argument:
            persona = (await self._store.run(chats.room, call.address)).persona
            shown = f"Here I am: “{persona}”" if persona else "I have no persona here."
            return Reply(text=f"{shown} /persona followed by words sets it, /persona off takes it away.", notice=True)
        _refuse_guests_in_groups(call)
        if len(call.argument) > MAX_PERSONA_CHARS:
            raise BadInput(f"The persona has {len(call.argument):,} characters, at most {MAX_PERSONA_CHARS:,} fit.")
        persona = "" if call.argument.lower() == "off" else call.argument

        def unit(db: Database) -> None:
            chats.keep(db, call.address, replace(chats.room(db, call.address), persona=persona))

        await self._store.run(unit)
        text = "From the next answer on I am that, in this chat only." if persona else "The persona is gone."
        return Reply(text=text, notice=True)


def _changed(room: Room, argument: str) -> Room:
    match argument:
        case "streaming:on" | "streaming:off":
            return replace(room, is_streaming=argument.endswith("on"))
        case "notices:on" | "notices:off":
            return replace(room, has_notices=argument.endswith("on"))
        case "learns:everything":
            return replace(room, learns_from="everything")
        case "learns:words":
            return replace(room, learns_from="words")
    raise BadInput(f"The button {argument[:40]!r} is not one of mine.")


def _card(room: Room) -> Reply:
    """How things stand in this chat; each button turns one of them over."""
    learns = "reactions, replies and words" if room.learns_from == "everything" else "words and buttons only"
    return Reply(
        text=f"In this chat: answers {'appear while I write' if room.is_streaming else 'come whole'}; "
        f"lessons are {'told' if room.tells_lessons else 'not told'}; "
        f"I learn from {learns} (where you agreed); persona: {room.persona or 'none'}.",
        notice=True,
        buttons=(
            _toggle("Streaming", "streaming", is_on=room.is_streaming),
            _toggle("Notices", "notices", is_on=room.tells_lessons),
            Button(label="Learn from words only", action="set:learns:words")
            if room.learns_from == "everything"
            else Button(label="Learn from everything", action="set:learns:everything"),
        ),
    )


def _toggle(label: str, name: str, *, is_on: bool) -> Button:
    return Button(label=f"{label} {'off' if is_on else 'on'}", action=f"set:{name}:{'off' if is_on else 'on'}")


def _refuse_guests_in_groups(call: Call) -> None:
    if call.event.is_group and not call.is_admin:
        raise NotYours("In a group only an admin of this bot changes that.")
