"""Page: what the controllers have in common, a hub and the routes to it.

What must not live here: what a page does; each has its own module beside this one.
"""

from __future__ import annotations

from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from ... import Client, Handshake, Hub
from ..models.names import clean_name, invent_name
from ..views import Views


class Page:
    """One page at `/name` (views/name.html, static/js/name.js) and its hub at `/ws/name`.

    `title` stands in the navigation, `summary` in a line under it. Keywords of `__init__` are
    those of `Hub`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]

    def __init__(self, views: Views, **settings: Any) -> None:
        self.views = views
        self.hub: Hub = Hub(**settings)

    @property
    def path(self) -> str:
        """Where the page is."""
        return f"/{self.name}"

    @property
    def socket_path(self) -> str:
        """Where the page's hub is."""
        return f"/ws/{self.name}"

    def routes(self) -> list[BaseRoute]:
        """Return the page's routes. The plain GET at the socket's path explains refusals."""
        return [
            Route(self.path, self.show, name=self.name),
            WebSocketRoute(self.socket_path, self.hub),
            Route(self.socket_path, self.hub),
        ]

    def context(self, request: Request) -> dict[str, Any]:
        """Return what the template needs beyond the page itself."""
        return {}

    async def show(self, request: Request) -> Response:
        """Answer with the page."""
        return self.views.render(request, f"{self.name}.html", page=self, **self.context(request))


def named(client: Client, handshake: Handshake) -> str:
    """Give a client the name that it asks for in `?username=`, or one of ours; return it."""
    name = clean_name(handshake.query.get("username", "")) or invent_name()
    client.meta["name"] = name
    return name
