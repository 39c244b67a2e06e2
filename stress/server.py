"""The server under test: an application with a hub, which tells by HTTP what it knows of itself.

What must not live here: anything hostile. `scenario.ServerProcess` starts it in a process of its
own, with one JSON argument; it prints the port it listens on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from hubbub import Client, Handshake, Hub, Identity, Refused, RoomRules

TICK_S = 0.005
CONTROL_ROOM = "control"
"""The room whose members get every number that the server publishes."""

COUNTED = (
    "Client",
    "ClientSession",
    "NativeTransport",
    "ASGITransport",
    "TimerHandle",
    "Membership",
)
"""Types whose instances a leak would leave behind."""


class Pulse:
    """A task that wants to run every `TICK_S`, and knows how late it was at worst.

    `block_s` is by the wall's clock. `block_cpu_s` is the part of it that this thread itself was
    running: on a machine that is busy with other things, the rest is theirs.
    """

    def __init__(self) -> None:
        self.block_s = 0.0
        self.block_cpu_s = 0.0

    async def run(self) -> None:
        """Beat until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due, cpu = loop.time() + TICK_S, time.thread_time()
            await asyncio.sleep(TICK_S)
            late = loop.time() - due
            self.block_s = max(self.block_s, late)
            self.block_cpu_s = max(self.block_cpu_s, min(late, time.thread_time() - cpu))

    def reset(self) -> None:
        """Forget the worst so far."""
        self.block_s = self.block_cpu_s = 0.0


class Accounts:
    """What the server has published, and how many deliveries it owes for that."""

    def __init__(self, hub: Hub, pad_bytes: int) -> None:
        self.hub = hub
        self.pad = "." * pad_bytes
        self.number = 0
        self.published = 0
        self.owed = 0
        self.is_silent = False

    def publish(self, room: str, data: Any) -> None:
        """Publish, and note how many are to get it."""
        members = self.hub.room(room)
        self.published += 1
        self.owed += len(members)
        members.broadcast(data)

    def send(self, client: Client, data: Any) -> None:
        """Send to one client, and note it."""
        if client.send(data):
            self.owed += 1

    def next_number(self) -> None:
        """Publish the next number to the control clients."""
        if not self.is_silent:
            self.number += 1
            self.publish(CONTROL_ROOM, {"n": self.number, "pad": self.pad})


def make_hub(told: dict[str, Any]) -> tuple[Hub, Accounts]:
    """Return the hub under test."""
    settings = dict(told.get("settings", {}))
    if "rules" in told:
        settings["room_rules"] = [RoomRules(**each) for each in told["rules"]]
    hub = Hub(**settings)
    accounts = Accounts(hub, told.get("pad_bytes", 0))
    hub.every(told.get("interval_s", 0.02))(accounts.next_number)
    tickets: set[str] = set(told.get("tickets", ()))

    if tickets or told.get("identities"):

        @hub.authenticate
        def who(handshake: Handshake) -> Identity:
            if handshake.query.get("room") == CONTROL_ROOM:
                return Identity()
            if handshake.token not in tickets:
                raise Refused(401)
            tickets.discard(handshake.token)  # good for one socket
            return _identity(told)

    @hub.on_connect
    def enter(client: Client, handshake: Handshake) -> None:
        client.meta["address"] = handshake.address
        room = handshake.query.get("room")
        if room is not None:
            client.join(room)
        accounts.send(client, {"hello": accounts.number})

    @hub.on("join")
    def join(client: Client, message: dict[str, Any]) -> None:
        client.join(message["room"])

    @hub.on("refresh")
    def refresh(client: Client, message: dict[str, Any]) -> None:
        client.refresh(time.time() + message["seconds"])

    @hub.on("mark")
    def mark(client: Client, message: dict[str, Any]) -> None:
        accounts.send(client, message)

    add_talk(hub, accounts)
    add_faults(hub)

    @hub.on_message
    def other(client: Client, message: str) -> None:
        """Take a text that asks for nothing."""

    return hub, accounts


def _identity(told: dict[str, Any]) -> Identity:
    lives_s = told.get("token_lives_s")
    if lives_s is None:
        return Identity()
    return Identity(user="guest", expires_at=time.time() + lives_s)


def add_talk(hub: Hub, accounts: Accounts) -> None:
    """Give the hub rooms whose messages are numbered, for clients that keep accounts of their own.

    Who enters or leaves a room, or ends, is told the numbers of its rooms at that moment.
    """
    numbers: Counter[str] = Counter()

    @hub.on("enter")
    def enter(client: Client, message: dict[str, Any]) -> None:
        client.join(message["room"])
        accounts.send(client, {"entered": message["room"], "k": numbers[message["room"]]})

    @hub.on("exit")
    def leave(client: Client, message: dict[str, Any]) -> None:
        client.leave(message["room"])
        accounts.send(client, {"left": message["room"], "k": numbers[message["room"]]})

    @hub.on("say")
    def say(client: Client, message: dict[str, Any]) -> None:
        room = message["room"]
        numbers[room] += 1
        accounts.publish(room, {"in": room, "k": numbers[room], "text": message["text"]})

    @hub.on("bye")
    def bye(client: Client, message: dict[str, Any]) -> None:
        accounts.send(client, {"bye": {room: numbers[room] for room in client.rooms}})


def add_faults(hub: Hub) -> None:
    """Give the hub handlers that do what no handler should."""

    @hub.on("block")
    def block(client: Client, message: dict[str, Any]) -> None:
        time.sleep(message["seconds"])

    @hub.on("raise")
    async def fail(client: Client, message: dict[str, Any]) -> None:
        if message.get("later"):
            await asyncio.sleep(0)
        raise RuntimeError("a fault that was asked for")

    @hub.on("cancel")
    async def cancel(client: Client, message: dict[str, Any]) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    @hub.on("cancel_at_once")
    def cancel_at_once(client: Client, message: dict[str, Any]) -> None:
        raise asyncio.CancelledError

    @hub.on("forever")
    async def forever(client: Client, message: dict[str, Any]) -> None:
        await asyncio.Event().wait()


_STATM = os.open("/proc/self/statm", os.O_RDONLY)
"""Opened before the descriptors can run out."""


def rss_kib() -> int:
    """Return how much memory this process has in RAM."""
    return int(os.pread(_STATM, 200, 0).split()[1]) * resource.getpagesize() // 1024


def descriptors() -> int:
    """Count the open descriptors; all that may be, when there is none left to count them with."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def settle() -> None:
    """Give back what is free: Python's garbage, and the allocator's pages."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def facts(hub: Hub, accounts: Accounts, pulse: Pulse) -> dict[str, Any]:
    """Return what this process knows of itself."""
    return {
        "stats": hub.stats(),
        "rss_kib": rss_kib(),
        "block_ms": round(pulse.block_s * 1000, 1),
        "block_cpu_ms": round(pulse.block_cpu_s * 1000, 1),
        "number": accounts.number,
        "published": accounts.published,
        "owed": accounts.owed,
        "tasks": len(asyncio.all_tasks()),
        "descriptors": descriptors(),
        "addresses": sorted({str(client.address) for client in hub}),
    }


def census() -> dict[str, int]:
    """Count the objects that a leak would leave behind."""
    found = Counter(type(thing).__name__ for thing in gc.get_objects())
    return {name: found[name] for name in COUNTED}


def routes(hub: Hub, accounts: Accounts, pulse: Pulse) -> list[BaseRoute]:
    """Return the plain routes by which a scenario asks and commands."""

    async def tell(request: Request) -> JSONResponse:
        query = request.query_params
        if "settle" in query:
            settle()
        answer = facts(hub, accounts, pulse)
        if "settle" in query:
            answer["census"] = census()
        if "reset" in query:
            pulse.reset()
        return JSONResponse(answer)

    async def silence(request: Request) -> JSONResponse:
        accounts.is_silent = request.query_params.get("on") == "1"
        return JSONResponse({"number": accounts.number})

    async def bulk(request: Request) -> JSONResponse:
        query = request.query_params
        for _ in range(int(query["count"])):
            accounts.publish(query["room"], {"bulk": "." * int(query["bytes"])})
        return JSONResponse({})

    async def jump(request: Request) -> JSONResponse:
        """Set the wall clock that Python shows, in this process alone."""
        seconds, real = float(request.query_params["seconds"]), time.time
        time.time = lambda: real() + seconds
        return JSONResponse({"time": time.time()})

    async def present(request: Request) -> JSONResponse:
        return JSONResponse({"clients": len(await hub.presence(request.query_params["room"]))})

    return [
        Route("/facts", tell),
        Route("/present", present),
        Route("/silence", silence),
        Route("/bulk", bulk),
        Route("/jump", jump),
    ]


def make_app(told: dict[str, Any]) -> Starlette:
    """Return the application: the hub at /ws and /rooms, and the scenario's own routes."""
    hub, accounts = make_hub(told)
    pulse = Pulse()

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with hub.lifespan():
            beat = asyncio.create_task(pulse.run())
            yield
            beat.cancel()

    paths = [*hub.routes("/ws"), *hub.routes("/rooms", dialect="centrifuge")]
    return Starlette(routes=[*paths, *routes(hub, accounts, pulse)], lifespan=lifespan)


LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "LOG %(name)s %(levelname)s %(message)s"}},
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["out"], "level": "INFO"},
    "loggers": {"uvicorn": {"level": "INFO"}, "hubbub": {"level": "INFO"}},
}


class Server(uvicorn.Server):
    """uvicorn's server, which prints its port when it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say where."""
        await super().startup(sockets)
        if self.started and sockets:
            print("PORT", sockets[0].getsockname()[1], flush=True)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket to listen on; a new server takes the port of one that has just died."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    return sock


def main() -> None:
    """Serve until a signal ends it."""
    told: dict[str, Any] = json.loads(sys.argv[1])
    if "descriptors" in told:
        limit = int(told["descriptors"])
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    for name, value in told.get("constants", {}).items():
        place, _, constant = name.rpartition(".")
        module = importlib.import_module(place)
        getattr(module, constant)  # one that has another name by now is an error
        setattr(module, constant, value)
    LOGGING["loggers"]["hubbub"]["level"] = told.get("log_level", "INFO")
    config: dict[str, Any] = {
        "ws": "websockets-sansio" if told.get("portable") else "hubbub:Protocol",
        "http": "hubbub:HttpProtocol",
        "loop": "uvloop",
        "lifespan": "on",
        "log_config": LOGGING,
        "timeout_keep_alive": 3600,
        "backlog": 8192,
        **told.get("uvicorn", {}),
    }
    sock = bind(told.get("host", "127.0.0.1"), told.get("port", 0))
    Server(uvicorn.Config(make_app(told), **config)).run(sockets=[sock])


if __name__ == "__main__":
    main()
