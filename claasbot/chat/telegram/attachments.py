"""Which files are text, and their text. Pure."""

from __future__ import annotations

import re

from telegram import Document

from claasbot.domain.conversation import Attachment
from claasbot.errors import ChatError

MAX_BYTES = 256 * 1024

_TEXT_TYPE = re.compile(r"text/.*|application/(x-)?(json|ndjson|jsonl|javascript|toml|python|sh|yaml|xml|sql|tex)")
_TEXT_NAME = re.compile(
    r".*\.(bat|c|cc|cfg|conf|cpp|cs|css|csv|go|h|hpp|html?|ini|java|js|json|jsonl|kt|log|lua|md|php|pl|ps1|py|r|rb|rs|rst|"
    r"sh|sql|svg|tex|toml|tsv?|tsx|txt|xml|ya?ml)",
    re.IGNORECASE,
)


def attachments_of(document: Document | None) -> tuple[Attachment, ...]:
    if document is None or not is_text(document.file_name or "", document.mime_type or ""):
        return ()
    name = document.file_name or "file.txt"
    return (Attachment(name=name, reference=document.file_id, n_bytes=document.file_size or 0),)


def is_text(name: str, mime_type: str) -> bool:
    return bool(_TEXT_TYPE.fullmatch(mime_type) or _TEXT_NAME.fullmatch(name))


def check_size(name: str, n_bytes: int) -> None:
    """Raises ChatError for a file that is too large to read."""
    if n_bytes > MAX_BYTES:
        raise ChatError(
            f"the file {name!r} has {n_bytes:,} bytes; I read at most {MAX_BYTES:,}: send the part that matters"
        )


def text_of(name: str, data: bytes) -> str:
    """UTF-8, or UTF-16 with its mark. Raises ChatError for anything else."""
    has_mark = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = data.decode("utf-16" if has_mark else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\x00"
    if "\x00" in text:
        raise ChatError(f"the file {name!r} is no text that I can read; save it as UTF-8 and send it again")
    return text
