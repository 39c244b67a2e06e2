"""Variants: the same deliveries in several forms, each made once and shared by all that take it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import count

import pytest

import hubbub.wire.frame
from array_dialect import ArrayDialect
from hub.test_fanout import PEERS, random_step, replay
from hubbub import Frame, Handshake, Hub, Identity
from hubbub.dialects.dialect import Event
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.room_rules import SlowPolicy
from hubbub.testing import MemoryClient, MemoryTransport, connect, messages, open_client, settle
from hubbub.wire.frame import Batch, DeflatedBatch, encode
from rawsocket import inflate

pytestmark = pytest.mark.anyio

LONG = "all work and no play " * 40


def plain(wire: bytes) -> Iterator[bytes]:
    """Yield the frames of a server without their compression."""
    while wire:
        length, start = wire[1], 2
        if length >= 126:
            start = 4 if length == 126 else 10
            length = int.from_bytes(wire[2:start])
        payload, rest = wire[start : start + length], wire[start + length :]
        if wire[0] & 0x40:
            opcode, payload = wire[0] & 0x0F, inflate(payload)
            yield hubbub.wire.frame.header(opcode, len(payload)) + payload
        else:
            yield wire[: start + length]
        wire = rest


class DeflatingTransport(MemoryTransport):
    """The transport of a client that negotiated permessage-deflate."""

    deflates = True

    def write(self, batch: Batch) -> None:
        """Take a batch, which is one for this client."""
        assert type(batch) is DeflatedBatch
        super().write(batch)


class DeflatingClient(MemoryClient):
    """A client that inflates what it gets."""

    @property
    def received(self) -> list[str | bytes]:
        """All messages received so far, in order."""
        return messages(b"".join(plain(b"".join(self.transport.writes))))


_numbers = count()


def connect_deflating(hub: Hub, *, fast: bool = True) -> MemoryClient:
    transport = DeflatingTransport(fast=fast)
    client = open_client(hub, transport, Identity(), Handshake("/ws", {}))
    return DeflatingClient(session_of(client), transport)


def connect_either(hub: Hub, *, fast: bool = True) -> MemoryClient:
    join = connect_deflating if next(_numbers) % 2 else connect
    return join(hub, fast=fast)


@pytest.fixture
def deflated(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is deflated during the test, in order."""
    calls = []
    deflate = hubbub.wire.frame.deflate

    def noted(payload: bytes) -> bytes:
        calls.append(payload)
        return deflate(payload)

    monkeypatch.setattr(hubbub.wire.frame, "deflate", noted)
    return calls


@pytest.mark.parametrize("seed", range(40))
async def test_a_busy_hub_shows_every_client_what_one_at_a_time_would_have(seed: int) -> None:
    chance = random.Random(seed)
    steps = [random_step(chance) for _ in range(400)]
    lanes = [chance.random() < 0.6 for _ in range(PEERS)]
    join = connect_deflating if seed % 4 == 0 else connect_either
    minimum = chance.choice([0, 50, 120])
    await replay(steps, lanes, join, compression="shared", compression_min_bytes=minimum)


async def test_a_message_is_deflated_once_for_fifty_clients(deflated: list[bytes]) -> None:
    hub = Hub(compression="shared")
    await hub.start()
    peers = [connect_deflating(hub) for _ in range(50)]
    other = connect(hub)
    for _ in range(3):
        hub.broadcast(LONG)
    hub.broadcast("short")
    await settle(hub)
    assert deflated == [LONG.encode()] * 3
    for peer in peers:
        assert peer.received == [LONG] * 3 + ["short"]
        assert len(peer.transport.wire_writes) == 1
        assert peer.transport.wire_writes[0] is peers[0].transport.wire_writes[0]
    assert other.received == [LONG] * 3 + ["short"]
    assert len(other.transport.writes[0]) > 5 * len(peers[0].transport.writes[0])
    await hub.stop()


async def test_what_nobody_takes_deflated_is_not_deflated(deflated: list[bytes]) -> None:
    hub = Hub(compression="shared")
    await hub.start()
    peer = connect(hub)
    hub.broadcast(LONG)
    peer.client.send(LONG)
    await settle(hub)
    assert peer.received == [LONG, LONG]
    assert deflated == []
    await hub.stop()


async def test_direct_sends_go_the_same_way(deflated: list[bytes]) -> None:
    hub = Hub(compression="shared")
    await hub.start()
    one, two = connect_deflating(hub), connect_deflating(hub, fast=False)
    shared = encode(LONG)
    for peer in (one, two):
        peer.client.send(shared)
    await settle(hub)
    assert [peer.received for peer in (one, two)] == [[LONG], [LONG]]
    assert one.transport.wire_writes == [shared.deflated(0)]
    assert two.transport.writes == [shared.deflated(0)]
    assert deflated == [LONG.encode()]
    await hub.stop()


async def test_an_outbox_holds_what_will_be_written(deflated: list[bytes]) -> None:
    hub = Hub(compression="shared", outbox_max_bytes=2000)
    await hub.start()
    slow, plain_one = connect_deflating(hub), connect(hub)
    for peer in (slow, plain_one):
        peer.transport.block()
    for _ in range(5):
        hub.broadcast(LONG)
        core_of(hub).fanout.flush()
    outbox = session_of(slow.client).outbox
    assert outbox is not None
    assert outbox.nbytes == 5 * len(encode(LONG).deflated(0)) < 500
    await settle(hub)
    assert plain_one.closed is not None, "five plain ones are more than 2,000 bytes"
    assert plain_one.closed.code == 3008
    slow.transport.unblock()
    assert slow.received == [LONG] * 5
    assert hub.stats()["bytes_out"] == sum(map(len, slow.transport.writes))
    await hub.stop()


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "latest"])
async def test_policies_judge_the_deflated_form(policy: SlowPolicy) -> None:
    hub = Hub(compression="shared", slow_policy=policy, outbox_max_entries=2)
    await hub.start()
    peer = connect_deflating(hub)
    peer.transport.block()
    texts = [letter + LONG for letter in "abc"]
    for text in texts:
        hub.broadcast(text)
        core_of(hub).fanout.flush()
    peer.transport.unblock()
    assert (
        peer.received
        == {
            "drop_oldest": texts[1:],
            "drop_newest": texts[:2],
            "latest": texts[2:],
        }[policy]
    )
    assert hub.stats()["bytes_out"] == sum(map(len, peer.transport.writes)) < 400
    await hub.stop()


class FailingDialect(ArrayDialect):
    """Fails at events of one kind, or at merging."""

    def __init__(self, *failing: str) -> None:
        super().__init__()
        self.failing = failing

    def encode(self, event: Event) -> Frame | None:
        if type(event).__name__ in self.failing:
            raise LookupError("no words")
        return super().encode(event)

    def merge(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        if "merge" in self.failing:
            raise LookupError("no words")
        return super().merge(frames)


@pytest.mark.parametrize("failing", ["Published", "Message", "merge"])
async def test_a_dialect_that_fails_costs_nobody_else_a_message(
    failing: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()
    hub.on_connect(lambda client: client.join("red"))
    await hub.start()
    before, odd, after = (
        connect(hub),
        connect(hub, dialect=FailingDialect(failing)),
        connect(hub),
    )
    odd.send('["connect", 1]')
    await settle(hub)
    for _ in range(2):
        hub.broadcast("all")
        hub.room("red").broadcast("red")
        odd.client.send("odd")
    await settle(hub)
    assert before.received == after.received == ["all", "red"] * 2
    assert f"the dialect array failed at {failing}" in caplog.text
    assert odd.closed is None
    await hub.stop()


async def test_a_dialect_that_merges_all_into_nothing_says_nothing() -> None:
    class Silent(ArrayDialect):
        def merge(self, frames: Sequence[Frame]) -> Sequence[Frame]:
            return []

    hub = Hub()
    await hub.start()
    other, silent = connect(hub), connect(hub, dialect=Silent())
    silent.send('["connect", 1]')
    await settle(hub)
    hub.broadcast("a")
    hub.broadcast("b")
    await settle(hub)
    assert (other.received, silent.received) == (["a", "b"], [])
    await hub.stop()


@pytest.mark.parametrize("failing", ["ServerSubscribed", "ServerUnsubscribed"])
async def test_joining_and_leaving_raise_nothing_of_a_dialect(failing: str) -> None:
    hub = Hub()
    await hub.start()
    peer = connect(hub, dialect=FailingDialect(failing))
    peer.send('["connect", 1]')
    await settle(hub)
    peer.client.join("red")
    assert peer.client.rooms == {"red"}
    peer.client.leave("red")
    assert peer.client.rooms == frozenset()
    await hub.stop()
