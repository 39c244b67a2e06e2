"""HubMount: the hub and any other ASGI application as one.

What must not live here: anything about clients. `Hub.mount` makes it; for Django, Quart, Litestar
and plain ASGI applications.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from ..dialects.dialect import Dialect
from ..dialects.plain import PLAIN
from ..errors import HubbubError
from ..hub.core import core_of
from .endpoint import Endpoint, checked_path, path_of, state_of

if TYPE_CHECKING:
    from ..hub.hub import Hub
    from ..transports.asgi import ASGIApp, Receive, Scope, Send

logger: logging.Logger = logging.getLogger("hubbub")

_LAST_STEP_S = 1.0
"""How long an application may still run after it said that its lifespan is over."""


class HubMount:
    """An ASGI application that gives `path` to the hub, the paths of `routes` to theirs, and all else to `app`.

    It runs the hub's lifespan around the application's own, if that has one. Applications see the
    hub as `scope["state"]["hub"]` (`request.state.hub` in Starlette).
    """

    def __init__(
        self,
        hub: Hub,
        app: ASGIApp,
        path: str,
        dialect: Dialect = PLAIN,
        routes: Mapping[str, ASGIApp] | None = None,
    ) -> None:
        if not callable(app):
            raise TypeError(f"mount() takes an ASGI application and a path, not {app!r:.80}")
        self.hub = hub
        self.app = app
        self._endpoint = Endpoint(hub, dialect)
        self.path: str = checked_path(path).rstrip("/")
        self._routes = {checked_path(at).rstrip("/"): given for at, given in (routes or {}).items()}
        self._has_lifespan = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be an ASGI application."""
        if scope["type"] == "lifespan":
            self._has_lifespan = True
            await self._serve_lifespan(scope, receive, send)
            return
        path = path_of(scope).rstrip("/")
        if self._is_ours(path):
            await self._endpoint(scope, receive, send)
            return
        if not self._has_lifespan:
            await self._start_late()
        if scope["type"] == "http" and path in self._routes:
            await self._routes[path](scope, receive, send)
        else:
            scope.setdefault("state", {}).update(state_of(self.hub))
            await self.app(scope, receive, send)

    def _is_ours(self, path: str) -> bool:
        files = (f"{self.path}/hubbub.", f"{self.path}/rooms.")
        return path == self.path or path.startswith(files)

    async def _start_late(self) -> None:
        """Start the hub at the first request, where the server (daphne, say) has no lifespan.

        Otherwise the application could not publish before the first socket has come.
        """
        try:
            await core_of(self.hub).lifecycle.start_for_request()
        except HubbubError as error:
            logger.warning("the hub could not start, and is tried again: %s", error)

    async def _serve_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        inner = _InnerLifespan(self.app, scope)
        try:
            await self.hub.start()
            failure = await inner.start()
        except Exception as error:
            failure = str(error) or type(error).__name__
        if failure is not None:
            await self.hub.stop()
            await send({"type": "lifespan.startup.failed", "message": failure})
            return
        if "state" in scope:
            scope["state"].update(state_of(self.hub))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.hub.stop()
        failure = await inner.stop()
        if failure is None:
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await send({"type": "lifespan.shutdown.failed", "message": failure})


class _InnerLifespan:
    """The wrapped application's lifespan, played to it from within ours."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self._app = app
        self._scope = scope
        self._to_app: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._answers: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> str | None:
        """Start the application; return why it failed, None if it did not or has no lifespan."""
        self._task = asyncio.create_task(self._run())
        return await self._ask("startup")

    async def stop(self) -> str | None:
        """Stop the application; return why that failed, or None."""
        if self._task is None:
            return None
        failure = None if self._task.done() else await self._ask("shutdown")
        await self._end()
        return failure

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._to_app.get, self._answers.put)
        finally:
            await self._answers.put({"type": "ended"})

    async def _ask(self, phase: str) -> str | None:
        await self._to_app.put({"type": f"lifespan.{phase}"})
        answer = await self._answers.get()
        if answer["type"] == f"lifespan.{phase}.failed":
            await self._end()
            return str(answer.get("message", "")) or f"the application's {phase} failed"
        if answer["type"] == "ended":
            error = await self._end()
            if phase == "shutdown" and error is not None:
                return str(error) or type(error).__name__
            # An application without a lifespan raises or returns: that is how ASGI says it.
            logger.debug("the mounted application has no lifespan: %s", error or "it returned")
        return None

    async def _end(self) -> BaseException | None:
        """See the application's task out; return what it raised."""
        assert self._task is not None
        await asyncio.wait({self._task}, timeout=_LAST_STEP_S)
        self._task.cancel()
        return (await asyncio.gather(self._task, return_exceptions=True))[0]
