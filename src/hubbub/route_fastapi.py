"""FastAPI's side of the hub: a router, and the hub as a dependency.

What must not live here: anything that works without FastAPI. `Hub.router` and `hubbub.HubDep`
import it when they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, WebSocket
from fastapi.requests import HTTPConnection
from starlette.routing import Route

from .errors import HubNotRunning
from .registry import Registry

if TYPE_CHECKING:
    from .hub import Hub


def make_router(hub: Hub, path: str, dependencies: Sequence[Any]) -> APIRouter:
    """Return a router with the hub's socket at `path`, what it answers to GET, and its files."""
    router = APIRouter(lifespan=hub.lifespan)

    async def socket(websocket: WebSocket) -> None:
        await hub.attach(websocket)

    router.add_api_websocket_route(path, socket, dependencies=list(dependencies))
    answer = _HttpSide(hub)
    router.routes.append(Route(path, answer, include_in_schema=False))
    for name in hub.static_names:
        router.routes.append(Route(f"{path.rstrip('/')}/{name}", answer, include_in_schema=False))
    return router


class _HttpSide:
    """The hub's answers to plain requests, as an ASGI application."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._hub.serve_http(scope, receive, send)


def get_hub(connection: HTTPConnection) -> Registry:
    """Return the hub that the application's lifespan put into the request's state."""
    hub = getattr(connection.state, "hub", None)
    if hub is None:
        raise HubNotRunning(
            "this request has no hub: include hub.router(…) in the application, or use "
            "lifespan=hub.lifespan"
        )
    assert isinstance(hub, Registry)
    return hub


if TYPE_CHECKING:
    HubDep = Annotated[Hub, Depends(get_hub)]
else:
    HubDep = Annotated[Registry, Depends(get_hub)]
"""A parameter of this type gets the hub in any FastAPI route: `def f(hub: HubDep)`."""
