"""The broker of one process: no server, nothing to install.

What must not live here: the contract (`broker`).
"""

from __future__ import annotations

from ..model import Receipt
from ..wire.publication import Publication
from .broker import Deliver


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
