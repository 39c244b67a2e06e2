"""Starlette's side of the hub: the routes it needs.

What must not live here: anything that works without Starlette. `Hub.routes` imports it when it is
used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Route, WebSocketRoute

from ..dialects.dialect import Dialect
from ..dialects.plain import PLAIN
from .endpoint import Endpoint, checked_path
from .responses import STATIC_FILES

if TYPE_CHECKING:
    from ..hub.hub import Hub


def make_routes(hub: Hub, path: str, dialect: Dialect = PLAIN) -> list[BaseRoute]:
    """Return the hub's socket at `path`, what it answers to GET there, and its files."""
    checked_path(path)
    endpoint = Endpoint(hub, dialect)
    files = [f"{path.rstrip('/')}/{name}" for name in STATIC_FILES]
    return [WebSocketRoute(path, endpoint), *(Route(place, endpoint) for place in (path, *files))]
