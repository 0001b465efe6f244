"""What a button or form carries: it comes back as it was sent, so that nothing need be remembered over a restart."""

from __future__ import annotations

from claasbot.errors import ChatError

_OURS = "claasbot:"
_FORM = "claasbot-form:"
_MAX = 100


def custom_id_of(action: str) -> str:
    custom_id = f"{_OURS}{action}"
    if len(custom_id) > _MAX:
        raise ChatError(f"the action {action!r} has {len(action)} characters; Discord takes {_MAX - len(_OURS)}")
    return custom_id


def action_of(custom_id: str) -> str | None:
    """None for what is not ours."""
    return custom_id.removeprefix(_OURS) if custom_id.startswith(_OURS) else None


def form_id(command: str, message_key: str) -> str:
    return f"{_FORM}{command}:{message_key}"


def form_of(custom_id: str) -> tuple[str, str] | None:
    """Command and message that a form is about."""
    if not custom_id.startswith(_FORM):
        return None
    command, _, message_key = custom_id.removeprefix(_FORM).partition(":")
    return command, message_key
