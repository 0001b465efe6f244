"""Texts and their entities, judged by Telegram's own parser (`tdjson`), which needs no login and no network.

Offsets and lengths are UTF-16 units throughout, as on the wire.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import tdjson

from tests.chat.telegram.refusal import Refused, bad_request

MAX_TEXT = 4096
MAX_CAPTION = 1024
MAX_ENTITIES = 100
_MAX_BYTES = 1 << 15
_BLANK = " \n\t\r"

_NAMES = {
    "Bold": "bold",
    "Italic": "italic",
    "Underline": "underline",
    "Strikethrough": "strikethrough",
    "Spoiler": "spoiler",
    "Code": "code",
    "Pre": "pre",
    "PreCode": "pre",
    "BlockQuote": "blockquote",
    "ExpandableBlockQuote": "expandable_blockquote",
    "TextUrl": "text_link",
    "MentionName": "text_mention",
    "CustomEmoji": "custom_emoji",
    "BotCommand": "bot_command",
    "Mention": "mention",
    "Hashtag": "hashtag",
    "Cashtag": "cashtag",
    "Url": "url",
    "EmailAddress": "email",
    "PhoneNumber": "phone_number",
}
_FOUND = {"mention", "hashtag", "cashtag", "bot_command", "url", "email", "phone_number", "bank_card_number"}
# A link or command is not looked for inside these.
_OPAQUE = {"code", "pre", "text_link", "text_mention", "custom_emoji"}
_MODES = {
    "html": {"@type": "textParseModeHTML"},
    "markdown": {"@type": "textParseModeMarkdown", "version": 1},
    "markdownv2": {"@type": "textParseModeMarkdown", "version": 2},
}

Entity = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Text:
    """A text as people see it: no markup, entities beside it."""

    text: str
    entities: tuple[Entity, ...] = ()

    def spans(self, kind: str) -> list[str]:
        """The parts of the text that carry entities of this kind."""
        return [cut(self.text, entity) for entity in self.entities if entity["type"] == kind]


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, where a client cut an emoji in two
        raise bad_request("Text must be encoded in UTF-8") from None


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def cut(text: str, entity: Mapping[str, Any]) -> str:
    start = 2 * entity["offset"]
    return text.encode("utf-16-le")[start : start + 2 * entity["length"]].decode("utf-16-le")


def _execute(**query: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(tdjson.td_execute(json.dumps(query).encode()) or b"")
    if answer["@type"] == "error":
        raise bad_request(answer["message"])
    return answer


_execute(**{"@type": "setLogVerbosityLevel", "new_verbosity_level": 1})


def as_written_by_a_person(text: str) -> Text:
    """Plain typing: Telegram cuts blanks off the ends and finds commands, mentions and links."""
    shown = _trimmed(Text(text)).text
    return Text(shown, tuple(_found(shown)))


def as_sent_by_a_bot(
    text: str, parse_mode: str | None = None, entities: Iterable[Entity] | None = None, *, may_be_empty: bool = False
) -> Text:
    """What a bot's text becomes. Raises Refused as the official server does."""
    if not text and not may_be_empty:
        raise bad_request("Message text is empty")
    if len(_utf8(text)) > _MAX_BYTES:
        raise bad_request("Text is too long")
    mode = (parse_mode or "none").lower()
    if mode == "none":
        given = _checked(text, list(entities or ()))
    elif mode in _MODES:
        answer = _execute(**{"@type": "parseTextEntities", "text": text, "parse_mode": _MODES[mode]})
        given = Text(answer["text"], tuple(_from_td(answer["entities"])))
    else:
        raise bad_request("Unsupported parse_mode")
    shown = _trimmed(given)
    if not shown.text and not may_be_empty:
        raise bad_request("Text must be non-empty")
    return Text(shown.text, tuple(_with_found(shown)[:MAX_ENTITIES]))


def accepted_by_official_parser(text: str, entities: Iterable[Entity] = ()) -> bool:
    """Whether Telegram would take this text with these entities: bounds, surrogates, links, length."""
    try:
        return units(as_sent_by_a_bot(text, entities=entities).text) <= MAX_TEXT
    except Refused:
        return False


def _checked(text: str, entities: list[Entity]) -> Text:
    """TDLib looks at bounds and at broken surrogate pairs when it turns entities back into markup."""
    kept = [entity for entity in entities if entity.get("type") not in _FOUND]
    formatted = {"@type": "formattedText", "text": text, "entities": [_to_td(entity) for entity in kept]}
    _execute(**{"@type": "getMarkdownText", "text": formatted})
    return Text(text, tuple(kept))


def _to_td(entity: Entity) -> dict[str, Any]:
    kind = entity.get("type")
    names = [td for td, name in _NAMES.items() if name == kind]
    if not names:
        raise bad_request("Can't parse MessageEntity: Unsupported type specified")
    td_type: dict[str, Any] = {"@type": f"textEntityType{names[0]}"}
    match kind:
        case "text_link":
            td_type["url"] = entity.get("url", "")
        case "text_mention":
            td_type["user_id"] = entity.get("user", {}).get("id", 0)
        case "custom_emoji":
            td_type["custom_emoji_id"] = entity.get("custom_emoji_id", "0")
        case "pre" if entity.get("language"):
            td_type = {"@type": "textEntityTypePreCode", "language": entity["language"]}
    return {"@type": "textEntity", "offset": entity["offset"], "length": entity["length"], "type": td_type}


def _from_td(entities: Iterable[dict[str, Any]]) -> Iterable[Entity]:
    for entity in entities:
        td_type = entity["type"]
        name = _NAMES.get(td_type["@type"].removeprefix("textEntityType"))
        if name is None:  # such as bank card numbers, which Telegram does not show to bots
            continue
        found: Entity = {"type": name, "offset": entity["offset"], "length": entity["length"]}
        if name == "text_link":
            found["url"] = td_type["url"]
        if name == "text_mention":
            found["user"] = {"id": td_type["user_id"]}
        if name == "custom_emoji":
            found["custom_emoji_id"] = td_type["custom_emoji_id"]
        if td_type.get("language"):
            found["language"] = td_type["language"]
        yield found


def _found(text: str) -> list[Entity]:
    if not text:
        return []
    return list(_from_td(_execute(**{"@type": "getTextEntities", "text": text})["entities"]))


def _with_found(text: Text) -> list[Entity]:
    opaque = [entity for entity in text.entities if entity["type"] in _OPAQUE]
    found = [one for one in _found(text.text) if not any(_overlap(one, other) for other in opaque)]
    return sorted([*text.entities, *found], key=lambda entity: (entity["offset"], -entity["length"]))


def _overlap(one: Entity, other: Entity) -> bool:
    return bool(one["offset"] < other["offset"] + other["length"] and other["offset"] < one["offset"] + one["length"])


def _trimmed(text: Text) -> Text:
    """Telegram cuts blanks off both ends, so that "answer " after "answer" is no change at all."""
    ending = text.text.rstrip(_BLANK)
    first = min((entity["offset"] for entity in text.entities), default=units(ending))
    n_leading = min(len(ending) - len(ending.lstrip(_BLANK)), first)
    shown, end = ending[n_leading:], units(ending)
    kept = []
    for entity in text.entities:
        start, stop = entity["offset"], min(entity["offset"] + entity["length"], end)
        moved = entity | {"offset": start - n_leading, "length": stop - start}
        if stop > start and cut(shown, moved).strip(_BLANK):
            kept.append(moved)
    return Text(shown, tuple(kept))
