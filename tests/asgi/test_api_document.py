"""The OpenAPI document: it is valid, has all methods and nothing else, and its schemas fit what is answered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from calling import KEY, api_of, call, request
from hubbub import Hub, RoomRules
from hubbub.asgi.api_document import document
from hubbub.asgi.api_methods import METHODS

pytestmark = pytest.mark.anyio


def test_the_document_is_valid() -> None:
    OpenAPIV31SpecValidator(document("/api")).validate()
    assert document("/api")["openapi"].startswith("3.1")


def test_it_has_all_methods_and_nothing_else() -> None:
    paths = document("/api")["paths"]
    assert set(paths) == {f"/{name}" for name in METHODS}
    assert [paths[f"/{name}"]["post"]["summary"] for name in METHODS] == [
        method.text for method in METHODS.values()
    ]


async def test_it_is_served_with_the_path_that_the_caller_sees() -> None:
    app = api_of(Hub())
    headers = {"X-API-Key": KEY}
    for path, scope, url in (
        ("/api/openapi.json", {}, "/api"),
        ("/shop/api/openapi.json", {"root_path": "/shop"}, "/shop/api"),
        ("/api/openapi.json", {"root_path": "/api"}, "/api"),
    ):
        answer = await request(app, path, method="GET", headers=headers, **scope)
        assert answer.body["servers"] == [{"url": url}]
    head = await request(app, "/api/openapi.json", method="HEAD", headers=headers)
    assert (head.status, head.body) == (200, None)
    assert json.loads(json.dumps(document("/api"))) == document("/api")


def schema_of(part: dict[str, Any]) -> OAS31Validator:
    """Return what checks against a schema of the document."""
    content = part["content"]["application/json"]["schema"]
    return OAS31Validator({**content, "components": document("/api")["components"]})


FIELDS: dict[str, dict[str, Any]] = {
    "publish": {"channel": "chat:1", "data": {"n": 1}},
    "broadcast": {"channels": ["chat:1", "a", "@"], "data": 1},
    "subscribe": {"user": "ann", "channel": "chat:1"},
    "unsubscribe": {"user": "ann", "channel": "chat:1"},
    "disconnect": {"user": "ann", "disconnect": {"code": 4000, "reason": "x"}},
    "refresh": {"user": "ann", "expire_at": 4_000_000_000},
    "presence": {"channel": "chat:1"},
    "presence_stats": {"channel": "chat:1"},
    "history": {"channel": "chat:1", "limit": -1, "since": {"offset": 0}},
    "history_remove": {"channel": "chat:1"},
    "channels": {"pattern": "*"},
    "info": {},
    "batch": {"commands": [{"publish": {"channel": "a", "data": 1}}, {"nothing": {}}]},
}


@pytest.mark.parametrize("name", sorted(METHODS))
async def test_requests_and_answers_are_as_the_document_says(name: str) -> None:
    from hubbub.testing import connect

    hub = Hub(room_rules=[RoomRules("chat:*", history=5, presence=True)])
    await hub.start()
    connect(hub, user="ann").client.join("chat:1")
    await hub.publish("chat:1", {"n": 0})
    app = api_of(hub)
    operation = document("/api")["paths"][f"/{name}"]["post"]
    schema_of(operation["requestBody"]).validate(FIELDS[name])
    answer = await call(app, name, **FIELDS[name])
    assert "error" not in answer
    schema_of(operation["responses"]["200"]).validate(answer)
    if FIELDS[name].keys() & {"channel", "user", "commands"}:
        broken = {**FIELDS[name], "channel": 5, "user": 5, "commands": 5}
        assert not schema_of(operation["requestBody"]).is_valid(broken)
        failed = await call(app, name, **broken)
        schema_of(operation["responses"]["200"]).validate(failed)
        assert failed["error"]["code"] == 107
    await hub.stop()
