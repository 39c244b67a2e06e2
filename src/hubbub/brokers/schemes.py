"""Brokers by URL: which scheme means which broker.

What must not live here: how a broker reads the rest of its URL. A new broker is a row of `SCHEMES`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from ..errors import SettingsError
from ..limits import printable
from .broker import Broker

MEMORY_URL = "memory://"


def _memory(url: str, source: str, prefix: str) -> Broker:
    from .memory import MemoryBroker

    if url.partition("://")[2].strip("/"):
        expected = "is written memory:// alone: this process has one memory"
        raise SettingsError("broker", None, expected, source=source, shows_value=False)
    return MemoryBroker()


def _valkey(url: str, source: str, prefix: str) -> Broker:
    from .valkey import ValkeyBroker
    from .valkey_address import longer_prefix, read_address
    from .valkey_connections import library

    address = read_address(url, source)
    address = address._replace(prefix=longer_prefix(address.prefix, prefix, source))
    library()  # that it is missing is said when a hub is made, and not when it starts
    return ValkeyBroker(address)


def _nats(url: str, source: str, prefix: str) -> Broker:
    from .nats import NatsBroker
    from .nats_address import read_address
    from .nats_connection import library
    from .valkey_address import longer_prefix

    address = read_address(url, source)
    address = address._replace(prefix=longer_prefix(address.prefix, prefix, source))
    library()
    return NatsBroker(address)


def _local(url: str, source: str, prefix: str) -> Broker:
    from .local import read_local
    from .local_server import require_local

    broker = read_local(url, source, prefix)
    require_local()
    return broker


SCHEMES: dict[str, tuple[str, Callable[[str, str, str], Broker]]] = {
    "memory": (MEMORY_URL, _memory),
    "local": ("local://", _local),
    "valkey": ("valkey://host:6379", _valkey),
    "redis": ("redis://host:6379", _valkey),
    "valkeys": ("valkeys://host:6379", _valkey),
    "rediss": ("rediss://host:6379", _valkey),
    **{
        f"{scheme}+sentinel": (f"{scheme}+sentinel://host:26379/mymaster", _valkey)
        for scheme in ("valkey", "redis", "valkeys", "rediss")
    },
    **{
        f"{scheme}+cluster": (f"{scheme}+cluster://host:6379", _valkey)
        for scheme in ("valkey", "redis", "valkeys", "rediss")
    },
    "unix": ("unix:///run/valkey.sock", _valkey),
    "nats": ("nats://host:4222", _nats),
    "tls": ("tls://host:4222", _nats),
}
"""By scheme, an example, and what makes a broker of a URL; it is also told where the URL came from, and what
a hub adds to its prefix."""


def broker_at(url: str, source: str = "keyword", prefix: str = "") -> Broker:
    """Return the broker of a URL. Nothing is connected before it starts.

    `source` says where the URL came from, for errors; `prefix` is what a hub adds to the prefix of the URL.
    Raises `SettingsError` for a URL that cannot be, and `MissingExtra` where the package is missing that the
    broker needs. No error holds the URL.
    """
    scheme, separator, _ = url.strip().partition("://")
    known = SCHEMES.get(scheme.lower()) if separator else None
    if known is not None:
        return known[1](url.strip(), source, prefix)
    what = f"there is no scheme {printable(scheme, 20)!r}" if separator else "it has no scheme"
    near = difflib.get_close_matches(scheme.lower(), SCHEMES, n=1) if separator else []
    examples = ", ".join(
        example
        for name, (example, _) in SCHEMES.items()
        if "+" not in name or name.startswith("valkey+")  # the others are like it
    )
    raise SettingsError(
        "broker",
        None,
        f"must be a URL such as {examples}; {what}",
        source=source,
        nearest=f"{near[0]}://" if near else None,
        shows_value=False,
    )
