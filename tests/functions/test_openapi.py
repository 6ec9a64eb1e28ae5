"""The OpenAPI document: whole, consistent, and true of the models."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from common.errors import BY_CODE
from functions import openapi
from functions.actions.catalogue import CATALOGUE, example
from functions.contract import Envelope
from functions.wire import encode

DOCUMENT: dict[str, Any] = json.loads(encode(openapi.document()))
SCHEMAS = DOCUMENT["components"]["schemas"]
POST = DOCUMENT["paths"]["/"]["post"]


def walk(node: object) -> Iterator[dict[str, Any]]:
    """Every object of the document."""
    if isinstance(node, dict):
        yield node
        for part in node.values():
            yield from walk(part)
    elif isinstance(node, list):
        for part in node:
            yield from walk(part)


def resolve(reference: str) -> Any:
    node: Any = DOCUMENT
    assert reference.startswith("#/")
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


def test_it_is_made_once() -> None:
    assert openapi.document() is openapi.document()


def test_it_says_what_it_is() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    assert {"title", "version", "description"} <= set(DOCUMENT["info"])
    assert set(DOCUMENT["paths"]) == {"/", "/health", "/metrics", "/openapi.json"}


def test_every_reference_leads_somewhere() -> None:
    references = [node["$ref"] for node in walk(DOCUMENT) if isinstance(node.get("$ref"), str)]
    assert len(references) > len(CATALOGUE)
    for reference in references:
        assert isinstance(resolve(reference), dict)


def test_every_operation_is_named_once_and_answers() -> None:
    operations = [operation for path in DOCUMENT["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names) == 4
    for operation in operations:
        assert operation["summary"]
        for status, response in operation["responses"].items():
            assert status.isdigit()
            assert response["description"]


TYPES = {"string", "number", "integer", "boolean", "object", "array", "null"}


def test_every_schema_is_well_formed() -> None:
    for name, schema in SCHEMAS.items():
        for node in walk(schema):
            if isinstance(node.get("type"), str) and "properties" not in node.get("type", ""):
                assert node["type"] in TYPES, name
            if isinstance(node.get("properties"), dict) and isinstance(node.get("required"), list):
                assert set(node["required"]) <= set(node["properties"]), name
            for keyword in ("oneOf", "anyOf", "allOf"):
                if keyword in node:
                    assert isinstance(node[keyword], list), name
                    assert node[keyword], name


def test_every_error_code_is_described_under_its_status() -> None:
    for code, leaf in BY_CODE.items():
        response = POST["responses"][str(leaf.status)]
        assert code in response["description"].split(", ")
        assert response["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Failure"}
    described = {
        code for status, r in POST["responses"].items() if int(status) >= 400 for code in r["description"].split(", ")
    }
    assert described == set(BY_CODE)


def test_success_is_described_for_json_and_pictures() -> None:
    assert set(POST["responses"]["200"]["content"]) == {"application/json", "image/png"}
    assert set(POST["responses"]["202"]["content"]) == {"application/json"}


def test_every_action_has_its_request_and_its_example() -> None:
    requests = SCHEMAS["Request"]["oneOf"]
    assert [request["title"] for request in requests] == [spec.name for spec in CATALOGUE]
    assert POST["requestBody"]["required"] is True
    examples = POST["requestBody"]["content"]["application/json"]["examples"]
    for spec, request in zip(CATALOGUE, requests, strict=True):
        own = request["allOf"][1]
        action = own["properties"]["action"]
        assert [action["const"]] == [spec.name] if not spec.aliases else action["enum"] == [spec.name, *spec.aliases]
        assert own["properties"]["params"] == {"$ref": f"#/components/schemas/{spec.params.__name__}"}
        assert examples[spec.name]["value"] == example(spec)


def test_only_the_default_action_may_be_left_unnamed() -> None:
    unnamed = [r["title"] for r in SCHEMAS["Request"]["oneOf"] if "action" not in r["allOf"][1]["required"]]
    assert unnamed == [Envelope().action]


@pytest.mark.parametrize("spec", CATALOGUE, ids=lambda spec: spec.name)
def test_an_example_fits_exactly_its_own_request(spec: Any) -> None:
    fits = []
    for request in SCHEMAS["Request"]["oneOf"]:
        action = request["allOf"][1]["properties"]["action"]
        if spec.name in action.get("enum", [action.get("const")]):
            fits.append(request["title"])
    assert fits == [spec.name]
    assert set(example(spec)) <= set(SCHEMAS["Envelope"]["properties"])


def test_every_field_and_both_names_of_the_vehicle_are_described() -> None:
    described = SCHEMAS["Envelope"]["properties"]
    assert set(described) == {*Envelope.model_fields, "wkn"}
    assert resolve(described["wkn"]["$ref"]) == described["vin"]
    assert SCHEMAS["Envelope"]["additionalProperties"] is False
    for name in Envelope.model_fields:
        assert described[name]["description"]


def test_no_header_is_demanded() -> None:
    assert [header["name"] for header in POST["parameters"]] == ["Idempotency-Key", "X-Request-ID", "traceparent"]
    assert not any(header["required"] for header in POST["parameters"])


def test_how_to_identify_oneself_is_described() -> None:
    schemes = DOCUMENT["components"]["securitySchemes"]
    assert {name for alternative in POST["security"] for name in alternative} == set(schemes)
