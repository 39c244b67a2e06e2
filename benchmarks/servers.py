"""The servers of the benchmark: what each is, how it is started, what it needs.

Not here: installing them (`install.py`), running and measuring them (`measure.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
BUILD = BENCH / "build"
PYTHON = BENCH / ".venv" / "bin" / "python"

Kind = Literal["c", "go", "node", "python"]

UVICORN = ("{python}", "-m", "uvicorn", "--port", "{port}", "--log-level", "warning")
LOOPS = ("--loop", "uvloop", "--http", "httptools", "--ws-per-message-deflate", "false")
SOCKETIO = ("--dialect", "socketio", "--path", "/socket.io/?EIO=4&transport=websocket")


@dataclass(frozen=True)
class ServerSpec:
    """One server.

    `command` has `{python}`, `{build}` and `{port}` in it and runs in `benchmarks/peers`; `packages`
    are those whose versions the report names; `load` is what the generator must be told to talk to
    it.
    """

    name: str
    title: str
    kind: Kind
    command: tuple[str, ...]
    packages: tuple[str, ...] = ()
    load: tuple[str, ...] = ()
    note: str = ""

    def argv(self, port: int) -> list[str]:
        """Return the command for a server on `port` of 127.0.0.1."""
        return [
            part.format(python=PYTHON, build=BUILD, port=port) if "{" in part else part
            for part in self.command
        ]

    def shown(self) -> str:
        """Return the command as a person would type it in `benchmarks/peers`."""
        return " ".join(self.command).format(python="python", build="../build", port=8000)


OURS = ServerSpec(
    "hubbub",
    "Hubbub",
    "python",
    (*UVICORN, *LOOPS, "--ws", "hubbub:Protocol", "hubbub_server:app"),
    ("hubbub", "uvicorn", "uvloop", "websockets"),
    note="everything on: `on_message` handler, limits, stats, heartbeat, outboxes",
)
IN_FASTAPI = "hubbub-fastapi"
JOINED = "kernel-joined"

PEERS = (
    ServerSpec(
        IN_FASTAPI,
        "Hubbub in FastAPI's router",
        "python",
        (*UVICORN, *LOOPS, "--ws", "hubbub:Protocol", "hubbub_fastapi_server:app"),
        ("hubbub", "uvicorn", "uvloop", "websockets", "fastapi"),
        note="the same hub by `hub.router()`: handshakes go through FastAPI, messages do not",
    ),
    ServerSpec(
        "kernel",
        "kernel `send()`",
        "c",
        ("{build}/kernel", "{port}"),
        note="a C program that calls `send()` once for each client and message; no hub at all",
    ),
    ServerSpec(
        JOINED,
        "kernel `send()`, joined",
        "c",
        ("{build}/kernel", "{port}", "joined"),
        note="the same program, which calls `send()` once for each client and turn of its loop",
    ),
    ServerSpec(
        "gorilla",
        "gorilla (DMMVC's hub), Go",
        "go",
        ("{build}/gorilla", "{port}"),
        ("golang-go", "golang-github-gorilla-websocket-dev"),
        load=("--dialect", "glued"),
        note="glues waiting messages into one with newlines; clients have to split them",
    ),
    ServerSpec(
        "gorilla-prepared",
        "gorilla, prepared messages, Go",
        "go",
        ("{build}/gorilla", "-prepared", "{port}"),
        ("golang-go", "golang-github-gorilla-websocket-dev"),
        note="the same hub with `PreparedMessage` and without the glue",
    ),
    ServerSpec(
        "picows",
        "picows",
        "python",
        ("{python}", "picows_server.py", "{port}"),
        ("picows", "uvloop"),
        note="`transport.send()` for each client, on uvloop",
    ),
    ServerSpec(
        "ws",
        "`ws`, Node.js",
        "node",
        ("node", "ws_server.mjs", "{port}"),
        ("ws", "bufferutil"),
        note="`socket.send()` for each client, as its README has it",
    ),
    ServerSpec(
        "socketio",
        "Socket.IO, Node.js",
        "node",
        ("node", "socketio_server.mjs", "{port}"),
        ("socket.io",),
        load=SOCKETIO,
        note="`io.emit()`, which frames a message once for all; WebSocket transport only",
    ),
    ServerSpec(
        "websockets",
        "`websockets.broadcast`",
        "python",
        ("{python}", "websockets_server.py", "{port}"),
        ("websockets", "uvloop"),
        note="on uvloop",
    ),
    ServerSpec(
        "aiohttp",
        "aiohttp",
        "python",
        ("{python}", "aiohttp_server.py", "{port}"),
        ("aiohttp", "uvloop"),
        note="`await ws.send_str()` for each client, on uvloop",
    ),
    ServerSpec(
        "fastapi",
        "FastAPI's ConnectionManager",
        "python",
        (*UVICORN, *LOOPS, "fastapi_server:app"),
        ("fastapi", "uvicorn", "uvloop", "httptools", "websockets"),
        note="the class of its documentation, on uvicorn with uvloop and httptools",
    ),
    ServerSpec(
        "python-socketio",
        "python-socketio",
        "python",
        (*UVICORN, *LOOPS, "python_socketio_server:app"),
        ("python-socketio", "python-engineio", "uvicorn", "uvloop"),
        load=SOCKETIO,
        note="on uvicorn with uvloop and httptools; WebSocket transport only",
    ),
    ServerSpec(
        "channels",
        "Django Channels",
        "python",
        (*UVICORN, *LOOPS, "channels_server:app"),
        ("channels", "Django", "uvicorn", "uvloop"),
        note="in-memory layer with its capacity raised, on uvicorn with uvloop and httptools",
    ),
    ServerSpec(
        "wse-server",
        "wse-server",
        "python",
        ("{python}", "wse_peer.py", "{port}"),
        ("wse-server",),
        load=("--cookie",),
        note="a Rust engine with threads of its own; Python drains what came in",
    ),
)

EVERYBODY = tuple(peer.name for peer in PEERS if peer.name != IN_FASTAPI)
"""All peers. Of Hubbub in FastAPI's router only the handshakes differ from plain Hubbub."""
BY_NAME = {spec.name: spec for spec in (OURS, *PEERS)}
