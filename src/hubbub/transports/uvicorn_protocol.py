"""The native protocol class: uvicorn's WebSocket class with a door, through which a hub takes the socket.

What must not live here: what becomes of the socket then (`uvicorn`), reading heads (`uvicorn_head`). uvicorn
makes a `UvicornWebSocketProtocol` for each upgrade (its `ws=` setting, `--ws hubbub:Protocol`); the hub's endpoint
finds it in the ASGI scope.

A handshake that a hub accepts needs little: the head of the request, the scope, the key's answer.
So that is done here first, and uvicorn's class comes to be only when it is needed: when the
application answers by itself (a denial, a WebSocket route of its own), waits for more than the
connect event, or when there is anything unusual about the request.

One owner at a time has the socket, and the state says who: this class, until the handshake is
answered; uvicorn's class; a hub; or nobody, after a refusal of our own. This class alone reads the
head, whoever answers it, so that one set of limits holds, and it keeps the deadline of a handshake
that nobody answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

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
from websockets.http11 import Request
from websockets.utils import accept_key

from ..errors import Refused, SocketTaken
from ..limits import printable, scrub_query
from ..logs import RateLimitedLogger, level_of
from ..stats import process_stats
from ..wire.reader import CORE_LOGGER
from .deflate import negotiate
from .transport import EXTENSION
from .uvicorn import DeflatingTransport, NativeTransport
from .uvicorn_head import Head, is_ordinary, read_head
from .uvicorn_http import answer_of, environment, head_timeout_s
from .uvicorn_turns import begin_soon

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

MAX_EARLY_BYTES = 64 * 1024
"""How much a client may send before its handshake is answered; it should send nothing."""

_logger = logging.getLogger("uvicorn.error")
_log = RateLimitedLogger(time.monotonic)

_OURS, _UVICORN, _HUB, _OVER = range(4)
# Who owns the socket. _OURS: this class, the handshake has no answer yet; _UVICORN: uvicorn's class;
# _HUB: a hub's transport; _OVER: it was refused here, and is on its way out.

_ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: "
)
_SHORTEST_HEAD = b"GET / HTTP/1.1\r\n\r\n"
"""What the core of `websockets` is given to read: its own limits are not ours."""


class UvicornWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, with a door through which a hub takes the socket over.

    Give it to uvicorn: `uvicorn app:app --ws hubbub:Protocol`. Sockets of routes that are not a
    hub's behave as under uvicorn's own class, except that an application has to answer a handshake
    within `handshake_timeout_s` of the environment, and that heads are bounded as for a hub's.
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
        self.config = config
        self.app = config.loaded_app
        self.connections = server_state.connections
        self.tasks = server_state.tasks
        self._owner = _OURS
        self._head: Head | None = None
        self._has_come = False
        self._request = b""
        self._buffered = b""
        self._is_claimed = False
        self._has_connected = False
        self._extensions: str | None = None
        self._shutdown_timeout_s: float | None = None
        self._report: Callable[[BaseException], None]
        self._taken: NativeTransport | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport from uvicorn's HTTP class."""
        self.transport = cast(asyncio.Transport, transport)
        self.connections.add(self)
        self._get_loop().call_soon(_let_go, self.transport.get_protocol())

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket; what comes during the handshake is kept until its end."""
        if self._taken is not None:
            self._taken.data_received(data)
        elif self._owner == _OVER:
            pass  # nobody reads what a refused client still sends
        elif not self._has_come:
            self._has_come, self._request = True, data
            self._timer = self._get_loop().call_later(head_timeout_s(), self._give_up)
            begin_soon(self._begin)
        elif not self.handshake_complete:
            self._buffered += data
            if len(self._buffered) > MAX_EARLY_BYTES:
                self.transport.abort()
        else:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone before anybody took it."""
        self._stop_timer()
        if self._owner == _UVICORN:
            super().connection_lost(exc)
        else:
            self.connections.discard(self)
            self.handshake_complete = self.disconnected = True

    def pause_writing(self) -> None:
        """The socket's buffer is full; before the handshake's answer it is empty."""
        if self._owner == _UVICORN:
            super().pause_writing()

    def resume_writing(self) -> None:
        """The socket's buffer has drained."""
        if self._owner == _UVICORN:
            super().resume_writing()

    def shutdown(self) -> None:
        """The server shuts down: while the handshake goes on, or the application's call does."""
        if self._request:  # it waits for its turn
            self._request = b""
            process_stats.refused_handshakes += 1
            self._refuse(Refused(503, "shutting_down", "The server shuts down"))
        if self._owner == _OURS and self._head is not None:
            self._fall_back()
        is_accepted = self._owner == _UVICORN and self.handshake_complete and not self.close_sent
        if not is_accepted:
            self._end_call_later()
        if self._owner == _UVICORN:
            super().shutdown()
        if not is_accepted and self._owner != _HUB:
            self.transport.close()
            self._abort_later()

    # The handshake

    def _begin(self) -> None:
        """Read the head and call the application, unless that was done, or nobody waits for it."""
        request, self._request = self._request, b""
        if not request or self.disconnected or self._owner != _OURS:
            return
        try:
            self._call(request)
        except BaseException:
            self._owner = _OVER
            self._stop_timer()
            self.connections.discard(self)
            self.transport.abort()
            raise

    def _call(self, request: bytes) -> None:
        try:
            head = self._head = read_head(request)
        except Refused as refusal:
            process_stats.refused_handshakes += 1
            self._refuse(refusal)
            return
        self._make_scope(*head)
        self.handshake_initiated = True
        if not is_ordinary(head):
            self._fall_back()
            if self._owner == _OVER:
                return
        task = self._task = self._get_loop().create_task(self.run_asgi())
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

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """The application's call is over."""
        super().on_task_complete(task)
        self._task = None
        if self._owner == _HUB:
            self.connections.discard(self)

    @property
    def is_open(self) -> bool:
        """See `transport.HandshakeSocket`."""
        return self._owner in (_OURS, _UVICORN) and not self.disconnected

    def stop_deadline(self, shutdown_timeout_s: float) -> None:
        """Let the handshake take its time: a hub sees to its end, and has so long at a shutdown."""
        self._shutdown_timeout_s = shutdown_timeout_s
        if self._owner != _OVER:
            self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        """Refuse a handshake that the application has not answered in time."""
        self._timer = None
        process_stats.slow_handshakes += 1
        message = f"The handshake was not answered within {head_timeout_s():g} seconds"
        self._refuse(Refused(503, "handshake_timeout", message))

    def _refuse(self, refusal: Refused) -> None:
        """Answer a request that no application is to answer."""
        self._end_with(answer_of(refusal, self._arguments[1].default_headers))
        self._log_refusal(refusal.status, refusal.code)

    def _log_refusal(self, status: int, code: str) -> None:
        peer = get_remote_addr(self.transport) if self._head is None else self.scope["client"]
        who = printable(peer[0]) if peer else "an unknown address"
        text = "a handshake from %s was refused: %d %s"
        _log.log(*level_of(code), text, who, status, code)

    def _end_with(self, answer: bytes) -> None:
        """Write an answer of our own, and let go of the socket."""
        if self._owner == _UVICORN:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
        self._owner = _OVER
        self.handshake_complete = self.close_sent = True
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()
            self._abort_later()

    def _abort_later(self) -> None:
        """See that a socket that is being closed is soon gone, whether or not its peer reads."""
        self._stop_timer()
        if not self.disconnected:
            self._timer = self._get_loop().call_later(head_timeout_s(), self.transport.abort)

    def _end_call_later(self) -> None:
        """Cancel the application's call if it is not over in time: a shutdown waits for it."""
        if self._task is not None:
            timeout_s = self._shutdown_timeout_s
            if timeout_s is None:  # no hub has spoken
                timeout_s = environment().shutdown_timeout_s
            self._get_loop().call_later(timeout_s, self._task.cancel)

    def _get_loop(self) -> asyncio.AbstractEventLoop:
        return self._arguments[3] or asyncio.get_running_loop()

    def _fall_back(self) -> None:
        """Be uvicorn's class from now on, as if it had read the request itself."""
        assert self._owner == _OURS
        assert self._head is not None
        self._owner = _UVICORN
        transport, is_lost = self.transport, self.disconnected
        super().__init__(*self._arguments)
        # Its DEBUG lines show the handshake's headers, cookies and tokens among them.
        self.conn.logger, self.conn.debug = CORE_LOGGER, False
        if is_lost:  # then the socket has no addresses any more
            self.transport = transport
            self.connections.add(self)
        else:
            super().connection_made(transport)
        self._let_core_judge(self._head)
        if is_lost:
            super().connection_lost(None)

    def _let_core_judge(self, head: Head) -> None:
        """Have the core rule on the request; answer one in which it finds a fault."""
        self.conn.receive_data(_SHORTEST_HEAD)
        self.conn.events_received()
        headers = [(name.decode("ascii"), value.decode("latin-1")) for name, value in head.headers]
        self.request = Request(head.url.decode("ascii"), Headers(headers))
        self.response = self.conn.accept(self.request)
        self.handshake_initiated = True
        if self._is_claimed:
            self._claim_fallback()
        if not self._has_connected:
            self.queue.put_nowait({"type": "websocket.connect"})
        if self.response.status_code != 101:
            process_stats.refused_handshakes += 1
            self.conn.send_response(self.response)
            self._end_with(b"".join(self.conn.data_to_send()))
            self._log_refusal(self.response.status_code, "bad_handshake")

    async def run_asgi(self) -> None:
        """Run the application, with the socket on offer in the scope's extensions."""
        cast(dict[str, Any], self.scope["extensions"])[EXTENSION] = {"socket": self}
        self.app = self._run_app
        try:
            await super().run_asgi()
        finally:
            self.app = self._arguments[0].loaded_app

    async def _run_app(self, scope: Any, receive: Any, send: Any) -> None:
        """Call the application; what it raises when a hub has its socket is no answer to anybody."""
        try:
            await self._arguments[0].loaded_app(scope, receive, send)
        except (Exception, asyncio.CancelledError) as error:
            if self._owner != _HUB:
                raise
            self._report(error)

    async def receive(self) -> Any:
        """Give the application its connect event; all others are uvicorn's class's to give."""
        if self._owner == _HUB:
            raise SocketTaken("receive")
        if not self._has_connected and self._owner != _UVICORN:
            self._has_connected = True
            return {"type": "websocket.connect"}
        if self._owner == _OURS:
            self._fall_back()
        if self._owner == _OVER:
            return {"type": "websocket.disconnect", "code": 1006}
        return await super().receive()

    async def send(self, message: Any) -> None:
        """Take an ASGI event from the application."""
        if self._owner == _HUB:
            raise SocketTaken(str(message["type"]))
        if self._owner == _OURS:
            if self._is_claimed and message["type"] == "websocket.accept" and self._accept(message):
                return
            self._fall_back()
        if self._owner == _OVER:  # refused here, or a fault was found in the request and answered
            raise ClientDisconnected
        if self.handshake_complete:
            await super().send(message)
        else:
            await self._send_answer(message)

    async def _send_answer(self, message: Any) -> None:
        """Let uvicorn's class answer the handshake, wholly or in part."""
        # It logs the query string from here; the application has its own scope already.
        query = scrub_query(self.scope["query_string"])
        self.scope = cast(Any, {**self.scope, "query_string": query})
        await super().send(message)
        if self.close_sent:
            # uvicorn would log a denial as an application that forgot to answer.
            self.handshake_complete = True
            self._abort_later()
        elif self.handshake_complete:
            self._stop_timer()
            if self._buffered and not self._is_claimed:
                buffered, self._buffered = self._buffered, b""
                super().data_received(buffered)

    def send_500_response(self) -> None:
        """Answer for an application that failed or gave no answer."""
        if self._owner == _OURS and not self.handshake_complete:
            self._fall_back()
        if self._owner == _UVICORN and not self.handshake_complete:
            super().send_500_response()
            self._abort_later()

    # The hub's side

    def claim(self, *, deflate: bool) -> None:
        """Say, before the handshake is accepted, that a hub will take the socket.

        uvicorn's per-connection compression is not offered then: the hub frames by itself, and
        deflates by itself if `deflate` and the client has made an offer that can be met.
        Raises `Refused` for offers that cannot be read.
        """
        self._extensions = negotiate(self._offers()) if deflate else None
        self._is_claimed = True
        if self._owner == _UVICORN:
            self._claim_fallback()

    def _offers(self) -> Headers:
        name = "Sec-WebSocket-Extensions"
        raw = [value for key, value in self.scope["headers"] if key == name.lower().encode()]
        return Headers([(name, value.decode("latin-1")) for value in raw])

    def _claim_fallback(self) -> None:
        """Let uvicorn's class answer with our extensions instead of its own."""
        self.conn.extensions = []
        self.response.headers.pop("Sec-WebSocket-Extensions", None)
        if self._extensions is not None:
            self.response.headers["Sec-WebSocket-Extensions"] = self._extensions

    def _accept(self, message: Any) -> bool:
        """Write the answer of RFC 6455 section 4.2.2; False for one that cannot be written so."""
        if self.disconnected or self.transport.is_closing():
            raise ClientDisconnected
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
        self._stop_timer()
        self.handshake_complete = True
        accept = accept_key(key.decode("ascii")).encode("ascii")
        self.transport.write(b"\r\n".join((_ACCEPTED + accept, *lines, b"", b"")))
        return True

    def detach(self, report: Callable[[BaseException], None]) -> NativeTransport | None:
        """Hand the socket over, after the handshake was accepted; None if it is gone already.

        To be followed by `read_buffered` in the same turn, when the session is open.
        """
        socket = self.transport
        if self.disconnected or not self.handshake_complete or socket.is_closing():
            return None
        if self._owner == _UVICORN:
            self.stop_keepalive()
        if self._task is None or self._task.done():
            self.connections.discard(self)
        self._owner, self._report = _HUB, report
        # The scope is nobody's way to the socket any more, and is no circle that only the garbage
        # collector can break.
        cast(dict[str, Any], self.scope["extensions"]).pop(EXTENSION, None)
        make = NativeTransport if self._extensions is None else DeflatingTransport
        taken = self._taken = make(socket, self.connections)
        self.transport = cast(asyncio.Transport, _DetachedTransport())
        socket.set_protocol(taken)
        # uvicorn sets this object as the protocol after its first call of data_received, which
        # comes later than this when the application's task starts eagerly.
        asyncio.get_running_loop().call_soon(socket.set_protocol, taken)
        return taken

    def read_buffered(self) -> None:
        """Deliver what the client sent before its handshake was answered."""
        if self._taken is not None and self._buffered:
            buffered, self._buffered = self._buffered, b""
            self._taken.data_received(buffered)


def _let_go(http: asyncio.BaseProtocol | None) -> None:
    """Part uvicorn's HTTP class, which has no socket any more, from its parser.

    The parser holds methods of the object that has it: a circle of some twenty objects for each client,
    which only the garbage collector would break, after a cut those of all clients in one run.
    """
    getattr(http, "__dict__", {}).pop("parser", None)


class _DetachedTransport:
    """What uvicorn's class holds after the hub took its socket: nothing to close."""

    def close(self) -> None:
        """Do nothing; the socket has another owner."""

    def is_closing(self) -> bool:
        """Say yes, so that nothing more is written through here."""
        return True
