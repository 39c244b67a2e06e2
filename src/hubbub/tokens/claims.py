"""Claims: what a token says, each claim of the type that it must have.

What must not live here: signatures and keys. Pure: `verifier` calls it with the claims of a token that has
been checked. The claims are those of Centrifuge's tokens. One that is there and null is a mistake of
whoever signed it, not one that is absent: a user whose name is null is not anonymous. Only `info` and
`data` may be null, like any JSON.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from ..errors import TokenExpired, TokenInvalid
from ..model import check_unix_time

Claims = Mapping[str, Any]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def _nothing() -> Mapping[str, Any]:
    return _NOTHING


class Override(NamedTuple):
    """What a token changes of a room's rules for one subscription. None: the rule stays as it is."""

    presence: bool | None = None
    join_leave: bool | None = None
    force_push_join_leave: bool | None = None
    force_recovery: bool | None = None
    force_positioning: bool | None = None


@dataclass(frozen=True, slots=True)
class SubscriptionOptions:
    """What a connection token says of one room in its claim `subs`.

    `info` is shown to others in the room, `data` is for the client; both are JSON, or bytes of the
    claims `b64info` and `b64data`.
    """

    info: Any = None
    data: Any = None
    override: Override = Override()


@dataclass(frozen=True, slots=True)
class ConnectionToken:
    """What a connection token says.

    `user` is who connects (None: anonymous), `expires_at` when the connection ends (Unix time in
    seconds, the leeway included; None: never), `info` what others are shown of the user (JSON, or
    bytes of the claim `b64info`), `meta` what only the server sees, `channels` and `subs` the rooms
    that the client is in without asking, the latter with options. Names of rooms are not checked here.
    """

    user: str | None = None
    expires_at: float | None = None
    info: Any = None
    meta: Mapping[str, Any] = field(default_factory=_nothing, repr=False)
    channels: tuple[str, ...] = ()
    subs: Mapping[str, SubscriptionOptions] = field(default_factory=_nothing)


@dataclass(frozen=True, slots=True)
class SubscriptionToken:
    """What a subscription token says: `user` may be in `room` until `expires_at`.

    `expires_at` is a Unix time in seconds, the leeway included (None: never), `info` what others in
    the room are shown, `data` what the client gets; both are JSON, or bytes of the claims `b64info` and
    `b64data`.
    """

    user: str | None
    room: str
    expires_at: float | None = None
    info: Any = None
    data: Any = None
    override: Override = Override()


class _Times(NamedTuple):
    """When a token begins and ends, with the leeway: Unix times in seconds, None where it says nothing.

    `is_endless`: what the token allows does not end with the token.
    """

    nbf: float | None
    exp: float | None
    expire_at: float | None
    is_endless: bool

    @property
    def expires_at(self) -> float | None:
        """When what the token allows ends; None: never."""
        if self.is_endless:
            return None
        return self.exp if self.expire_at is None else self.expire_at

    def check(self, now: float) -> None:
        """Raise `TokenExpired` for a token that is not good at `now`."""
        if self.exp is not None and self.exp <= now:
            raise TokenExpired("exp")
        if self.nbf is not None and self.nbf > now:
            raise TokenExpired("nbf")
        if self.expire_at is not None and self.expire_at <= now:
            raise TokenExpired("expire_at")


def read_connection(
    claims: Claims, *, user_claim: str, now: float, leeway_s: float
) -> ConnectionToken:
    """Return what a connection token says at `now` (Unix time in seconds).

    Raises `TokenInvalid` for claims that no such token has, then `TokenExpired`.
    """
    _check_json(claims)
    if "channel" in claims:
        raise TokenInvalid("it is for a subscription, not for a connection")
    times = _times(claims, leeway_s)
    token = ConnectionToken(
        user=_text(claims, user_claim) or None,
        expires_at=times.expires_at,
        info=_json_or_bytes(claims, "info"),
        meta=_object(claims, "meta"),
        channels=_names(claims, "channels"),
        subs=_subs(claims),
    )
    times.check(now)
    return token


def read_subscription(
    claims: Claims, *, user_claim: str, now: float, leeway_s: float
) -> tuple[SubscriptionToken, str | None]:
    """Return what a subscription token says at `now`, and the only client that may use it (None: any).

    Raises `TokenInvalid` for claims that no such token has, then `TokenExpired`.
    """
    _check_json(claims)
    room = _text(claims, "channel")
    if not room:
        raise TokenInvalid("it is for no subscription: its claim 'channel' is missing")
    times = _times(claims, leeway_s)
    token = SubscriptionToken(
        user=_text(claims, user_claim) or None,
        room=room,
        expires_at=times.expires_at,
        info=_json_or_bytes(claims, "info"),
        data=_json_or_bytes(claims, "data"),
        override=_override(claims),
    )
    client_id = _text(claims, "client") or None
    times.check(now)
    return token, client_id


def _check_json(claims: Claims) -> None:
    """Raise for what Python reads as JSON and others do not: NaN, half a surrogate pair.

    What a token says is sent on to clients.
    """
    try:
        json.dumps(claims, allow_nan=False, ensure_ascii=False).encode()
        return
    except (ValueError, RecursionError):
        pass
    raise TokenInvalid("its claims are not JSON")


def _wrong(name: str, wanted: str) -> TokenInvalid:
    return TokenInvalid(f"its claim {name!r} must be {wanted}")


def _text(claims: Claims, name: str) -> str:
    text = claims.get(name, "")
    if not isinstance(text, str):
        raise _wrong(name, "a string")
    return text


def _object(claims: Claims, name: str) -> Mapping[str, Any]:
    value = claims.get(name, _NOTHING)
    if not isinstance(value, Mapping):
        raise _wrong(name, "an object")
    return value


def _names(claims: Claims, name: str) -> tuple[str, ...]:
    """Return a list of names, each once."""
    names = claims.get(name, [])
    if not isinstance(names, list) or not all(isinstance(each, str) and each for each in names):
        raise _wrong(name, "a list of names")
    return tuple(dict.fromkeys(names))


def _subs(claims: Claims) -> Mapping[str, SubscriptionOptions]:
    found = {}
    for room, options in _object(claims, "subs").items():
        if not room or not isinstance(options, dict):
            raise _wrong("subs", "an object of names, each with an object of options")
        found[room] = SubscriptionOptions(
            info=_json_or_bytes(options, "info"),
            data=_json_or_bytes(options, "data"),
            override=_override(options),
        )
    return MappingProxyType(found)


def _json_or_bytes(claims: Claims, name: str) -> Any:
    """Return `b64…` as bytes if it is there and not empty, else the JSON of the plain claim."""
    text = _text(claims, f"b64{name}")
    if not text:
        return claims.get(name)
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    raise _wrong(f"b64{name}", "base64 (RFC 4648 section 4)")


def _override(claims: Claims) -> Override:
    found: dict[str, bool] = {}
    given = _object(claims, "override")
    for name in Override._fields:
        if name in given:
            value = given[name].get("value") if isinstance(given[name], dict) else None
            if not isinstance(value, bool):
                raise _wrong(
                    "override", f'an object, in which {name!r} is {{"value": true or false}}'
                )
            found[name] = value
    return Override(**found)


def _times(claims: Claims, leeway_s: float) -> _Times:
    given = claims.get("expire_at")
    is_endless = given == 0 and given is not False
    return _Times(
        nbf=_time(claims, "nbf", -leeway_s),
        exp=_time(claims, "exp", leeway_s),
        expire_at=None if is_endless else _time(claims, "expire_at", leeway_s),
        is_endless=is_endless,
    )


def _time(claims: Claims, name: str, shift_s: float) -> float | None:
    """Return a claim that is a Unix time in seconds, moved by `shift_s`; None if it is absent."""
    if name not in claims:
        return None
    try:
        seconds = check_unix_time(claims[name])
        if seconds is not None:
            return check_unix_time(seconds + shift_s)
    except (TypeError, ValueError):
        pass
    raise _wrong(name, "a Unix time in seconds")
