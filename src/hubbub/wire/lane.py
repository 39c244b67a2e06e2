"""The outbound lane: one byte string to many sockets.

What must not live here: who gets it, what it says, and what becomes of those that cannot take it
(`hub.fanout`). The loop is the hub's hottest; a compiled one could replace it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class Writer(Protocol):
    """What the lane needs of a receiver."""

    writes_directly: bool
    """Whether `write_wire` may be called now."""

    write_wire: Callable[[bytes], object] | None
    """Takes bytes for the socket, and returns at once; set where `writes_directly`."""


W = TypeVar("W", bound=Writer)


def write_shared(receivers: Sequence[W], wire: bytes) -> list[W]:
    """Write `wire` to each that writes directly, in order; return the others, in order.

    What it is owed: `write_wire` does not raise, does not keep `receivers` waiting, and changes no other
    receiver. What it owes: each receiver is written to once or returned, never both.
    """
    others: list[W] = []
    for receiver in receivers:
        if receiver.writes_directly:
            receiver.write_wire(wire)  # type: ignore[misc]
        else:
            others.append(receiver)
    return others
