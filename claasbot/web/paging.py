"""Long lists in pages, newest first: where a page begins, and the address of the next one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlencode

from pydantic import StringConstraints

from claasbot.storage.rows import Row
from claasbot.web.bodies import Number, Query


class Older(Query):
    """Rows before one row of a list."""

    before: Number | None = None


class OlderOfPerson(Older):
    person: Number | None = None


class OlderLesson(Query):
    before: Annotated[str, StringConstraints(max_length=80)] | None = None
    person: Number | None = None


def older(rows: Sequence[Row], most: int, person: int | None = None) -> str:
    """The address of the page behind one of `most` rows; empty on the last."""
    if len(rows) < most:
        return ""
    return f"?{urlencode({'before': rows[-1]['id']} | ({} if person is None else {'person': person}))}"
