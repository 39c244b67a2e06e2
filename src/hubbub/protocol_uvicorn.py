"""The native protocol class: uvicorn's WebSocket class with a door, through which a hub takes the socket.

What must not live here: what becomes of the socket then (`transport_uvicorn`), HTTP parsing. uvicorn
makes a `Protocol` for each upgrade (its `ws=` setting, `--ws hubbub:Protocol`); the hub's endpoint
finds it in the ASGI scope.

A handshake that a hub accepts needs little: the head of the request, the scope, the key's answer.
So that is done here first, and uvicorn's class comes to be only when it is needed: when the
application answers by itself (a denial, a WebSocket route of its own), waits for more than the
connect event, or when there is anything unusual about the request. From then on everything is as
under uvicorn's own class.
"""

from __future__ import annotations

import asyncio
import logging
from binascii import Error as Base64Error
from binascii import a2b_base64
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.utils import (
    ClientDisconnected,
    get_client_addr,
    get_local_addr,
    get_path_with_query_string,
    get_remote_addr,
    is_ssl,
)
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.utils import accept_key

from .deflate import negotiate
from .limits import scrub_query
from .transport_deflate import DeflatingTransport
from .transport_uvicorn import CORE_LOGGER, NativeTransport

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from .registry import Registry

EXTENSION = "hubbub"
"""The key in `scope["extensions"]` under which a socket offers itself."""

MAX_HEAD_BYTES = 16 * 1024
"""An ordinary request's head is no longer; of a longer one uvicorn's class is the judge."""
MAX_EARLY_BYTES = 64 * 1024
"""How much a client may send before its handshake is answered; it should send nothing."""

_logger = logging.getLogger("uvicorn.error")

_ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: "
)


class _Head:
    """The head of a request as httptools reads it."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))


def read_head(data: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]] | None:
    """Return the URL and the headers of an ordinary request for a WebSocket, else None.

    What is ordinary stands in RFC 6455 section 4.2.1; all else is for uvicorn's class to answer.
    """
    if len(data) > MAX_HEAD_BYTES:
        return None
    head = _Head()
    parser = httptools.HttpRequestParser(head)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade as upgrade:
        is_whole = upgrade.args[0] == len(data)
    except httptools.HttpParserError:
        return None
    else:
        return None
    is_get = parser.get_method() == b"GET" and parser.get_http_version() == "1.1"
    return (head.url, head.headers) if is_whole and is_get and _is_ordinary(head) else None


def _is_ordinary(head: _Head) -> bool:
    once: dict[bytes, bytes] = {}
    for name, value in head.headers:
        if name in _HANDSHAKE_HEADERS:
            if name in once:
                return False
            once[name] = value
    try:
        key = a2b_base64(once.get(b"sec-websocket-key", b""), strict_mode=True)
    except Base64Error:
        return False
    connection = once.get(b"connection", b"").lower()
    return (
        len(key) == 16
        and once.get(b"sec-websocket-version") == b"13"
        and once.get(b"upgrade", b"").lower() == b"websocket"
        and b"upgrade" in [token.strip() for token in connection.split(b",")]
        and b"host" in once
        and head.url.isascii()
    )


_HANDSHAKE_HEADERS = frozenset(
    (b"sec-websocket-key", b"sec-websocket-version", b"upgrade", b"connection", b"host")
)


class Protocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, with a door through which a hub takes the socket over.

    Give it to uvicorn: `uvicorn app:app --ws hubbub:Protocol`. Sockets of routes that are not a
    hub's behave as under uvicorn's own class.
    """

    # What uvicorn's class and this one ask of a socket whose fate is open.
    logger = _logger
    handshake_initiated: bool = False
    handshake_complete: bool = False
    close_sent: bool = False
    disconnected: bool = False
    close_timer: asyncio.TimerHandle | None = None
    initial_response: tuple[int, list[tuple[str, str]], bytes] | None = None
    app: Any
    scope: Any
    request: Any
    response: Any
    connections: set[Any]
    tasks: set[asyncio.Task[None]]
    transport: asyncio.Transport

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()  # pragma: no cover
        self._arguments = (config, server_state, app_state, _loop)
        self.app = config.loaded_app
        self.connections = server_state.connections
        self.tasks = server_state.tasks
        self._head = b""
        self._early = b""
        self._is_stock = False
        self._is_claimed = False
        self._is_connect_told = False
        self._extensions: str | None = None
        self._taken: NativeTransport | None = None

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport from uvicorn's HTTP class."""
        self.transport = cast(asyncio.Transport, transport)
        self.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket; what comes during the handshake is kept until its end."""
        if self._taken is not None:
            self._taken.data_received(data)
        elif not self._head and not self._is_stock:
            self._begin(data)
        elif self.handshake_initiated and not self.handshake_complete:
            self._early += data
            if len(self._early) > MAX_EARLY_BYTES:
                self.transport.abort()
        else:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone before anybody took it."""
        if self._is_stock:
            super().connection_lost(exc)
        else:
            self.connections.discard(self)
            self.handshake_complete = self.disconnected = True

    def pause_writing(self) -> None:
        """The socket's buffer is full; before the handshake's answer it is empty."""
        if self._is_stock:
            super().pause_writing()

    def resume_writing(self) -> None:
        """The socket's buffer has drained."""
        if self._is_stock:
            super().resume_writing()

    def shutdown(self) -> None:
        """The server shuts down while the handshake goes on."""
        if self._head:
            self._become_stock()
        if self._is_stock:
            super().shutdown()
        else:
            self.transport.close()

    # The handshake

    def _begin(self, data: bytes) -> None:
        request = read_head(data)
        if request is None:
            self._become_stock()
            super().data_received(data)
            return
        self._head = data
        self.handshake_initiated = True
        self._make_scope(*request)
        loop = self._arguments[3] or asyncio.get_running_loop()
        task = loop.create_task(self.run_asgi())
        task.add_done_callback(self.on_task_complete)
        self.tasks.add(task)

    def _make_scope(self, url: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        config, _, app_state, _ = self._arguments
        raw_path, _, query = url.partition(b"?")
        path = raw_path.decode("ascii")
        root = config.root_path
        subprotocols = [
            token.strip()
            for name, value in headers
            if name == b"sec-websocket-protocol"
            for token in value.decode("latin-1").split(",")
        ]
        self.scope = {
            "type": "websocket",
            "asgi": {"version": cast(Any, config.asgi_version), "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(self.transport) else "ws",
            "server": get_local_addr(self.transport),
            "client": get_remote_addr(self.transport),
            "root_path": root,
            "path": root + (unquote(path) if "%" in path else path),
            "raw_path": root.encode("ascii") + raw_path,
            "query_string": query,
            "headers": headers,
            "subprotocols": subprotocols,
            "state": app_state.copy(),
            "extensions": {"websocket.http.response": {}},
        }

    def _become_stock(self) -> None:
        """Be uvicorn's class from now on, as if it had read the request itself."""
        if self._is_stock:
            return
        self._is_stock = True
        transport, is_lost = self.transport, self.disconnected
        super().__init__(*self._arguments)
        # Its DEBUG lines show the handshake's headers, cookies and tokens among them.
        self.conn.logger, self.conn.debug = CORE_LOGGER, False
        if is_lost:  # then the socket has no addresses any more
            self.transport = transport
            self.connections.add(self)
        else:
            super().connection_made(transport)
        if self._head:
            self.conn.receive_data(self._head)
            [event] = self.conn.events_received()
            self.request = cast(Any, event)
            self.response = self.conn.accept(self.request)
            self.handshake_initiated = True
            if self._is_claimed:
                self._claim_stock()
            if not self._is_connect_told:
                self.queue.put_nowait({"type": "websocket.connect"})
            if self.response.status_code != 101:
                self._answer_faulty()
        if is_lost:
            super().connection_lost(None)

    def _answer_faulty(self) -> None:
        """Answer a request in which uvicorn's class finds a fault, and end what runs for it."""
        self.handshake_complete = self.close_sent = True
        self.conn.send_response(self.response)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()

    async def run_asgi(self) -> None:
        """Run the application, with the socket on offer in the scope's extensions."""
        cast(dict[str, Any], self.scope["extensions"])[EXTENSION] = {"socket": self}
        await super().run_asgi()

    async def receive(self) -> Any:
        """Give the application its connect event; all others are uvicorn's class's to give."""
        if not self._is_connect_told and not self._is_stock:
            self._is_connect_told = True
            return {"type": "websocket.connect"}
        self._become_stock()
        return await super().receive()

    async def send(self, message: Any) -> None:
        """Take an ASGI event from the application."""
        if not self._is_stock:
            if self._is_claimed and message["type"] == "websocket.accept":
                if self.disconnected:
                    raise ClientDisconnected
                if self._accept(message):
                    return
            self._become_stock()
            if self.close_sent:  # a fault was found in the request, and answered
                raise ClientDisconnected
        if not self.handshake_complete:
            # uvicorn logs the query string from here; the application has its own scope already.
            query = scrub_query(self.scope["query_string"])
            self.scope = cast(Any, {**self.scope, "query_string": query})
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            # uvicorn would log a denial as an application that forgot to answer.
            self.handshake_complete = True
        if self._early and self.handshake_complete and not (self._is_claimed or self.close_sent):
            early, self._early = self._early, b""
            super().data_received(early)

    def send_500_response(self) -> None:
        """Answer for an application that failed or gave no answer."""
        if not self.handshake_complete:
            self._become_stock()
            super().send_500_response()

    # The hub's side

    def claim(self, *, deflate: bool) -> None:
        """Say, before the handshake is accepted, that a hub will take the socket.

        uvicorn's per-connection compression is not offered then: the hub frames by itself, and
        deflates by itself if `deflate` and the client has made an offer that can be met.
        Raises `Refused` for offers that cannot be read.
        """
        self._extensions = negotiate(self._offers()) if deflate else None
        self._is_claimed = True
        if self._is_stock:
            self._claim_stock()

    def _offers(self) -> Headers:
        name = "Sec-WebSocket-Extensions"
        raw = [value for key, value in self.scope["headers"] if key == name.lower().encode()]
        return Headers([(name, value.decode("latin-1")) for value in raw])

    def _claim_stock(self) -> None:
        """Let uvicorn's class answer with our extensions instead of its own."""
        self.conn.extensions = []
        self.response.headers.pop("Sec-WebSocket-Extensions", None)
        if self._extensions is not None:
            self.response.headers["Sec-WebSocket-Extensions"] = self._extensions

    def _accept(self, message: Any) -> bool:
        """Write the answer of RFC 6455 section 4.2.2; False for one that cannot be written so."""
        key = next(value for name, value in self.scope["headers"] if name == b"sec-websocket-key")
        headers = [*self._arguments[1].default_headers, *message.get("headers", ())]
        subprotocol = message.get("subprotocol")
        if subprotocol:
            headers.append((b"Sec-WebSocket-Protocol", subprotocol.encode("latin-1")))
        if self._extensions is not None:
            headers.append((b"Sec-WebSocket-Extensions", self._extensions.encode("ascii")))
        lines = [b"%b: %b" % header for header in headers]
        if any(b"\r" in line or b"\n" in line for line in lines):
            return False
        if _logger.isEnabledFor(logging.INFO):
            query = scrub_query(self.scope["query_string"])
            scope = cast(Any, {**self.scope, "query_string": query})
            address, path = get_client_addr(scope), get_path_with_query_string(scope)
            _logger.info('%s - "WebSocket %s" [accepted]', address, path)
        if not self.transport.is_closing():
            self.handshake_complete = True
            accept = accept_key(key.decode("ascii")).encode("ascii")
            answer = b"\r\n".join((_ACCEPTED + accept, *lines, b"", b""))
            self.transport.write(answer)
        return True

    def detach(self, hub: Registry) -> NativeTransport | None:
        """Hand the socket over, after the handshake was accepted; None if it is gone already.

        To be followed by `read_early` in the same turn, when the client is registered.
        """
        socket = self.transport
        if self.disconnected or not self.handshake_complete or socket.is_closing():
            return None
        if self._is_stock:
            self.stop_keepalive()
        self.connections.discard(self)
        make = NativeTransport if self._extensions is None else DeflatingTransport
        taken = self._taken = make(hub, socket, self.connections)
        self.transport = cast(asyncio.Transport, _TakenSocket())
        socket.set_protocol(taken)
        # uvicorn sets this object as the protocol after its first call of data_received, which
        # comes later than this when the application's task starts eagerly.
        asyncio.get_running_loop().call_soon(socket.set_protocol, taken)
        return taken

    def read_early(self) -> None:
        """Deliver what the client sent before its handshake was answered."""
        if self._taken is not None and self._early:
            early, self._early = self._early, b""
            self._taken.data_received(early)


class _TakenSocket:
    """What uvicorn's class holds after the hub took its socket: nothing to close."""

    def close(self) -> None:
        """Do nothing; the socket has another owner."""

    def is_closing(self) -> bool:
        """Say yes, so that nothing more is written through here."""
        return True
