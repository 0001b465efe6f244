"""Inline keyboards as the official server reads them."""

from __future__ import annotations

from typing import Any

from aiogram.types import InlineKeyboardButton

from tests.chat.telegram.refusal import bad_request
from tests.chat.telegram.world import Json

MAX_BUTTONS = 100
_ACTIONS = (
    "url",
    "callback_data",
    "callback_game",
    "pay",
    "switch_inline_query",
    "switch_inline_query_chosen_chat",
    "switch_inline_query_current_chat",
    "login_url",
    "web_app",
    "copy_text",
)
_STYLES = {"", "default", "primary", "danger", "success"}


def keyboard_of(reply_markup: Any) -> list[list[Json]]:
    """The rows of an inline keyboard; none for other markup. Raises Refused."""
    if reply_markup is None or (isinstance(reply_markup, dict) and "inline_keyboard" not in reply_markup):
        return []
    if not isinstance(reply_markup, dict):
        raise bad_request("Object expected as reply markup")
    rows = [[_button(one) for one in row] for row in reply_markup["inline_keyboard"]]
    if sum(map(len, rows)) > MAX_BUTTONS:
        raise bad_request("reply markup is too long")
    return [row for row in rows if row]


def _button(button: Json) -> Json:
    if not str(button.get("text", "")).strip():
        raise bad_request("inline keyboard button text must be non-empty")
    if button.get("style", "") not in _STYLES:
        raise bad_request("Can't parse inline keyboard button: invalid button style specified")
    # An empty string counts as absent, as on the server.
    actions = [name for name in _ACTIONS if button.get(name) not in (None, "")]
    if not actions:
        raise bad_request("Can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard")
    if "callback_data" in actions and len(button["callback_data"].encode()) > 64:
        raise bad_request("BUTTON_DATA_INVALID")
    return {name: value for name, value in button.items() if name in InlineKeyboardButton.model_fields}
