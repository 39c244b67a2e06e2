"""Connecting: how a connection becomes a client's by its first command, and what is left if it does not."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from array_dialect import ArrayDialect, events_of
from hub.test_commands import ask, connected
from hub.test_variant import FailingDialect
from hubbub import Client, Close, Handshake, Hub, Identity, Refused
from hubbub.hub.connecting import AUTHENTICATION_SHARE
from hubbub.hub.core import core_of
from hubbub.hub.deadlines import GRACE_S
from hubbub.testing import FakeClock, advance_time, connect, set_clock, settle
from started_hub import code_of

pytestmark = pytest.mark.anyio


async def test_connect_handlers_end_before_the_next_command_and_may_send_after_the_answer() -> None:
    hub = Hub()
    log: list[str] = []

    @hub.on_connect
    async def came(client: Client, handshake: Handshake) -> None:
        client.send("hello")
        await asyncio.sleep(0)
        log.append(f"came {handshake.token}")

    hub.on_message(lambda client, message: log.append(message))
    await hub.start()
    peer = connect(hub, dialect=ArrayDialect())
    ask(peer, "connect", 1, "ann")
    ask(peer, "send", "first")
    await settle(hub)
    assert log == ["came ann", "first"]
    assert events_of(peer.received) == [["connected", 1, peer.client.id], ["message", "hello"]]
    await hub.stop()


async def test_a_user_takes_its_id_over_and_nobody_else_does() -> None:
    hub = Hub()
    hub.authenticate(lambda handshake: Identity(handshake.token, client_id="tab"))
    await hub.start()
    first = await connected(hub, "ann")
    assert events_of((await connected(hub, "bob")).received)[0][2] == "id_in_use"
    second = await connected(hub, "ann")
    assert first.closed == Close(3511, "replaced", by_server=True)
    assert second.client.id == "tab"
    assert (len(hub), hub.stats()["register"]) == (1, 0)
    await hub.stop()


async def test_the_token_of_a_client_that_was_connected_by_a_command_ends_too() -> None:

    hub = Hub(on_expiry="ask")
    set_clock(hub, FakeClock())
    hub.authenticate(lambda handshake: Identity("ann", expires_at=time.time() + 100))
    await hub.start()
    peer = await connected(hub, "token")
    advance_time(hub, 99)
    await settle(hub)
    assert events_of(peer.received)[-1][0] == "refresh"
    ask(peer, "refresh", 2, "token")
    await settle(hub)
    advance_time(hub, 100 + GRACE_S - 1)
    assert peer.closed is None, "a client asks at the end, and its new token may be on its way"
    advance_time(hub, 2)
    assert peer.closed == Close(3005, "token expired", by_server=True)
    await hub.stop()


@pytest.mark.parametrize(
    ("status", "may_pass"), [(400, False), (403, False), (429, True), (500, True), (503, True)]
)
async def test_a_refusal_that_may_pass_says_so_at_a_refresh_as_at_a_connect(
    status: int, may_pass: bool
) -> None:
    hub = Hub()
    refusals: list[Refused] = []

    @hub.authenticate
    def who(handshake: Handshake) -> Identity:
        for refusal in refusals:
            raise refusal
        return Identity("ann", expires_at=time.time() + 100)

    await hub.start()
    peer = connect(hub, dialect="centrifuge")
    peer.send({"id": 1, "connect": {"token": "a"}})
    await settle(hub)
    refusals.append(Refused(status))
    peer.send({"id": 2, "refresh": {"token": "b"}})
    other = connect(hub, dialect="centrifuge")
    other.send({"id": 1, "connect": {"token": "b"}})
    await settle(hub)
    answers = [json.loads(str(each.received[-1])) for each in (peer, other)]
    assert [answer["error"].get("temporary", False) for answer in answers] == [may_pass] * 2
    assert answers[0]["error"] == answers[1]["error"]
    assert peer.closed is None, "its old token is still good"
    await hub.stop()


async def test_who_is_only_open_is_nobody_to_the_application() -> None:
    hub = Hub(max_clients=1)
    gone: list[Client] = []
    hub.on_disconnect(lambda client: gone.append(client))
    await hub.start()
    peer = connect(hub, dialect=ArrayDialect())
    hub.broadcast("to all")
    await settle(hub)
    assert (peer.received, len(hub), list(hub), hub.stats()["register"]) == ([], 0, [], 1)
    assert repr(peer) == "<MemoryClient from 127.0.0.1>"
    with pytest.raises(AttributeError):
        _ = peer.client
    peer.transport.drop_connection()
    assert (gone, hub.stats()["register"]) == ([], 0)
    await hub.stop()


async def test_who_cannot_be_told_that_it_is_connected_is_closed_in_any_case() -> None:
    hub = Hub(on_handler_error="stay")
    seen: list[Client] = []
    hub.on_connect(seen.append)
    await hub.start()
    peer = connect(hub, dialect=FailingDialect("Connected"))
    ask(peer, "connect", 1)
    await settle(hub)
    assert code_of(peer) == 1011
    stats = hub.stats()
    assert (stats["handler_errors"], stats["register"], len(hub), seen) == (1, 0, 0, [])
    await hub.stop()


@pytest.mark.parametrize("swallows", [False, True])
@pytest.mark.parametrize("end", ["stop", "drop", "timeout"])
async def test_nothing_is_left_of_a_connection_that_ends_while_it_is_authenticated(
    end: str, swallows: bool
) -> None:
    limit_s = 0.1 if end == "timeout" else 5
    hub = Hub(max_clients_per_address=2, handshake_timeout_s=limit_s, inbox_max_messages=4)
    seen: list[object] = []
    hub.on_connect(lambda client: seen.append(client))
    hub.on_disconnect(lambda client: seen.append(client))

    @hub.authenticate
    async def who(handshake: Handshake) -> str:
        try:
            await asyncio.sleep(3)
        except asyncio.CancelledError:
            if not swallows:
                raise
        return "ann"

    await hub.start()
    peer = connect(hub, dialect=ArrayDialect())
    ask(peer, "connect", 1)
    for _ in range(20):
        ask(peer, "send", "x")
    await asyncio.sleep(0.01)
    core = core_of(hub)
    assert (hub.stats()["register"], core.admission.counted_networks()) == (1, 1)
    assert not peer.transport.is_reading
    if end == "stop":
        await hub.stop()
    elif end == "drop":
        peer.transport.drop_connection()
    else:
        await asyncio.sleep(0.15)
    await asyncio.sleep(0.05)
    assert (hub.stats()["register"], core.admission.counted_networks()) == (0, 0)
    assert (core.registry.opened, len(core.lifecycle.tasks), seen) == ({}, 0, [])
    await hub.stop()


def test_places_that_a_dead_loop_has_left_are_given_back() -> None:
    hub = Hub(max_clients=2)

    async def leave_behind() -> int:
        await hub.start()
        connect(hub, dialect=ArrayDialect())
        return int(hub.stats()["register"])

    assert [asyncio.run(leave_behind()) for _ in range(3)] == [1, 1, 1]


async def test_who_sent_its_connect_command_in_time_is_not_stale_while_it_is_authenticated() -> (
    None
):
    hub = Hub(handshake_timeout_s=60)
    may_answer = asyncio.Event()

    @hub.authenticate
    async def slow(handshake: Handshake) -> str:
        await may_answer.wait()
        return "ann"

    await hub.start()
    peer = connect(hub, dialect=ArrayDialect())
    (session,) = core_of(hub).registry.opened
    assert session.opening is not None
    first = session.opening.timer
    await asyncio.sleep(0.01)
    ask(peer, "connect", 1)
    await settle(hub)
    assert first.cancelled()
    longer_s = session.opening.timer.when() - first.when()
    assert longer_s > 60 * (AUTHENTICATION_SHARE - 1), "it has its time anew, and a little more"
    may_answer.set()
    await settle(hub)
    assert session.opening.timer.cancelled()
    assert events_of(peer.received)[0][:2] == ["connected", 1]
    await hub.stop()


async def test_an_end_that_has_passed_gives_no_time_for_a_new_token() -> None:
    hub = Hub()
    clock = FakeClock()
    set_clock(hub, clock)
    await hub.start()
    peer = await connected(hub)
    client = next(iter(hub))
    client.refresh(time.time() + 100)
    advance_time(hub, 100)
    assert peer.closed is None
    client.refresh(time.time() - 1)
    advance_time(hub, 1)
    assert peer.closed == Close(3005, "token expired", by_server=True)
    await hub.stop()
