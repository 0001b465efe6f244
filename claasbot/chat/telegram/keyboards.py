"""Buttons under a message. Pure; refuses an action that Telegram could not carry back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from telegram import InlineKeyboardButton, InlineKeyboardMarkup

from claasbot.chat.telegram.updates import STOP
from claasbot.domain.conversation import Button
from claasbot.errors import ChatError

MAX_DATA_BYTES = 64
_ROW_CHARS = 32
_ROW_BUTTONS = 4

STOP_BUTTON = Button(label="Stop", action=STOP)


def keyboard(buttons: Sequence[Button]) -> InlineKeyboardMarkup | None:
    """Rows that a telephone shows without cutting the labels. Raises ChatError for an action over 64 bytes."""
    if not buttons:
        return None
    return InlineKeyboardMarkup([[_key(button) for button in row] for row in _rows(buttons)])


def _rows(buttons: Sequence[Button]) -> Iterator[list[Button]]:
    row: list[Button] = []
    for button in buttons:
        is_full = len(row) == _ROW_BUTTONS or sum(len(one.label) for one in (*row, button)) > _ROW_CHARS
        if row and is_full:
            yield row
            row = []
        row.append(button)
    yield row


def _key(button: Button) -> InlineKeyboardButton:
    n_bytes = len(button.action.encode())
    if not 1 <= n_bytes <= MAX_DATA_BYTES:
        raise ChatError(
            f"the action {button.action!r} has {n_bytes} bytes; Telegram carries 1 to {MAX_DATA_BYTES}: shorten it"
        )
    return InlineKeyboardButton(button.label, callback_data=button.action)
