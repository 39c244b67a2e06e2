"""Testing: the client in memory behaves as one with a socket does, and says what it got."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hubbub import Client, Close, Disconnected, Handshake, Hub, HubNotRunning, Refused
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.testing import (
    FakeClock,
    MemoryClient,
    MemoryTransport,
    advance_time,
    connect,
    messages,
    set_clock,
    settle,
)
from hubbub.transports.transport import Transport
from hubbub.wire.frame import encode

pytestmark = pytest.mark.anyio


async def started(hub: Hub | None = None, **settings: Any) -> Hub:
    hub = hub or Hub(**settings)
    await hub.start()
    return hub


async def test_the_example_of_the_module_works() -> None:
    hub = await started()
    ann = connect(hub, user="ann")
    ann.send("hello")
    await settle(hub)
    assert ann.received == ["hello"]
    await hub.stop()


async def test_nobody_connects_to_a_hub_that_does_not_run() -> None:
    hub = Hub()
    with pytest.raises(HubNotRunning, match=r"await hub\.start\(\)"):
        connect(hub)
    await hub.start()
    await hub.stop()
    with pytest.raises(HubNotRunning, match=r"await hub\.start\(\)"):
        connect(hub)


async def test_a_handler_sees_the_handshake_and_the_identity() -> None:
    hub = Hub()
    seen: list[Handshake] = []

    @hub.on_connect
    def meets(client: Client, handshake: Handshake) -> None:
        seen.append(handshake)
        client.send({"you": client.user, "role": client.meta["role"]})

    await started(hub)
    peer = connect(
        hub,
        user="ann",
        client_id="tab-1",
        query={"room": "red & blue"},
        headers={"Authorization": "Bearer x", "Cookie": "a=b"},
        meta={"role": "admin"},
    )
    await settle(hub)
    assert peer.json() == [{"you": "ann", "role": "admin"}]
    assert (seen[0].query, seen[0].token, seen[0].cookies) == (
        {"room": "red & blue"},
        "x",
        {"a": "b"},
    )
    assert repr(peer) == "<MemoryClient tab-1>"
    await hub.stop()


async def test_connect_refuses_what_a_handshake_would_be_refused() -> None:
    hub = await started(max_clients=1)
    connect(hub)
    with pytest.raises(Refused) as error:
        connect(hub)
    assert error.value.status == 503
    await hub.stop()


async def test_both_lanes_receive_the_same() -> None:
    hub = await started()
    fast, slow = connect(hub), connect(hub, fast=False)
    for data in ("text", b"binary", "x" * 300, b"y" * 70_000, ""):
        hub.broadcast(data)
        await settle(hub)
    assert fast.received == slow.received == ["text", b"binary", "x" * 300, b"y" * 70_000, ""]
    assert fast.transport.writes == slow.transport.writes == fast.transport.wire_writes
    assert len(slow.transport.batches) == 5
    assert slow.transport.write_wire is None
    assert slow.transport.wire_writes == []
    assert fast.transport.batches == []
    await hub.stop()


def test_messages_reads_frames_of_every_length() -> None:
    sent: list[str | bytes] = ["", "é", "x" * 125, b"\x00" * 126, "y" * 65_535, b"z" * 65_536]
    assert messages(b"".join(encode(data).wire for data in sent)) == sent
    assert messages(b"") == []


@pytest.mark.parametrize("fast", [False, True])
async def test_a_blocked_client_takes_what_waits_when_it_is_unblocked(fast: bool) -> None:
    hub = await started()
    peer = connect(hub, fast=fast)
    peer.transport.block()
    for number in range(4):
        hub.broadcast(str(number))
        await settle(hub)
    assert peer.received == []
    peer.transport.unblock(writes=0)
    assert peer.received == []
    peer.transport.unblock(writes=3)
    assert peer.received == ["0", "1", "2"]
    assert not peer.transport.writable
    peer.transport.unblock(writes=2)
    assert peer.received == ["0", "1", "2", "3"]
    assert session_of(peer.client).writes_directly is fast
    for number in range(4, 6):
        hub.broadcast(str(number))
        await settle(hub)
    assert peer.received[4:] == ["4"], "the second write of the two blocked it again"
    peer.transport.unblock()
    assert peer.received == [str(number) for number in range(6)]
    assert session_of(peer.client).writes_directly is fast
    await hub.stop()


async def test_a_close_stands_behind_what_waits() -> None:
    hub = await started()
    peer = connect(hub)
    peer.transport.block()
    peer.client.send("before the close")
    peer.client.close(4000, "bye")
    peer.client.close(4001)
    assert peer.closed is None
    peer.send("never read")
    peer.transport.unblock()
    assert peer.received == ["before the close"]
    assert peer.closed == Close(4000, "bye", by_server=True)
    peer.transport.unblock()
    assert not peer.transport.writable
    assert hub.stats()["messages_in"] == 0
    await hub.stop()


async def test_a_shutdown_does_not_wait_for_who_is_blocked() -> None:
    hub = await started()
    peer = connect(hub)
    peer.transport.block()
    hub.broadcast("x")
    await settle(hub)
    await asyncio.wait_for(hub.stop(), 5)
    assert peer.closed == Close(1012, "service restart", by_server=True)


async def test_a_peer_that_has_gone_sends_nothing_more() -> None:
    hub = await started()
    peer = connect(hub)
    peer.close(4000, "bye")
    peer.close()
    peer.transport.drop_connection()
    peer.transport.abort()
    peer.transport.close(1000, "")
    assert peer.closed == Close(4000, "bye")
    with pytest.raises(Disconnected) as error:
        peer.send("x")
    assert (error.value.code, error.value.reason) == (4000, "bye")
    await hub.stop()


async def test_a_connection_may_be_cut_from_both_sides() -> None:
    hub = Hub()
    closes: list[Close] = []
    hub.on_disconnect(lambda client, close: closes.append(close))
    await started(hub)
    connect(hub).transport.drop_connection()
    connect(hub).transport.abort()
    assert closes == [Close(1006), Close(1006, by_server=True)]
    await hub.stop()


async def test_messages_wait_for_a_busy_client_and_its_close_does_not() -> None:
    hub = Hub()
    gate = asyncio.Event()
    log: list[str] = []

    @hub.on_message
    async def slow(client: Client, message: str) -> None:
        log.append(message)
        await gate.wait()

    hub.on_disconnect(lambda client: log.append("left"))
    await started(hub)
    peer = connect(hub)
    for message in ("1", "2"):
        peer.send(message)
    peer.close()
    await settle(hub)
    assert log == ["1"]
    assert peer.closed == Close(1000)
    assert len(hub) == 0
    gate.set()
    await settle(hub)
    assert log == ["1", "2", "left"]
    await hub.stop()


async def test_what_a_handler_lets_its_own_peer_send_comes_after_the_message_it_handles() -> None:
    hub = Hub()
    log: list[str] = []
    peers: list[MemoryClient] = []

    @hub.on_message
    def handler(client: Client, message: str) -> None:
        log.append(f"begin {message}")
        if message == "1":
            peers[0].send("2")
        log.append(f"end {message}")

    await started(hub)
    peers.append(connect(hub))
    peers[0].send("1")
    assert log == ["begin 1", "end 1", "begin 2", "end 2"]
    await hub.stop()


async def test_fault_24_a_client_in_memory_breaks_the_protocol_as_on_a_socket() -> None:
    hub = await started(max_message_bytes=5)
    gone: list[Close] = []
    hub.on_disconnect(lambda client, close: gone.append(close))
    peer = connect(hub)
    peer.send("123456")
    assert hub.stats()["protocol_errors"] == 1
    assert gone == [peer.closed]
    assert len(hub) == 0
    await hub.stop()


async def test_a_message_over_the_limit_closes_as_on_a_socket() -> None:
    hub = await started(max_message_bytes=5)
    peer = connect(hub)
    peer.send("12345")
    peer.send("123456")
    assert peer.received == ["12345"]
    reason = "the message is larger than max_message_bytes, which is 5"
    assert peer.closed == Close(1009, reason, by_server=True)
    assert hub.stats()["protocol_errors"] == 1
    await hub.stop()
    hub = await started(max_message_bytes=None)
    peer = connect(hub)
    peer.send("x" * 100_000)
    await settle(hub)
    assert len(peer.received[0]) == 100_000
    await hub.stop()


async def test_the_fake_clock_and_the_time_that_passes() -> None:
    clock = FakeClock(5.0)
    clock.advance(1.5)
    assert clock() == clock.now == 6.5
    with pytest.raises(ValueError, match="never goes back"):
        clock.advance(-1)
    hub = Hub()
    with pytest.raises(TypeError, match="FakeClock"):
        advance_time(hub, 1.0)
    set_clock(hub, clock)
    await started(hub)
    peer = connect(hub)
    advance_time(hub, 61.5)
    assert clock.now == 68.0
    assert peer.transport.pings == 1
    assert session_of(peer.client).last_seen == pytest.approx(60.0, abs=1.0)
    await hub.stop()


async def test_settle_gives_up_on_a_hub_that_never_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.testing.memory.MOST_TURNS", 100)
    hub = await started()
    loop = asyncio.get_running_loop()
    left = 1000

    def again() -> None:
        nonlocal left
        hub.broadcast("x")
        if left := left - 1:
            loop.call_soon(again)

    connect(hub)
    again()
    with pytest.raises(TimeoutError, match="100 turns"):
        await settle(hub)
    left = 1
    await settle(hub)
    await hub.stop()


async def test_it_is_a_transport() -> None:
    transport: Transport = MemoryTransport()
    assert transport.write_progress() == 0


@pytest.mark.parametrize("fast", [True, False])
async def test_fault_07_who_cannot_be_taken_in_is_closed_and_holds_no_place(fast: bool) -> None:
    hub = Hub(max_clients=1)
    await hub.start()

    def fail(session: object) -> None:
        raise LookupError("no place in the tables")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core_of(hub).liveness, "add", fail)
        for _ in range(3):
            assert connect(hub, user="ann", fast=fast).closed == (1011, "internal error", True)
    assert (len(hub), hub.rooms, hub.stats()["handler_errors"]) == (0, {}, 3)
    assert connect(hub, user="ann", fast=fast).closed is None
    await hub.stop()


async def test_fault_07_a_user_or_a_meta_of_the_wrong_type_is_an_error() -> None:
    hub = Hub()
    await hub.start()
    with pytest.raises(TypeError, match=r"Identity\.user must be a str or None"):
        connect(hub, user=42)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Identity\.meta must be a mapping"):
        connect(hub, meta=5)  # type: ignore[arg-type]
    assert len(hub) == 0
    await hub.stop()
