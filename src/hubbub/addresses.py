"""Addresses: how many of something each network address has.

What must not live here: what the limit is and who breaks it (`admission`). Pure; no sockets.
"""

from __future__ import annotations

import ipaddress

_HOST_BITS = 64
"""An IPv6 customer has a /64 at least, and so 2**64 addresses to come from."""


def address_key(address: str | None) -> str | None:
    """Return what an address counts as; None for one that is unknown or no IP address.

    An IPv4 address counts as itself, also when it is written as IPv6 (`::ffff:192.0.2.1`), any
    other IPv6 address as its /64 network.
    """
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            network = int(parsed) >> _HOST_BITS << _HOST_BITS
            return f"{ipaddress.IPv6Address(network)}/{_HOST_BITS}"
        parsed = parsed.ipv4_mapped
    return str(parsed)


class Addresses:
    """A count for each key. What has gone leaves nothing behind."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def count(self, key: str) -> int:
        """Return how many there are; 0 for an unknown key."""
        return self._counts.get(key, 0)

    def add(self, key: str) -> None:
        """Count one more."""
        self._counts[key] = self._counts.get(key, 0) + 1

    def remove(self, key: str) -> None:
        """Count one less. Raises `KeyError` for a key that has none."""
        left = self._counts[key] - 1
        if left:
            self._counts[key] = left
        else:
            del self._counts[key]
