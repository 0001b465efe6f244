"""How an answer is shown while it grows: a native draft in private chats, a message that is edited elsewhere."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import Literal

from telegram.error import BadRequest, EndPointNotFound, InvalidToken, RetryAfter, TelegramError

from claasbot.chat.telegram.formatting import Piece, units
from claasbot.chat.telegram.keyboards import STOP_BUTTON
from claasbot.chat.telegram.limiter import Urgency
from claasbot.chat.telegram.outgoing import Outgoing
from claasbot.chat.telegram.places import Place
from claasbot.chat.telegram.refusals import is_network, scrubbed

log = logging.getLogger(__name__)

Outcome = Literal["shown", "no room", "dropped", "over", "no drafts"]
"""`no room`: our own limits held it back. `over`: no more previews of this answer; its final text still comes."""

_DRAFT_S = 0.5
_MOST_DRAFT_S = 4.0
_DRAFT_RECOVERS = 0.9
_EDIT_S = 1.0
_GROUP_EDIT_S = 3.0
_UNITS_PER_SECOND_MORE = 1000


@dataclass(slots=True)
class DraftSupport:
    """What is known about drafts of this bot: a first refusal ends them, a later one only that answer's."""

    is_offered: bool = True
    has_worked: bool = False
    pause_s: float = _DRAFT_S
    """Twice as long after each 429, and a little shorter after each draft that Telegram took: its limit is secret."""


class DraftPreview:
    """Vanishes by itself when the real message comes."""

    message_id: int | None = None

    def __init__(self, out: Outgoing, place: Place, support: DraftSupport) -> None:
        self._out = out
        self._place = place
        self._support = support
        self._is_shown = False
        self._draft_id = secrets.randbelow(2**31 - 1) + 1  # not zero; the same one animates

    def pause_s(self, shown: Piece) -> float:
        del shown
        return self._support.pause_s

    async def show(self, piece: Piece) -> Outcome:
        call = self._out.draft(self._place, self._draft_id, piece)
        urgency = Urgency.DRAFT if self._is_shown else Urgency.FIRST_DRAFT
        try:
            sent = await self._out.attempt(self._place, urgency, call)
        except (BadRequest, InvalidToken, EndPointNotFound) as error:  # an unknown method is a 404, like a wrong token
            if self._support.has_worked:
                return "over"
            self._support.is_offered = False
            log.info("drafts are refused (%s): answers grow by edits from now on", scrubbed(error))
            return "no drafts"
        except TelegramError as error:
            if isinstance(error, RetryAfter):
                self._support.pause_s = min(_MOST_DRAFT_S, 2 * self._support.pause_s)
            return _after(error)
        if sent is None:
            return "no room"
        self._is_shown = self._support.has_worked = True
        self._support.pause_s = max(_DRAFT_S, _DRAFT_RECOVERS * self._support.pause_s)
        return "shown"


class MessagePreview:
    """Becomes the first message of the answer. Other people see it, so it is edited at the pace of the chat."""

    def __init__(self, out: Outgoing, place: Place, reply_to: int | None) -> None:
        self._out = out
        self._place = place
        self._reply_to = reply_to
        self.message_id: int | None = None

    def pause_s(self, shown: Piece) -> float:
        least = _EDIT_S if self._place.is_private else _GROUP_EDIT_S
        return least + units(shown.text) / _UNITS_PER_SECOND_MORE

    async def show(self, piece: Piece) -> Outcome:
        if self.message_id is None:
            urgency = Urgency.FIRST_PREVIEW
            call = self._out.message(self._place, piece, reply_to=self._reply_to, buttons=[STOP_BUTTON])
        else:
            urgency = Urgency.PREVIEW
            call = self._out.edit(self.message_id, piece, buttons=[STOP_BUTTON])
        try:
            message_id = await self._out.attempt(self._place, urgency, call)
        except TelegramError as error:  # a first message that perhaps arrived is not sent again
            return "over" if self.message_id is None else _after(error)
        if message_id is None:
            return "no room"
        self.message_id = message_id
        return "shown"


def _after(error: TelegramError) -> Outcome:
    """Flood control and refusals end the previews: insisting makes the pause longer."""
    if is_network(error):
        return "dropped"
    log.info("no more previews of this answer: %s", scrubbed(error))
    return "over"
