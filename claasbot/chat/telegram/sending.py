"""A finished Reply → messages. What is one person's own business is not spread out in a group."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from claasbot.chat.telegram.formatting import Piece, one_line, plain, rendered, units
from claasbot.chat.telegram.outgoing import Outgoing
from claasbot.chat.telegram.places import Place
from claasbot.chat.telegram.refusals import MessageLost
from claasbot.domain.conversation import Button, Reply
from claasbot.errors import ChatError

MAX_CAPTION_UNITS = 1024
_MOST_PERSONAL_UNITS = 200


async def deliver_reply(
    out: Outgoing, place: Place, reply: Reply, *, reply_to: int | None, username: str, preview_id: int | None = None
) -> tuple[str, ...]:
    """The keys of its messages, in order; a preview becomes the first of them. Raises ChatError."""
    pieces = pieces_of(reply, place, username)
    file = None if reply.personal and not place.is_private else _file(reply)
    if file is not None and preview_id is None and units(reply.text) <= MAX_CAPTION_UNITS:
        call = out.file(place, *file, caption=plain(reply.text)[0].text, reply_to=reply_to, buttons=reply.buttons)
        async with out.turn(place):
            return (str(await out.deliver(place, call)),)
    keys = []
    async with out.turn(place):
        for number, piece in enumerate(pieces):
            is_last = number == len(pieces) - 1 and file is None
            buttons = reply.buttons if is_last else ()
            quoted = reply_to if number == 0 else None
            keys.append(await _deliver(out, place, piece, quoted, buttons, preview_id if number == 0 else None))
        if file is not None:
            call = out.file(place, *file, caption="", reply_to=None, buttons=reply.buttons)
            keys.append(await out.deliver(place, call))
    return tuple(str(key) for key in keys)


def pieces_of(reply: Reply, place: Place, username: str) -> tuple[Piece, ...]:
    """Answers are Markdown; notices are our own plain words, in which `_` and `*` mean themselves."""
    if not reply.personal or place.is_private:
        return plain(reply.text) if reply.notice else rendered(reply.text)
    if _file(reply) is not None:
        return plain(f"That is for your eyes only: ask me in our private chat, t.me/{username}")
    line = one_line(reply.text, _MOST_PERSONAL_UNITS)
    return plain(line if line == reply.text.strip() else f"{line} The rest in our private chat: t.me/{username}")


async def _deliver(
    out: Outgoing,
    place: Place,
    piece: Piece,
    reply_to: int | None,
    buttons: Sequence[Button],
    preview_id: int | None,
) -> int:
    if preview_id is not None:
        try:
            return await out.deliver(place, out.edit(preview_id, piece, buttons=buttons))
        except MessageLost:  # deleted by somebody, or too old: the text comes all the same
            with suppress(ChatError):
                await out.deliver(place, out.delete(preview_id))
    return await out.deliver(place, out.message(place, piece, reply_to=reply_to, buttons=buttons))


def _file(reply: Reply) -> tuple[str, str] | None:
    name, text = reply.data.get("file_name"), reply.data.get("file_text")
    return (name, text) if isinstance(name, str) and isinstance(text, str) else None
