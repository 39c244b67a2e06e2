"""The demonstration application: one page for each use of a hub, in models, views and controllers.

It owns its pages, a hub for each, and what they show. It must not know transports, dialects or
brokers: it uses hubs as any application does. What must not live here: anything that the library
needs. `hubbub demo` and servers call `create_app`; `hubbub.demo.app:app` is the same application as
a module attribute.

    routes.py       which page is where; the application's life
    controllers/    one class for each page: its routes, its hub, its handlers
    gate.py         which requests no page gets to see
    headers.py      what browsers may load and run for a page
    models/         what the pages are about; no web, no sockets
    views/          Jinja2 templates, and what renders them
    static/         style sheet and ES modules; in vendor/ what others wrote, with its licences
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..errors import MissingExtra

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["create_app"]


def create_app() -> Starlette:
    """Return a new demo application with hubs of its own.

    Raises `MissingExtra` when Starlette or Jinja2 is not installed; the extra `demo` brings both.
    """
    for package in ("starlette", "jinja2"):
        if find_spec(package) is None:
            raise MissingExtra(package, "demo")
    from .routes import build

    return build()
