"""Who is in which room, as a Valkey or Redis server keeps it by leases.

What must not live here: what is atomic (`valkey_presence_scripts`), and who is told (`hub.presence`).
See `PresenceBroker` for what is owed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..model import ClientInfo, PresenceStats
from ..wire.presence import Told, told_frame
from ..wire.publication import Kind, Publication
from .broker import Entered, PresenceTerms, Snapshot
from .valkey_names import Names
from .valkey_presence_scripts import ENTER, EXPIRE, LEAVE, PRESENCE, STATS
from .valkey_scripts import sharded

FORGOTTEN_S = 24 * 3600.0
"""How much longer than its leases a room is kept of which nobody says anything."""

_KEYS = ("members", "leases", "here", "away", "infos", "state")
_KINDS = {b"j": Kind.JOIN, b"l": Kind.LEAVE}
_PAUSES = {b"-": None, b"0": False, b"1": True}
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ClientInfo).decode
_decode_all = msgspec.json.Decoder(list[ClientInfo]).decode


class ValkeyPresence:
    """Asks the server. Whatever a question raises is the caller's to understand."""

    def __init__(self, client: Any, names: Names) -> None:
        self._names = names

        def script(text: str) -> Any:
            return client.register_script(sharded(text) if names.is_sharded else text)

        self._enter, self._leave, self._expire = script(ENTER), script(LEAVE), script(EXPIRE)
        self._presence, self._stats = script(PRESENCE), script(STATS)

    async def enter(
        self, room: str, members: Mapping[str, ClientInfo], terms: PresenceTerms
    ) -> Entered:
        """See `PresenceBroker.enter`."""
        rows: list[str | bytes] = []
        for name, info in members.items():
            rows += (name, info.key.encode("utf-8", "surrogatepass"), _encode(info))
        arguments = [*self._told(room, terms), _ttl_ms(terms), _ms(terms.lease_s), *rows]
        is_quiet, joined = await self._enter(keys=self._keys(room), args=arguments)
        return Entered(_infos(joined), bool(is_quiet))

    async def leave(
        self, room: str, names: Sequence[str], terms: PresenceTerms
    ) -> Sequence[ClientInfo]:
        """See `PresenceBroker.leave`."""
        arguments = [*self._told(room, terms), _ttl_ms(terms), _ms(terms.grace_s), *names]
        return _infos(await self._leave(keys=self._keys(room), args=arguments))

    async def expire(self, room: str, terms: PresenceTerms) -> Sequence[ClientInfo]:
        """See `PresenceBroker.expire`."""
        return _infos(await self._expire(keys=self._keys(room), args=self._told(room, terms)))

    async def snapshot(self, room: str, most: int | None = None) -> Snapshot:
        """See `PresenceBroker.presence`."""
        arguments = [-1 if most is None else most]
        at, rows = await self._presence(keys=self._keys(room), args=arguments)
        if rows is None:
            return Snapshot((), int(at), is_too_long=True)
        return Snapshot(_infos(rows), int(at))

    async def stats(self, room: str) -> PresenceStats:
        """See `PresenceBroker.presence_stats`."""
        clients, users = await self._stats(keys=self._keys(room))
        return PresenceStats(clients, users)

    def _keys(self, room: str) -> list[str]:
        return [self._names.key(room, "p:", kind) for kind in _KEYS]

    def _told(self, room: str, terms: PresenceTerms) -> list[bytes | int]:
        return [self._names.channel(room), terms.told_up_to]


def is_told(place: bytes) -> bool:
    """Tell whether what stands before a message's first line end is of joins and leaves."""
    return place[:1] in _KINDS


def told_publication(room: str, place: bytes, data: bytes) -> Publication:
    """Return what members are told of joins and leaves. Raises `ValueError` for what no script has written."""
    kind, at, pause = place.split(b" ")
    told = Told(_KINDS[kind], tuple(_decode_all(data)), int(at), _PAUSES[pause])
    return Publication(room, told_frame(room, told), kind=told.kind)


def _infos(rows: Sequence[bytes]) -> tuple[ClientInfo, ...]:
    return tuple(_decode(row) for row in rows)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _ttl_ms(terms: PresenceTerms) -> int:
    return _ms(FORGOTTEN_S + max(terms.lease_s, terms.grace_s))
