"""The contract of a broker.

What must not live here: clients, sockets, fan-out. `publishing` publishes through a broker and
hands it `deliver` at start.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable
from typing import Protocol, cast

from ..model import Receipt
from ..wire.publication import Publication

Deliver = Callable[[Publication], int]
"""Hands a publication to this process's clients; returns how many there are in the room."""


class Broker(Protocol):
    """What a broker owes.

    Order: publications of one room reach every process in one order. Two publications of one
    process reach that process's own clients in the order of the calls, across rooms too.
    Delivery: `deliver` is called once per publication and process, on the event loop.
    Not promised: that a publication made while the broker is unreachable arrives; `publish` then
    fails with `BrokerUnavailable`.
    """

    async def start(self, deliver: Deliver) -> None:
        """Connect; from then on `deliver` may be called. Raises `BrokerUnavailable`."""
        ...

    async def stop(self) -> None:
        """Disconnect. No `deliver` after this returns. Stopping twice is no error."""
        ...

    def publish(self, publication: Publication) -> Receipt | Future[Receipt]:
        """Take a publication without blocking: its receipt, or a future of it."""
        ...


def as_broker(value: object) -> Broker:
    """Return `value` if it can be a broker; raise `TypeError` otherwise."""
    verbs = (getattr(value, name, None) for name in ("start", "stop", "publish"))
    if isinstance(value, type) or not all(map(callable, verbs)):
        raise TypeError(f"broker must be a Broker, such as MemoryBroker(), not {value!r:.80}")
    return cast(Broker, value)
