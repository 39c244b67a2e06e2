"""Responses: answers to handshakes and plain requests, as ASGI events.

What must not live here: what the answer is (`endpoint`).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, MutableMapping
from importlib import resources
from typing import Any

from ..errors import Refused
from ..limits import scrub_query
from ..transports.asgi import Receive, Scope, Send

STATIC_TYPES = {
    "hubbub.js": "text/javascript; charset=utf-8",
    "hubbub.d.ts": "text/plain; charset=utf-8",
    "rooms.js": "text/javascript; charset=utf-8",
    "rooms.d.ts": "text/plain; charset=utf-8",
}
STATIC_FILES: tuple[str, ...] = tuple(STATIC_TYPES)
"""Files that the hub serves beside its route."""


@functools.cache
def static_file(name: str) -> bytes:
    """Return a file of the JavaScript client."""
    return resources.files("hubbub").joinpath("static", name).read_bytes()


def body_of(refusal: Refused) -> bytes:
    """Return the body that says why."""
    return json.dumps(refusal.body()).encode()


def without_framing(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a refusal without those that say how long the body is: it is ours."""
    framing = ("content-length", "transfer-encoding")
    return {name: value for name, value in headers.items() if name.lower() not in framing}


def raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return headers as ASGI has them."""
    return [
        (key.lower().encode("latin-1"), value.encode("latin-1")) for key, value in headers.items()
    ]


async def deny(scope: Scope, send: Send, refusal: Refused) -> None:
    """Refuse with status and body where the server can (ASGI's denial response), else with 403."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        close = {"type": "websocket.close", "code": 1008, "reason": refusal.code}
        await send_first(scope, send, close)
        return
    body = body_of(refusal)
    headers = {"Content-Type": "application/json", **without_framing(refusal.headers)}
    every = [*raw(headers), (b"content-length", str(len(body)).encode())]
    start = {"type": "websocket.http.response.start", "status": refusal.status, "headers": every}
    await send_first(scope, send, start)
    await send({"type": "websocket.http.response.body", "body": body})


async def respond(
    send: Send, scope: Scope, status: int, body: bytes, headers: Mapping[str, str]
) -> None:
    """Answer a plain request; to HEAD without the body."""
    every = {"Content-Type": "application/json", **headers, "Content-Length": str(len(body))}
    start = {"type": "http.response.start", "status": status, "headers": raw(every)}
    await send_first(scope, send, start)
    is_head = scope["method"] == "HEAD"
    await send({"type": "http.response.body", "body": b"" if is_head else body})


async def answer_refusal(send: Send, scope: Scope, refusal: Refused) -> None:
    """Answer a plain request with a refusal that no cache keeps."""
    headers = {**without_framing(refusal.headers), "Cache-Control": "no-store"}
    await respond(send, scope, refusal.status, body_of(refusal), headers)


async def refuse_path(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer that there is nothing at this path."""
    if not await refuse_method(scope, receive, send):
        await answer_refusal(send, scope, Refused(404))


async def refuse_method(scope: Scope, receive: Receive, send: Send) -> bool:
    """Refuse what is no GET or HEAD to an application that answers these alone; tell whether it was."""
    if scope["type"] == "websocket":
        await refuse_socket(receive, send)
        return True
    if scope["type"] != "http":
        raise RuntimeError(f"no ASGI scopes of the type {scope['type']!r} are served here")
    if scope["method"] in ("GET", "HEAD"):
        return False
    await answer_refusal(send, scope, only_get())
    return True


def only_get() -> Refused:
    """Return the refusal of a method that is neither GET nor HEAD."""
    return Refused(405, message="Only GET", headers={"Allow": "GET, HEAD"})


async def refuse_socket(receive: Receive, send: Send) -> None:
    """Close a WebSocket at a path where none is served."""
    await receive()
    await send({"type": "websocket.close", "code": 1000})


async def send_first(scope: Scope, send: Send, event: MutableMapping[str, Any]) -> None:
    """Send the event that begins an answer.

    uvicorn writes its access line then, with the query string as it finds it in the scope: no token
    may stand in it.
    """
    query: bytes = scope.get("query_string", b"")
    scope["query_string"] = scrub_query(query)
    try:
        await send(event)
    finally:
        scope["query_string"] = query
