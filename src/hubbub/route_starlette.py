"""Starlette's side of the hub: the routes it needs.

What must not live here: anything that works without Starlette. `Hub.routes` imports it when it is
used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Route, WebSocketRoute

if TYPE_CHECKING:
    from .hub import Hub


def make_routes(hub: Hub, path: str) -> list[BaseRoute]:
    """Return the hub's socket at `path`, what it answers to GET there, and its files."""
    files = [f"{path.rstrip('/')}/{name}" for name in hub.static_names]
    return [WebSocketRoute(path, hub), *(Route(place, hub) for place in (path, *files))]
