"""FastAPI's side of the hub: a router, and the hub as a dependency.

What must not live here: anything that works without FastAPI. `Hub.router` and `hubbub.HubDep`
import it when they are used.
"""

from __future__ import annotations

import functools
from collections.abc import MutableMapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, WebSocket
from fastapi.requests import HTTPConnection
from starlette.routing import Route

from ..dialects.dialect import Dialect
from ..dialects.plain import PLAIN
from ..errors import HubNotRunning, Refused
from ..hub.hub import Hub
from .endpoint import Endpoint, checked_path, hubs_of
from .responses import STATIC_FILES

if TYPE_CHECKING:
    from ..transports.asgi import Receive, Scope, Send

_ANSWER = "hubbub.answer"
"""The key in the scope of a plain request on the socket's way: what to call at its end."""


def make_router(
    hub: Hub, path: str, dependencies: Sequence[Any], dialect: Dialect = PLAIN
) -> APIRouter:
    """Return a router with the hub's socket at `path`, what it answers to GET, and its files."""
    checked_path(path)
    endpoint = Endpoint(hub, dialect)
    router = APIRouter(lifespan=hub.lifespan)

    async def socket(websocket: WebSocket) -> None:
        answer = websocket.scope.get(_ANSWER)
        if answer is None:
            await endpoint.attach(websocket)
        else:
            await answer()

    router.add_api_websocket_route(path, socket, dependencies=list(dependencies))
    router.routes.append(Route(path, _HandshakeProbe(endpoint), include_in_schema=False))
    files = _Files(endpoint)
    for name in STATIC_FILES:
        router.routes.append(Route(f"{path.rstrip('/')}/{name}", files, include_in_schema=False))
    return router


class _Files:
    """The JavaScript client, as an ASGI application."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._endpoint.serve_http(scope, receive, send)


class _HandshakeProbe:
    """The hub's answer to a plain request, as an ASGI application.

    The request takes the socket's way through the application, so that a dependency (of the hub's
    router, of the router around it, of the application) refuses it as it would the handshake.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = functools.partial(self._endpoint.serve_http, scope, receive, send)
        if scope["method"] not in ("GET", "HEAD"):
            await answer()
            return
        as_socket = {
            **scope,
            "type": "websocket",
            "scheme": "wss" if scope.get("scheme") == "https" else "ws",
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}},
            _ANSWER: answer,
        }
        await scope["app"].router(as_socket, receive, self._refusing(scope, send))

    def _refusing(self, scope: Scope, send: Send) -> Send:
        """Return a `send` that turns the refusal of a handshake into the answer to `scope`."""

        async def send_http(event: MutableMapping[str, Any]) -> None:
            if event["type"] == "websocket.close":
                await self._endpoint.answer_refusal(scope, send, Refused(403))
            else:
                kind = event["type"].removeprefix("websocket.")
                await self._endpoint.relay_refusal(scope, send, {**event, "type": kind})

        return send_http


def get_hub(connection: HTTPConnection) -> Hub:
    """Return the hub that the application's lifespan put into the request's state.

    Raises `HubNotRunning` where there is none, and `RuntimeError` where there are several: a type
    cannot say which of them is meant.
    """
    state = connection.scope.get("state") or {}
    hubs = hubs_of(state)
    if len(hubs) > 1:
        raise RuntimeError(
            f"this application has {len(hubs)} hubs, and HubDep cannot know which one is meant: "
            "use the hub itself (chat.broadcast(…)), or a dependency of your own: "
            "ChatDep = Annotated[Hub, Depends(lambda: chat)]"
        )
    hub = hubs[0] if hubs else state.get("hub")
    if isinstance(hub, Hub):
        return hub
    found = "" if hub is None else f" (request.state.hub is of the type {type(hub).__name__})"
    raise HubNotRunning(
        f"this request has no hub{found}: include hub.router(…) in the application, or use "
        "lifespan=hub.lifespan"
    )


HubDep = Annotated[Hub, Depends(get_hub)]
"""A parameter of this type gets the application's hub in any FastAPI route: `def f(hub: HubDep)`.
See `get_hub` for an application that has several."""
