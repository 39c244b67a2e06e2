"""A serving process of `hubbub serve`: what uvicorn is told beside the ordinary, in each of several workers.

Two things happen between the start of the application and its end. With `--metrics` the process listens on a
port of its own, for the inside: /metrics, /readyz and /healthz. And on SIGTERM its hubs drain before the
server stops: that is the moment in which readiness goes down. What must not live here: the options (`serve`),
what is answered (`asgi.metrics`, `asgi.health`), how a hub drains (`hub.lifecycle`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

import click
import uvicorn
from uvicorn.lifespan.on import LifespanOn

from ..errors import MissingExtra
from ..hub.core import core_of
from ..hub.hub import all_hubs
from ..transports.asgi import ASGIApp, Receive, Scope, Send
from .target import name_hubs

logger: logging.Logger = logging.getLogger("hubbub")


class Inside(NamedTuple):
    """Where the processes of a server answer the inside: each takes the first port that is free."""

    host: str
    port: int
    processes: int

    def listen(self) -> socket.socket:
        """Listen on the first free port. Raises `OSError` where there is none."""
        problem: OSError | None = None
        for port in range(self.port, self.port + (self.processes if self.port else 1)):
            try:
                return socket.create_server((self.host, port))
            except OSError as error:
                problem = error
        assert problem is not None
        raise problem


def read_inside(text: str, process_count: int) -> Inside:
    """Read `[HOST:]PORT`; raise `ClickException` for what is none."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) + process_count > 65535:
        raise click.ClickException(f"--metrics takes PORT or HOST:PORT, not {text!r}")
    # One more than there are workers: a new one may start before an old one ends.
    count = process_count + 1 if process_count > 1 else 1
    return Inside(host.strip("[]") or "127.0.0.1", int(port), count)


def require_free(inside: Inside, process_count: int) -> None:
    """Raise `ClickException` where there are not so many ports as processes: before anything starts."""
    listening: list[socket.socket] = []
    try:
        for _ in range(process_count):
            listening.append(inside.listen())
    except OSError as error:
        last = inside.port + inside.processes - 1
        ports = f"port {inside.port}" + (f" to {last}" if inside.port < last else "")
        text = f"--metrics: cannot listen on {ports} of {inside.host}: {error.strerror}"
        raise click.ClickException(text) from None
    finally:
        for sock in listening:
            sock.close()


def require_metrics() -> None:
    """Raise `MissingExtra` where what `--metrics` needs is not installed."""
    try:
        from ..asgi.metrics import Metrics  # noqa: F401
    except ImportError as error:
        raise MissingExtra(error.name or "prometheus_client", "metrics") from error


class WorkerConfig(uvicorn.Config):
    """uvicorn's configuration, whose lifespan is a `WorkerLifespan`. Processes get it pickled."""

    inside: Inside | None = None

    def load(self) -> None:
        """Load what is configured."""
        super().load()
        self.lifespan_class = WorkerLifespan


class WorkerLifespan(LifespanOn):
    """The application's lifespan, and what this process does beside it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._listener: InsideServer | None = None

    async def startup(self) -> None:
        """Start the application; then answer the inside, and be ready to drain."""
        await super().startup()
        if self.should_exit:
            return
        inside = getattr(self.config, "inside", None)
        if inside is not None:
            self._listener = InsideServer(inside)
            await self._listener.start()
        if not self.config.should_reload:  # who changes a file waits for nobody
            drain_first(asyncio.get_running_loop(), self.config)
            leave_to_itself_what_stays()

    async def send(self, message: Any) -> None:
        """Take an answer of the application; a traceback with what a hub says of itself is that sentence.

        Frameworks answer with the traceback of whatever the hub's lifespan has raised.
        """
        if message["type"] == "lifespan.startup.failed":
            text = str(message.get("message", ""))
            failures = [core_of(hub).lifecycle.failure for hub in all_hubs()]
            known = [why for why in failures if why and why in text]
            if known:
                message = {**message, "message": known[0]}
        await super().send(message)

    async def shutdown(self) -> None:
        """End the application; until then the inside is answered."""
        await super().shutdown()
        if self._listener is not None:
            await self._listener.stop()


def leave_to_itself_what_stays() -> None:
    """Have the garbage collector look no more at what is loaded by now: it stays as long as the process.

    A full collection holds up everybody, for the longer the more there is. It comes when much is new, as
    when thousands of clients come back at once.
    """
    if hasattr(gc, "freeze"):
        gc.collect()
        gc.freeze()


# What the inside is answered


class _Pages:
    """The ASGI application of the inside: three paths."""

    def __init__(self) -> None:
        from ..asgi.health import Health
        from ..asgi.metrics import Metrics

        hubs = name_hubs()
        names = [""] if len(hubs) == 1 else list(hubs)
        self._pages: dict[str, ASGIApp] = {
            "/metrics": Metrics(dict(zip(names, hubs.values(), strict=True))),
            "/readyz": Health(*hubs.values()),
            "/healthz": Health(*hubs.values(), live=True),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from ..asgi.responses import refuse_path

        page = self._pages.get(scope["path"])
        if page is None:
            await refuse_path(scope, receive, send)
        else:
            await page(scope, receive, send)


class InsideServer:
    """A second server of this process, in the same event loop, that knows nothing of signals."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._server: uvicorn.Server | None = None
        self._sockets: list[socket.socket] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen. Where no port is free the log says so, and the process serves all the same."""
        try:
            listening = self._inside.listen()
        except OSError as error:
            text = "--metrics: cannot listen on port %d of %s, nor on the next %d: %s"
            inside = self._inside
            logger.error(text, inside.port, inside.host, inside.processes - 1, error.strerror)
            return
        config = uvicorn.Config(
            _Pages(), ws="none", lifespan="off", log_config=None, access_log=False
        )
        config.load()
        server = self._server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        self._sockets = [listening]
        host, port = listening.getsockname()[:2]
        await server.startup(self._sockets)
        self._task = asyncio.create_task(server.main_loop(), name="hubbub inside")
        logger.info("metrics are at http://%s:%d/metrics", host, port)

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        await self._task
        self._server.config.timeout_graceful_shutdown = 1
        await self._server.shutdown(self._sockets)


# The drain before the end


def drain_first(loop: asyncio.AbstractEventLoop, config: uvicorn.Config) -> None:
    """Have the hubs of this process drain when SIGTERM comes, and the server stop after that.

    Without a `drain_s` that takes 2 ms for each client. Only in the main thread, which alone has signals. A second SIGTERM
    changes nothing, since a supervisor of processes may send one to each after all have had it; SIGINT (Ctrl-C)
    ends the waiting.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    stop = signal.getsignal(signal.SIGTERM)
    if not callable(stop):
        return
    signal.signal(signal.SIGTERM, _Drain(loop, config, stop))


class _Drain:
    """A handler of SIGTERM that drains before it hands the signal on."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: uvicorn.Config,
        stop: Callable[[int, FrameType | None], Any],
    ) -> None:
        self._loop = loop
        self._config = config
        self._stop = stop
        self._task: asyncio.Task[None] | None = None
        self._has_begun = False
        self._interrupt: Any = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._interrupt = signal.getsignal(signal.SIGINT)
            signal.signal(signal.SIGINT, self._hurry)
            self._loop.call_soon_threadsafe(self._begin, number, frame)

    def _begin(self, number: int, frame: FrameType | None) -> None:
        self._task = self._loop.create_task(self._drain(number, frame), name="hubbub drain")

    def _hurry(self, number: int, frame: FrameType | None) -> None:
        for hub in all_hubs():
            core_of(hub).lifecycle.hurry()
        if callable(self._interrupt):
            self._interrupt(number, frame)

    async def _drain(self, number: int, frame: FrameType | None) -> None:
        logger.info("draining: readiness is down, and clients are closed; then the server stops")
        began = self._loop.time()
        # Not those of publishers, which run in other threads too.
        served = [hub for hub in all_hubs() if core_of(hub).serves_clients]
        hubs = [hub for hub in served if core_of(hub).lifecycle.is_ready()]
        with contextlib.suppress(Exception):  # whatever it was, the server stops
            await asyncio.gather(*(hub.drain() for hub in hubs))
        patience_s = self._config.timeout_graceful_shutdown
        if patience_s is not None:  # the server has what the drain has left of it
            left_s = math.ceil(patience_s - (self._loop.time() - began))
            self._config.timeout_graceful_shutdown = max(1, left_s)
        self._stop(number, frame)
