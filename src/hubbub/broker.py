"""The contract of a broker, and the one that needs no server: MemoryBroker.

What must not live here: clients, sockets, fan-out. `publishing` publishes through a broker and
hands it `deliver` at start.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable
from typing import Protocol, cast

from .model import Publication, Receipt

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


class MemoryBroker:
    """The broker of one process: a publication is delivered within `publish`.

    It keeps no history and knows no other process; two workers do not see each other through it.
    """

    def __init__(self) -> None:
        self._deliver: Deliver | None = None
        self._receipt = Receipt(0)

    async def start(self, deliver: Deliver) -> None:
        """Remember whom to deliver to."""
        self._deliver = deliver

    async def stop(self) -> None:
        """Forget whom to deliver to."""
        self._deliver = None

    def publish(self, publication: Publication) -> Receipt:
        """Deliver at once. Before start nobody is there, and nobody is reached."""
        if self._deliver is None:
            return Receipt(0)
        count = self._deliver(publication)
        receipt = self._receipt
        if receipt.delivered_to != count:
            # One is kept, since most rooms keep their size from message to message.
            receipt = self._receipt = Receipt(count)
        return receipt
