"""Calls of the HTTP API without a server: an ASGI application, a request, and what was answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from hubbub import Hub

KEY = "a-key-of-these-tests-0123456789"


class Answered(NamedTuple):
    """An answer: its status, headers and body, and how many parts of the request were not read."""

    status: int
    headers: Mapping[str, str]
    body: Any
    unread: int


async def request(
    app: Any,
    path: str,
    *parts: bytes,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    **scope: Any,
) -> Answered:
    """Send a request whose body comes in parts; without a part the caller goes away."""
    sent: list[Any] = []
    events = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)}
        for number, part in enumerate(parts, 1)
    ]

    async def receive() -> dict[str, Any]:
        return events.pop(0) if events else {"type": "http.disconnect"}

    async def send(event: Any) -> None:
        sent.append(event)

    raw = [(name.lower().encode(), text.encode()) for name, text in (headers or {}).items()]
    whole = {"type": "http", "path": path, "method": method, "headers": raw, "query_string": b""}
    await app({**whole, **scope}, receive, send)
    if not sent:
        return Answered(0, {}, None, len(events))
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    body = b"".join(event.get("body", b"") for event in sent[1:])
    return Answered(sent[0]["status"], found, json.loads(body) if body else None, len(events))


async def call(app: Any, method: str, *, key: str = KEY, **fields: Any) -> Any:
    """Call a method; return what was answered with the status 200."""
    body = json.dumps(fields).encode()
    answer = await request(app, f"/api/{method}", body, headers={"X-API-Key": key})
    assert answer.status == 200, answer
    return answer.body


async def result(app: Any, method: str, **fields: Any) -> Any:
    """Call a method; return its result."""
    answer = await call(app, method, **fields)
    assert set(answer) == {"result"}, answer
    return answer["result"]


async def error(app: Any, method: str, **fields: Any) -> tuple[int, str]:
    """Call a method; return the code and the message of its error."""
    answer = await call(app, method, **fields)
    assert set(answer) == {"error"}, answer
    return answer["error"]["code"], answer["error"]["message"]


def api_of(hub: Hub, **options: Any) -> Any:
    """Return a hub's API, with the key of these tests unless others are given."""
    return hub.api("/api", **{"keys": [KEY], **options})
