"""Connections to a Valkey or Redis server: how one is made, and what its errors mean.

What must not live here: where the server is (`valkey_address`), and what is said to it.

This is the one module that imports the client library. A *line* is a connection of one owner, and reads for as
long as it takes; single questions go by `client`, which has a few connections for all.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from ..errors import BrokerUnavailable, MissingExtra
from .reconnecting import reason_of
from .valkey_address import Address

T = TypeVar("T")

TIMEOUT_S = 5.0
"""How long the server may take to connect, and to answer."""
QUESTIONS_AT_ONCE = 8
"""How many single questions are asked at the same time; others wait for their turn."""
TURN_S = 30.0
"""How long a question waits for its turn."""
_IDS = [("CLUSTER", "MYSHARDID"), ("CLUSTER", "MYID")]
_SHARD = re.compile(r"@(\w+) ")

_REPLICA = "the server is a replica, which takes nothing: name its primary"


class Locator(Protocol):
    """Says where a server is that may be another process each time: the primary of several."""

    async def find(self) -> tuple[str, int]:
        """Return the host and port. Raises `BrokerUnavailable`."""
        ...

    async def until_moved(self) -> None:
        """Wait until it is said that the server is elsewhere now, if anybody says so. Raises what `unavailable`
        understands, when nobody can be heard."""
        ...


class Connections:
    """Makes connections to one server. Event loop only. Raises `MissingExtra` without the extra `valkey`.

    With a `locator` it is looked up for each connection where the server is now.
    """

    def __init__(self, address: Address, locator: Locator | None = None) -> None:
        self._locator = locator
        self._is_sharded = address.is_cluster
        self.shown: str = address.shown
        self.name: str = address.name
        """By what name processes know the server, however they log in there."""
        redis = library()
        connections = redis.asyncio.connection
        self._make: Any = connections.Connection
        if address.is_tls:
            self._make = connections.SSLConnection
        if address.is_unix:
            self._make = connections.UnixDomainSocketConnection
        self._make = type("Line", (_Writing, self._make), {})
        self._options: dict[str, Any] = {
            **address.options,
            "protocol": 2,
            "socket_connect_timeout": TIMEOUT_S,
            "socket_timeout": None,  # the library's own swallows a cancel on Python 3.11
            "retry": redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0),
        }
        self.client: Any = redis.asyncio.Redis.from_pool(self._pool())
        self._turns = asyncio.Semaphore(QUESTIONS_AT_ONCE)
        self.state: str = ""
        """What the server has kept is the same for as long as this is: see `state_of`. Known once a line is open."""

    async def open_line(self) -> Any:
        """Connect, and return the connection. Raises what `unavailable` understands.

        A replica is none: what is published there reaches nobody who is connected to its primary.
        """
        if self._locator is not None:
            await self._move(await self._locator.find())
        line = self.line()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await line.connect()
                role, info = await ask(line, [("ROLE",), ("INFO",)])
                ids = await ask(line, _IDS) if self._is_sharded else []
            if isinstance(role, list) and role[0] != b"master":
                raise BrokerUnavailable(_REPLICA)
            self.state = self._state_of(info, ids)
        except BaseException:
            await close_line(line)
            raise
        return line

    def line(self) -> Any:
        """Return a connection that is not open yet."""
        return self._make(**self._options)

    @property
    def place(self) -> tuple[str, int]:
        """The host and port to which connections are made."""
        return self._options["host"], self._options["port"]

    async def _move(self, place: tuple[str, int]) -> None:
        """Have new connections lead elsewhere, and close those that lie ready."""
        if place == self.place:
            return
        self._options |= {"host": place[0], "port": place[1]}
        old, self.client.connection_pool = self.client.connection_pool, self._pool()
        await old.disconnect(inuse_connections=False)

    def _pool(self) -> Any:
        pool = library().asyncio.ConnectionPool
        return pool(connection_class=self._make, **self._options)

    async def check_place(self) -> None:
        """Raise `BrokerUnavailable` if the server is elsewhere now, as when somebody cannot reach the old one.

        Where that cannot be found out now, it is not.
        """
        if self._locator is None:
            return
        try:
            place = await self._locator.find()
        except BrokerUnavailable:
            return
        if place != self.place:
            raise BrokerUnavailable("another server has become the primary")

    async def until_moved(self) -> None:
        """See `Locator.until_moved`; without one, wait for ever."""
        if self._locator is None:
            await asyncio.get_running_loop().create_future()
        else:
            await self._locator.until_moved()

    def _state_of(self, info: Any, ids: list[Any]) -> str:
        """Return `state_of`. A replica that has become the primary may lack what the old one had."""
        state = state_of(info)
        if self._is_sharded:
            for each in ids:
                if isinstance(each, Exception):
                    raise each
            shard, node = (each.decode() for each in ids)
            return f"@{shard} {node}/{state}"
        return state if self._locator is None else "/".join((*map(str, self.place), state))

    async def answer(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask a single question by `client`, when its turn comes. Raises `BrokerUnavailable`."""
        try:
            async with asyncio.timeout(TURN_S):
                await self._turns.acquire()
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    return await ask()
            finally:
                self._turns.release()
        except Exception as error:
            raise unavailable(error) from error

    async def forget_old(self) -> None:
        """Close connections that lie ready: they are of a server that has gone."""
        await self.client.connection_pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        """Close what `client` has."""
        await self.client.aclose()


class _Writing:
    """What writes to no socket that has gone.

    `writelines` of asyncio, which the library calls, would then watch the file descriptor for the dead socket,
    and the next socket that gets the same number could not be read (Python 3.12 and 3.13;
    python/cpython issue 136234).
    """

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """See the library. Raises its `ConnectionError`."""
        line: Any = self
        if line.is_connected and line._writer.transport.is_closing():
            await close_line(line)
            raise library().ConnectionError("the connection is lost")
        write: Any = super()
        await write.send_packed_command(command, check_health)


async def probe(address: Address, *command: Any) -> Any:
    """Ask a single question of a server, by a connection of its own. Raises what `unavailable` understands."""
    line = Connections(address).line()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await line.connect()
            (answer,) = await ask(line, [command])
    finally:
        await close_line(line)
    if isinstance(answer, Exception):
        raise answer
    return answer


async def close_line(line: Any) -> None:
    """Close a line at once; whoever reads it gets an error."""
    await line.disconnect(nowait=True)


async def tell(line: Any, *command: Any) -> None:
    """Write a command, and read no answer."""
    await line.send_packed_command(line.pack_command(*command), check_health=False)


async def hear(line: Any) -> Any:
    """Read what the server says next, for as long as it takes. Errors that are answers are raised."""
    return await line.read_response(disconnect_on_error=False)


async def ask(line: Any, commands: list[tuple[Any, ...]]) -> list[Any]:
    """Write commands together, and return the answers; those that are errors are among them."""
    refusal = library().ResponseError
    await line.send_packed_command(line.pack_commands(commands), check_health=False)
    answers: list[Any] = []
    for _ in commands:
        try:
            answers.append(await hear(line))
        except refusal as error:
            answers.append(error)
    return answers


def library() -> Any:
    """Return the client library. Raises `MissingExtra`."""
    try:
        import redis
        import redis.asyncio
        import redis.asyncio.retry
        import redis.backoff
        import redis.crc
    except ImportError as error:
        raise MissingExtra("redis", "valkey") from error
    return redis


def state_of(info: Any) -> str:
    """Return what the positions of a server hold for, by its answer to INFO.

    A server with an append-only file has after a restart what it had before (with `appendfsync everysec` nearly
    always). Another may have an older state: there, positions hold until it starts again. Raises
    `BrokerUnavailable` while a server reads its file: it says then that it has none.
    """
    if not isinstance(info, bytes):
        return ""  # this user may not ask
    facts = dict(
        line.split(":", 1) for line in info.decode("utf-8", "replace").splitlines() if ":" in line
    )
    if facts.get("loading") == "1":
        raise BrokerUnavailable("the server is still reading what it has kept")
    return "" if facts.get("aof_enabled") == "1" else facts.get("run_id", "")


def holds_on(old: str, new: str) -> bool:
    """Tell whether positions that were given in one state hold in another: see `state_of`."""
    shards = [_SHARD.match(old), _SHARD.match(new)]
    return old == new or (None not in shards and shards[0][1] != shards[1][1])  # type: ignore[index]


def slot_of(name: bytes) -> int:
    """Return the slot of a cluster that has a key or a channel."""
    slot: int = library().crc.key_slot(name)
    return slot


def is_moving(error: object) -> bool:
    """Tell whether a node of a cluster says that it has not, or not all of, what it was asked for."""
    exceptions = library().exceptions
    kinds = ("MovedError", "AskError", "TryAgainError", "ClusterDownError")
    return isinstance(error, tuple(getattr(exceptions, kind) for kind in kinds))


def moved_slot(error: object) -> int | None:
    """Return the slot that a node of a cluster has no more, as it says by an error."""
    return error.slot_id if isinstance(error, library().exceptions.MovedError) else None


def is_missing_script(answer: object) -> bool:
    """Tell whether the server has forgotten a script: it has started again, or somebody made it forget."""
    return type(answer).__name__ == "NoScriptError"


def is_replica(error: BaseException) -> bool:
    """Tell whether a server says by an error that it takes nothing, since it is a replica now."""
    return isinstance(error, library().exceptions.ReadOnlyError)


def unavailable(error: BaseException) -> BrokerUnavailable:
    """Return what an error means to those who use the broker. It names no user and no password."""
    if isinstance(error, BrokerUnavailable):
        return error
    redis = library()
    if isinstance(error, redis.AuthenticationError):
        return BrokerUnavailable("the server refuses the user's name or the password of its URL")
    if isinstance(error, redis.exceptions.NoPermissionError):
        return BrokerUnavailable(f"the server's user may not do that: {reason_of(error)}")
    if is_replica(error):
        return BrokerUnavailable(_REPLICA)
    if is_moving(error):
        return BrokerUnavailable("the cluster is moving this room's slot, or nobody has it")
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return BrokerUnavailable("the server has no memory left (maxmemory)")
    if isinstance(error, TimeoutError | redis.TimeoutError):
        return BrokerUnavailable("the server does not answer")
    if isinstance(error, redis.exceptions.InvalidResponse):
        return BrokerUnavailable(
            f"what answers there is no Valkey or Redis server: {reason_of(error)}"
        )
    return BrokerUnavailable(reason_of(error))
