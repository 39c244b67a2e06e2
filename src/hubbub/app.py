"""A ready application: one hub at /ws that passes every message on to everybody, unless rooms have rules.

What must not live here: anything that an application of one's own would not write too; it is also
the smallest example of `Hub.mount`. `hubbub serve` without APP runs it, and so does any ASGI
server: `uvicorn hubbub.app:app --ws hubbub:Protocol`. The settings come from the environment.
"""

from __future__ import annotations

import os

import msgspec

from .asgi.endpoint import path_of
from .hub.hub import Hub
from .transports.asgi import ASGIApp, Receive, Scope, Send

__all__ = ["app", "centrifuge_app", "hub"]

_TEXT = b"text/plain; charset=utf-8"
_JSON = b"application/json"

hub: Hub = Hub()
_REST = "." if hub.settings.room_rules else ", and all others hear it."
SENTENCE = f"This is a Hubbub server: connect a WebSocket client to /ws{_REST}"


def _page(path: str) -> tuple[int, bytes, bytes]:
    """Return status, content type and body of a path."""
    if path == "/":
        return 200, _TEXT, f"{SENTENCE}\n".encode()
    if path == "/healthz":  # a broker that is away is no reason to start this process anew
        state = hub.stats()["broker_state"]
        return 200, _TEXT, b"ok\n" if state == "up" else f"ok, and the broker is {state}\n".encode()
    if path == "/stats":
        return 200, _JSON, msgspec.json.encode(hub.stats())
    return (
        404,
        _TEXT,
        b"Not found. There is /, /healthz, /readyz, /stats, and /ws for WebSockets.\n",
    )


async def _pages(scope: Scope, receive: Receive, send: Send) -> None:
    """Be the ASGI application for all that is not the hub's."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
        return
    if scope["type"] != "http":
        raise RuntimeError(f"no ASGI scopes of the type {scope['type']!r} are served here")
    status, kind, body = _page(path_of(scope))
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    if scope["method"] not in ("GET", "HEAD"):
        status, body, headers = 405, b"", [(b"allow", b"GET, HEAD"), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _with_api() -> ASGIApp:
    """Return the pages, and the HTTP API for the key that the variable API_KEY has."""
    from .asgi.api_keys import KEY_VARIABLE, ApiKey

    keys = [ApiKey(os.environ.get(KEY_VARIABLE, "").strip(), name=KEY_VARIABLE)]
    return hub.api("/api", keys=keys, app=_pages)


def _with_sockets(pages: ASGIApp) -> ASGIApp:
    return hub.mount(pages, "/ws", routes={"/readyz": hub.health()})


def _with_sdks(ready: ASGIApp) -> ASGIApp:
    return hub.mount(ready, "/connection/websocket", dialect="centrifuge")


app: ASGIApp = _with_sockets(
    _pages if hub.settings.api_keys_file is None else hub.api("/api", app=_pages)
)

centrifuge_app: ASGIApp = _with_sdks(app)
"""The same, and a route for the Centrifuge SDKs: `hubbub serve --centrifuge`."""


def __getattr__(name: str) -> ASGIApp:
    """Make `api_app` and `centrifuge_api_app`, which need a key: what `hubbub serve --api` runs."""
    if name not in ("api_app", "centrifuge_api_app"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    ready = _with_sockets(_with_api())
    return ready if name == "api_app" else _with_sdks(ready)
