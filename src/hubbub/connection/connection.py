"""The Python client's door: `hubbub.connect(url)`, a connection that comes back by itself.

What must not live here: the connections themselves (`plain_connection`, `room_connection`; both stand on
`reconnecting`), and what the keywords may be (`options`). Programs call it, and so does `hubbub connect`.
"""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import Callable, Sequence

from . import options as checks
from .offline_queue import OfflineQueue
from .options import Headers, Options, Proxy, Url
from .plain_connection import Connection
from .reconnecting import State
from .retry import Backoff

__all__ = ["Connection", "State", "connect"]


def connect(
    url: Url,
    *,
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
) -> Connection:
    """Return a connection to a WebSocket server, to be used with `async with`.

        async with connect("ws://localhost:8080/ws") as connection:
            await connection.send({"type": "say", "text": "hello"})
            async for message in connection:
                print(message)

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
    `max_message_bytes` bounds an incoming message (None: no limit). `open_timeout_s` bounds an
    attempt (None: no limit), `close_timeout_s` a close. A ping is sent every `ping_interval_s`
    (None: never); a server that does not answer it within `ping_timeout_s` (None: for ever) is
    given up. `proxy`: True takes
    the system's, None none, a string is its address. `ssl` replaces the default TLS context of
    wss:. `on_state` is called with each new state.

    Raises `TypeError` or `ValueError` for an argument that cannot be right; nothing else here does.
    The network begins with `async with`, which waits for the first attempt, whether it succeeds or
    not; a refusal or an end for good is raised by the iteration, as `Disconnected`, whatever it was
    that failed.
    """
    checks.state_option(on_state)
    options = Options(
        url=checks.url_option(url),
        headers=checks.headers_option(headers, origin),
        subprotocols=checks.subprotocols_option(subprotocols),
        origin=checks.origin_option(origin),
        max_message_bytes=max_message_bytes,
        open_timeout_s=open_timeout_s,
        close_timeout_s=close_timeout_s,
        ping_interval_s=ping_interval_s,
        ping_timeout_s=ping_timeout_s,
        reconnect=reconnect,
        proxy=checks.proxy_option(proxy),
        ssl=ssl,
    )
    return Connection(
        options,
        Backoff(min_delay_s, max_delay_s, fixed_delay_s),
        OfflineQueue(max_queue, max_queue_bytes),
        on_state,
    )
