"""The broker of one process."""

from __future__ import annotations

import pytest

from broker_node import Node, message
from hubbub import Broker, MemoryBroker, Receipt
from hubbub.brokers import memory
from hubbub.brokers.broker import UNUSED_TTL_S
from started_hub import until

pytestmark = pytest.mark.anyio


async def test_memory_delivers_within_the_call_and_in_the_order_of_the_calls() -> None:
    broker: Broker = MemoryBroker()
    node = Node(3)
    await broker.start(node)
    for room, text in (("red", "1"), ("blue", "2"), ("red", "3")):
        assert broker.publish(message(text, room)) == Receipt(3)
    assert node.delivered == [("red", "1"), ("blue", "2"), ("red", "3")]


async def test_memory_reaches_nobody_before_start_and_after_stop() -> None:
    broker, node = MemoryBroker(), Node()
    assert broker.publish(message("early")) == Receipt(0)
    await broker.start(node)
    await broker.stop()
    await broker.stop()
    assert broker.publish(message("late")) == Receipt(0)
    assert node.delivered == []
    await broker.start(node)
    assert broker.publish(message("again")).delivered_to == 1


async def test_memory_forgets_a_room_that_was_only_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "SWEEP_S", 0.01)
    broker, node = MemoryBroker(), Node()
    await broker.start(node)
    await broker.history("invented")
    assert broker.store.rooms == 1
    node.now = lambda: UNUSED_TTL_S
    await until(lambda: broker.store.rooms == 0)
    await broker.stop()
