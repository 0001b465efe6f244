"""What a request brings: JSON or a form, checked by a model that also makes the API's schema; or one clear line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Strict, ValidationError, ValidationInfo, WithJsonSchema

from claasbot.errors import BadInput
from claasbot.masking import MASK, keep_secret_here

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
_READ_S = 30.0

CSRF_FIELD = "csrf_token"
"""Of a form; it is checked before any handler runs."""

_MAX_DIGITS = 18
"""SQLite's integers have 63 bits."""
SECRET_FIELDS = frozenset({CSRF_FIELD, "token", "password", "new_password", "again", "code"})
"""Of any body: their values are never shown, not even to who sent them."""
_WORDS = {"yes": True, "True": True, "no": False, "False": False}
_WRONG = {"missing": "is missing", "extra_forbidden": "is unknown here"}
_T = TypeVar("_T", bound=BaseModel)


def _digits(text: object) -> object:
    if not isinstance(text, str) or not (text.isascii() and text.isdecimal() and len(text) < _MAX_DIGITS):
        raise ValueError("it should be a whole number")
    return int(text)


class Body(BaseModel):
    """Knows all its fields: a field that it does not know is refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Query(BaseModel):
    """The part of an address behind `?`. Names that it does not know are no business of ours."""

    model_config = ConfigDict(frozen=True)


Number = Annotated[int, BeforeValidator(_digits), WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,17}$"})]
"""An id in an address."""


def query_of(request: web.Request, kind: type[_T]) -> _T:
    """Raises BadInput."""
    try:
        return kind.model_validate(dict(request.query))
    except ValidationError as error:
        raise BadInput(_line(error)) from None


def _yes_or_no(given: object, info: ValidationInfo) -> object:
    """JSON has its own true and false; a form has words only."""
    return _WORDS.get(given, given) if info.mode == "python" and isinstance(given, str) else given


Flag = Annotated[bool, Strict(), BeforeValidator(_yes_or_no)]


async def json_of(request: web.Request, kind: type[_T]) -> _T:
    """Raises BadInput."""
    if request.content_type != JSON:
        raise BadInput(f"The body is {request.content_type[:60]!r}; send {JSON}.")
    async with _plain_body(request):
        body = await request.read()
    found = parsed(body, kind)
    keep_secret_here(*(value for name, value in found if name in SECRET_FIELDS and isinstance(value, str)))
    return found


def parsed(body: bytes, kind: type[_T]) -> _T:
    """Of JSON in UTF-8. Raises BadInput."""
    try:
        return kind.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise BadInput(_line(error)) from None


async def body_of(request: web.Request, kind: type[_T]) -> _T:
    """From JSON, or from the fields of a form, which are texts. Raises BadInput."""
    if request.content_type != FORM:
        return await json_of(request, kind)
    fields = {name: value for name, value in (await form_of(request)).items() if name != CSRF_FIELD}
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise BadInput(_line(error)) from None


async def form_of(request: web.Request) -> dict[str, str]:
    """The text fields of a form; nothing when the body is none. Raises BadInput for one that cannot be read."""
    if request.content_type != FORM:
        return {}
    try:
        async with _plain_body(request):
            fields = await request.post()
    except (ValueError, LookupError):  # not in its charset, or in one that nobody knows
        raise BadInput("The form cannot be read: send it in UTF-8.") from None
    if len(fields) > len(set(fields)):
        raise BadInput("The form has a field twice: send each once.")
    found = {name: value for name, value in fields.items() if isinstance(value, str)}
    keep_secret_here(*(value for name, value in found.items() if name in SECRET_FIELDS))
    return found


@asynccontextmanager
async def _plain_body(request: web.Request) -> AsyncIterator[None]:
    """Raises 408 for a body that trickles, 415 for a packed one: it could unpack to anything."""
    if "Content-Encoding" in request.headers:
        raise web.HTTPUnsupportedMediaType(text="The body is packed: send it without a Content-Encoding.")
    try:
        async with asyncio.timeout(_READ_S):
            yield
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"The body was not here within {_READ_S:.0f} s; send it again.") from None


def _line(error: ValidationError) -> str:
    """The first thing that is wrong, and what would be right."""
    problem = error.errors(include_url=False)[0]
    match problem["type"]:
        case "json_invalid":
            return "The body is not valid JSON in UTF-8."
        case "union_tag_invalid":
            context = problem["ctx"]
            return f"The kind {str(context['tag'])[:40]!r} is unknown; use one of {context['expected_tags']}."
        case "union_tag_not_found":
            return "The field 'kind' is missing: it says what the event is."
        case "dict_type" | "model_type":
            return 'The body must be a JSON object: {"field": …}.'
    name = next((part for part in reversed(problem["loc"]) if isinstance(part, str)), "body")
    shown = MASK if name in SECRET_FIELDS else repr(str(problem["input"])[:40])
    wrong = _WRONG.get(problem["type"]) or f"is {shown}: {_lower(problem['msg'])}"
    return f"The field {name[:40]!r} {wrong}."


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
