"""Registry: the clients of this process, the rooms, the verbs, and the life of a hub.

What must not live here: ASGI, HTTP, sockets, frameworks (`hub` adds those doors), handler calling
(`inbound`), delivery (`fanout`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator, Mapping
from itertools import islice
from threading import get_ident as _thread_id
from typing import Any, Unpack

from .admission import Admission
from .broker import Broker, MemoryBroker, as_broker
from .client import Client
from .dialect_plain import PlainDialect
from .errors import (
    DISCONNECTED,
    INTERNAL_ERROR,
    REPLACED,
    SERVICE_RESTART,
    BrokerError,
    CommandError,
    HubNotRunning,
    check_close,
    fit_reason,
)
from .fanout import Fanout
from .fanout_deflate import SharedDeflateFanout
from .frame import Frame, encode
from .handlers import Handlers
from .inbound import Inbound
from .limits import (
    BURST_S,
    TURN_INFLATED_BYTES,
    TokenBucket,
    TurnBudget,
    check_room_name,
    checked_user,
    printable,
)
from .model import (
    EVERYBODY,
    USER_PREFIX,
    Close,
    Handshake,
    Identity,
    Publication,
    Receipt,
    check_unix_time,
)
from .quietlog import QuietLog
from .room import Room, Rooms, User
from .settings import Settings, SlowPolicy, as_settings
from .settings_keywords import SettingsKeywords
from .stats import Stats, process_stats
from .tasks import Tasks
from .ticker import Ticker
from .transport import Transport
from .warden import Warden
from .watch import Watch

logger: logging.Logger = logging.getLogger("hubbub")

_PACE_S = 0.002
"""Pause between two goodbyes of a shutdown, so that not everybody comes back in one moment."""
_SOCKETS_SHARE = 0.8
"""Which part of `shutdown_timeout_s` the sockets may take; the rest is left for the handlers."""


class Registry:
    """The books of a hub. One event loop owns it; see each verb for what other threads may call."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        broker: Broker | None = None,
        slow_policies: Mapping[str, SlowPolicy] | None = None,
        **keywords: Unpack[SettingsKeywords],
    ) -> None:
        if settings is not None and keywords:
            raise TypeError("pass a Settings object or keywords, not both")
        self.settings: Settings = (
            Settings.load(**keywords) if settings is None else as_settings(settings)
        )
        self.broker: Broker = MemoryBroker() if broker is None else as_broker(broker)
        self.counters: Stats = Stats()
        self.handlers: Handlers = Handlers(PlainDialect())
        self._clients: dict[str, Client] = {}
        self._rooms = Rooms(self.settings.slow_policy, slow_policies or {})
        self.admission: Admission = Admission(self.settings, self._clients)
        self._tasks = Tasks()
        self._tickers: list[Ticker] = []
        self._started_at = time.monotonic()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread_id = 0
        self._has_stopped = False
        self._starting: asyncio.Future[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._shut_down_at = 0.0
        self._connections: set[Transport] = set()
        self.clock: Callable[[], float] = time.monotonic
        self.log: QuietLog = QuietLog(self._now)
        self.inbound: Inbound = Inbound(
            self, self.handlers, self.settings, self.counters, self.log, self._now
        )
        self.receive: Callable[[Client, Frame], None] = self.inbound.receive
        """Take one whole message of a client; see `Inbound.receive`. Transports call it."""
        self.max_message_bytes: int | None = self.settings.max_message_bytes
        """A copy of the setting, for transports that ask at every message."""
        self.warden: Warden = Warden(self, self.settings, self.counters, self.log)
        self.fanout: Fanout = self._new_fanout()
        self.inflating: TurnBudget = TurnBudget(TURN_INFLATED_BYTES)
        self._watch = Watch(self.settings, self.warden, self._now)

    # Life

    @property
    def is_running(self) -> bool:
        """Whether the hub is bound to an event loop that runs."""
        return self._loop is not None and self._loop.is_running()

    async def start(self) -> None:
        """Bind the hub to the running event loop and start its broker, heartbeat and tickers.

        Starting twice is no error. The first handshake starts a hub that nobody has started, so
        that a route alone is enough; a lifespan is better, because tickers begin with it.
        Raises `HubNotRunning` when the hub already runs in another loop.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self.is_running:
                raise HubNotRunning(
                    "this hub runs in another event loop; a hub belongs to one loop "
                    "(with Starlette's TestClient, use it as a context manager)"
                )
            self._bind(loop)
        starting = self._starting
        if starting is None:
            starting = self._starting = loop.create_future()
            try:
                await self.broker.start(self.deliver)
            except BaseException as error:
                self._starting = None
                self._unbind()
                is_plain = isinstance(error, Exception)
                starting.set_exception(
                    error if is_plain else HubNotRunning("the start was cancelled")
                )
                starting.exception()
                raise
            for ticker in self._tickers:
                self._tasks.repeat(ticker)
            self._watch.start()
            starting.set_result(None)
        elif not starting.done():
            await asyncio.shield(starting)

    async def stop(self) -> None:
        """Close every client with 1012, paced; then stop the rest, all within `shutdown_timeout_s`.

        Handlers that still run at the end of that time, disconnect handlers among them, are
        cancelled, with a line in the log. Stopping twice, or a hub that never ran, is no error. The
        hub can be started again.
        """
        if self._loop is None:
            return
        await asyncio.shield(self.shut_down())  # who gives up waiting does not keep others from it
        await self._tasks.end(self._shut_down_at - asyncio.get_running_loop().time())
        self._watch.stop()
        try:
            await self.broker.stop()
        finally:
            self._unbind()
            self._has_stopped = True
            self._starting = self._stopping = None
            self.admission.is_closed = False

    def shut_down(self) -> asyncio.Task[None]:
        """Begin to close every client, once; return the task that does it.

        From now on handshakes are refused with 503. The native transport calls this when the
        server begins its shutdown, long before the lifespan ends.
        """
        if self._stopping is None:
            self.admission.is_closed = True
            loop = asyncio.get_running_loop()
            self._shut_down_at = loop.time() + self.settings.shutdown_timeout_s
            self._stopping = loop.create_task(self._close_everybody(), name="hubbub shutdown")
        return self._stopping

    async def _close_everybody(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.shutdown_timeout_s * _SOCKETS_SHARE
        clients = list(self._clients.values())
        pause_s = min(_PACE_S, self.settings.shutdown_timeout_s / 2 / max(1, len(clients)))
        for number, client in enumerate(clients):
            self.disconnect_client(client, SERVICE_RESTART, "service restart")
            if number % 10 == 9:
                await asyncio.sleep(pause_s * 10)
        while self._connections and loop.time() < deadline:
            await asyncio.sleep(0.01)
        for transport in list(self._connections):
            transport.abort()

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take a loop for one's own, and forget what a dead loop left behind."""
        self._loop = loop
        self._thread_id = _thread_id()
        _bound.add(self)
        self._starting = self._stopping = None
        self.admission.forget()
        self._clients.clear()
        self._rooms.clear()
        self._connections.clear()
        self._tasks = Tasks()
        self._started_at = time.monotonic()
        self.fanout = self._new_fanout()
        self.inflating = TurnBudget(TURN_INFLATED_BYTES)
        self._watch = Watch(self.settings, self.warden, self._now)

    def _unbind(self) -> None:
        """Belong to no loop. The clients are gone, or another process's (after a fork)."""
        self._loop = None
        self._thread_id = 0  # no thread has this id
        _bound.discard(self)

    def _new_fanout(self) -> Fanout:
        settings = self.settings
        if settings.compression == "shared":
            return SharedDeflateFanout(
                self.counters, settings.slow_policy, self.schedule, settings.compression_min_bytes
            )
        return Fanout(self.counters, settings.slow_policy, self.schedule)

    def _now(self) -> float:
        return self.clock()

    def spawn(
        self, coroutine: Coroutine[Any, Any, None], name: str, *, is_last: bool = False
    ) -> asyncio.Task[None]:
        """Run `coroutine` as a task that the hub keeps, and ends at its own end."""
        return self._tasks.spawn(coroutine, name, is_last=is_last)

    def add_ticker(
        self, function: Callable[[], Any], period_s: float, is_conditional: bool
    ) -> None:
        """Call `function` every `period_s` seconds; conditional ones only while a client is there."""
        wanted = (lambda: bool(self._clients)) if is_conditional else (lambda: True)
        ticker = Ticker(function, period_s, wanted)
        self._tickers.append(ticker)
        if self._starting is not None and self._starting.done():
            self._tasks.repeat(ticker)

    # Coming and going

    def register(
        self,
        transport: Transport,
        client_id: str,
        identity: Identity,
        handshake: Handshake,
    ) -> Client:
        """Take a client into the books and run the connect handlers.

        Whatever fails in this closes the client with 1011 and frees its place.
        """
        holder = self._clients.get(client_id)
        if holder is not None:
            self.counters.replaced += 1
            text = "client %s was replaced by a newer connection"
            self.log.log(logging.INFO, "replaced", text, holder.id)
            self.disconnect_client(holder, REPLACED, "replaced")
        client = Client(
            self,
            client_id,
            transport,
            user=identity.user,
            address=handshake.address,
            connected_at=time.time(),
        )
        transport.bind(client)
        self._connections.add(transport)
        try:
            self._take_in(client, identity, handshake)
        except BaseException as error:
            self.counters.handler_errors += 1
            text = "client %s could not be taken in; closed"
            self.log.log(logging.ERROR, "register", text, client.id, error=error)
            self.disconnect_client(client, INTERNAL_ERROR, "internal error")
            if not isinstance(error, Exception):
                raise
        return client

    def _take_in(self, client: Client, identity: Identity, handshake: Handshake) -> None:
        if identity.meta:
            client.meta.update(identity.meta)
        rate = self.settings.messages_per_second
        if rate is not None:
            client.bucket = TokenBucket(rate, rate * BURST_S, self.clock())
        self._clients[client.id] = client
        self.admission.came(client)
        self._enter(client, EVERYBODY)
        if client.user is not None:
            self._enter(client, USER_PREFIX + client.user)
        self._watch.add(client)
        if identity.expires_at is not None:
            self.renew(client, identity.expires_at)
        self.counters.total_clients += 1
        logger.debug("client %s connected", client.id)
        self.inbound.connected(client, handshake)
        if self.admission.is_closed:
            # Its handshake was under way when the shutdown began.
            self.disconnect_client(client, SERVICE_RESTART, "service restart")

    def renew(self, client: Client, expires_at: float | None) -> None:
        """See `Client.renew`."""
        check_unix_time(expires_at)
        if client.close_info is None:
            # Counted by the hub's own clock from here on: one that is set forward ends nobody.
            left_s = None if expires_at is None else expires_at - time.time()
            self._watch.expire_in(client, left_s)

    def lost(self, client: Client, code: int, reason: str, *, by_server: bool = False) -> None:
        """Take a client out of the books and run the disconnect handlers. Twice is no error."""
        if client.close_info is not None:
            return
        close = Close(code, reason, by_server)
        self.counters.undelivered += self.fanout.count_owed(client)
        client.close_info = close
        client.fast = False
        for members in client.memberships.values():
            self._rooms.remove(client, members)
        if self._clients.get(client.id) is client:
            del self._clients[client.id]
        self.admission.left(client)
        self._watch.remove(client)
        logger.debug("client %s disconnected: %s", client.id, code)
        self.inbound.disconnected(client)

    def gone(self, transport: Transport, client: Client | None = None) -> None:
        """Forget a transport whose connection has ended, and what still waits for its client."""
        self._connections.discard(transport)
        if client is not None and client.outbox is not None:
            self.counters.undelivered += client.outbox.clear()

    def disconnect_client(self, client: Client, code: int, reason: str) -> None:
        """Close one client; what was sent to it before goes first. Any thread."""
        check_close(code, reason)
        if self._is_elsewhere():
            self._post(self.disconnect_client, client, code, reason)
            return
        if client.close_info is not None:
            return
        reason = fit_reason(reason)
        self.fanout.flush()
        client.transport.close(code, reason)
        self.lost(client, code, reason, by_server=True)

    # Rooms

    def join(self, client: Client, room: str) -> None:
        """See `Client.join`."""
        check_room_name(room)
        if room in client.memberships or client.close_info is not None:
            return
        limit = self.settings.max_rooms_per_client
        if limit is not None and _room_count(client) >= limit:
            raise CommandError(
                "too_many_rooms", f"a client may be in {limit} rooms at most (max_rooms_per_client)"
            )
        self._enter(client, room)

    def leave(self, client: Client, room: str) -> None:
        """See `Client.leave`."""
        check_room_name(room)
        members = client.memberships.get(room)
        if members is None or client.close_info is not None:
            return
        self.fanout.left(client, members)
        del client.memberships[room]
        self._rooms.remove(client, members)

    def _enter(self, client: Client, room: str) -> None:
        members = self._rooms.add(client, room)
        self.fanout.joined(client, members)
        client.memberships[room] = members

    def members_of(self, key: str) -> Mapping[Client, None]:
        """Return the clients of this process that are in a room now, in the order of joining."""
        members = self._rooms.get(key)
        return {} if members is None else members.clients

    # Verbs

    def broadcast(self, data: Any, *, exclude: Client | None = None) -> None:
        """Send `data` to every client but `exclude`.

        `str` is a text frame, `bytes` a binary frame, anything else JSON text (see
        `hubbub.frame.encode`, also for what it raises). Never blocks; may be called from any
        thread, sync or async. Raises `HubNotRunning` before the hub's start, after its stop, and in
        a process that does not serve it: there is nobody, and nobody would ever get it.
        """
        self.publish_nowait(EVERYBODY, data, exclude)

    async def publish(self, room: str, data: Any, *, exclude: Client | None = None) -> Receipt:
        """Send `data` to the members of `room` and wait for the broker's receipt.

        Raises `CommandError` for a name that no room may have, `BrokerError` when the broker did
        not take it, and `HubNotRunning` as `broadcast` does. Event loop only.
        """
        return await self.publish_to(check_room_name(room), data, exclude)

    async def publish_to(self, key: str, data: Any, exclude: Client | None) -> Receipt:
        """See `publish`; `key` may also be everybody's or a user's."""
        if exclude is not None:
            _check_excluded(exclude)
        frame = encode(data)
        if _thread_id() != self._thread_id:
            if self._loop is None:
                raise self._not_running()
            raise HubNotRunning("await publish() in the hub's own event loop; use room.broadcast()")
        result = self.publish_frame(key, frame, exclude)
        return result if isinstance(result, Receipt) else await result

    def publish_nowait(self, key: str, data: Any, exclude: Client | None) -> None:
        """Encode here and now, then publish on the hub's own thread."""
        if exclude is not None:
            _check_excluded(exclude)
        frame = encode(data)
        if _thread_id() == self._thread_id:
            self.publish_logged(key, frame, exclude)
        elif not self._post(self.publish_logged, key, frame, exclude):
            raise self._not_running()

    def publish_logged(self, key: str, frame: Frame, exclude: Client | None) -> None:
        """Publish for somebody who does not wait for the receipt: what fails is logged."""
        try:
            if exclude is None:
                result = self.broker.publish(Publication(key, frame))
            else:
                result = self.publish_frame(key, frame, exclude)
        except HubNotRunning:
            raise
        except BrokerError as error:
            logger.error("a broadcast failed: %s", printable(str(error)))
            return
        except Exception as error:  # a broker's own failure is not the publisher's
            self.log.log(logging.ERROR, "broker", "a broadcast failed", error=error)
            return
        if not isinstance(result, Receipt):
            result.add_done_callback(_log_failed_publish)

    def publish_frame(
        self, room: str, frame: Frame, exclude: Client | None
    ) -> Receipt | asyncio.Future[Receipt]:
        """Hand an encoded message to the broker."""
        # The id of a client that is gone may have another holder by now.
        if exclude is None or exclude.close_info is not None:
            return self.broker.publish(Publication(room, frame))
        return self.broker.publish(Publication(room, frame, exclude.id))

    def deliver(self, publication: Publication) -> int:
        """Take a publication from the broker to this process's clients; see `broker.Deliver`."""
        members = self._rooms.get(publication.room)
        if members is None:
            self._require_loop()
            return 0
        if publication.exclude is None:
            self.fanout.publish(members, publication.frame)
            return len(members.clients)
        exclude = self._clients.get(publication.exclude)
        self.fanout.publish(members, publication.frame, exclude)
        return len(members.clients) - (exclude in members.clients)

    def send(self, client: Client, frame: Frame) -> bool:
        """See `Client.send`."""
        if _thread_id() != self._thread_id:
            if self._post(self.send, client, frame):
                return client.close_info is None
            self.counters.sends_to_gone += 1
            return False
        if client.close_info is not None:
            self.counters.sends_to_gone += 1
            return False
        try:
            self.fanout.direct(client, frame)
        except HubNotRunning:  # its loop was closed without a stop of the hub
            self.counters.sends_to_gone += 1
            return False
        return True

    def room(self, name: str) -> Room:
        """Return the room of that name; it need not have members. Raises `CommandError` (name)."""
        members = self._rooms.get(name) if type(name) is str else None
        if members is not None and members.room is not None:
            return members.room
        room = Room(self, check_room_name(name))
        if members is not None:
            members.room = room
        return room

    @property
    def everybody(self) -> Room:
        """The room of all clients: `await hub.everybody.publish(data)` is a broadcast with a receipt."""
        return Room(self, EVERYBODY)

    def to_user(self, user: str) -> User:
        """Return the clients of `user` as something to send to. Nobody connected is no error."""
        return User(self, USER_PREFIX + checked_user(user))

    def clients_of(self, user: str) -> list[Client]:
        """Return the clients of `user` in this process, in the order of connection."""
        return list(self.members_of(USER_PREFIX + checked_user(user)))

    def client(self, client_id: str) -> Client | None:
        """Return the client of that id in this process, or None."""
        if not isinstance(client_id, str):
            raise TypeError(f"a client's id is a str, not {type(client_id).__name__}")
        return self._clients.get(client_id)

    def disconnect(self, who: Client | str, code: int = DISCONNECTED, reason: str = "") -> int:
        """Close a client, or all clients of a user; return how many there were. Event loop only.

        Raises `HubNotRunning` for a user while the hub does not run: it would find nobody.
        """
        check_close(code, reason)
        clients = [who] if isinstance(who, Client) else self.clients_of(who)
        if not isinstance(who, Client):
            self._require_loop()
        for client in clients:
            self.disconnect_client(client, code, reason)
        return len(clients)

    @property
    def client_count(self) -> int:
        """How many clients this process has."""
        return len(self._clients)

    @property
    def rooms(self) -> dict[str, int]:
        """The rooms that have members in this process, and how many."""
        return self._rooms.sizes()

    def __len__(self) -> int:
        return len(self._clients)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._clients.values()))

    def stats(self) -> dict[str, Any]:
        """Return counters, and gauges taken now; see `Hub.stats`."""
        return {
            "clients": len(self._clients),
            "broadcast": len(self.fanout),
            "register": self.admission.in_progress,
            "rooms": len(self.rooms),
            "slow": self._watch.slow_count,
            "handlers": len(self._tasks),
            "loop_lag_s": round(self._watch.lag_s, 4),
            **self.counters.snapshot(),
            "slow_handshakes": process_stats.slow_handshakes,
            "refused_handshakes": process_stats.refused_handshakes,
            "uptime_s": round(time.monotonic() - self._started_at, 3),
        }

    # What the warden asks

    def stalled(self, client: Client) -> None:
        """Watch a client whose socket is not writable."""
        self._watch.stalled(client)

    def ask_for_token(self, client: Client, left_s: float) -> None:
        """Ask a client for a new token, since its own ends in `left_s` seconds."""
        self.send(client, self.handlers.dialect.refresh(left_s))

    def tell_missed(self, client: Client, count: int) -> None:
        """Run the drop handlers of a client that missed messages."""
        self.inbound.caught_up(client, count)

    def schedule(self, function: Callable[[], None], delay_s: float = 0.0) -> None:
        """Call `function` in the loop's next turn, or after `delay_s` seconds."""
        assert self._loop is not None
        try:
            if delay_s:
                self._loop.call_later(delay_s, function)
            else:
                self._loop.call_soon(function)
        except RuntimeError as error:
            if self._loop.is_closed():
                raise self._not_running() from error
            raise

    # Threads

    def _is_elsewhere(self) -> bool:
        return _thread_id() != self._thread_id and self._loop is not None

    def _post(self, function: Callable[..., Any], *arguments: Any) -> bool:
        """Call `function` on the hub's thread: the one door for other threads. False: there is none."""
        loop = self._loop
        if loop is None:
            return False
        try:
            loop.call_soon_threadsafe(lambda: function(*arguments))
        except RuntimeError:  # the loop was closed, in that moment or without a stop of the hub
            return False
        return True

    def _require_loop(self) -> None:
        """Raise where the hub has no event loop, or one that will never turn again."""
        if self._loop is None or self._loop.is_closed():
            raise self._not_running()

    def _not_running(self) -> HubNotRunning:
        if self._has_stopped or self._loop is not None:
            return HubNotRunning(
                "this hub has stopped: nobody is connected, and nobody would get this; end what "
                "publishes before the hub's stop()"
            )
        return HubNotRunning(
            "this hub runs in no event loop of this process: nobody would get this. Publish in the "
            "process that serves the hub (a worker of a task queue or a shell calls a route of it); "
            "code that runs while the application starts writes  await hub.start()  first"
        )


_bound: weakref.WeakSet[Registry] = weakref.WeakSet()
"""The hubs that belong to an event loop of this process."""


def _after_fork() -> None:
    """Let no hub run in a forked process: its loop, clients and sockets are the parent's."""
    for hub in list(_bound):
        hub._unbind()
        hub._has_stopped = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _room_count(client: Client) -> int:
    """Count the rooms that a client has joined, without listing them.

    Those that it did not join, everybody's and its user's, come first and are never left.
    """
    first = islice(client.memberships, 2)
    hidden = sum(name == EVERYBODY or name[0] == USER_PREFIX for name in first)
    return len(client.memberships) - hidden


def _check_excluded(exclude: object) -> None:
    if not isinstance(exclude, Client):
        raise TypeError(
            f"exclude must be a Client or None, not {type(exclude).__name__}; hub.client(id) finds "
            "a client by its id"
        )


def _log_failed_publish(future: asyncio.Future[Receipt]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        level = logging.ERROR if isinstance(error, BrokerError) else logging.CRITICAL
        logger.log(level, "a broadcast failed: %s", printable(str(error)))
