"""Publishing from processes that serve no clients: tasks of Celery, cron jobs, management commands, notebooks.

What must not live here: how publications travel (`brokers`), and what the verbs do (`hub`): a publisher is a hub
without clients on the broker of those that have them. It goes by their rules of rooms, which the broker keeps.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from itertools import islice
from typing import Any, TypeVar

from .brokers.broker import Ability, Broker
from .errors import DISCONNECTED, BrokerUnavailable, PublishedInPart, check_close
from .hub.control import NodeInfo
from .hub.core import core_of
from .hub.hub import Hub
from .limits import check_room_name, checked_user
from .model import EVERYBODY, USER_PREFIX, ClientInfo, Position, PresenceStats, Receipt
from .room_rules import RoomRules
from .wire.publication import Publication

T = TypeVar("T")

RULES_S = 30.0
"""For how long the rules of rooms are believed before they are read again."""
MANY = 1000
"""How many publications of one call are begun at once; `hub.window` says how much of them is on its way."""
END_S = 10.0
"""How long the end of a publisher may take."""


class AsyncPublisher:
    """Publishes to the rooms of other processes, over the broker that they share, in one event loop.

    `broker` is its URL, as in `Hub(broker=…)` (None: that of the setting `broker`, HUBBUB_BROKER), `prefix` what the
    hubs have as `broker_prefix`. `room_rules` are those of the hubs (None: those that the hubs have left at the
    broker, which is what you want). It connects at the first verb. Use it as `async with AsyncPublisher(url) as
    publisher`, or call `close` at the end.

    Raises `SettingsError` for a URL that cannot be, and `ValueError` for `memory://`, which reaches nobody
    else. All verbs raise `BrokerUnavailable` when the broker is away, and without `room_rules` when it has
    never had a hub.
    """

    def __init__(
        self,
        broker: str | Broker | None = None,
        *,
        prefix: str = "",
        room_rules: Iterable[RoomRules] | None = None,
    ) -> None:
        keywords: dict[str, Any] = {"room_rules": list(room_rules or ()), "drain_s": 0.0}
        if prefix:
            keywords["broker_prefix"] = prefix
        if broker is not None:
            keywords["broker"] = broker
        self._hub = Hub(**keywords)
        core = core_of(self._hub)
        if Ability.NOTES not in core.broker.abilities:
            is_named = core.settings.source("broker") != "default"
            what = "this one reaches nobody else" if is_named else "HUBBUB_BROKER is not set"
            raise ValueError(
                "a publisher needs a broker that other processes share, as in "
                f"Publisher('valkey://localhost:6379') or HUBBUB_BROKER; {what}"
            )
        core.serves_clients = False
        core.rules.follows = room_rules is None
        self._read_at = 0.0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {core_of(self._hub).broker!r}>"

    async def __aenter__(self) -> AsyncPublisher:
        await self.connect()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """Connect to the broker, if that is not done. Raises `BrokerUnavailable`."""
        is_new = not self._hub.is_running
        await self._hub.start()  # who comes while another starts it waits for that
        now = time.monotonic()
        if is_new:
            self._read_at = now
        elif core_of(self._hub).rules.follows and now > self._read_at + RULES_S:
            self._read_at = now
            await core_of(self._hub).rules.share_again()  # else those that are known hold

    async def close(self) -> None:
        """Disconnect. What was published is with the broker. Twice is no error."""
        await self._hub.stop()

    # Publishing

    async def publish(self, room: str, data: Any, *, key: str | None = None) -> Receipt:
        """Publish to a room; when this returns the broker has it.

        `data` and `key` are as in `Hub.publish`; `Receipt.delivered_to` is 0, since nobody is here.
        """
        await self.connect()
        return await self._to_room(room, data, key)

    async def publish_many(self, messages: Iterable[tuple[str, Any]]) -> list[Receipt]:
        """Publish pairs of a room and data, in their order, a thousand at once; return their receipts.

        Raises what the first that failed raised, as `PublishedInPart` where the broker did not take it: what comes
        after its thousand is not published then. Of another error, such as that of a message that is too large, a note
        says how many were published.
        """
        return await self._publish_many(messages, [])

    async def _publish_many(
        self, messages: Iterable[tuple[str, Any]], tried: list[Receipt | None]
    ) -> list[Receipt]:
        """Do so; `tried` has at each moment what is known of those that were begun."""
        await self.connect()
        rest = iter(messages)
        while some := list(islice(rest, MANY)):
            start = len(tried)
            tried += [None] * len(some)
            done = await asyncio.gather(
                *(self._to_room(room, data, None) for room, data in some), return_exceptions=True
            )
            tried[start:] = [None if isinstance(each, BaseException) else each for each in done]
            error = next((each for each in done if isinstance(each, BaseException)), None)
            if isinstance(error, BrokerUnavailable):
                raise PublishedInPart(error, tried) from error
            if error is not None:
                count = sum(each is not None for each in tried)
                error.add_note(f"{count} of {len(tried)} messages that were tried are published")
                raise error
        return [each for each in tried if each is not None]

    async def to_user(self, user: str, data: Any, *, key: str | None = None) -> Receipt:
        """Publish to all clients of a user, wherever they are connected."""
        return await self._to(USER_PREFIX + checked_user(user), data, key)

    async def broadcast(self, data: Any, *, key: str | None = None) -> Receipt:
        """Publish to everybody."""
        return await self._to(EVERYBODY, data, key)

    async def _to(self, room: str, data: Any, key: str | None) -> Receipt:
        await self.connect()
        return await self._publish(room, data, key)

    async def _to_room(self, room: str, data: Any, key: str | None) -> Receipt:
        return await self._publish(check_room_name(room), data, key)

    async def _publish(self, room: str, data: Any, key: str | None) -> Receipt:
        return await core_of(self._hub).publishing.publish_in_turn(room, data, key)

    # Clients

    async def disconnect(self, user: str, code: int = DISCONNECTED, reason: str = "") -> None:
        """Close all clients of a user, in whatever process."""
        check_close(code, reason)
        await self._tell("disconnect", user=checked_user(user), code=code, reason=reason)

    async def kick(self, client_id: str, code: int = DISCONNECTED, reason: str = "") -> None:
        """Close one client by its id, in whatever process."""
        check_close(code, reason)
        await self._tell("kick", client=client_id, code=code, reason=reason)

    async def _tell(self, verb: str, **arguments: Any) -> None:
        await self.connect()
        await core_of(self._hub).control.say(verb, **arguments)

    # Questions

    async def history(
        self,
        room: str,
        *,
        since: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> Sequence[Publication]:
        """Return what a room keeps; see `Hub.history`."""
        await self.connect()
        found = await self._hub.history(room, since=since, limit=limit, reverse=reverse)
        return found.publications

    async def cursor(self, room: str) -> Position:
        """Return where a room stands; see `Hub.cursor`."""
        await self.connect()
        return await self._hub.cursor(room)

    async def presence(self, room: str) -> Mapping[str, ClientInfo]:
        """Return who is in a room; see `Hub.presence`."""
        await self.connect()
        return await self._hub.presence(room)

    async def presence_stats(self, room: str) -> PresenceStats:
        """Return how many are in a room; see `Hub.presence_stats`."""
        await self.connect()
        return await self._hub.presence_stats(room)

    async def rooms(self, pattern: str = "", *, wait_s: float = 1.0) -> dict[str, int]:
        """Return the rooms that have members, by name, and how many: what all processes answer in time.

        In `pattern` a `*` stands for any text, `?` for one character; "" means all rooms.
        """
        await self.connect()
        return await core_of(self._hub).surveys.rooms(pattern, wait_s)

    async def nodes(self, *, wait_s: float = 1.0) -> list[NodeInfo]:
        """Return the processes that serve clients; see `Hub.nodes`."""
        await self.connect()
        own = core_of(self._hub).node_id  # other publishers do not answer
        found = await core_of(self._hub).control.nodes(wait_s, must_ask=True)
        return [node for node in found if node.id != own]


class Publisher:
    """`AsyncPublisher` for code without an event loop: each verb returns when it is done.

    Any thread may call it, also one in which an event loop runs (which waits then). It may be made before a
    fork: each process connects by itself. `timeout_s` is how long a verb may take; `BrokerUnavailable` says
    that it took longer: the broker may have it, or not, so publish again with the same `key`.

    The verbs and their errors are those of `AsyncPublisher`.
    """

    def __init__(
        self,
        broker: str | None = None,
        *,
        prefix: str = "",
        room_rules: Iterable[RoomRules] | None = None,
        timeout_s: float = 15.0,
    ) -> None:
        rules = None if room_rules is None else list(room_rules)
        self._make: Callable[[], AsyncPublisher] = lambda: AsyncPublisher(
            broker, prefix=prefix, room_rules=rules
        )
        self._shown = repr(self._make()).replace("AsyncPublisher", type(self).__name__)
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        _publishers.add(self)

    def __repr__(self) -> str:
        return self._shown

    def __enter__(self) -> Publisher:
        self._run(lambda publisher: publisher.connect())
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect. Twice is no error; a verb afterwards connects again."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None and worker.is_of_this_process:
            worker.stop()

    def publish(self, room: str, data: Any, *, key: str | None = None) -> Receipt:
        """See `AsyncPublisher.publish`."""
        return self._run(lambda publisher: publisher.publish(room, data, key=key))

    def publish_many(self, messages: Iterable[tuple[str, Any]]) -> list[Receipt]:
        """See `AsyncPublisher.publish_many`."""
        pairs = list(messages)
        tried: list[Receipt | None] = []
        try:
            return self._run(lambda publisher: publisher._publish_many(pairs, tried))
        except PublishedInPart:
            raise
        except BrokerUnavailable as error:  # it took too long, or the publisher was closed
            if not tried:
                raise
            raise PublishedInPart(error, tried) from error

    def to_user(self, user: str, data: Any, *, key: str | None = None) -> Receipt:
        """See `AsyncPublisher.to_user`."""
        return self._run(lambda publisher: publisher.to_user(user, data, key=key))

    def broadcast(self, data: Any, *, key: str | None = None) -> Receipt:
        """See `AsyncPublisher.broadcast`."""
        return self._run(lambda publisher: publisher.broadcast(data, key=key))

    def disconnect(self, user: str, code: int = DISCONNECTED, reason: str = "") -> None:
        """See `AsyncPublisher.disconnect`."""
        self._run(lambda publisher: publisher.disconnect(user, code, reason))

    def kick(self, client_id: str, code: int = DISCONNECTED, reason: str = "") -> None:
        """See `AsyncPublisher.kick`."""
        self._run(lambda publisher: publisher.kick(client_id, code, reason))

    def history(
        self,
        room: str,
        *,
        since: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> Sequence[Publication]:
        """See `AsyncPublisher.history`."""
        return self._run(
            lambda publisher: publisher.history(room, since=since, limit=limit, reverse=reverse)
        )

    def cursor(self, room: str) -> Position:
        """See `AsyncPublisher.cursor`."""
        return self._run(lambda publisher: publisher.cursor(room))

    def presence(self, room: str) -> Mapping[str, ClientInfo]:
        """See `AsyncPublisher.presence`."""
        return self._run(lambda publisher: publisher.presence(room))

    def presence_stats(self, room: str) -> PresenceStats:
        """See `AsyncPublisher.presence_stats`."""
        return self._run(lambda publisher: publisher.presence_stats(room))

    def rooms(self, pattern: str = "", *, wait_s: float = 1.0) -> dict[str, int]:
        """See `AsyncPublisher.rooms`."""
        return self._run(lambda publisher: publisher.rooms(pattern, wait_s=wait_s))

    def nodes(self, *, wait_s: float = 1.0) -> list[NodeInfo]:
        """See `AsyncPublisher.nodes`."""
        return self._run(lambda publisher: publisher.nodes(wait_s=wait_s))

    def _run(self, do: Callable[[AsyncPublisher], Awaitable[T]]) -> T:
        with self._lock:
            worker = self._worker
            if worker is None or not worker.is_of_this_process:
                worker = self._worker = _Worker(self._make)
        return worker.run(do, self._timeout_s)


_inherited: list[_Worker] = []
"""Workers of a parent process, kept for ever: to end them here would disturb the parent's sockets."""


class _Worker:
    """A thread with an event loop and a publisher in it, of one process."""

    def __init__(self, make: Callable[[], AsyncPublisher]) -> None:
        self._process = os.getpid()
        self._publisher = make()
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(
            target=_serve, args=(self._loop, self._publisher), name="hubbub publisher", daemon=True
        )
        thread.start()
        self._end = weakref.finalize(self, _end, self._loop, thread, self._process)
        _workers.add(self)

    @property
    def is_of_this_process(self) -> bool:
        """Whether the thread is here, and not in the process that this one was forked from."""
        return self._process == os.getpid()

    def run(self, do: Callable[[AsyncPublisher], Awaitable[T]], timeout_s: float) -> T:
        """Do something in the loop; return or raise what comes of it."""

        async def done() -> T:
            task = asyncio.current_task()
            assert task is not None
            task.set_name(VERB)
            return await do(self._publisher)

        try:
            future: Future[T] = asyncio.run_coroutine_threadsafe(done(), self._loop)
            return future.result(timeout_s)
        except (CancelledError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not self._loop.is_closed():
                raise
            raise BrokerUnavailable("the publisher was closed meanwhile") from None
        except FutureTimeoutError:
            if future.done():
                raise  # the verb's own
            future.cancel()
            text = f"the broker has not answered within {timeout_s:g} seconds"
            raise BrokerUnavailable(text) from None

    def stop(self) -> None:
        """Disconnect, and end the thread. So does the end of the process, or of the last reference."""
        self._end()


def _serve(loop: asyncio.AbstractEventLoop, publisher: AsyncPublisher) -> None:
    """Run a worker's loop until it is stopped, and disconnect then."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(_finish(publisher))
    finally:
        loop.close()


async def _finish(publisher: AsyncPublisher) -> None:
    """Tell who still waits that it is over, and disconnect."""
    own = asyncio.current_task()
    verbs = [task for task in asyncio.all_tasks() if task.get_name() == VERB and task is not own]
    for task in verbs:
        task.cancel()
    await asyncio.gather(*verbs, return_exceptions=True)
    await publisher.close()


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread, process: int) -> None:
    """End a worker's loop and thread, if they are of this process."""
    if process == os.getpid() and not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)
        thread.join(END_S)


VERB = "hubbub publisher verb"
_workers: weakref.WeakSet[_Worker] = weakref.WeakSet()
_publishers: weakref.WeakSet[Publisher] = weakref.WeakSet()


def _forked() -> None:
    """Leave to the parent what is its own, a lock that one of its threads holds included."""
    _inherited.extend(_workers)
    for publisher in _publishers:
        publisher._lock, publisher._worker = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
