"""The second opinion on every byte: aiogram's models of the Bot API, which neither we nor the client under test wrote.

Unknown fields count as faults: the models take them silently, into `model_extra`. No field is let through today.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

import aiogram.methods
import aiogram.types
from aiogram.client.default import Default
from aiogram.methods import TelegramMethod
from aiogram.types import BufferedInputFile, InputFile, Update
from pydantic import BaseModel, TypeAdapter, ValidationError

Arguments = dict[str, Any]


@cache
def _methods() -> dict[str, type[TelegramMethod[Any]]]:
    models = (getattr(aiogram.methods, name) for name in aiogram.methods.__all__)
    found = [model for model in models if isinstance(model, type) and issubclass(model, TelegramMethod)]
    return {
        model.__api_method__.lower(): model for model in found if isinstance(model.__dict__.get("__api_method__"), str)
    }


def official_name(method: str) -> str | None:
    """The Bot API's spelling of a method; None when there is none of that name. The server ignores case."""
    model = _methods().get(method.lower())
    return model.__api_method__ if model else None


def arguments_of(method: str, raw: Mapping[str, Any]) -> Arguments:
    """The JSON values of a call. In forms everything is a string; the model says which of them hold JSON."""
    fields = _methods()[method.lower()].model_fields
    return {name: _value(value, fields[name].annotation if name in fields else None) for name, value in raw.items()}


def _value(value: Any, annotation: Any) -> Any:
    if not isinstance(value, str):
        return value
    kinds = set(_leaves(annotation))
    if str in kinds or annotation is None:
        is_number = value.removeprefix("-").isdecimal()
        return int(value) if int in kinds and is_number else value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _leaves(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _leaves(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _leaves(part)
    else:
        yield annotation


def faults_of_call(method: str, arguments: Arguments) -> tuple[list[str], bool]:
    """What is wrong with a call, and whether a server could still read it, as it can past unknown fields."""
    given = {
        name: BufferedInputFile(value, "file") if isinstance(value, bytes) else value
        for name, value in arguments.items()
    }
    try:
        call = _methods()[method.lower()].model_validate(given)
    except ValidationError as error:
        return _told(error, method), False
    return list(_unknown(call, method)), True


def faults_of_update(update: Mapping[str, Any]) -> list[str]:
    try:
        return list(_unknown(Update.model_validate(update), "update"))
    except ValidationError as error:
        return _told(error, "update")


@cache
def _result_adapter(method: str) -> TypeAdapter[Any]:
    return TypeAdapter(_methods()[method.lower()].__returning__)


def faults_of_result(method: str, result: Any) -> list[str]:
    try:
        return list(_unknown(_result_adapter(method).validate_python(result), f"result of {method}"))
    except ValidationError as error:
        return _told(error, f"result of {method}")


def _told(error: ValidationError, path: str) -> list[str]:
    return [f"{'.'.join(map(str, (path, *one['loc'])))}: {one['msg']}" for one in error.errors()]


def _unknown(value: Any, path: str) -> Iterator[str]:
    """Fields the models do not know, at any depth, and those that the Bot API has given up."""
    if isinstance(value, BaseModel):
        for name in value.model_extra or {}:
            yield f"{path}.{name}: unknown field"
        for name in value.model_fields_set & set(type(value).model_fields):
            extra = type(value).model_fields[name].json_schema_extra
            if isinstance(extra, dict) and extra.get("deprecated") and not isinstance(getattr(value, name), Default):
                yield f"{path}.{name}: deprecated field"
            yield from _unknown(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, (list, tuple)):
        for index, one in enumerate(value):
            yield from _unknown(one, f"{path}.{index}")
    elif isinstance(value, dict):
        yield f"{path}: not a Bot API type"
    else:
        assert isinstance(value, (str, int, float, bool, InputFile, Default, type(None))) or hasattr(value, "year"), (
            value
        )
