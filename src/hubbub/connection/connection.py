"""The Python client's door: `hubbub.connect(url)`, a connection that comes back by itself.

What must not live here: the connections themselves (`plain_connection`, `room_connection`; both stand on
`reconnecting`), and what the keywords may be (`options`). Programs call it, and so does `hubbub connect`.
"""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, overload

from . import options as checks
from .offline_queue import OfflineQueue
from .options import USUAL, Dialect, Headers, Options, Proxy, RoomOptions, Token, Url
from .plain_connection import Connection
from .reconnecting import State
from .retry import Backoff
from .room_connection import RoomConnection

__all__ = ["Connection", "RoomConnection", "State", "connect"]


@overload
def connect(
    url: Url,
    *,
    dialect: Literal["plain"] = "plain",
    min_delay_s: float = 0.5,
    max_delay_s: float = 20.0,
    fixed_delay_s: float | None = None,
    max_queue: int = 100,
    max_queue_bytes: int = 2**20,
    headers: Headers | None = None,
    subprotocols: Sequence[str] | None = None,
    origin: str | None = None,
    max_message_bytes: int | None = 2**20,
    open_timeout_s: float | None = 10.0,
    close_timeout_s: float = 5.0,
    ping_interval_s: float | None = 20.0,
    ping_timeout_s: float | None = 20.0,
    reconnect: bool = True,
    proxy: Proxy = True,
    ssl: ssl_module.SSLContext | None = None,
    on_state: Callable[[State], object] | None = None,
) -> Connection: ...


@overload
def connect(
    url: Url,
    *,
    dialect: Literal["centrifuge"],
    token: Token | None = None,
    data: Any = None,
    timeout_s: float = 5.0,
    max_ping_delay_s: float = 10.0,
    min_delay_s: float = 0.5,
    max_delay_s: float = 20.0,
    fixed_delay_s: float | None = None,
    max_queue: int = 100,
    headers: Headers | None = None,
    subprotocols: Sequence[str] | None = None,
    origin: str | None = None,
    max_message_bytes: int | None = 2**24,
    open_timeout_s: float | None = 10.0,
    close_timeout_s: float = 5.0,
    ping_interval_s: float | None = 20.0,
    ping_timeout_s: float | None = 20.0,
    reconnect: bool = True,
    proxy: Proxy = True,
    ssl: ssl_module.SSLContext | None = None,
    on_state: Callable[[State], object] | None = None,
) -> RoomConnection: ...


def connect(
    url: Url,
    *,
    dialect: Dialect = "plain",
    min_delay_s: float = 0.5,
    max_delay_s: float = 20.0,
    fixed_delay_s: float | None = None,
    max_queue: int = 100,
    max_queue_bytes: int = USUAL,
    headers: Headers | None = None,
    subprotocols: Sequence[str] | None = None,
    origin: str | None = None,
    max_message_bytes: int | None = USUAL,
    open_timeout_s: float | None = 10.0,
    close_timeout_s: float = 5.0,
    ping_interval_s: float | None = 20.0,
    ping_timeout_s: float | None = 20.0,
    reconnect: bool = True,
    proxy: Proxy = True,
    ssl: ssl_module.SSLContext | None = None,
    on_state: Callable[[State], object] | None = None,
    token: Token | None = None,
    data: Any = None,
    timeout_s: float = 5.0,
    max_ping_delay_s: float = 10.0,
) -> Connection | RoomConnection:
    """Return a connection to a WebSocket server, to be used with `async with`.

        async with connect("ws://localhost:8080/ws") as connection:
            await connection.send({"type": "say", "text": "hello"})
            async for message in connection:
                print(message)

    With `dialect="centrifuge"` it is a `RoomConnection`, which has rooms: see there, and
    `RoomConnection.subscribe`. The address is that of a route of that dialect.

        async with connect("ws://localhost:8080/rooms", dialect="centrifuge") as connection:
            async with connection.subscribe("chat:1") as room:
                async for message in room:
                    print(message.data)

    `url` begins with ws:// or wss:// (http:// and https:// are taken for them), or is a function,
    plain or async, that returns it: it is called before every attempt, which is the place to
    refresh a token. If it raises `Disconnected` the connection ends with that; another exception
    counts as a failed attempt; what is no address ends it. `headers` are added to the handshake; a
    function here is called before every attempt too. Redirects are followed, but another origin
    gets no `headers`. `subprotocols` are offered in this order. `origin` is the Origin header
    (None: none, which servers take for "no browser").

    `min_delay_s`, `max_delay_s`, `fixed_delay_s`: see `Backoff`; all in seconds. `reconnect=False`
    makes one attempt and never comes back. `max_queue` messages of together `max_queue_bytes` are
    kept while offline (0: none); one more drops the oldest, which `connection.dropped` counts.
    `max_message_bytes` bounds an incoming message (None: no limit; with rooms 16 MiB, since what was
    missed of a room comes in one). `open_timeout_s` bounds an attempt (None: no limit),
    `close_timeout_s` a close. A ping is sent every `ping_interval_s` (None: never); a server that
    does not answer it within `ping_timeout_s` (None: for ever) is given up. `proxy`: True takes the
    system's, None none, a string is its address. `ssl` replaces the default TLS context of wss:.
    `on_state` is called with each new state.

    For rooms only: `token` says who comes, or is a function, plain or async, that returns it: it is
    called when there is none, and when the server's time for one has ended. `data` is any JSON for the
    server's authenticate handler. A command is answered within `timeout_s` seconds, the wait for a
    connection included, in which `max_queue` of them may wait. A server that says how often it will be
    heard, and is `max_ping_delay_s` seconds late, is given up.

    Raises `TypeError` or `ValueError` for an argument that cannot be right; nothing else here does.
    The network begins with `async with`, which waits for the first attempt, whether it succeeds or
    not; a refusal or an end for good is raised by the iteration, as `Disconnected`, whatever it was
    that failed.
    """
    checks.state_option(on_state)
    is_plain = checks.is_plain(dialect, token, data, max_queue_bytes)
    options = Options(
        url=checks.url_option(url),
        headers=checks.headers_option(headers, origin),
        subprotocols=checks.subprotocols_option(subprotocols),
        origin=checks.origin_option(origin),
        max_message_bytes=checks.size_option(max_message_bytes, 2**20 if is_plain else 2**24),
        open_timeout_s=open_timeout_s,
        close_timeout_s=close_timeout_s,
        ping_interval_s=ping_interval_s,
        ping_timeout_s=ping_timeout_s,
        reconnect=reconnect,
        proxy=checks.proxy_option(proxy),
        ssl=ssl,
    )
    backoff = partial(Backoff, min_delay_s, max_delay_s, fixed_delay_s)
    if is_plain:
        queue = OfflineQueue(max_queue, 2**20 if max_queue_bytes is USUAL else max_queue_bytes)
        return Connection(options, backoff(), queue, on_state)
    rooms = RoomOptions(token, data, timeout_s, max_ping_delay_s, max_queue)
    return RoomConnection(options, backoff, rooms, on_state)
