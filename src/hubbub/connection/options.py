"""What the Python client is told: the keywords of `hubbub.connect`, and what cannot be right in them.

Pure: no socket, no event loop. Every check is made once, when a `Connection` is made, and for what
a function of the program's returns, at every attempt. `connect` calls it.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import re
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from websockets.exceptions import InvalidProxy
from websockets.proxy import parse_proxy

from ..model import Position, check_position
from ..wire.frame import encode_json
from .addresses import websocket_url, without_secrets

Url = str | Callable[[], str | Awaitable[str]]
Headers = Mapping[str, str] | Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]]
Proxy = str | Literal[True] | None
Token = str | Callable[[], str | Awaitable[str]]
Since = Position | Mapping[str, Any] | tuple[int, str] | list[Any]
Dialect = Literal["plain", "centrifuge"]


class _Usual:
    def __repr__(self) -> str:
        return "usual"


USUAL: Any = _Usual()
"""A bound in bytes that was not given: what it is depends on the dialect."""

_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
"""A header's name or a subprotocol (RFC 9110 section 5.6.2)."""
_FIELD = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
"""A header's value (RFC 9110 section 5.5); no line ends, so that it cannot become two headers."""
_OF_THE_HANDSHAKE = ("connection", "content-length", "host", "transfer-encoding", "upgrade")
_OF_WEBSOCKETS = "sec-websocket-"
_SOCKS = ("socks4", "socks4a", "socks5", "socks5h")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `connect` was told and how it is used; the names are those of its keywords."""

    url: Url
    headers: Headers
    subprotocols: tuple[str, ...]
    origin: str | None
    max_message_bytes: int | None
    open_timeout_s: float | None
    close_timeout_s: float
    ping_interval_s: float | None
    ping_timeout_s: float | None
    reconnect: bool
    proxy: Proxy
    ssl: ssl_module.SSLContext | None

    def __post_init__(self) -> None:
        _check_seconds("open_timeout_s", self.open_timeout_s, or_none=True)
        _check_seconds("close_timeout_s", self.close_timeout_s, least="not negative")
        _check_seconds("ping_interval_s", self.ping_interval_s, or_none=True)
        _check_seconds("ping_timeout_s", self.ping_timeout_s, or_none=True)
        _check_size("max_message_bytes", self.max_message_bytes)
        _check_ssl(self.ssl)


@dataclass(frozen=True)
class RoomOptions:
    """What `connect` was told besides for a connection with rooms."""

    token: Token | None
    data: Any
    timeout_s: float
    max_ping_delay_s: float
    max_queue: int

    def __post_init__(self) -> None:
        token_option(self.token)
        encode_json(self.data)  # raises TypeError for what JSON cannot say
        _check_seconds("timeout_s", self.timeout_s)
        _check_seconds("max_ping_delay_s", self.max_ping_delay_s, least="not negative")
        if self.max_queue < 0:
            raise ValueError(f"max_queue={self.max_queue}: must not be negative")


def check_token(token: object) -> str:
    """Return a token as it is sent. Raises `TypeError`, without the token."""
    if not isinstance(token, str):
        raise TypeError(f"a token must be a str, not {_kind(token)}")
    return token


def token_option(token: object) -> None:
    """Check the `token` of `connect` and of `subscribe`."""
    if callable(token):
        _check_function("token", token)
    elif token is not None:
        check_token(token)


def since_option(since: object) -> Position | None:
    """Return the `since` of `subscribe`: what a hub gives on the server, as it is or as JSON has it.

    `{}` is a position before everything, in whatever history there is. Raises `TypeError` or `ValueError` for
    what cannot be a position, or is half of one.
    """
    if since is None:
        return None
    position = _position_of(since)
    check_position(position)
    if position.offset >= 2**64:
        raise ValueError(f"since: no offset is as large as {position.offset!r:.100}")
    if position.offset and not position.epoch:
        raise ValueError(f"since: offset {position.offset} says nothing without its epoch")
    return position


def _position_of(since: object) -> Position:
    if isinstance(since, Position):
        return since
    if isinstance(since, Mapping):
        if not since:
            return Position(0, "")
        if "offset" in since and "epoch" in since:
            return Position(since["offset"], since["epoch"])
    if isinstance(since, (tuple, list)) and len(since) == 2:
        return Position(*since)
    raise TypeError(
        'since must be a Position or {"offset": …, "epoch": …}, as hub.cursor(room) gives on the '
        f"server, or {{}} for all that is kept, not {since!r:.100}"
    )


def is_plain(dialect: object, token: object, data: object, max_queue_bytes: int) -> bool:
    """Tell whether the `dialect` of `connect` is the plain one. Raises for keywords of the other one."""
    if dialect not in ("plain", "centrifuge"):
        raise ValueError(f'dialect={dialect!r}: must be "plain" or "centrifuge"')
    if dialect == "plain" and (token is not None or data is not None):
        raise TypeError(
            'token and data are for dialect="centrifuge"; a plain connection has '
            'headers={"Authorization": "Bearer …"}, or a function that returns them'
        )
    if dialect == "centrifuge" and max_queue_bytes is not USUAL:
        raise TypeError("max_queue_bytes is for plain messages; max_queue bounds commands")
    return dialect == "plain"


def size_option(size: int | None, usual: int) -> int | None:
    """Return the `max_message_bytes` of `connect`."""
    return usual if size is USUAL else size


def check_address(url: object) -> str:
    """Return an address as it is asked for. Raises `TypeError` or `ValueError`."""
    if not isinstance(url, str):
        raise TypeError(f"url must be a str, not {_kind(url)}")
    return websocket_url(url)


def check_headers(headers: object) -> dict[str, str]:
    """Return headers that can be sent. Raises `TypeError` or `ValueError`."""
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers must be a dict of names and values, not {_kind(headers)}")
    for name, value in headers.items():
        _check_header(name, value)
    return dict(headers)


def _check_header(name: object, value: object) -> None:
    # No value is shown: it may be a secret.
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise ValueError(f"headers: {name!r} is no name of a header")
    if name.lower() in _OF_THE_HANDSHAKE or name.lower().startswith(_OF_WEBSOCKETS):
        instead = "; use subprotocols=" if name.lower() == "sec-websocket-protocol" else ""
        raise ValueError(f"headers: the handshake sets {name} by itself{instead}")
    if not isinstance(value, str):
        raise TypeError(f"headers: the value of {name} must be a str, not {_kind(value)}")
    if not _FIELD.fullmatch(value):
        raise ValueError(f"headers: the value of {name} has characters that no header may have")


def url_option(url: object) -> Url:
    """Return the `url` of `connect`: an address, or a function that is called without arguments."""
    if callable(url):
        _check_function("url", url)
        return url
    if not isinstance(url, str):
        raise TypeError(f"url must be a str or a function that returns one, not {_kind(url)}")
    return check_address(url)


def headers_option(headers: object, origin: str | None) -> Headers:
    """Return the `headers` of `connect`: a dict, or a function that is called without arguments."""
    if headers is None:
        return {}
    if callable(headers):
        _check_function("headers", headers)
        return headers
    checked = check_headers(headers)
    if origin is not None and any(name.lower() == "origin" for name in checked):
        raise ValueError("headers: Origin is given twice, here and as origin=")
    return checked


def origin_option(origin: object) -> str | None:
    """Return the `origin` of `connect`."""
    if origin is not None and not isinstance(origin, str):
        raise TypeError(f"origin must be a str or None, not {_kind(origin)}")
    if origin is not None and not (origin and _FIELD.fullmatch(origin)):
        raise ValueError(f"origin={origin!r} is no origin; one looks like https://example.com")
    return origin


def subprotocols_option(subprotocols: object) -> tuple[str, ...]:
    """Return the `subprotocols` of `connect`; None and an empty list offer none."""
    if subprotocols is None:
        return ()
    if isinstance(subprotocols, (str, bytes)) or not isinstance(subprotocols, Sequence):
        raise TypeError(f"subprotocols must be a list of str, not {_kind(subprotocols)}")
    for name in subprotocols:
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ValueError(
                f"subprotocols: {name!r} is no token (letters, digits, -._~ and so on)"
            )
    if len(set(subprotocols)) < len(subprotocols):
        raise ValueError(f"subprotocols={list(subprotocols)}: one is there twice")
    return tuple(subprotocols)


def proxy_option(proxy: object) -> Proxy:
    """Return the `proxy` of `connect`."""
    if proxy is None or proxy is True:
        return proxy
    if not isinstance(proxy, str):
        raise TypeError(f"proxy must be True (the system's), None or a str, not {proxy!r}")
    try:
        scheme = parse_proxy(proxy).scheme
    except InvalidProxy as error:
        raise ValueError(f"proxy={without_secrets(proxy)!r}: {error.msg}") from None
    except ValueError:  # a port that is no number
        raise ValueError(f"proxy={without_secrets(proxy)!r} is no address of a proxy") from None
    if scheme in _SOCKS and importlib.util.find_spec("python_socks") is None:
        raise ValueError(f"proxy={without_secrets(proxy)!r}: SOCKS needs python-socks[asyncio]")
    return proxy


def state_option(on_state: object) -> None:
    """Check the `on_state` of `connect`."""
    if on_state is not None and not callable(on_state):
        raise TypeError(f"on_state must be a function or None, not {_kind(on_state)}")
    if inspect.iscoroutinefunction(on_state):
        raise TypeError("on_state must be a plain function: nobody would await it")


def _check_function(name: str, function: Callable[..., object]) -> None:
    try:
        inspect.signature(function).bind()
    except ValueError:  # some builtins do not say what they take
        return
    except TypeError as error:
        raise TypeError(f"the {name} function is called without arguments: {error}") from None


def _check_seconds(
    name: str, value: object, *, least: str = "more than 0", or_none: bool = False
) -> None:
    if value is None and or_none:
        return
    none = ", or None" if or_none else ""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be seconds{none}, not {_kind(value)}")
    if not 0 <= value < math.inf or (value == 0 and least == "more than 0"):
        raise ValueError(f"{name}={value:g}: must be seconds, {least}{none}")


def _check_size(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a number of bytes, or None, not {_kind(value)}")
    if value < 1:
        raise ValueError(f"{name}={value}: must be at least 1 byte, or None for no limit")


def _check_ssl(context: object) -> None:
    if context is not None and not isinstance(context, ssl_module.SSLContext):
        raise TypeError(f"ssl must be an ssl.SSLContext or None, not {context!r}")


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__
