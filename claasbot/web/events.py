"""JSON from a page or a terminal → ChatEvent. Refuses what it does not know, in one clear line."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from claasbot.domain.conversation import ChatAddress, ChatEvent, Commanded, Pressed, Reacted, Said, Stopped
from claasbot.errors import BadInput

_MAX_KEY_CHARS = 80
_MAX_ACTION_CHARS = 200

_FIELDS: dict[str, frozenset[str]] = {
    "said": frozenset({"text", "reply_to"}),
    "commanded": frozenset({"command", "argument", "message_key"}),
    "pressed": frozenset({"action", "message_key"}),
    "reacted": frozenset({"message_key", "reaction", "removed"}),
    "stopped": frozenset(),
}


def event_of(facts: object, *, address: ChatAddress, account: str, display_name: str, at: datetime) -> ChatEvent:
    """Raises BadInput. How long a text may be is decided by the services."""
    given = _checked(facts)
    key = _text(given, "update_key", most=_MAX_KEY_CHARS)
    if not key:
        raise BadInput("The event needs an update_key: any text that is new with every event.")
    who: dict[str, Any] = {
        "address": address,
        "account": account,
        "display_name": display_name,
        "update_key": key,
        "at": at,
    }
    match given["kind"]:
        case "said":
            return Said(**who, text=_text(given, "text"), message_key=key, reply_to=_key(given, "reply_to"))
        case "commanded":
            return _commanded(who, given)
        case "pressed":
            action = _text(given, "action", most=_MAX_ACTION_CHARS)
            return Pressed(**who, action=action, message_key=_key(given, "message_key"))
        case "reacted":
            return _reacted(who, given)
    return Stopped(**who)


def _checked(facts: object) -> dict[str, Any]:
    if not isinstance(facts, dict):
        raise BadInput('The event must be a JSON object: {"kind": "said", "update_key": "…", "text": "…"}.')
    kind = facts.get("kind")
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise BadInput(f"The event kind {str(kind)[:40]!r} is unknown; use one of {', '.join(_FIELDS)}.")
    unknown = sorted(set(facts) - _FIELDS[kind] - {"kind", "update_key"})
    if unknown:
        raise BadInput(f"An event {kind!r} has no field {unknown[0][:40]!r}.")
    return facts


def _commanded(who: dict[str, Any], facts: Mapping[str, object]) -> Commanded:
    return Commanded(
        **who,
        command=_text(facts, "command", most=_MAX_KEY_CHARS),
        argument=_text(facts, "argument", default=""),
        message_key=_key(facts, "message_key"),
    )


def _reacted(who: dict[str, Any], facts: Mapping[str, object]) -> Reacted:
    removed = facts.get("removed", False)
    if not isinstance(removed, bool):
        raise BadInput("The field 'removed' must be true or false.")
    return Reacted(
        **who,
        message_key=_text(facts, "message_key", most=_MAX_KEY_CHARS),
        reaction=_text(facts, "reaction", most=_MAX_KEY_CHARS),
        removed=removed,
    )


def _text(facts: Mapping[str, object], name: str, *, most: int | None = None, default: str | None = None) -> str:
    value = facts.get(name, default)
    if not isinstance(value, str):
        raise BadInput(f"The field {name!r} must be a text.")
    if most is not None and len(value) > most:
        raise BadInput(f"The field {name!r} has {len(value):,} characters; at most {most} are allowed.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadInput(f"The field {name!r} holds half a character (a lone surrogate); send whole ones.") from None
    return value


def _key(facts: Mapping[str, object], name: str) -> str | None:
    return None if facts.get(name) is None else _text(facts, name, most=_MAX_KEY_CHARS)
