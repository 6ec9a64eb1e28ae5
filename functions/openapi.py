"""The OpenAPI 3.1 document, made from the contract's models and the catalogue."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from common import errors
from common.settings import VERSION
from functions.actions import catalogue
from functions.contract import MAX_KEY_LENGTH, CommandRecord, Envelope, Failure, Success

_REF = "#/components/schemas/{model}"


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """The whole document; the same object at each call."""
    params = {spec.params for spec in catalogue.CATALOGUE}
    models: list[type[BaseModel]] = [
        Envelope,
        Success,
        Failure,
        CommandRecord,
        *sorted(params, key=lambda m: m.__name__),
    ]
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    schemas = definitions["$defs"]
    # A model shows only the first of a field's names.
    schemas["Envelope"]["properties"]["wkn"] = {"$ref": "#/components/schemas/Envelope/properties/vin"}
    schemas["Request"] = {
        "description": "The envelope with one action and that action's parameters.",
        "oneOf": [_request(spec.name, spec.params, spec.aliases) for spec in catalogue.CATALOGUE],
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "draiv-apis",
            "version": VERSION,
            "description": "Read and command a connected car through one POST endpoint.",
        },
        "paths": {
            "/": {"post": _post()},
            "/health": {
                "get": _page("health", "Whether the service can do its work.", {"200": "It can.", "503": "It cannot."})
            },
            "/metrics": {"get": _page("metrics", "Prometheus metrics, or JSON on request.", {"200": "The metrics."})},
            "/openapi.json": {"get": _page("openapi", "This document.", {"200": "OpenAPI 3.1."})},
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _post() -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for leaf in errors.BY_CODE.values():
        by_status.setdefault(leaf.status, []).append(leaf.code)
    failures = {
        str(status): {
            "description": ", ".join(sorted(codes)),
            "content": {"application/json": {"schema": {"$ref": _REF.format(model="Failure")}}},
        }
        for status, codes in sorted(by_status.items())
    }
    success = {"application/json": {"schema": {"$ref": _REF.format(model="Success")}}}
    picture = {"image/png": {"schema": {"type": "string", "contentMediaType": "image/png"}}}
    return {
        "operationId": "act",
        "summary": "Perform one action.",
        "security": [{"bearer": []}, {"apiKey": []}, {}],
        "parameters": [
            _header(
                "Idempotency-Key",
                "Commands: the same key gives the same outcome.",
                {"pattern": r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$", "minLength": 1, "maxLength": MAX_KEY_LENGTH},
            ),
            _header("X-Request-ID", "Echoed and logged."),
            _header("traceparent", "W3C trace context, continued."),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": _REF.format(model="Request")},
                    "examples": {
                        spec.name: {"summary": spec.summary, "value": catalogue.example(spec)}
                        for spec in catalogue.CATALOGUE
                    },
                }
            },
        },
        "responses": {
            "200": {"description": "Done; or a command's final record.", "content": success | picture},
            "202": {"description": "A command's record while its outcome is open.", "content": success},
            **failures,
        },
    }


def _request(name: str, params: type[BaseModel], aliases: tuple[str, ...]) -> dict[str, Any]:
    names: dict[str, Any] = {"enum": [name, *aliases]} if aliases else {"const": name}
    required = [] if name == "status" else ["action"]
    if any(field.is_required() for field in params.model_fields.values()):
        required.append("params")
    return {
        "title": name,
        "allOf": [
            {"$ref": _REF.format(model="Envelope")},
            {
                "type": "object",
                "properties": {"action": names, "params": {"$ref": _REF.format(model=params.__name__)}},
                "required": required,
            },
        ],
    }


def _page(name: str, summary: str, replies: dict[str, str]) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "responses": {status: {"description": text} for status, text in replies.items()},
    }


def _header(name: str, description: str, bounds: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    schema = {"type": "string", **bounds}
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}
