"""The nouns that travel: Position, Receipt, Identity, Handshake, Close, ClientInfo.

What must not live here: behaviour beyond reading one's own fields. Everybody may import this
module; it imports nothing of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

EVERYBODY = ""
"""The name of the room that every client of the hub is in. No room of an application has it."""

USER_PREFIX = "@"
"""Rooms of this prefix hold the clients of one user; applications cannot join them by name."""

_ANONYMOUS_PREFIX = "-"
"""What the key of an anonymous client begins with: another character than a user's."""

_FAR_FUTURE = 1e11
"""Seconds since 1970 that nobody means: the year 5138."""

_NO_META: Mapping[str, Any] = MappingProxyType({})


def _no_meta() -> Mapping[str, Any]:
    """Return the one empty mapping (before Python 3.12 it cannot be a dataclass's default)."""
    return _NO_META


@dataclass(order=True, frozen=True, slots=True)
class Position:
    """Where in a room's history a publication stands. `offset` counts from 1 within `epoch`, which is a text
    without a meaning for others.

    In JSON it is `{"offset": 5, "epoch": "…"}`, as browsers want it: what a hub sends, and FastAPI answers,
    is so by itself; `as_dict` is for all else, such as a template's `{{ cursor.as_dict() | tojson }}`. Nobody
    can change one.
    """

    offset: int
    epoch: str

    def as_dict(self) -> dict[str, int | str]:
        """Return what JSON has."""
        return {"offset": self.offset, "epoch": self.epoch}


def check_position(since: object) -> None:
    """Raise `TypeError` or `ValueError` for what is no position, and not None."""
    if since is None:
        return
    if not isinstance(since, Position):
        raise TypeError(
            f"since is a hubbub.Position, such as hub.cursor(room) gives, not {since!r:.80}; "
            "Position(offset, epoch) makes one of what a page sends"
        )
    if type(since.offset) is not int or not isinstance(since.epoch, str):
        raise TypeError(f"a position is a whole number and a str, not {since!r:.80}")
    if since.offset < 0:
        raise ValueError(f"the offset of a position is not negative, as in {since!r:.80}")


class Receipt(NamedTuple):
    """What `publish` answers.

    `delivered_to` counts the clients of this process that the publication was handed to;
    `position` is None when the room keeps no history. `is_repeated` says that a publication with the
    same key was taken before: nothing was published, and `position` is that of the first.
    """

    delivered_to: int
    position: Position | None = None
    is_repeated: bool = False


class Close(NamedTuple):
    """How a connection ended: a close code (RFC 6455 section 7.4) and a reason.

    `by_server` says who began it. 1006 stands for a connection that broke.
    """

    code: int
    reason: str = ""
    by_server: bool = False


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """A client, as others see it: `client` is its id, `user` its user (None: anonymous).

    `info` is what the application says of it in that room: `Hub.presence_info`, or else the token that let it
    into the room. `conn_info` is what its identity says of it, where there is no `presence_info`; see
    `Identity`. Both are of types that JSON has (None: nothing is said).
    """

    client: str
    user: str | None = None
    info: Any = None
    conn_info: Any = None

    @property
    def key(self) -> str:
        """Who it is: all clients of one user have the same key, an anonymous client its own.

        No user has the key of an anonymous client, whatever id that has chosen.
        """
        return _ANONYMOUS_PREFIX + self.client if self.user is None else USER_PREFIX + self.user


class PresenceStats(NamedTuple):
    """How many are in a room: `clients` connections of `users` people, each anonymous client one."""

    clients: int
    users: int


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a handshake turned out to be.

    `user` is the application's name for the person or service (None: anonymous), `meta` whatever
    the application wants to find again as `client.meta`, `client_id` a wish for `client.id`
    (None: generated), `subprotocol` the one to agree on, of those that the client offered (None:
    none), `expires_at` when the token ends that proved it (Unix time in seconds; None: never). See
    the setting `on_expiry` for what happens then, `rooms` those that the client is in from the beginning, `info` what
    others are shown of it, of types that JSON has (None: nothing), where no `presence_info` says that instead.
    Raises `TypeError` for a field of another type (a number as `user`: write `str(number)`), and
    `ValueError` for a time that is none, and for a `user` with half of a surrogate pair.
    """

    user: str | None = None
    meta: Mapping[str, Any] = field(default_factory=_no_meta)
    client_id: str | None = None
    subprotocol: str | None = None
    expires_at: float | None = None
    rooms: tuple[str, ...] = ()
    info: Any = None

    def __post_init__(self) -> None:
        if not (
            isinstance(self.user, _TEXT)
            and isinstance(self.client_id, _TEXT)
            and isinstance(self.subprotocol, _TEXT)
            and isinstance(self.meta, _MAPPING)
            and isinstance(self.rooms, tuple)
        ):
            hint = "a str or None; of another key, write str(key)"
            for name in ("user", "client_id", "subprotocol"):
                _check_type(self, name, _TEXT, hint)
            _check_type(self, "meta", _MAPPING, 'a mapping, as in meta={"role": "admin"}')
            _check_type(self, "rooms", (tuple,), 'a tuple, as in rooms=("news",)')
        if self.user is not None:
            check_user_text(self.user)
        if self.expires_at is not None:
            check_unix_time(self.expires_at)


_TEXT = (str, type(None))
_MAPPING = (dict, MappingProxyType, Mapping)  # the usual ones first: an abstract class is slow


def _check_type(owner: object, name: str, kinds: tuple[type, ...], wanted: str) -> None:
    """Raise `TypeError` when a field is not what it must be: name it, what was found, what to write."""
    value = getattr(owner, name)
    if not isinstance(value, kinds):
        found = f"{type(value).__name__}: {value!r:.100}"
        raise TypeError(f"{type(owner).__name__}.{name} must be {wanted}, not {found}")


def check_user_text(user: str) -> None:
    """Raise `ValueError` for a user's name that has no bytes in UTF-8, and so could not be said to anybody."""
    try:
        user.encode()
    except UnicodeEncodeError as error:
        found = f"U+{ord(user[error.start]):04X}"
        raise ValueError(
            f"a user's name must not hold {found}: half of a surrogate pair has no bytes in UTF-8"
        ) from None


def check_unix_time(value: float | None) -> float | None:
    """Return `value` if it is None or a Unix time in seconds; raise otherwise.

    Milliseconds, which would lie far in the future and never come, are a `ValueError`; what is no
    number is a `TypeError`.
    """
    if not isinstance(value, int | float | None) or isinstance(value, bool):
        raise TypeError(
            "expires_at must be a Unix time in seconds, or None (of a datetime, write "
            f"when.timestamp()), not {type(value).__name__}: {value!r:.100}"
        )
    if value is not None and not -_FAR_FUTURE < value < _FAR_FUTURE:  # as NaN is not
        raise ValueError(f"expires_at={value!r:.100}: must be a Unix time in seconds, or None")
    return value


@dataclass(frozen=True)
class Handshake:
    """The HTTP request that asks for a socket.

    `headers` has lower-case names (a repeated header is joined with ", "), `query` the last value of each
    parameter, `address` the peer as the ASGI server reports it (None: unknown), `scope` the ASGI scope, for
    what frameworks keep there (`session`, `user`, `state`). A client of a dialect with a connect command says
    who it is after the handshake: then `connect_token` and `data` are what that command carries (None:
    nothing). The hub makes it; tests of applications may too. Raises `TypeError` for a field of another type.
    """

    path: str
    headers: Mapping[str, str]
    query_string: str = ""
    subprotocols: tuple[str, ...] = ()
    address: str | None = None
    scheme: str = "ws"
    scope: Mapping[str, Any] = field(default_factory=_no_meta, repr=False)
    connect_token: str | None = field(default=None, repr=False)
    data: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not (
            isinstance(self.path, str)
            and isinstance(self.query_string, str)
            and isinstance(self.scheme, str)
            and isinstance(self.address, _TEXT)
            and isinstance(self.subprotocols, tuple)
            and isinstance(self.headers, _MAPPING)
            and isinstance(self.scope, _MAPPING)
        ):
            for name in ("path", "query_string", "scheme"):
                _check_type(self, name, (str,), "a str")
            _check_type(self, "address", _TEXT, "a str or None")
            _check_type(self, "subprotocols", (tuple,), 'a tuple, as in ("chat",)')
            _check_type(self, "headers", _MAPPING, 'a mapping, as in {"cookie": "session=1"}')
            _check_type(self, "scope", _MAPPING, "a mapping")

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The query parameters; of a repeated one the last value."""
        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    @cached_property
    def cookies(self) -> Mapping[str, str]:
        """The cookies; one that is malformed does not hide the others."""
        pairs = (part.partition("=") for part in self.headers.get("cookie", "").split(";"))
        return {name.strip(): _unquote(value.strip()) for name, _, value in pairs if name.strip()}

    @property
    def path_params(self) -> Mapping[str, Any]:
        """The parameters in the path of the hub's route, `room` in "/rooms/{room}/ws".

        FastAPI gives strings; Starlette's converters (`{room:int}`) count in both. Empty for a hub
        that has no such route (`hub.mount`).
        """
        params: Mapping[str, Any] = self.scope.get("path_params") or _NO_META
        return params

    @property
    def origin(self) -> str | None:
        """The Origin header; None for a client that is no browser."""
        return self.headers.get("origin")

    @property
    def host(self) -> str | None:
        """The Host header, with its port if it has one."""
        return self.headers.get("host")

    @cached_property
    def token(self) -> str | None:
        """The token: the connect command's, else `Authorization: Bearer …`, else `?token=…`, else None.

        A token in a query string ends up in access logs; prefer the header or a cookie where the
        client can send one.
        """
        if self.connect_token is not None:
            return self.connect_token
        kind, _, value = self.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and value.strip():
            return value.strip()
        return self.query.get("token") or None


def _unquote(value: str) -> str:
    """Return a cookie's value without the quotes and escapes that Python's `http.cookies` writes.

    Not read with `http.cookies`, which takes quadratic time in some versions of Python 3.11 and 3.12.
    """
    if len(value) < 2 or not (value[0] == value[-1] == '"'):
        return value
    return _ESCAPE.sub(lambda found: found[2] or chr(int(found[1], 8)), value[1:-1])


_ESCAPE = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))", re.ASCII | re.DOTALL)
