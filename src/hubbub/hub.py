"""Hub: the registry with its doors: an ASGI endpoint, decorators, a lifespan, framework routes.

What must not live here: books and verbs (`registry`), transports, handlers' calling. Applications
make one of these; servers and frameworks call it.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import re
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    MutableMapping,
    Sequence,
)
from contextlib import asynccontextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any, cast, overload

from .auth import check_expiry, check_origin, is_same_origin, to_identity
from .decorator_types import (
    AnyFunction,
    AuthenticateF,
    AuthenticateLambda,
    ClientF,
    ClientLambda,
    ConnectF,
    ConnectLambda,
    DisconnectF,
    DisconnectLambda,
    DropF,
    DropLambda,
    MessageF,
    MessageLambda,
    TickF,
    TypedLambda,
    ValidateLambda,
)
from .errors import BrokerError, HubNotRunning, MissingExtra, Refused, SocketTaken
from .handlers import check_kind
from .limits import check_head, printable, scrub_query
from .model import Handshake, Identity
from .mount import Mounted, checked_path, state_of
from .raised import refusal_of
from .registry import Registry
from .runtime import NATIVE, NOTHING_KNOWN, PORTABLE, Runtime, broker_name, changed_settings
from .ticker import check_period, is_being_cancelled
from .transport_asgi import PortableTransport

if TYPE_CHECKING:
    from fastapi import APIRouter
    from starlette.routing import BaseRoute

    from .transport import Transport

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

_STATIC_TYPES = {
    "hubbub.js": "text/javascript; charset=utf-8",
    "hubbub.d.ts": "text/plain; charset=utf-8",
}
STATIC_FILES: tuple[str, ...] = tuple(_STATIC_TYPES)
"""Files that the hub serves beside its route."""

_NATIVE = "hubbub"
_ORIGIN = re.compile(r"https?://[^/?#]+")


class Hub(Registry):
    """One object, one route: a hub that an application makes at its module's level.

    Keywords are the fields of `Settings`; `slow_policies` gives rooms a policy of their own, by
    name or by prefix (`{"cursor:*": "latest"}`); `broker` is where publications are ordered and
    spread (None: `MemoryBroker`, this process alone). Raises `SettingsError`.

    The hub is an ASGI application: mount it where sockets should connect. It belongs to the event
    loop in which it starts; `broadcast`, `Room.broadcast`, `User.send`, `Client.send` and
    `Client.close` may be called from any thread.
    """

    # Decorators. Each raises `TypeError` for a function that cannot work, and `ValueError` for a
    # second one where there can be one only.

    @overload
    def on_connect(self, function: ClientF | ClientLambda) -> ClientF: ...
    @overload
    def on_connect(self, function: ConnectF | ConnectLambda) -> ConnectF: ...
    def on_connect(self, function: AnyFunction) -> AnyFunction:
        """Call `f(client)` or `f(client, handshake)` when a client has connected."""
        self.handlers.add_connect(function)
        return function

    def on_message(self, function: MessageF | MessageLambda) -> MessageF:
        """Call `f(client, message)` for each message; its annotation decides what it gets.

        `str` (the default) takes text, `bytes` binary; anything else is JSON, validated: dict,
        dataclass, msgspec Struct, a union of tagged Structs, a pydantic model.
        """
        self.handlers.set_message(function)
        return cast("MessageF", function)

    def on(self, kind: str) -> Callable[[MessageF | TypedLambda], MessageF]:
        """Call `f(client, message)` for JSON objects whose `type` is `kind`."""
        check_kind(kind)

        def register(function: MessageF | TypedLambda) -> MessageF:
            self.handlers.add_typed(kind, function)
            return cast("MessageF", function)

        return register

    @overload
    def on_disconnect(self, function: ClientF | ClientLambda) -> ClientF: ...
    @overload
    def on_disconnect(self, function: DisconnectF | DisconnectLambda) -> DisconnectF: ...
    def on_disconnect(self, function: AnyFunction) -> AnyFunction:
        """Call `f(client)` or `f(client, close)` when a client has gone, however it went."""
        self.handlers.add_disconnect(function)
        return function

    def on_drop(self, function: DropF | DropLambda) -> DropF:
        """Call `f(client, count)` when a slow client has caught up, having missed `count` messages."""
        self.handlers.add_drop(function)
        return cast("DropF", function)

    def authenticate(self, function: AuthenticateF | AuthenticateLambda) -> AuthenticateF:
        """Call `f(handshake)` to learn who asks for a socket.

        It returns an `Identity` or a user's name; None or `Refused` refuses with 401 (or the
        status in `Refused`) before the upgrade. For anonymous clients return `Identity()`.
        """
        self.handlers.set_authenticate(function)
        return cast("AuthenticateF", function)

    def validate(self, function: MessageF | ValidateLambda) -> MessageF:
        """Call `f(client, message)` before the handler; False, ValueError or CommandError refuse."""
        self.handlers.set_validate(function)
        return cast("MessageF", function)

    def every(self, seconds: float, *, while_connected: bool = False) -> Callable[[TickF], TickF]:
        """Call `f()` every so many seconds while the hub runs; see `hubbub.ticker.Ticker`."""
        check_period(seconds)

        def register(function: TickF) -> TickF:
            self.add_ticker(function, seconds, while_connected)
            return function

        return register

    # Life

    _runtime: Runtime | None = None
    """What the hub runs on; None while it does not run."""

    async def start(self) -> None:
        """Bind the hub to the running event loop and start its broker, heartbeat and tickers.

        Starting twice is no error. The first handshake starts a hub that nobody has started, so
        that a route alone is enough; a lifespan is better, because tickers begin with it, and
        nothing can be published before. The log gets a line that says what the hub runs on.
        Raises `HubNotRunning` when the hub already runs in another loop.
        """
        await super().start()
        loop = asyncio.get_running_loop()
        if self._runtime is None or self._runtime.loop is not loop:
            if self._runtime is not None:  # of a loop that ended without a stop
                self._runtime.end()
            self._runtime = Runtime(self.settings, self.broker, loop)
            self._runtime.begin()

    async def stop(self) -> None:
        """Close every client with 1012, paced, within `shutdown_timeout_s`; then stop the rest.

        Stopping twice, or a hub that never ran, is no error. The hub can be started again.
        """
        try:
            await super().stop()
        finally:
            if self._runtime is not None:
                self._runtime.end()
                self._runtime = None

    def shut_down(self) -> asyncio.Task[None]:
        """Begin to close every client; see `Registry.shut_down`. Other workers count this one no more."""
        if self._runtime is not None:
            self._runtime.end()
        return super().shut_down()

    def stats(self) -> dict[str, Any]:
        """Return what this process knows of itself: what it runs on, counters, gauges taken now.

        `transport` is "native" or "portable" (None: not known before the first client), `server` and
        `http` name the server and its HTTP class (None: not known), `loop` the event loop,
        `compiled` the packages whose compiled parts are in use, `broker` where publications go;
        `workers` is how many processes listen where this one does, itself included, as far as that
        can be seen; `settings` are those that differ from the defaults.

        `clients` are connected, `broadcast` publications wait for this turn's flush, `register`
        handshakes are in progress. `rooms` have members, `slow` clients have an outbox that is not
        empty, `handlers` wait for something and have not returned, `loop_lag_s` is how late
        the event loop was when it was last looked at. `slow_handshakes` and `refused_handshakes`
        are the process's, whichever hub they were for. See `hubbub.stats.Stats` for the other
        counters; `uptime_s` is in seconds.
        """
        facts = NOTHING_KNOWN if self._runtime is None else self._runtime.facts()
        return {
            **super().stats(),
            **facts,
            "broker": broker_name(self.broker),
            "settings": changed_settings(self.settings),
        }

    # Doors

    static_names = STATIC_FILES

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[dict[str, Any]]:
        """Run the hub while an application runs; gives `request.state.hub`.

        For `Starlette(lifespan=hub.lifespan)`, or inside a lifespan of the application's own.
        """
        await self.start()
        try:
            yield state_of(self)
        finally:
            await self.stop()

    def router(self, path: str = "/ws", *, dependencies: Sequence[Any] = ()) -> APIRouter:
        """Return a FastAPI router with the hub at `path`, its lifespan and its JavaScript client."""
        try:
            from .route_fastapi import make_router
        except ImportError as error:
            raise MissingExtra(error.name or "fastapi", "fastapi") from error
        return make_router(self, checked_path(path), dependencies)

    def routes(self, path: str = "/ws") -> list[BaseRoute]:
        """Return Starlette routes with the hub at `path`, and its JavaScript client beside it.

        `Starlette(routes=[*hub.routes("/ws"), …], lifespan=hub.lifespan)`.
        """
        try:
            from .route_starlette import make_routes
        except ImportError as error:
            raise MissingExtra(error.name or "starlette", "starlette") from error
        return make_routes(self, checked_path(path))

    def mount(self, app: ASGIApp, path: str = "/ws") -> ASGIApp:
        """Return an ASGI application: the hub at `path` and its lifespan, `app` for all the rest."""
        return Mounted(self, app, path)

    async def attach(self, websocket: Any, *, identity: Identity | None = None) -> None:
        """Take the socket of a Starlette or FastAPI route; the route must not accept it itself.

        With `identity` the authenticate handler is not asked. Under the native transport this
        returns at once, and the socket lives on; otherwise when the connection has ended. From then
        on the hub owns the socket: who uses `websocket` gets `SocketTaken`, and the client
        notices nothing. Raises `RuntimeError` for a socket that was accepted already, `SocketTaken`
        for one that a hub has taken, `TypeError` for an identity that is none.
        """
        if websocket.send is _send_to_taken:
            raise SocketTaken("attach")
        if websocket.client_state.name != "CONNECTING":
            raise RuntimeError("attach() accepts the socket itself; do not call accept() before it")
        if identity is not None:
            identity = to_identity(identity)
        scope, receive, send = websocket.scope, websocket.receive, websocket.send
        transport = await self._take_socket(scope, receive, send, identity)
        if transport is not None:
            websocket.send, websocket.receive = _send_to_taken, _receive_from_taken
        if isinstance(transport, PortableTransport):
            await transport.run()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be an ASGI application."""
        kind = scope["type"]
        if kind == "websocket":
            transport = await self._take_socket(scope, receive, send, None)
            if isinstance(transport, PortableTransport):
                await transport.run()
        elif kind == "http":
            await self.serve_http(scope, receive, send)
        elif kind == "lifespan":
            await self._serve_lifespan(scope, receive, send)
        else:
            raise RuntimeError(f"the hub does not serve ASGI scopes of the type {kind!r}")

    async def _take_socket(
        self, scope: Scope, receive: Receive, send: Send, identity: Identity | None
    ) -> Transport | None:
        """Shake hands, and make a client; return its transport, None for one that did not come in."""
        if (await receive())["type"] != "websocket.connect":
            return None
        socket = scope.get("extensions", {}).get(_NATIVE, {}).get("socket")
        if socket is not None:
            socket.stop_deadline()  # what follows has its own
        try:
            handshake = read_handshake(scope)
            await self._receive_visitor(handshake)
            with self.admission.handshake(handshake.address):
                identity, client_id = await self._admit(handshake, identity)
                await self._accept(scope, send, socket, handshake, identity, client_id)
                if self._runtime is not None:
                    self._runtime.note_transport(PORTABLE if socket is None else NATIVE)
                transport: Transport | None
                if socket is None:
                    transport = PortableTransport(self, receive, send)
                else:
                    transport = socket.detach(self)
                if transport is not None:
                    self.register(transport, client_id, identity, handshake)
        except Refused as refusal:
            self._count_refusal("handshake", refusal, scope)
            await _deny(scope, send, refusal)
            return None
        if socket is not None and transport is not None:
            socket.read_early()
        return transport

    async def _accept(
        self,
        scope: Scope,
        send: Send,
        socket: Any,
        handshake: Handshake,
        identity: Identity,
        client_id: str,
    ) -> None:
        """Answer yes; the id and the place are held while the answer is on its way."""
        self.admission.hold(client_id)
        try:
            if socket is not None:
                socket.claim(deflate=self.settings.compression == "shared")
            # RFC 6455 section 4.2.2: none that the client did not offer; browsers would give up.
            offered = identity.subprotocol in handshake.subprotocols
            chosen = identity.subprotocol if offered else None
            await _send_first(scope, send, {"type": "websocket.accept", "subprotocol": chosen})
        finally:
            self.admission.release(client_id)

    async def _receive_visitor(self, handshake: Handshake) -> None:
        """See that the hub runs and has room, whoever it is that comes."""
        starting = self._starting
        if starting is None or not starting.done() or self._loop is not asyncio.get_running_loop():
            await self._start_for_visitor()
        self.admission.check_visitor(handshake.address, self._watch.recent_lag_s)

    async def _start_for_visitor(self) -> None:
        timeout_s = self.settings.handshake_timeout_s
        timeout = asyncio.timeout(timeout_s)
        try:
            async with timeout:
                await self.start()
        except HubNotRunning as error:
            raise Refused(503, "not_running", str(error)) from error
        except BrokerError as error:
            raise Refused(503, "broker_unavailable", "The broker cannot be reached") from error
        except Exception as error:
            if timeout.expired():
                message = f"The hub took longer than {timeout_s:g} seconds to start"
                raise Refused(503, "handshake_timeout", message) from None
            raise self._as_refusal(error, "the hub could not start") from error

    async def _admit(self, handshake: Handshake, identity: Identity | None) -> tuple[Identity, str]:
        """Learn who comes, and whether they may; return the identity and an id, or raise."""
        check_origin(self.settings.origins, handshake)
        try:
            if identity is None:
                identity = await self._authenticate(handshake)
            check_expiry(identity, time.time())
            client_id = self.admission.choose_id(handshake, identity)
        except Refused:
            raise
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
                raise
            # Nobody cancels this: the error is that of a future which the function has asked.
            raise self._as_refusal(error, "the authenticate handler failed") from error
        self.admission.check_capacity()
        return identity, client_id

    async def _authenticate(self, handshake: Handshake) -> Identity:
        function = self.handlers.authenticate
        if function is None:
            return Identity()
        answer = function(handshake)
        if hasattr(answer, "__await__"):
            timeout_s = self.settings.handshake_timeout_s
            timeout = asyncio.timeout(timeout_s)
            try:
                async with timeout:
                    answer = await answer
            except TimeoutError:
                if not timeout.expired():  # it is the application's own
                    raise
                message = f"Authentication took longer than {timeout_s:g} seconds"
                raise Refused(503, "handshake_timeout", message) from None
        if answer is None or answer is False:
            raise Refused(401)
        return to_identity(answer)

    def _as_refusal(self, error: BaseException, text: str) -> Refused:
        """Return the refusal that an error asks for; 500, and `text` in the log, if for none."""
        refusal = refusal_of(error)
        if refusal is None:
            self.log.log(logging.ERROR, "authenticate", text, error=error)
            return Refused(500)
        return refusal

    async def serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a plain request: the JavaScript client, or what a handshake would be answered.

        A browser cannot see why a handshake failed. The same URL by GET gives the same status and
        JSON body, and 426 where a socket would have been accepted.
        """
        # Litestar ends the paths of what is mounted in it with a slash.
        name = scope["path"].rstrip("/").rpartition("/")[2]
        if scope["method"] not in ("GET", "HEAD"):
            refusal = Refused(405, message="Only GET", headers={"Allow": "GET, HEAD"})
            await _respond(send, scope, refusal.status, _body(refusal), refusal.headers)
            return
        try:
            handshake = read_handshake(scope)
        except Refused as refusal:
            self._count_refusal("GET", refusal, scope)
            await self._answer(scope, send, refusal, None)
            return
        if name in _STATIC_TYPES:
            headers = {"Content-Type": _STATIC_TYPES[name], "Cache-Control": "no-cache"}
            headers |= self._cors(handshake)
            await _respond(send, scope, 200, static_file(name), headers)
        else:
            answer = await self._explanation(handshake, scope)
            await self._answer(scope, send, answer, handshake)

    async def _explanation(self, handshake: Handshake, scope: Scope) -> Refused:
        """Return what a handshake would be refused with, counted like one; 426 for none."""
        try:
            await self._receive_visitor(handshake)
            with self.admission.handshake(handshake.address):
                await self._admit(handshake, None)
        except Refused as refusal:
            self._count_refusal("GET", refusal, scope)
            return refusal
        return Refused(
            426,
            message="This is a WebSocket: connect with ws:// or wss://",
            headers={"Upgrade": "websocket", "Connection": "Upgrade"},
        )

    async def answer_refusal(self, scope: Scope, send: Send, refusal: Refused) -> None:
        """Answer a plain request with a refusal that no cache keeps."""
        await self._answer(scope, send, refusal, _read_if_small(scope))

    async def _answer(
        self, scope: Scope, send: Send, refusal: Refused, handshake: Handshake | None
    ) -> None:
        # A page that may not connect is told so, or it would try for ever; the answer has no secret.
        to_anyone = refusal.code == "origin_refused"
        cors = self._cors(handshake, to_anyone=to_anyone)
        headers = {**_allowed(refusal.headers), "Cache-Control": "no-store", **cors}
        await _respond(send, scope, refusal.status, _body(refusal), headers)

    async def pass_on(self, scope: Scope, send: Send, event: MutableMapping[str, Any]) -> None:
        """Send an event of a refusal that an application made; no cache keeps that either."""
        if event["type"] != "http.response.start":
            await send(event)
            return
        ours = _raw({"Cache-Control": "no-store", **self._cors(_read_if_small(scope))})
        event["headers"] = [*event.get("headers", ()), *ours]
        await _send_first(scope, send, event)

    def _cors(self, handshake: Handshake | None, *, to_anyone: bool = False) -> dict[str, str]:
        """Let a page of an allowed foreign origin read the answer, or of any."""
        if handshake is None:  # its head was too large to be read
            return {}
        origin = handshake.origin
        if origin is None or is_same_origin(origin, handshake.host):
            return {}
        try:
            check_origin(self.settings.origins, handshake)
        except Refused:
            if not to_anyone:
                return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": "Retry-After",
            "Vary": "Origin",
        }

    def _count_refusal(self, what: str, refusal: Refused, scope: Scope) -> None:
        self.counters.refuse(refusal.code, is_get=what == "GET")
        who = printable(_address(scope) or "an unknown address")
        why = printable(refusal.code)
        if "origin" in refusal.details:  # what belongs into the setting, if it is a friend's
            why += f" ({printable(str(refusal.details['origin']))})"
        text = f"a {what} from %s was refused: %d %s"
        self.log.log(logging.INFO, "refused", text, who, refusal.status, why)

    async def _serve_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        if "state" in scope:
            scope["state"].update(state_of(self))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})


def read_handshake(scope: Mapping[str, Any]) -> Handshake:
    """Return the handshake in an ASGI scope. Repeated headers are joined with a comma.

    Raises `Refused(431)` for a head over `MAX_HEAD_BYTES` or `MAX_HEADERS`.
    """
    query: bytes = scope.get("query_string", b"")
    check_head(len(scope.get("raw_path") or scope["path"]) + len(query), scope["headers"])
    values: dict[str, list[str]] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        values.setdefault(name, []).append(raw_value.decode("latin-1"))
    headers = {
        name: ("; " if name == "cookie" else ", ").join(found) for name, found in values.items()
    }
    if scope.get("type") == "http":
        _name_the_page(headers)
    return Handshake(
        path=scope["path"],
        headers=headers,
        query_string=query.decode("latin-1"),
        subprotocols=tuple(scope.get("subprotocols", ())),
        address=_address(scope),
        scheme=scope.get("scheme", "ws"),
        scope=scope,
    )


def _read_if_small(scope: Mapping[str, Any]) -> Handshake | None:
    try:
        return read_handshake(scope)
    except Refused:
        return None


def _name_the_page(headers: dict[str, str]) -> None:
    """Give a GET of a page the Origin header that the page's handshake has.

    A browser sends it with every handshake, and with a GET to other origins only. Behind a proxy
    that rewrites Host the two would be answered differently. hubbub.js has the page's origin sent as
    the Referer. What a person follows is no page's question.
    """
    page = _ORIGIN.match(headers.get("referer", ""))
    if page and headers.get("sec-fetch-mode") != "navigate":
        headers.setdefault("origin", page[0])


def _address(scope: Mapping[str, Any]) -> str | None:
    peer = scope.get("client")
    return None if not peer else str(peer[0])


async def _send_to_taken(event: MutableMapping[str, Any]) -> None:
    """Be `send` of a Starlette socket that a hub has taken."""
    raise SocketTaken(str(event["type"]))


async def _receive_from_taken() -> MutableMapping[str, Any]:
    """Be `receive` of a Starlette socket that a hub has taken."""
    raise SocketTaken("receive")


@functools.cache
def static_file(name: str) -> bytes:
    """Return a file of the JavaScript client."""
    return resources.files("hubbub").joinpath("static", name).read_bytes()


def _body(refusal: Refused) -> bytes:
    return json.dumps(refusal.body()).encode()


def _allowed(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a refusal without those that say how long the body is: it is ours."""
    framing = ("content-length", "transfer-encoding")
    return {name: value for name, value in headers.items() if name.lower() not in framing}


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [
        (key.lower().encode("latin-1"), value.encode("latin-1")) for key, value in headers.items()
    ]


async def _deny(scope: Scope, send: Send, refusal: Refused) -> None:
    """Refuse with status and body where the server can (ASGI's denial response), else with 403."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        close = {"type": "websocket.close", "code": 1008, "reason": refusal.code}
        await _send_first(scope, send, close)
        return
    body = _body(refusal)
    headers = {"Content-Type": "application/json", **_allowed(refusal.headers)}
    raw = [*_raw(headers), (b"content-length", str(len(body)).encode())]
    start = {"type": "websocket.http.response.start", "status": refusal.status, "headers": raw}
    await _send_first(scope, send, start)
    await send({"type": "websocket.http.response.body", "body": body})


async def _respond(
    send: Send, scope: Scope, status: int, body: bytes, headers: Mapping[str, str]
) -> None:
    every = {"Content-Type": "application/json", **headers, "Content-Length": str(len(body))}
    start = {"type": "http.response.start", "status": status, "headers": _raw(every)}
    await _send_first(scope, send, start)
    is_head = scope["method"] == "HEAD"
    await send({"type": "http.response.body", "body": b"" if is_head else body})


async def _send_first(scope: Scope, send: Send, event: MutableMapping[str, Any]) -> None:
    """Send the event that begins an answer.

    uvicorn writes its access line then, with the query string as it finds it in the scope: no token
    may stand in it.
    """
    query: bytes = scope.get("query_string", b"")
    scope["query_string"] = scrub_query(query)
    try:
        await send(event)
    finally:
        scope["query_string"] = query
