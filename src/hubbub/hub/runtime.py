"""Runtime: what a hub runs on, in one line of the log, in `stats()` and in `hubbub check`.

What must not live here: anything that changes how the hub works. It looks, and says what it saw; what
it cannot see it does not guess. `hub` calls it at the start and at the first handshake.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import fields
from types import FrameType
from typing import Any, NamedTuple

from ..brokers.broker import Broker
from ..brokers.memory import MemoryBroker
from ..errors import SettingsError
from ..room_rules import rule_rows
from ..settings import Settings
from ..settings_values import shown, visible
from .workers import WorkerWatch, roll

logger: logging.Logger = logging.getLogger("hubbub")

NATIVE, PORTABLE = "native", "portable"

SERVERS = {
    "uvicorn": "uvicorn.error",
    "hypercorn": "hypercorn.error",
    "granian": "_granian",
    "gunicorn": "gunicorn.error",
    "daphne": "daphne",
}
"""Packages that serve, and the logger by which each speaks."""

PARTS = {
    "httptools": "httptools.parser.parser",
    "msgspec": "msgspec._core",
    "uvloop": "uvloop.loop",
    "websockets": "websockets.speedups",
}
"""Packages that have compiled parts, and the module that each is loaded as."""

_MEMORY = "memory"
_NATIVE_MODULE = "hubbub.transports.uvicorn_protocol"
_OUR_HTTP = ("hubbub.transports.uvicorn_http", "hubbub:HttpProtocol")
"""Where our HTTP class is defined, and how it is written on a command line."""


class Server(NamedTuple):
    """What called the hub's start. None: not known."""

    name: str | None = None
    transport: str | None = None
    http: str | None = None
    app: str | None = None
    """How the application was named to the server, `main:app`."""
    is_in_gunicorn: bool = False


def find_server() -> Server:
    """Return the server that runs this code, as the frames of its callers show it."""
    found: str | None = None
    config: Any = None
    packages = set()
    for frame in _callers():
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in SERVERS:
            packages.add(package)
            found = found or package
            if package == "uvicorn" and config is None:
                config = _config_of(frame)
    is_in_gunicorn = "gunicorn" in packages
    if config is None:
        transport = None if found in (None, "uvicorn") else PORTABLE
        return Server(found, transport, is_in_gunicorn=is_in_gunicorn)
    app = config.app if isinstance(config.app, str) else None
    return Server(found, _transport(config), _http(config), app, is_in_gunicorn)


def _callers() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _config_of(frame: FrameType) -> Any:
    """Return uvicorn's configuration if `frame` runs a method of something that has one loaded."""
    config = getattr(frame.f_locals.get("self"), "config", None)
    return config if getattr(config, "loaded", False) else None


def _transport(config: Any) -> str | None:
    chosen = getattr(config, "ws_protocol_class", None)
    if chosen is None:
        return None
    is_ours = any(each.__module__ == _NATIVE_MODULE for each in getattr(chosen, "__mro__", ()))
    return NATIVE if is_ours else PORTABLE


def _http(config: Any) -> str | None:
    chosen = getattr(config, "http_protocol_class", None)
    if chosen is None:
        return None
    if chosen.__module__ == _OUR_HTTP[0]:
        return _OUR_HTTP[1]
    package, _, module = chosen.__module__.rpartition(".")
    if package == "uvicorn.protocols.http":
        return str(module.removesuffix("_impl"))
    return f"{package.partition('.')[0] or module}:{chosen.__name__}"


def _described(http: str) -> str:
    """Return the name of an HTTP class, and what is to be known of uvicorn's own."""
    waits = http in ("h11", "httptools")
    return f"{http} (no deadline for a request's head; {_OUR_HTTP[1]} has one)" if waits else http


def compiled_parts(*, load: bool = False) -> list[str]:
    """Return the packages whose compiled parts this process has loaded; `load` them if asked."""
    return [name for name, module in PARTS.items() if _is_loaded(module, load)]


def _is_loaded(module: str, load: bool) -> bool:
    if load:
        try:
            importlib.import_module(module)
        except ImportError:
            return False
    return sys.modules.get(module) is not None


def loop_name(loop: asyncio.AbstractEventLoop) -> str:
    """Return the name of an event loop: asyncio, uvloop."""
    return type(loop).__module__.partition(".")[0]


def broker_name(broker: Broker) -> str:
    """Return the name of a broker: memory, or its class's; one derived from `MemoryBroker` is another."""
    return _MEMORY if type(broker) is MemoryBroker else type(broker).__name__


def changed_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that differ from their defaults, as JSON can say them."""
    values = {one.name: (getattr(settings, one.name), one.default) for one in fields(settings)}
    changed = {
        name: visible(value) for name, (value, default) in values.items() if value != default
    }
    if "room_rules" in changed:
        changed["room_rules"] = rule_rows(settings.room_rules)
    return changed


NOTHING_KNOWN: dict[str, Any] = {
    "server": None,
    "transport": None,
    "http": None,
    "loop": None,
    "compiled": [],
    "workers": 1,
}


class Runtime:
    """What one hub runs on, from its start to its stop in `loop`."""

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        loop: asyncio.AbstractEventLoop,
        server: Server | None = None,
        *,
        relays: bool = False,
    ) -> None:
        self.loop = loop
        self._relays = relays
        self.server: Server = server or find_server()
        self.transport: str | None = self.server.transport
        self._settings = settings
        self._broker = broker
        # Those that are refused are seen for a while by who is there.
        looks = 4 if settings.workers_ok == "refuse" else 2
        self._watch = WorkerWatch(roll, self._tell_of_workers, looks)

    async def require_alone(self) -> None:
        """Raise `SettingsError` where there are other workers, no broker connects them, and that is refused."""
        if self._settings.workers_ok == "refuse" and broker_name(self._broker) == _MEMORY:
            count = await self._watch.settled()
            if count > 1:
                source = self._settings.source("workers_ok")
                raise SettingsError("workers_ok", "refuse", REFUSED % count, source=source)

    def begin(self) -> None:
        """Look for other workers, and say in one line what there is."""
        self._watch.start(self.loop)
        self._say(self.line())

    def end(self) -> None:
        """Be no worker to others any more. Twice is no error."""
        self._watch.stop()

    def note_transport(self, transport: str) -> None:
        """Learn what a handshake came by, where the start did not know it or knew better."""
        if transport != self.transport:
            self.transport = transport
            self._say(f"clients come by the {transport} transport{self._hint()}")

    def facts(self) -> dict[str, Any]:
        """Return what is known, as JSON can carry it."""
        return {
            "server": self.server.name,
            "transport": self.transport,
            "http": self.server.http,
            "loop": loop_name(self.loop),
            "compiled": compiled_parts(),
            "workers": self._watch.seen,
        }

    def line(self) -> str:
        """Return what is known as one line for the log."""
        settings = self._settings
        changed = {name: getattr(settings, name) for name in changed_settings(settings)}
        parts = [
            f"transport {self.transport or 'not known before the first client'}",
            f"server {self.server.name}" if self.server.name else "",
            f"HTTP class {_described(self.server.http)}" if self.server.http else "",
            f"event loop {loop_name(self.loop)}",
            f"compiled parts of {', '.join(compiled_parts()) or 'nothing'}",
            f"broker {broker_name(self._broker)}",
            f"workers seen {self._watch.seen}",
            RELAYS if self._relays else "",
            "settings: "
            + (" ".join(f"{name}={shown(value)}" for name, value in changed.items()) or "defaults"),
        ]
        return "the hub has started: " + "; ".join(filter(None, parts)) + self._hint()

    def _hint(self) -> str:
        """Return what to write for the faster transport, where there is one to be had."""
        if self.transport != PORTABLE or self.server.name is None:
            return ""
        app = self.server.app or "APP"
        ways = f"hubbub serve {app}, or uvicorn {app} --ws hubbub:Protocol"
        if self.server.is_in_gunicorn:
            ways = 'a worker class of uvicorn\'s with CONFIG_KWARGS = {"ws": "hubbub:Protocol"}'
        return f". The native transport is about twice as fast: {ways}"

    def _tell_of_workers(self, count: int) -> None:
        if broker_name(self._broker) == _MEMORY and self._settings.workers_ok is not True:
            self._say(SEVERAL_WORKERS % count, logging.WARNING)

    def _say(self, text: str, level: int = logging.INFO) -> None:
        """Log a line; by the server's own logger where nobody has configured the hub's.

        Who starts a server and configures no logging sees what the server says, and should see this.
        """
        voice = logging.getLogger(SERVERS.get(self.server.name or "", logger.name))
        if logger.hasHandlers() or logger.level or not voice.hasHandlers():
            logger.log(level, "%s", text)
        elif voice.isEnabledFor(level):
            voice.handle(logger.makeRecord(logger.name, level, __file__, 0, text, (), None))


RELAYS = "no handler of messages: what a client sends goes to all clients"

_WAYS = (
    "Name a broker that connects them, as in  HUBBUB_BROKER=valkey://localhost:6379 , "
    "or start the server with  --workers 1"
)

SEVERAL_WORKERS = (
    "this is one of %d workers, and each has clients and rooms of its own: a broadcast reaches those "
    f"of one worker only. {_WAYS}  (HUBBUB_WORKERS_OK=1 says that it is meant so)"
)

REFUSED = (
    "this is one of %d workers, and each would have clients and rooms of its own: a broadcast would reach "
    f"those of one worker only. {_WAYS}"
)
