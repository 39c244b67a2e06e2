"""Endpoint: the hub as an ASGI application: handshakes, refusals, the lifespan, its files.

What must not live here: the tables and verbs (`hub`), sockets (the transports), how a scope is read
(`handshake`) and an answer written (`responses`). `Hub` makes one when a server or a framework first
calls it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from ..dialects.dialect import Dialect
from ..dialects.plain import PLAIN
from ..errors import BrokerError, HubNotRunning, Refused, SocketTaken
from ..hub.admission import Place
from ..hub.auth import check_expiry, check_origin, is_same_origin, to_identity
from ..hub.core import Core, core_of
from ..hub.runtime import NATIVE, PORTABLE
from ..limits import printable
from ..logs import level_of
from ..model import Handshake, Identity
from ..transports.asgi import ASGITransport, Receive, Scope, Send
from ..transports.transport import EXTENSION
from .handshake import address_of, read_handshake, read_if_small
from .responses import (
    STATIC_TYPES,
    body_of,
    deny,
    raw,
    respond,
    send_first,
    static_file,
    without_framing,
)

if TYPE_CHECKING:
    from ..hub.hub import Hub
    from ..transports.transport import HandshakeSocket, Transport


class Endpoint:
    """One hub's ASGI application; its clients speak `dialect`."""

    def __init__(self, hub: Hub, dialect: Dialect = PLAIN) -> None:
        self._hub = hub
        self._dialect = dialect
        self._core: Core = core_of(hub)

    async def attach(self, websocket: Any, *, identity: Identity | None = None) -> None:
        """See `Hub.attach`."""
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
        if isinstance(transport, ASGITransport):
            await transport.run()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be an ASGI application."""
        kind = scope["type"]
        if kind == "websocket":
            transport = await self._take_socket(scope, receive, send, None)
            if isinstance(transport, ASGITransport):
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
        core = self._core
        socket: HandshakeSocket | None = (
            scope.get("extensions", {}).get(EXTENSION, {}).get("socket")
        )
        if socket is not None:
            socket.stop_deadline(core.settings.shutdown_timeout_s)  # what follows has its own
        transport: Transport | None
        try:
            handshake = read_handshake(scope)
            if not await self._comes_in_turn(socket):
                return None
            with self._reserve(handshake) as place:
                is_plain = self._dialect.is_plain
                who = None
                if is_plain:
                    who = await self._admit(place, handshake, identity)
                else:
                    check_origin(core.settings.origins, handshake)
                    place.hold_any()  # after the answer it is too late to refuse
                await self._accept(scope, send, socket, self._subprotocol(handshake, who))
                if core.lifecycle.runtime is not None:
                    core.lifecycle.runtime.note_transport(PORTABLE if socket is None else NATIVE)
                transport = (
                    ASGITransport(receive, send) if socket is None else socket.detach(self._report)
                )
                if transport is not None and who is not None:
                    session = core.registry.open(transport)
                    core.registry.connect(session, place, who[0], handshake, who[1])
                elif transport is not None:
                    core.registry.open_unidentified(transport, self._dialect, place, handshake)
        except Refused as refusal:
            self._count_refusal("handshake", refusal, scope)
            await deny(scope, send, refusal)
            return None
        if socket is not None and transport is not None:
            socket.read_buffered()
        return transport

    def _report(self, error: BaseException) -> None:
        """Log what an application raised after the hub had taken its socket."""
        text = "the application failed after the hub had taken its socket; the client stays"
        self._core.log.log(logging.ERROR, "taken", text, error=error)

    async def _accept(
        self, scope: Scope, send: Send, socket: HandshakeSocket | None, subprotocol: str | None
    ) -> None:
        """Answer yes."""
        if socket is not None:
            socket.claim(deflate=self._core.settings.compression == "shared")
        await send_first(scope, send, {"type": "websocket.accept", "subprotocol": subprotocol})

    def _subprotocol(self, handshake: Handshake, who: tuple[Identity, str] | None) -> str | None:
        """Choose the subprotocol: the identity's wish, else the dialect's best that was offered."""
        if not handshake.subprotocols:
            return None
        # RFC 6455 section 4.2.2: none that the client did not offer; browsers would give up.
        wished = self._dialect.subprotocols if who is None else (who[0].subprotocol,)
        return next((name for name in wished if name in handshake.subprotocols), None)

    async def check_open(self) -> None:
        """See that the hub runs in this event loop; start it if nobody has. Raises `Refused(503)`, or what
        the application's own start asks for."""
        if not self._core.lifecycle.is_ready():
            await self._start_hub()

    async def _comes_in_turn(self, socket: HandshakeSocket | None) -> bool:
        """Wait for a turn of the event loop with a place for one more handshake; False: it has gone."""
        core = self._core
        await self.check_open()
        if core.turns.take_now():
            return True
        timeout_s = core.settings.handshake_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await core.turns.wait()
        except TimeoutError:
            message = f"The handshake had no turn within {timeout_s:g} seconds"
            raise Refused(503, "handshake_timeout", message) from None
        if socket is not None and not socket.is_open:
            return False
        await self.check_open()  # it may have stopped meanwhile
        return True

    def _reserve(self, handshake: Handshake) -> Place:
        """Take a place for a handshake, whoever it is that comes; raise `Refused(503)` for none."""
        core = self._core
        return core.admission.reserve(handshake.address, core.liveness.recent_lag_s)

    async def _start_hub(self) -> None:
        timeout_s = self._core.settings.handshake_timeout_s
        timeout = asyncio.timeout(timeout_s)
        try:
            async with timeout:
                await self._core.lifecycle.start_for_request()
        except HubNotRunning as error:
            raise Refused(503, "not_running", str(error)) from error
        except BrokerError as error:
            raise Refused(503, "broker_unavailable", "The broker cannot be reached") from error
        except Exception as error:
            if timeout.expired():
                message = f"The hub took longer than {timeout_s:g} seconds to start"
                raise Refused(503, "handshake_timeout", message) from None
            raise self._core.access.as_refusal(error, "the hub could not start") from error

    async def _admit(
        self, place: Place, handshake: Handshake, identity: Identity | None
    ) -> tuple[Identity, str]:
        """Learn who comes, and whether they may; return the identity and an id, or raise."""
        check_origin(self._core.settings.origins, handshake)
        if identity is None:
            identity = await self._core.access.identify(handshake)
        else:
            check_expiry(identity, time.time())
        return identity, place.hold_id(handshake, identity)

    async def serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a plain request: the JavaScript client, or what a handshake would be answered.

        A browser cannot see why a handshake failed. The same URL by GET gives the same status and
        JSON body, and 426 where a socket would have been accepted.
        """
        # Litestar ends the paths of what is mounted in it with a slash.
        name = scope["path"].rstrip("/").rpartition("/")[2]
        if scope["method"] not in ("GET", "HEAD"):
            refusal = Refused(405, message="Only GET", headers={"Allow": "GET, HEAD"})
            await respond(send, scope, refusal.status, body_of(refusal), refusal.headers)
            return
        try:
            handshake = read_handshake(scope)
        except Refused as refusal:
            self._count_refusal("GET", refusal, scope)
            await self._answer(scope, send, refusal, None)
            return
        if name in STATIC_TYPES:
            headers = {"Content-Type": STATIC_TYPES[name], "Cache-Control": "no-cache"}
            headers |= self._cors(handshake)
            await respond(send, scope, 200, static_file(name), headers)
        else:
            answer = await self._probe(handshake, scope)
            await self._answer(scope, send, answer, handshake)

    async def _probe(self, handshake: Handshake, scope: Scope) -> Refused:
        """Return what a handshake would be refused with, counted like one; 426 for none."""
        try:
            await self.check_open()
            with self._reserve(handshake) as place:
                if self._dialect.is_plain:
                    await self._admit(place, handshake, None)
                else:
                    check_origin(self._core.settings.origins, handshake)
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
        await self._answer(scope, send, refusal, read_if_small(scope))

    async def _answer(
        self, scope: Scope, send: Send, refusal: Refused, handshake: Handshake | None
    ) -> None:
        # A page that may not connect is told so, or it would try for ever; the answer has no secret.
        to_anyone = refusal.code == "origin_refused"
        cors = self._cors(handshake, to_anyone=to_anyone)
        headers = {**without_framing(refusal.headers), "Cache-Control": "no-store", **cors}
        await respond(send, scope, refusal.status, body_of(refusal), headers)

    async def relay_refusal(
        self, scope: Scope, send: Send, event: MutableMapping[str, Any]
    ) -> None:
        """Send an event of a refusal that an application made; no cache keeps that either."""
        if event["type"] != "http.response.start":
            await send(event)
            return
        ours = raw({"Cache-Control": "no-store", **self._cors(read_if_small(scope))})
        event["headers"] = [*event.get("headers", ()), *ours]
        await send_first(scope, send, event)

    def _cors(self, handshake: Handshake | None, *, to_anyone: bool = False) -> dict[str, str]:
        """Let a page of an allowed foreign origin read the answer, or of any."""
        if handshake is None:  # its head was too large to be read
            return {}
        origin = handshake.origin
        if origin is None or is_same_origin(origin, handshake.host):
            return {}
        try:
            check_origin(self._core.settings.origins, handshake)
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
        self._core.stats.refuse(refusal.code, is_get=what == "GET")
        who = printable(address_of(scope) or "an unknown address")
        why = printable(refusal.code)
        if "origin" in refusal.details:  # what belongs into the setting, if it is a friend's
            why += f" ({printable(str(refusal.details['origin']))})"
        text = f"a {what} from %s was refused: %d %s"
        self._core.log.log(*level_of(refusal.code), text, who, refusal.status, why)

    async def _serve_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._core.lifecycle.start()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        if "state" in scope:
            scope["state"].update(state_of(self._hub))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._core.lifecycle.stop()
        await send({"type": "lifespan.shutdown.complete"})


_OWN_NAME = "hubbub "


def state_of(hub: Hub) -> dict[str, Any]:
    """Return what a hub puts into the state of the requests of its application.

    `hub` is what an application asks for. The other name is this hub's alone: where two hubs share
    an application only one of them can be `hub`, and frameworks do not say which.
    """
    return {"hub": hub, f"{_OWN_NAME}{id(hub):x}": hub}


def hubs_of(state: Mapping[str, Any]) -> list[Hub]:
    """Return all hubs that have put themselves into the state of a request."""
    return [hub for name, hub in state.items() if name.startswith(_OWN_NAME)]


def checked_path(path: object) -> str:
    """Return a path for a hub's socket; raise `ValueError` for what is none."""
    if not isinstance(path, str) or not path.startswith("/"):
        raise ValueError(f'a path begins with a slash, as in "/ws", not {path!r:.80}')
    return path


def path_of(scope: Scope) -> str:
    """Return the path of a request as the application sees it: without the root that the server or a proxy has."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if f"{path}/".startswith(f"{root}/") else path


async def _send_to_taken(event: MutableMapping[str, Any]) -> None:
    """Be `send` of a Starlette socket that a hub has taken."""
    raise SocketTaken(str(event["type"]))


async def _receive_from_taken() -> MutableMapping[str, Any]:
    """Be `receive` of a Starlette socket that a hub has taken."""
    raise SocketTaken("receive")
