"""A finished Reply → messages. What is one person's own business is not spread out in a group."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from claasbot.chat.telegram.formatting import Piece, plain, rendered, units
from claasbot.chat.telegram.outgoing import PATIENT, Haste, Outgoing
from claasbot.chat.telegram.places import Place
from claasbot.chat.telegram.refusals import MessageLost
from claasbot.domain.conversation import Button, Reply
from claasbot.errors import ChatError

MAX_CAPTION_UNITS = 1024


async def deliver_reply(
    out: Outgoing, place: Place, reply: Reply, *, reply_to: int | None, haste: Haste, preview_id: int | None = None
) -> tuple[str, ...]:
    """The keys of its messages, in order; a preview becomes the first of them. Raises ChatError."""
    file = _file(reply)
    async with out.turn(place, haste):
        if file is not None and preview_id is None and units(reply.text) <= MAX_CAPTION_UNITS:
            call = out.file(place, *file, caption=plain(reply.text)[0].text, reply_to=reply_to, buttons=reply.buttons)
            return (str(await out.deliver(place, call, haste)),)
        keys, pieces = [], _pieces(reply)
        for number, piece in enumerate(pieces):
            is_last = number == len(pieces) - 1 and file is None
            buttons = reply.buttons if is_last else ()
            if number == 0 and preview_id is not None:
                keys.append(await _from_preview(out, place, piece, reply_to, buttons, preview_id))
                continue
            call = out.message(place, piece, reply_to=reply_to if number == 0 else None, buttons=buttons)
            keys.append(await out.deliver(place, call, haste))
        if file is not None:
            call = out.file(place, *file, caption="", reply_to=None, buttons=reply.buttons)
            keys.append(await out.deliver(place, call, haste))
    return tuple(str(key) for key in keys)


def shown_in(place: Place, reply: Reply, username: str) -> Reply:
    """What is one person's own business says no more in a group than where to ask: no text, file or button of it."""
    if not reply.personal or place.is_private:
        return reply
    where = f", t.me/{username}" if username else ""
    return Reply(text=f"That is for you alone: write to me in private{where}", notice=True)


def _pieces(reply: Reply) -> tuple[Piece, ...]:
    """Answers are Markdown; notices are our own plain words, in which `_` and `*` mean themselves."""
    return plain(reply.text) if reply.notice else rendered(reply.text)


async def _from_preview(
    out: Outgoing,
    place: Place,
    piece: Piece,
    reply_to: int | None,
    buttons: Sequence[Button],
    preview_id: int,
) -> int:
    """The preview with its last text; a new message where somebody deleted it, or it is too old."""
    try:
        return await out.deliver(place, out.edit(preview_id, piece, buttons=buttons), PATIENT)
    except MessageLost:
        with suppress(ChatError):
            await out.deliver(place, out.delete(preview_id), PATIENT)
    return await out.deliver(place, out.message(place, piece, reply_to=reply_to, buttons=buttons), PATIENT)


def _file(reply: Reply) -> tuple[str, str] | None:
    name, path = reply.data.get("file_name"), reply.data.get("file_path")
    return (name, path) if isinstance(name, str) and isinstance(path, str) else None
