"""The broker of one process: no server, nothing to install.

What must not live here: the contract (`broker`).
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Sequence

from ..model import Receipt
from ..wire.publication import Publication
from .broker import Ability, Node


class MemoryBroker:
    """The broker of one process: a publication is delivered within `publish`.

    It keeps no history and knows no other process; two workers do not see each other through it.
    """

    abilities: frozenset[Ability] = frozenset()
    receives_all: bool = True

    def __init__(self) -> None:
        self._deliver: Callable[[Publication], int] | None = None
        self._receipt = Receipt(0)

    async def start(self, node: Node) -> None:
        """Remember whom to deliver to."""
        self._deliver = node.deliver

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

    def subscribe(self, rooms: Sequence[str]) -> Future[None] | None:
        """Do nothing: all publications come anyway."""
        return None

    def unsubscribe(self, rooms: Sequence[str]) -> None:
        """Do nothing."""
