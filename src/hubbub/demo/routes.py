"""Routes: which page is where, and the life of the application.

What must not live here: what a page does (its controller) and how it looks (its view).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from ..errors import HubbubError
from .controllers.channels import ChannelsPage
from .controllers.chat import ChatPage
from .controllers.game import GamePage
from .controllers.live import LivePage
from .controllers.monitor import MonitorPage
from .controllers.notifications import NotificationsPage
from .controllers.page import Page
from .controllers.websocket import WebSocketPage
from .gate import Gate
from .headers import SecurityHeaders
from .views import Views

STATIC = Path(__file__).parent / "static"


def build() -> Starlette:
    """Make the pages, each with its hub, and the application around them."""
    views = Views()
    pages: list[Page] = [
        WebSocketPage(views),
        ChatPage(views),
        ChannelsPage(views),
        NotificationsPage(views),
        LivePage(views),
        GamePage(views),
    ]
    pages.append(MonitorPage(views, lambda: {page.name: page.hub.stats() for page in pages}))
    views.navigation = pages
    return Starlette(
        routes=_routes(pages),
        middleware=[Middleware(SecurityHeaders), Middleware(Gate)],
        exception_handlers={HubbubError: _cannot_publish},
        lifespan=_lifespan(pages),
    )


def _routes(pages: Sequence[Page]) -> list[BaseRoute]:
    routes: list[BaseRoute] = [
        Route("/", _home),
        Mount("/static", StaticFiles(directory=STATIC), name="static"),
    ]
    for page in pages:
        routes.extend(page.routes())
    return routes


def _lifespan(pages: Sequence[Page]) -> Any:
    """Run all hubs while the application runs; `request.state.hub` is the first page's."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            for page in pages:
                await stack.enter_async_context(page.hub.lifespan(app))
            yield {"hub": pages[0].hub}

    return lifespan


async def _cannot_publish(request: Request, error: Exception) -> Response:
    """Answer a request that would publish while its hub cannot: it has not started, or has ended."""
    return JSONResponse({"error": str(error)}, 503)


async def _home(request: Request) -> Response:
    return RedirectResponse("/websocket")
