"""Hub: what an application holds in its hand: decorators, verbs, and doors to servers and frameworks.

What must not live here: anything that does the work. A hub is a front for the parts in `core`.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Unpack, cast, overload

from ..brokers.broker import Broker, History, as_broker
from ..brokers.schemes import broker_at
from ..dialects.dialect import Dialect
from ..dialects.names import dialect_of
from ..errors import DISCONNECTED, BrokerError, MissingExtra, check_close
from ..limits import check_room_name, checked_user
from ..model import (
    EVERYBODY,
    USER_PREFIX,
    ClientInfo,
    Identity,
    Position,
    PresenceStats,
    Receipt,
    check_position,
)
from ..room_rules import RoomRules, SlowPolicy
from ..settings import Settings, as_settings
from ..settings_keywords import HubKeywords
from .client import Client, session_of
from .control import NodeInfo
from .core import Core
from .decorator_types import (
    AnyFunction,
    AuthenticateF,
    AuthenticateLambda,
    AuthorizeF,
    AuthorizeLambda,
    ClientF,
    ClientLambda,
    ConnectF,
    ConnectLambda,
    DisconnectF,
    DisconnectLambda,
    DropF,
    DropLambda,
    InfoF,
    InfoLambda,
    MessageF,
    MessageLambda,
    PresenceF,
    PresenceLambda,
    RpcF,
    TickF,
    TypedLambda,
    ValidateLambda,
)
from .handlers import check_kind, takes, takes_function
from .room import Room, User
from .rules import takes_rules
from .tasks import check_period

if TYPE_CHECKING:
    from fastapi import APIRouter
    from prometheus_client import CollectorRegistry
    from starlette.routing import BaseRoute

    from ..asgi.api_keys import ApiKey
    from ..asgi.endpoint import Endpoint
    from ..tokens.verifier import TokenVerifier
    from ..transports.asgi import ASGIApp, Receive, Scope, Send


class Hub:
    """One object, one route: a hub that an application makes at its module's level.

    Keywords are the fields of `Settings`; `slow_policies` gives rooms a policy of their own, by
    name or by prefix (`{"cursor:*": "latest"}`); `broker` is where publications are ordered and
    spread: the setting of that name, as a URL, or an object. Raises `SettingsError`.

    The hub is an ASGI application: mount it where sockets should connect. It belongs to the event
    loop in which it starts; `broadcast`, `Room.broadcast`, `User.send`, `Client.send` and
    `Client.close` may be called from any thread. `len(hub)` counts the clients of this process,
    and a loop over the hub gives them.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        broker: Broker | str | None = None,
        slow_policies: Mapping[str, SlowPolicy] | None = None,
        **keywords: Unpack[HubKeywords],
    ) -> None:
        if settings is not None and (keywords or isinstance(broker, str)):
            raise TypeError("pass a Settings object or keywords, not both")
        if settings is not None:
            chosen = as_settings(settings)
        elif isinstance(broker, str):
            chosen = Settings.load(broker=broker, **keywords)
        else:
            chosen = Settings.load(**keywords)
        if broker is None or isinstance(broker, str):
            made = broker_at(chosen.broker, chosen.source("broker"), chosen.broker_prefix)
        else:
            made = as_broker(broker)
        self._core = Core(chosen, made, slow_policies or {})
        self._asgi: Endpoint | None = None
        _hubs.add(self)

    # Decorators. Each raises `TypeError` for a function that cannot work, and `ValueError` for a
    # second one where there can be one only.

    @overload
    def on_connect(self, function: ClientF | ClientLambda) -> ClientF: ...
    @overload
    def on_connect(self, function: ConnectF | ConnectLambda) -> ConnectF: ...
    @takes_function
    def on_connect(self, function: AnyFunction) -> AnyFunction:
        """Call `f(client)` or `f(client, handshake)` when a client has connected."""
        self._core.handlers.add_connect(function)
        return function

    @takes_function
    def on_message(self, function: MessageF | MessageLambda) -> MessageF:
        """Call `f(client, message)` for each message; its annotation decides what it gets.

        `str` (the default) takes text, `bytes` binary; anything else is JSON, validated: dict,
        dataclass, msgspec Struct, a union of tagged Structs, a pydantic model.
        """
        self._core.handlers.set_message(function)
        return cast("MessageF", function)

    @takes("kind", '@hub.on("say") for messages like {"type": "say"}')
    def on(self, kind: str) -> Callable[[MessageF | TypedLambda], MessageF]:
        """Call `f(client, message)` for JSON objects whose `type` is `kind`."""
        check_kind(kind)

        def register(function: MessageF | TypedLambda) -> MessageF:
            self._core.handlers.add_typed(kind, function)
            return cast("MessageF", function)

        return register

    @takes("method", '@hub.rpc("add") for what clients call by that name')
    def rpc(self, method: str) -> Callable[[RpcF], RpcF]:
        """Let clients of a dialect with commands call `f(client, data)` by the name `method`.

        What it returns, or what is awaited of it, is the answer, as JSON; a `CommandError` that it raises
        is an error's. Its annotation decides what `data` is, as for `on_message`; JSON without one.
        """
        check_kind(method)

        def register(function: RpcF) -> RpcF:
            self._core.handlers.add_rpc(method, function)
            return function

        return register

    @overload
    def on_disconnect(self, function: ClientF | ClientLambda) -> ClientF: ...
    @overload
    def on_disconnect(self, function: DisconnectF | DisconnectLambda) -> DisconnectF: ...
    @takes_function
    def on_disconnect(self, function: AnyFunction) -> AnyFunction:
        """Call `f(client)` or `f(client, close)` when a client has gone, however it went."""
        self._core.handlers.add_disconnect(function)
        return function

    @takes_function
    def on_drop(self, function: DropF | DropLambda) -> DropF:
        """Call `f(client, count)` when a slow client has caught up, having missed `count` messages."""
        self._core.handlers.add_drop(function)
        return cast("DropF", function)

    @takes_function
    def authenticate(self, function: AuthenticateF | AuthenticateLambda) -> AuthenticateF:
        """Call `f(handshake)` to learn who asks for a socket.

        It returns an `Identity` or a user's name; None or `Refused` refuses with 401 (or the
        status in `Refused`) before the upgrade. For anonymous clients return `Identity()`.
        """
        self._core.handlers.set_authenticate(function)
        return cast("AuthenticateF", function)

    @takes_function
    def authorize(self, function: AuthorizeF | AuthorizeLambda) -> AuthorizeF:
        """Call `f(client, action, room)` when a client asks for something that concerns a room.

        `action` is "join", "publish", "history" or "presence". It is asked for what clients ask by
        commands, and for `client.subscribe`; what the application does itself (`client.join`,
        `hub.publish`) needs no leave. True allows it; anything else refuses. Without a handler clients
        may join, and may not publish.
        """
        self._core.handlers.set_authorize(function)
        return cast("AuthorizeF", function)

    def verify_tokens(self, verifier: TokenVerifier) -> None:
        """Let clients in by their JSON Web Tokens, in place of an authenticate handler.

        `verifier` says who a client is by the token of its connection, which also names rooms that it is
        put into (`channels`, `subs`). Clients of the Centrifuge SDKs may show tokens for single rooms: a
        good one lets them in without the authorize handler, until it ends. Raises `ValueError` where there
        is an authenticate handler already.
        """
        self._core.handlers.set_authenticate(verifier.authenticate)
        self._core.access.verifier = verifier

    @takes_function
    def validate(self, function: MessageF | ValidateLambda) -> MessageF:
        """Call `f(client, message)` before the handler; False, ValueError or CommandError refuse."""
        self._core.handlers.set_validate(function)
        return cast("MessageF", function)

    @takes_function
    def on_join(self, function: PresenceF | PresenceLambda) -> PresenceF:
        """Call `f(room, info)` when somebody has come into a room whose rule has `presence=True`.

        Of several clients of one user only the first counts, and one that comes back in time does not.
        It is called in one process, the one where the client is.
        """
        self._core.handlers.add_join(function)
        return cast("PresenceF", function)

    @takes_function
    def on_leave(self, function: PresenceF | PresenceLambda) -> PresenceF:
        """Call `f(room, info)` when somebody has left such a room, and has not come back in time.

        `info` is of the client that was the last. It is called in one process, whichever noticed.
        """
        self._core.handlers.add_leave(function)
        return cast("PresenceF", function)

    @takes_function
    def presence_info(self, function: InfoF | InfoLambda) -> InfoF:
        """Call `f(client, room)` for what others see of a client in a room: `ClientInfo.info`.

        They see it in the room's presence, and beside what the client publishes by a command of its own. It returns
        what JSON has, up to 4 KiB of it, and is no `async def`. Of a member it is asked once, when that is needed
        first, and of who is none for each message. Without it others see what tokens say: see `Identity.info`.
        """
        self._core.handlers.set_presence_info(function)
        return cast("InfoF", function)

    @takes("seconds", "@hub.every(5) to call the function every five seconds")
    def every(self, seconds: float, *, while_connected: bool = False) -> Callable[[TickF], TickF]:
        """Call `f()` every so many seconds while the hub runs; see `hubbub.hub.tasks.PeriodicTask`."""
        check_period(seconds)

        def register(function: TickF) -> TickF:
            self._core.lifecycle.add_periodic(function, seconds, while_connected)
            return function

        return register

    # Life

    async def start(self) -> None:
        """Bind the hub to the running event loop; start its broker, its checks and periodic tasks.

        Starting twice is no error. The first handshake starts a hub that nobody has started, so
        that a route alone is enough; a lifespan is better, because periodic tasks begin with it, and
        nothing can be published before. The log gets a line that says what the hub runs on.
        Raises `HubNotRunning` when the hub already runs in another loop.
        """
        await self._core.lifecycle.start()

    async def stop(self) -> None:
        """Close every client with 1012, paced; then stop the rest, all within `shutdown_timeout_s`.

        Handlers that still run at the end of that time, disconnect handlers among them, are
        cancelled, with a line in the log. Stopping twice, or a hub that never ran, is no error. The
        hub can be started again.
        """
        await self._core.lifecycle.stop()

    async def drain(self) -> None:
        """Take nobody any more, and close every client with 1012, in waves over `drain_s`.

        For what knows earlier than the server that the process will end: a hook of a supervisor, say.
        `hub.health()` says 503 from the first moment on. Returns when the clients have gone; what else the
        hub does goes on until `stop`. Twice is no error. Event loop only. Raises `HubNotRunning`.
        """
        await self._core.lifecycle.drain()

    @property
    def is_running(self) -> bool:
        """Whether the hub is bound to an event loop that runs."""
        return self._core.lifecycle.is_running

    @property
    def settings(self) -> Settings:
        """The settings; they do not change."""
        return self._core.settings

    def stats(self) -> dict[str, Any]:
        """Return what this process knows of itself: what it runs on, counters, gauges taken now.

        `transport` is "native" or "portable" (None: not known before the first client), `server` and
        `http` name the server and its HTTP class (None: not known), `loop` the event loop,
        `compiled` the packages whose compiled parts are in use, `broker` where publications go, `broker_state` whether
        that is "up", "silent" or "away", `broker_waiting` how many publications it has not taken yet;
        `workers` is how many processes listen where this one does, itself included, as far as that
        can be seen; `settings` are those that differ from the defaults. `state` is where the hub is in its life
        ("new", "starting", "running", "draining", "stopped").

        `clients` are connected, `broadcast` publications wait for this turn's flush, `register`
        handshakes are in progress. `rooms` have members, `slow` clients have an outbox that is not
        empty, `handlers` wait for something and have not returned, `loop_lag_s` is how late
        the event loop was when it was last looked at. `slow_handshakes` and `refused_handshakes`
        are the process's, whichever hub they were for. See `hubbub.stats.Stats` for the other
        counters; `uptime_s` is in seconds.
        """
        return self._core.snapshot()

    # Verbs

    def broadcast(self, data: Any, *, exclude: Client | None = None) -> None:
        """Send `data` to every client but `exclude`.

        `str` is a text frame, `bytes` a binary frame, anything else JSON text (see
        `hubbub.wire.frame.encode`, also for what it raises). Never blocks; may be called from any
        thread, sync or async. Raises `HubNotRunning` before the hub's start, after its stop, and in
        a process that does not serve it: there is nobody, and nobody would ever get it.
        """
        self._core.publishing.broadcast(EVERYBODY, data, exclude)

    async def publish(
        self, room: str, data: Any, *, exclude: Client | None = None, key: str | None = None
    ) -> Receipt:
        """Send `data` to the members of `room` and wait for the broker's receipt.

        `key` is your own name for this message: a second one with the same key in the same room within five
        minutes is not published, and the receipt says so. Raises `CommandError` for a name that no room may
        have, `BrokerError` when the broker did not take it, and `HubNotRunning` as `broadcast` does. Event loop
        only.
        """
        return await self._core.publishing.publish(check_room_name(room), data, exclude, key)

    # What rooms keep

    @takes_rules(RoomRules)
    def room_rules(self, rules: RoomRules) -> RoomRules:
        """Add a rule for the rooms of a pattern: `hub.room_rules("chat:*", history=100)`.

        It takes what `RoomRules` does, and comes after the rules that the hub has. Before the start only:
        raises `RuntimeError` afterwards, and `SettingsError` for a rule that cannot be or is never used.
        """
        self._core.lifecycle.require_not_started("room_rules")
        self._core.rules.add(rules)
        return rules

    async def history(
        self,
        room: str,
        *,
        since: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> History:
        """Return what was published to `room` and is kept: the oldest first, after `since`.

        `limit` is how many publications at most (None: all), `reverse` gives the newest first, and those
        before `since`. The answer has the `publications`, each with its `data` and `position`, and the
        `position` where the room stands. Raises `PositionLost` where something after `since` is not kept
        any more, `CommandError` ("not_available") for a room without a history, `BrokerError`. Event loop
        only.
        """
        self._core.lifecycle.require_loop()
        recovery = self._core.recovery
        recovery.require_history(check_room_name(room))
        check_position(since)
        if limit is not None and (type(limit) is not int or limit < 0):
            raise ValueError(
                f"limit is a number of publications, or None for all, not {limit!r:.80}"
            )
        return await recovery.page(room, since=since, limit=limit, reverse=reverse)

    async def cursor(self, room: str) -> Position:
        """Return where `room` stands, for a page or an answer that shows what is so far.

        Who subscribes with it misses nothing from then on: `client.subscribe(room, since=position)`, or
        `since` of a subscription in a browser. Raises as `history` does. Event loop only.
        """
        return (await self.history(room, limit=0)).position

    # Who is there, in all processes

    async def presence(self, room: str) -> Mapping[str, ClientInfo]:
        """Return who is in `room`, by the ids of clients, in all processes that the broker connects.

        Who sends the result to a member before it awaits anything else has left no gap: the member is told
        of every change that is not in it. A user without a client there, but within the time to come back
        that the room's rule gives, is listed with its last client. Raises `CommandError`
        ("not_available") for a room whose rule has no `presence=True`, `BrokerError`, and
        `HubNotRunning`. Event loop only.
        """
        return await self._core.presence.present(check_room_name(room))

    async def presence_stats(self, room: str) -> PresenceStats:
        """Return how many clients and users are in `room`, without listing them.

        Raises as `presence` does. Event loop only.
        """
        return await self._core.presence.stats(check_room_name(room))

    def disconnect(self, who: Client | str, code: int = DISCONNECTED, reason: str = "") -> int:
        """Close a client, or all clients of a user, in other processes too if the broker connects them at that moment.

        Returns how many there were in this process. Raises `HubNotRunning` for a user while the hub
        does not run: it would find nobody. Event loop only.
        """
        check_close(code, reason)
        if isinstance(who, Client):
            self._core.registry.disconnect(session_of(who), code, reason)
            return 1
        user = checked_user(who)
        self._core.lifecycle.require_loop()
        return self._core.control.disconnect_user(user, code, reason)

    def kick(self, client_id: str, code: int = DISCONNECTED, reason: str = "") -> bool:
        """Close the client of that id, whichever process it is in if the broker connects them at that moment.

        Returns whether it was in this one. Event loop only. Raises `HubNotRunning`.
        """
        check_close(code, reason)
        self._core.lifecycle.require_loop()
        return self._core.control.kick(client_id, code, reason)

    async def nodes(self, *, wait_s: float = 1.0) -> list[NodeInfo]:
        """Return how many clients, users, rooms and members each process of the cluster has, this one first.

        Others have `wait_s` seconds to answer; a broker that connects no processes is asked nothing, and while
        one is away this process is all there is.
        Event loop only. Raises `HubNotRunning`.
        """
        self._core.lifecycle.require_loop()
        return await self._core.control.nodes(wait_s, must_ask=False)

    # Who is where

    def room(self, name: str) -> Room:
        """Return the room of that name; it need not have members. Raises `CommandError` (name)."""
        return self._core.registry.room(name)

    @property
    def everybody(self) -> Room:
        """The room of all clients: `await hub.everybody.publish(data)` is a broadcast with a receipt."""
        return Room(self._core, EVERYBODY)

    def to_user(self, user: str) -> User:
        """Return the clients of `user` as something to send to. Nobody connected is no error."""
        return User(self._core, USER_PREFIX + checked_user(user))

    def clients_of(self, user: str) -> list[Client]:
        """Return the clients of `user` in this process, in the order of connection."""
        return self._core.registry.clients_of(USER_PREFIX + checked_user(user))

    def client(self, client_id: str) -> Client | None:
        """Return the client of that id in this process, or None."""
        if not isinstance(client_id, str):
            raise TypeError(f"a client's id is a str, not {type(client_id).__name__}")
        session = self._core.registry.sessions.get(client_id)
        return None if session is None else session.client

    @property
    def client_count(self) -> int:
        """How many clients this process has."""
        return len(self._core.registry.sessions)

    @property
    def rooms(self) -> dict[str, int]:
        """The rooms that have members in this process, and how many."""
        return self._core.registry.room_sizes()

    def __len__(self) -> int:
        return len(self._core.registry.sessions)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Client]:
        sessions = list(self._core.registry.sessions.values())
        return iter([session.client for session in sessions])

    # Doors. What they need is imported when they are used: it is above the hub.

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[dict[str, Any]]:
        """Run the hub while an application runs; gives `request.state.hub`.

        For `Starlette(lifespan=hub.lifespan)`, or inside a lifespan of the application's own.
        """
        from ..asgi.endpoint import state_of

        try:
            await self.start()
        except BrokerError as error:  # frameworks log how it came to this: the sentence says it all
            raise error.with_traceback(None) from None
        try:
            yield state_of(self)
        finally:
            await self.stop()

    def router(
        self,
        path: str = "/ws",
        *,
        dependencies: Sequence[Any] = (),
        dialect: str | Dialect = "plain",
    ) -> APIRouter:
        """Return a FastAPI router with the hub at `path`, its lifespan and its JavaScript client.

        Clients of this route speak `dialect`; those of other routes of the hub may speak another.
        """
        try:
            from ..asgi.fastapi import make_router
        except ImportError as error:
            raise MissingExtra(error.name or "fastapi", "fastapi") from error
        return make_router(self, path, dependencies, dialect_of(dialect))

    def routes(self, path: str = "/ws", *, dialect: str | Dialect = "plain") -> list[BaseRoute]:
        """Return Starlette routes with the hub at `path`, and its JavaScript client beside it.

        `Starlette(routes=[*hub.routes("/ws"), …], lifespan=hub.lifespan)`.
        """
        try:
            from ..asgi.starlette import make_routes
        except ImportError as error:
            raise MissingExtra(error.name or "starlette", "starlette") from error
        return make_routes(self, path, dialect_of(dialect))

    def mount(
        self,
        app: ASGIApp,
        path: str = "/ws",
        *,
        dialect: str | Dialect = "plain",
        routes: Mapping[str, ASGIApp] | None = None,
    ) -> ASGIApp:
        """Return an ASGI application: the hub at `path` and its lifespan, `app` for all the rest.

        `routes` gives single paths to other applications: `routes={"/readyz": hub.health()}`.
        """
        from ..asgi.mount import HubMount

        return HubMount(self, app, path, dialect_of(dialect), routes)

    def metrics(
        self,
        *,
        name: str = "",
        token: str | None = None,
        registry: CollectorRegistry | None = None,
    ) -> ASGIApp:
        """Return an ASGI application that tells Prometheus what the hub measures, whatever the path is.

        A Starlette `Route("/metrics", hub.metrics())`, in FastAPI too. Anybody who reaches it is
        answered, unless there is a `token`, which a scraper sends as `Authorization: Bearer …`. `name` tells
        several hubs apart. `registry` is one of prometheus-client's that has metrics of the application's
        own; all of it is told. Raises `MissingExtra`.
        """
        try:
            from ..asgi.metrics import Metrics
        except ImportError as error:
            raise MissingExtra(error.name or "prometheus_client", "metrics") from error
        return Metrics({name: self}, token, registry)

    def health(self, *, live: bool = False, needs_broker: bool = False) -> ASGIApp:
        """Return an ASGI application that answers 200 while the hub takes clients, and 503 otherwise.

        A Starlette `Route("/readyz", hub.health())`, in FastAPI too. With `live` the answer is 200 as
        long as there is one. With `needs_broker` it is 503 too while the broker is away.
        """
        from ..asgi.health import Health

        return Health(self, live=live, needs_broker=needs_broker)

    def api(
        self,
        path: str = "/api",
        *,
        keys: Iterable[str | ApiKey] | None = None,
        app: ASGIApp | None = None,
        max_body_bytes: int = 1024**2,
    ) -> ASGIApp:
        """Return an ASGI application: an HTTP API at `path`, by which others publish, and `app` for all the rest.

        Its form is that of Centrifugo's server API. `keys` are who may call it: texts, which may do all, or `ApiKey`
        (None: those of the file that `api_keys_file` names). A request's body has at most `max_body_bytes`. In
        FastAPI and Starlette write `app.mount("/api", hub.api("/api", keys=[…]))`; elsewhere
        `hub.mount(hub.api("/api", keys=[…], app=app), "/ws")`. Raises `SettingsError` for a file that cannot be
        read, `ValueError` and `TypeError` for what can be no key.
        """
        from ..asgi.api import HttpApi

        return HttpApi(self, path, keys, app, max_body_bytes)

    async def attach(self, websocket: Any, *, identity: Identity | None = None) -> None:
        """Take the socket of a Starlette or FastAPI route; the route must not accept it itself.

        With `identity` the authenticate handler is not asked. Under the native transport this
        returns at once, and the socket lives on; otherwise when the connection has ended. From then
        on the hub owns the socket: who uses `websocket` gets `SocketTaken`, and the client
        notices nothing. Raises `RuntimeError` for a socket that was accepted already, `SocketTaken`
        for one that a hub has taken, `TypeError` for an identity that is none.
        """
        await self._endpoint().attach(websocket, identity=identity)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be an ASGI application."""
        await self._endpoint()(scope, receive, send)

    def _endpoint(self) -> Endpoint:
        if self._asgi is None:
            from ..asgi.endpoint import Endpoint

            self._asgi = Endpoint(self)
        return self._asgi

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Give what has moved, with a warning, until the next minor version."""
            if name == "clock":
                _warn_of_clock()
                return self._core.clock
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "clock":
            _warn_of_clock()
            self._core.clock = value
        else:
            super().__setattr__(name, value)


_hubs: weakref.WeakSet[Hub] = weakref.WeakSet()


def all_hubs() -> list[Hub]:
    """Return all hubs of this process, in no order."""
    return list(_hubs)


def _warn_of_clock() -> None:
    text = "hub.clock has moved: write hubbub.testing.set_clock(hub, clock), before the start"
    warnings.warn(text, DeprecationWarning, stacklevel=3)
