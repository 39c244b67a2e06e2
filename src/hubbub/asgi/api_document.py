"""API document: what the HTTP API has, as OpenAPI 3.1: made from the table of methods, and nothing by hand.

What must not live here: the methods (`api_methods`), their requests and results (`api_types`).
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import msgspec
from msgspec import Struct

from .api_methods import METHODS, Method
from .api_types import BatchResult, Error

VERSION = "1"
"""The version of what is described: of the methods, not of the hub."""

_REFERENCE = "#/components/schemas/{name}"
_REFUSALS = {
    "400": "The body is no JSON.",
    "401": "No key, or one that nobody has given.",
    "405": "Only POST.",
    "408": "The body took too long to come.",
    "413": "The body is too long.",
    "429": "The key has called too often.",
    "503": "The hub does not run.",
}


def document(url: str) -> dict[str, Any]:
    """Return the document of an API whose methods are below `url`."""
    whole = copy.copy(_document())
    whole["servers"] = [{"url": url}]
    return whole


@functools.cache
def _document() -> dict[str, Any]:
    types: list[type[Struct]] = [Error]
    for method in METHODS.values():
        types += [method.request, method.result]
    _, schemas = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    refusals = {
        f"Refused{status}": {"description": text, "content": _json(_object("error", Error))}
        for status, text in _REFUSALS.items()
    }
    schemes = {
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "authorization": {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "The word apikey, a space, and the key.",
        },
        "query": {
            "type": "apiKey",
            "in": "query",
            "name": "api_key",
            "description": "Other servers write it into their logs.",
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "HTTP API of a Hubbub hub",
            "version": VERSION,
            "description": "The form is that of Centrifugo's server API: its rooms are channels.",
        },
        "security": [{name: []} for name in schemes],
        "paths": {f"/{name}": {"post": _operation(name, each)} for name, each in METHODS.items()},
        "components": {"schemas": schemas, "responses": refusals, "securitySchemes": schemes},
    }


def _operation(name: str, method: Method) -> dict[str, Any]:
    result = (
        _reference(method.result)
        if method.result is BatchResult
        else _object("result", method.result)
    )
    answers: dict[str, Any] = {
        "200": {
            "description": "It was carried out, or answered with an error.",
            "content": _json({"oneOf": [result, _object("error", Error)]}),
        }
    }
    for status in _REFUSALS:
        answers[status] = {"$ref": f"#/components/responses/Refused{status}"}
    return {
        "operationId": name,
        "summary": method.text,
        "requestBody": {"required": True, "content": _json(_reference(method.request))},
        "responses": answers,
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _object(name: str, kind: type[Struct]) -> dict[str, Any]:
    """Return the schema of an object that has one thing, under a name."""
    return {"type": "object", "properties": {name: _reference(kind)}, "required": [name]}


def _reference(kind: type[Struct]) -> dict[str, Any]:
    return {"$ref": _REFERENCE.format(name=kind.__name__)}
