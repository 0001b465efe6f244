"""The API's description in OpenAPI 3.1, made from the routes, their rules and `contract.py`: nothing is said twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from claasbot import __version__
from claasbot.domain.admin import scope_for
from claasbot.web.access import ACCESS, Access
from claasbot.web.bodies import FORM, JSON
from claasbot.web.contract import CONTRACT, PARAMETERS, Answer, Described, Parameter, problems_of
from claasbot.web.cookies import COOKIE

HTML = "text/html"
_REFS = "#/components/schemas/{model}"
DOCUMENT = web.AppKey("openapi", dict[str, Any])

_PROBLEM = {
    "type": "object",
    "properties": {"error": {"type": "string", "description": "One line: what is wrong and what to do."}},
    "required": ["error"],
    "additionalProperties": False,
}
_SCHEMES = {
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "Opened by signing in."},
    "key": {"type": "http", "scheme": "bearer", "description": "An API key, with the scope that is named."},
    "csrf": {
        "type": "apiKey",
        "in": "header",
        "name": "X-CSRF-Token",
        "description": "With every change made under a session: the token that each page carries.",
    },
}


async def serve(request: web.Request) -> web.StreamResponse:
    return web.json_response(request.app[DOCUMENT])


def document(routes: Iterable[web.RouteDef]) -> dict[str, Any]:
    """All described routes; a test demands that none is missing."""
    schemas: dict[str, Any] = {"Problem": _PROBLEM}
    paths: dict[str, Any] = {}
    for route in routes:
        described = CONTRACT.get((route.method, route.path))
        if described is not None:
            operation = _operation(route, described, schemas)
            paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "claasbot",
            "version": __version__,
            "description": "A chat bot that learns from the people it talks to: its dashboard, playground and API.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": dict(sorted(schemas.items())), "securitySchemes": _SCHEMES},
    }


def _operation(route: web.RouteDef, described: Described, schemas: dict[str, Any]) -> dict[str, Any]:
    access = ACCESS.get((route.method, route.path))
    in_path = [PARAMETERS[name] for name in path_names(route.path)]
    found: dict[str, Any] = {
        "operationId": operation_id(route),
        "summary": described.summary,
        "parameters": [_parameter(one, schemas) for one in (*in_path, *described.query)],
        "responses": {},
    }
    if described.body is not None:
        schema = _schema(described.body, "validation", schemas)
        kinds = (JSON, FORM) if described.takes_forms else (JSON,)
        found["requestBody"] = {"required": True, "content": {kind: {"schema": schema} for kind in kinds}}
    if access is not None:
        found["security"] = _security(route, access)
        found["description"] = f"For: {access}."
    for status, answer in described.answers.items():
        found["responses"][str(status)] = _response(answer, schemas)
    for status, words in problems_of(route, described, access).items():
        found["responses"].setdefault(str(status), _problem(route.path, described, words))
    found["responses"] = dict(sorted(found["responses"].items()))
    return found


def _security(route: web.RouteDef, access: Access) -> list[dict[str, list[str]]]:
    """Any one of these opens it. The Unix socket asks for nothing."""
    if access == "owner-socket" or access == "public" or access == "webhook":
        return []
    found: list[dict[str, list[str]]] = [{"session": []} if route.method == "GET" else {"session": [], "csrf": []}]
    scope = scope_for(access, is_read=route.method == "GET")
    if scope is not None and route.path.startswith(("/api/", "/metrics")):
        found.append({"key": [scope]})
    return found


def path_names(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


def operation_id(route: web.RouteDef) -> str:
    words = [part.strip("{}").replace("-", "_") for part in route.path.strip("/").split("/")]
    return "_".join([route.method.lower(), *(word.replace(".", "_") for word in words if word)])


def _parameter(one: Parameter, schemas: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": one.name,
        "in": one.place,
        "required": one.place == "path",
        "description": one.text,
        "schema": _schema(one.kind, "validation", schemas),
    }


def _response(answer: Answer, schemas: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"description": answer.text}
    if answer.location:
        found["headers"] = {"Location": {"schema": {"type": "string"}, "required": True}}
    if answer.leads_to:
        found["links"] = {
            operation: {
                "operationId": operation,
                "parameters": {name: f"$response.body#/{name}"} if name else {},
            }
            for operation, name in answer.leads_to.items()
        }
    content: dict[str, Any] = {}
    if answer.json is not None:
        content[JSON] = {"schema": _schema(answer.json, "serialization", schemas)}
    if answer.content_type:
        content[answer.content_type] = {"schema": {"type": "string"} if answer.content_type.startswith("text") else {}}
    return found | ({"content": content} if content else {})


def _problem(path: str, described: Described, words: str) -> dict[str, Any]:
    """JSON for programs; a page for whoever looks at pages or sent a form."""
    page = {HTML: {"schema": {"type": "string"}}}
    line = {JSON: {"schema": {"$ref": _REFS.format(model="Problem")}}}
    if not path.startswith("/api/"):
        return {"description": words, "content": page}
    return {"description": words, "content": line | page if described.takes_forms else line}


def _schema(kind: Any, mode: JsonSchemaMode, schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type; what it refers to is put among the components."""
    found = TypeAdapter(kind).json_schema(ref_template=_REFS, mode=mode, schema_generator=_Untitled)
    schemas.update(found.pop("$defs", {}))
    title = found.get("title")
    if title is None:
        return found
    schemas[title] = found
    return {"$ref": _REFS.format(model=title)}


class _Untitled(GenerateJsonSchema):
    """A field's name is title enough."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def as_markdown(found: dict[str, Any]) -> str:
    """The table of docs/api.md. `for`: that role or a higher one."""
    rows = ["| route | for | what it does | takes | answers |", "| --- | --- | --- | --- | --- |"]
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            takes = [f"`{one['name']}`" for one in operation["parameters"]] + [
                f"{kind} `{_named(content['schema'])}`"
                for kind, content in operation.get("requestBody", {}).get("content", {}).items()
            ]
            statuses = ", ".join(operation["responses"])
            whom = ACCESS.get((method.upper(), path), "nobody")
            cells = (f"`{method.upper()} {path}`", whom, operation["summary"], ", ".join(takes) or "–", statuses)
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def fields_as_markdown(found: dict[str, Any]) -> str:
    """Each named schema with its fields."""
    lines = []
    for name, schema in found["components"]["schemas"].items():
        fields = ", ".join(f"`{field}`" for field in schema.get("properties", {})) or "see the schema"
        lines.append(f"- **{name}**: {fields}")
    return "\n".join(lines)


def _named(schema: dict[str, Any]) -> str:
    return str(schema.get("$ref", "any")).rpartition("/")[2]
