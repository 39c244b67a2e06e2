"""The broker of one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from hubbub import Broker, Frame, MemoryBroker, Publication, Receipt
from hubbub.brokers.broker import Control

pytestmark = pytest.mark.anyio


class Told:
    """A node that only takes what is delivered."""

    id: str = "node"
    history_max_bytes = 1024**2

    def __init__(self, deliver: Callable[[Publication], int]) -> None:
        self.deliver = deliver

    def now(self) -> float:
        return 0.0

    def has_members(self, room: str) -> bool:
        return False

    def handle_control(self, control: Control) -> None: ...
    def note_gap(self, rooms: Sequence[str] | None) -> None: ...


def publication(room: str, text: str) -> Publication:
    return Publication(room, Frame(text.encode(), True))


async def test_memory_delivers_within_the_call_and_in_the_order_of_the_calls() -> None:
    broker: Broker = MemoryBroker()
    delivered: list[tuple[str, bytes]] = []

    def deliver(publication: Publication) -> int:
        delivered.append((publication.room, publication.frame.payload))
        return 3

    await broker.start(Told(deliver))
    for room, text in (("red", "1"), ("blue", "2"), ("red", "3")):
        assert broker.publish(publication(room, text)) == Receipt(3)
    assert delivered == [("red", b"1"), ("blue", b"2"), ("red", b"3")]


async def test_memory_reaches_nobody_before_start_and_after_stop() -> None:
    broker = MemoryBroker()
    delivered: list[Publication] = []

    def deliver(publication: Publication) -> int:
        delivered.append(publication)
        return 1

    assert broker.publish(publication("red", "early")) == Receipt(0)
    await broker.start(Told(deliver))
    await broker.stop()
    await broker.stop()
    assert broker.publish(publication("red", "late")) == Receipt(0)
    assert delivered == []
    await broker.start(Told(deliver))
    assert broker.publish(publication("red", "again")).delivered_to == 1
