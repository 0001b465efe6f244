"""Markdown → what Telegram takes: plain text with entities, cut into messages. Pure.

Entities instead of markup: nothing is escaped, so nothing can be escaped wrongly, and a Markdown text that breaks
off in the middle renders as far as it goes. All lengths are in UTF-16 units, as Telegram counts.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import telegram
from telegramify_markdown import MessageEntity as Span
from telegramify_markdown import RenderConfig, convert, split_entities, utf16_len

MAX_UNITS = 4096
MAX_ENTITIES = 100
"""Telegram honours no more than these in one message."""

_NOTHING = "…"
_ANGLE = "\ufdd0"  # a noncharacter, one unit like `<`: Markdown drops what looks like HTML, and with it what was said
# What the server's own check takes; `tg://user?id=…` would ping somebody.
_LINK = re.compile(
    r"https?://([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}(:[1-9]\d{0,3})?([/?#][^\s<>\"]*)?", re.IGNORECASE
)
_INVISIBLE = {"Cc", "Cf", "Cn", "Cs", "Zl", "Zp", "Zs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The text of one message."""

    text: str
    entities: tuple[telegram.MessageEntity, ...] = ()


def rendered(markdown: str, max_units: int = MAX_UNITS) -> tuple[Piece, ...]:
    """At least one piece; a text that shows nothing becomes an ellipsis, because Telegram refuses empty messages."""
    text, spans = convert(_sound(markdown).replace("<", _ANGLE), config=_CONFIG)
    return _pieces(text.replace(_ANGLE, "<"), spans, max_units)


def plain(text: str, max_units: int = MAX_UNITS) -> tuple[Piece, ...]:
    """The same without reading any Markdown."""
    return _pieces(_sound(text), [], max_units)


def units(text: str) -> int:
    return utf16_len(text)


def _pieces(text: str, spans: list[Span], max_units: int) -> tuple[Piece, ...]:
    parts = [part for long in split_entities(text, spans, max_units) for part in _with_few_spans(*long)]
    shown = tuple(_piece(part.rstrip(), kept) for part, kept in parts if not _is_blank(part))
    return shown or (Piece(text=_NOTHING),)


def _with_few_spans(text: str, spans: list[Span]) -> list[tuple[str, list[Span]]]:
    """Halved until no part has more entities than are honoured."""
    if len(spans) <= MAX_ENTITIES or utf16_len(text) < 2:
        return [(text, spans)]
    halves = split_entities(text, spans, (utf16_len(text) + 1) // 2)
    return [part for half in halves for part in _with_few_spans(*half)]


def _piece(text: str, spans: list[Span]) -> Piece:
    end = utf16_len(text)
    kept = [span for span in spans if span.offset < end and span.length > 0 and _is_shown(span)]
    entities = tuple(
        telegram.MessageEntity(
            type=span.type,
            offset=span.offset,
            length=min(span.length, end - span.offset),
            url=span.url,
            language=span.language,
        )
        for span in kept
    )
    return Piece(text=text, entities=entities)


def _is_shown(span: Span) -> bool:
    return span.url is None or _LINK.fullmatch(span.url) is not None


def _sound(text: str) -> str:
    """Without halves of surrogate pairs and NULs, which no request can carry."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("\x00", "")


def _is_blank(text: str) -> bool:
    return all(unicodedata.category(character) in _INVISIBLE for character in text)


def _quiet_config() -> RenderConfig:
    """Headings without pictures before them, and a bullet that every font has."""
    config = RenderConfig.isolated()
    symbol = config.markdown_symbol
    symbol.heading_level_1 = symbol.heading_level_2 = symbol.heading_level_3 = symbol.heading_level_4 = ""
    symbol.unordered_list_item = "•"
    return config


_CONFIG = _quiet_config()
