"""Client: the record of a connection, and a batch's way into the transport or the outbox."""

from __future__ import annotations

import logging
import time
from typing import Any, cast

import pytest

from hubbub import Client, Close, CommandError, Frame, Hub
from hubbub.frame import Batch
from hubbub.outbox import Entry
from hubbub.settings import SlowPolicy
from hubbub.testing import FakeClock, connect, let_pass, settle

pytestmark = pytest.mark.anyio


def entry(*texts: str, policy: SlowPolicy = "disconnect", room: str = "") -> Entry:
    return Entry(Batch([Frame(text.encode(), True) for text in texts]), policy, room)


async def started(**settings: Any) -> Hub:
    hub = Hub(**settings)
    await hub.start()
    return hub


async def test_what_a_client_knows_of_itself() -> None:
    hub = await started()
    ann = connect(hub, user="ann", client_id="tab-1", meta={"role": "admin"}).client
    bob = connect(hub).client
    assert (ann.id, ann.user, ann.address) == ("tab-1", "ann", "127.0.0.1")
    assert ann.meta == {"role": "admin"}
    assert ann.connected_at == pytest.approx(bob.connected_at, abs=5)
    assert repr(ann) == "<Client tab-1 user='ann'>"
    assert repr(bob) == f"<Client {bob.id}>"
    assert bob.user is None
    bob.meta["seen"] = 1
    assert bob.meta == {"seen": 1}
    assert ann.is_connected
    await hub.stop()
    assert not ann.is_connected


async def test_a_client_may_be_renewed_or_ended(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hubbub")
    hub, clock, now = Hub(), FakeClock(), time.time()
    hub.clock = clock
    await hub.start()
    peers = {name: connect(hub, client_id=name, expires_at=now + 100) for name in ("a", "b", "c")}
    forever = connect(hub)
    let_pass(hub, 90)
    assert len(hub) == 4
    peers["b"].client.renew(time.time() + 100)
    peers["c"].client.renew(None)
    let_pass(hub, 15)
    assert peers["a"].closed == Close(3005, "token expired", by_server=True)
    assert "client a has a token that expired; closed" in caplog.text
    let_pass(hub, 80)
    assert peers["b"].closed is None
    let_pass(hub, 20)
    assert peers["b"].closed is not None
    for peer in (forever, peers["c"]):
        assert peer.closed is None
        assert peer.received == []
    assert hub.stats()["expired"] == 2
    peers["a"].client.renew(None)  # gone already: no error, and nothing comes back
    peers["c"].client.renew(time.time() - 1)
    let_pass(hub, 2)
    assert peers["c"].closed is not None
    with pytest.raises(ValueError, match="expires_at=nan"):
        forever.client.renew(float("nan"))
    await hub.stop()


async def test_a_client_may_be_asked_for_a_new_token_first() -> None:
    hub, clock = Hub(on_expiry="ask"), FakeClock()
    hub.clock = clock

    @hub.on("token")
    def renew(client: Client, message: dict[str, Any]) -> None:
        client.renew(time.time() + message["seconds"])

    await hub.start()
    good, bad = [connect(hub, expires_at=time.time() + 100) for _ in range(2)]
    let_pass(hub, 65)
    await settle(hub)
    assert good.received == []
    let_pass(hub, 10)
    await settle(hub)
    (question,) = good.json()
    assert question == {"type": "refresh", "expires_in_s": pytest.approx(29, abs=2)}
    good.send({"type": "token", "seconds": 3600})
    let_pass(hub, 30)
    assert good.closed is None
    assert bad.closed is not None
    assert bad.closed.code == 3005
    await settle(hub)
    assert len(good.received) == len(bad.received) == 1
    await hub.stop()


async def test_each_client_has_a_meta_of_its_own() -> None:
    hub = await started()
    shared = {"n": 1}
    first, second = connect(hub, meta=shared).client, connect(hub, meta=shared).client
    first.meta["n"] = 2
    assert second.meta == {"n": 1}
    assert shared == {"n": 1}
    await hub.stop()


async def test_rooms_are_those_of_the_application() -> None:
    hub = await started()
    client = connect(hub, user="ann").client
    assert client.rooms == frozenset()
    client.join("red")
    client.join("red")
    client.join("blue")
    client.leave("blue")
    client.leave("blue")
    assert client.rooms == {"red"}
    for name in ("", "@ann"):
        with pytest.raises(CommandError):
            client.join(name)
        with pytest.raises(CommandError):
            client.leave(name)
    hub.disconnect(client)
    assert client.rooms == {"red"}, "after its end, where it was last"
    client.join("green")
    client.leave("red")
    assert client.rooms == {"red"}
    assert hub.rooms == {}
    await hub.stop()


async def test_send_says_whether_the_client_is_there() -> None:
    hub = await started()
    peer = connect(hub)
    assert peer.client.send("hi")
    assert peer.client.send(b"\x00")
    assert peer.client.send({"n": 1})
    await settle(hub)
    assert peer.received == ["hi", b"\x00", '{"n":1}']
    peer.close()
    assert peer.client.send("too late") is False
    assert hub.stats()["sends_to_gone"] == 1
    await hub.stop()


async def test_what_was_sent_before_a_close_goes_first() -> None:
    hub = await started()
    peer = connect(hub)
    peer.client.send("last words")
    peer.client.close(4001, "é" * 100)
    peer.client.close(4002)
    assert peer.received == ["last words"]
    assert peer.closed == Close(4001, "é" * 61, by_server=True)
    for code in (1005, 1006, 1015, 999, 5000, 0):
        with pytest.raises(ValueError, match=r"section 7\.4"):
            peer.client.close(code)
    await hub.stop()


async def test_offer_writes_while_writable_and_queues_otherwise() -> None:
    hub = await started()
    peer = connect(hub, fast=False)
    client = peer.client
    client.offer([entry("1"), entry("2", "3")])
    assert peer.received == ["1", "2", "3"]
    assert client.outbox is None
    peer.transport.block()
    client.offer([entry("4"), entry("5")])
    assert client.outbox is not None
    assert len(client.outbox) == 2
    assert hub.stats()["slow"] == 1
    peer.transport.unblock(writes=1)
    assert peer.received[3:] == ["4"]
    client.offer([entry("6")])
    peer.transport.unblock()
    assert peer.received[3:] == ["4", "5", "6"]
    assert client.outbox is None
    stats = hub.stats()
    assert (stats["messages_out"], stats["dropped"]) == (6, 0)
    assert stats["bytes_out"] == sum(map(len, peer.transport.writes))
    await hub.stop()


async def test_nothing_overtakes_what_waits() -> None:
    hub = await started()
    peer = connect(hub, fast=False)
    peer.transport.block()
    peer.client.offer([entry("1")])
    peer.transport.writable = True
    peer.client.offer([entry("2")])
    assert peer.received == []
    peer.transport.unblock()
    assert peer.received == ["1", "2"]
    await hub.stop()


async def test_drops_are_counted_and_announced_once_it_is_writable() -> None:
    hub = await started(outbox_max_entries=1)
    missed: list[tuple[Client, int]] = []
    hub.on_drop(lambda client, count: missed.append((client, count)))
    peer = connect(hub)
    peer.transport.block()
    peer.client.offer([entry(str(n), policy="drop_oldest") for n in range(5)])
    assert peer.client.dropped == 4
    await settle(hub)
    assert missed == []
    peer.transport.unblock()
    await settle(hub)
    assert missed == [(peer.client, 4)]
    assert peer.received == ["4"]
    peer.transport.block()
    peer.transport.unblock()
    await settle(hub)
    assert len(missed) == 1, "announced once"
    assert hub.stats()["dropped"] == 4
    await hub.stop()


async def test_who_has_gone_hears_of_no_drops() -> None:
    hub = await started(outbox_max_entries=1)
    calls: list[str] = []
    hub.on_drop(lambda client, count: calls.append("drop"))
    hub.on_disconnect(lambda client: calls.append("gone"))
    peer = connect(hub)
    peer.transport.block()
    peer.client.offer([entry(str(n), policy="drop_oldest") for n in range(3)])
    peer.transport.unblock()
    peer.transport.cut()
    await settle(hub)
    assert calls == ["gone"]
    await hub.stop()


async def test_an_overflow_ends_the_offer_and_then_the_client() -> None:
    hub = await started(outbox_max_entries=2)
    peer = connect(hub)
    client = peer.client
    peer.transport.block()
    client.offer([entry("1"), entry("2"), entry("3", "4")])
    assert client.is_connected, "not in the middle of a fan-out"
    await settle(hub)
    assert cast(Close, client.close_info).code == 3008
    client.offer([entry("5")])
    peer.transport.unblock()
    assert peer.received == []
    assert peer.closed == Close(3008, "slow consumer", by_server=True)
    stats = hub.stats()
    assert (stats["dropped"], stats["slow_disconnects"]) == (4, 1)
    assert client.dropped == 4
    await hub.stop()


async def test_after_an_overflow_nothing_more_is_delivered() -> None:
    """A client that missed messages under the policy `disconnect` must not see later ones."""
    hub = await started(outbox_max_entries=1)
    peer = connect(hub)
    peer.transport.block()
    peer.client.offer([entry("1"), entry("2"), entry("3")])
    peer.transport.unblock()
    await settle(hub)
    assert peer.received == []
    assert peer.closed is not None
    assert peer.closed.code == 3008
    assert peer.client.dropped == hub.stats()["dropped"] == 3
    await hub.stop()
