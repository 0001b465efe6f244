"""The API is described: every route, validly, and served. S-01 (tests/fuzz) sends thousands of requests against it."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from claasbot.web.access import ACCESS
from claasbot.web.contract import CONTRACT, PARAMETERS
from claasbot.web.openapi import as_markdown, document, operation_id, path_names
from claasbot.web.server import ROUTES

DOCUMENT = document(ROUTES)
OPERATIONS = [
    (method, path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]
NAMES = [f"{method} {path}" for method, path, _ in OPERATIONS]


def schemas_in(found: object) -> list[dict]:
    """Every schema of the document, wherever it stands."""
    if isinstance(found, list):
        return [schema for one in found for schema in schemas_in(one)]
    if not isinstance(found, dict):
        return []
    here = [found["schema"]] if isinstance(found.get("schema"), dict) else []
    return here + [schema for one in found.values() for schema in schemas_in(one)]


def test_every_route_is_described_and_nothing_else_is():
    assert set(CONTRACT) == {(route.method, route.path) for route in ROUTES}


def test_every_operation_has_a_name_of_its_own():
    assert len({operation["operationId"] for _, _, operation in OPERATIONS}) == len(ROUTES)


def test_every_schema_is_json_schema_and_every_reference_leads_somewhere():
    schemas = [*schemas_in(DOCUMENT["paths"]), *DOCUMENT["components"]["schemas"].values()]
    assert len(schemas) > 100
    for schema in schemas:
        Draft202012Validator.check_schema(schema)
    text = json.dumps(DOCUMENT)
    wanted = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert wanted <= DOCUMENT["components"]["schemas"].keys()


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=NAMES)
def test_every_parameter_of_the_address_is_described(method, path, operation):
    described = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
    assert described == path_names(path)
    assert set(described) <= PARAMETERS.keys()


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=NAMES)
def test_every_refusal_that_a_rule_can_give_is_described(method, path, operation):
    access, responses = ACCESS[(method.upper(), path)], operation["responses"]
    assert "500" in responses
    assert ("401" in responses) == (access not in ("public", "webhook"))
    assert ("413" in responses) == (method != "get")
    assert ("429" in responses) == (method != "get" and access != "webhook")
    assert ("404" in responses) or "{" not in path
    assert [status for status in responses if int(status) < 400 and int(status) not in (200, 202, 303, 304)] == []


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=NAMES)
def test_a_refusal_is_one_line_of_json_under_api_and_a_page_elsewhere(method, path, operation):
    problems = [one for status, one in operation["responses"].items() if int(status) >= 400 and path != "/readyz"]
    kinds = {kind for one in problems for kind in one["content"]}
    assert ("application/json" in kinds) == path.startswith("/api/")
    for one in problems:
        if "application/json" in one["content"]:
            assert one["content"]["application/json"]["schema"]["$ref"].endswith("/Problem")


def test_what_an_answer_leads_to_exists():
    known = {operation_id(route) for route in ROUTES}
    links = [
        link
        for _, _, operation in OPERATIONS
        for answer in operation["responses"].values()
        for link in answer.get("links", ())
    ]
    assert links and set(links) <= known


async def test_the_description_is_served_as_it_is(site):
    answer = await site.http.get("/api/openapi.json")
    assert (answer.content_type, await answer.json()) == ("application/json", json.loads(json.dumps(DOCUMENT)))
    assert DOCUMENT["openapi"] == "3.1.0"


async def test_nobody_reads_the_description_without_signing_in(stranger):
    assert (await stranger.http.get("/api/openapi.json")).status == 401


async def test_the_endless_stream_is_what_its_description_says(site):
    described = DOCUMENT["paths"]["/api/stream"]["get"]["responses"]["200"]["content"]
    async with site.http.get("/api/stream") as answer:
        assert (answer.status, list(described)) == (200, [answer.content_type])


def test_every_route_stands_in_the_table_of_the_page():
    table = as_markdown(DOCUMENT)
    assert all(f"`{route.method} {route.path}`" in table for route in ROUTES)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD"])
async def test_a_method_that_is_not_described_is_refused_with_those_that_are(site, method):
    """RFC 9110, 15.5.6."""
    answer = await site.http.request(method, "/api/status")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")
