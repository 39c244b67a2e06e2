"""Page: what the controllers have in common, a hub and the routes to it.

What must not live here: what a page does; each has its own module beside this one.
"""

from __future__ import annotations

import os
import secrets
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from ... import Client, CommandError, Handshake, Hub
from ..models.names import clean_name, invent_name
from ..models.system import worker_number
from ..models.text import MAX_LINE_CHARACTERS, one_line
from ..views import Views


class Page:
    """One page at `/name` (views/name.html, static/js/name.js) and its hub at `/ws/name`.

    `title` stands in the navigation, `summary` in a line under it. Keywords of `__init__` are
    those of `Hub`.

    All that the server sends is a JSON object that has a type; what a person wrote stands in a
    field of it and nowhere else. So nobody can write what looks like a message of the server. The
    first is {"type": "server", "run", "worker", "process", "is_one_of_many"}: a page that meets another `run` when it
    comes back knows that the server has forgotten what was before, or, where it is one of many workers,
    that it has come to another.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]

    def __init__(self, views: Views, **settings: Any) -> None:
        self.views = views
        self.hub: Hub = Hub(**{"broker_prefix": self.name, **settings})
        self.run: str = secrets.token_hex(8)
        self.is_one_of_many: bool = not str(self.hub.settings.broker).startswith("memory:")
        self.hub.on_connect(self.greet)

    @property
    def path(self) -> str:
        """Where the page is."""
        return f"/{self.name}"

    @property
    def socket_path(self) -> str:
        """Where the page's hub is."""
        return f"/ws/{self.name}"

    @property
    def max_line_bytes(self) -> int | None:
        """How long a line of text is at most that the page sends; None: no limit."""
        return self.hub.settings.max_message_bytes

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

    def greet(self, client: Client) -> None:
        """Tell a client which run of the server it has come to, and which process that is."""
        client.send(
            {
                "type": "server",
                "run": self.run,
                "worker": worker_number(),
                "process": os.getpid(),
                "is_one_of_many": self.is_one_of_many,
            }
        )

    def tell_here(self, message: object) -> None:
        """Tell everybody who is connected to this process what concerns this process alone."""
        if not self.is_one_of_many:
            self.hub.broadcast(message)
            return
        for client in self.hub.everybody:
            client.send(message)

    async def show(self, request: Request) -> Response:
        """Answer with the page."""
        return self.views.render(request, f"{self.name}.html", page=self, **self.context(request))


def named(client: Client, handshake: Handshake) -> str:
    """Give a client the name that it asks for in `?username=`, or one of ours; return it."""
    name = clean_name(handshake.query.get("username", "")) or invent_name()
    client.meta["name"] = name
    return name


def spoken(text: str) -> str:
    """Return what a person wrote as one line for others; empty when there is nothing in it.

    Raises `CommandError` for a line that is too long.
    """
    line = one_line(text, MAX_LINE_CHARACTERS + 1)
    if len(line) > MAX_LINE_CHARACTERS:
        raise CommandError("too_long", f"a line has at most {MAX_LINE_CHARACTERS} characters")
    return line
