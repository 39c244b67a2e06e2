"""The transport of clients whose sockets are gone."""

from __future__ import annotations

import asyncio
import gc
import inspect
import weakref
from typing import Any

import pytest

from hubbub import Client, Close, Hub
from hubbub.hub.client import session_of
from hubbub.testing import connect, settle
from hubbub.transports.lost import LOST, LostTransport
from hubbub.transports.transport import Transport

pytestmark = pytest.mark.anyio


def test_it_has_all_that_a_transport_has() -> None:
    checked: Transport = LOST
    assert not checked.writable
    for name, method in inspect.getmembers(Transport, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.signature(method) == inspect.signature(getattr(LostTransport, name))


@pytest.mark.parametrize("dialect", ["plain", "centrifuge"])
@pytest.mark.parametrize("by_server", [False, True])
async def test_who_keeps_a_client_keeps_nothing_of_its_socket(
    dialect: str, by_server: bool
) -> None:
    hub = Hub()
    await hub.start()
    if dialect == "plain":
        peer = connect(hub)
    else:
        peer = connect(hub, dialect="centrifuge")
        peer.send('{"id": 1, "connect": {}}')
    await settle(hub)
    client, transport = peer.client, weakref.ref(peer.transport)
    client.close() if by_server else peer.close()
    await settle(hub)
    session = session_of(client)
    assert session.transport is LOST
    assert session.opening is None
    assert client.send("late") is False
    client.close()
    del peer
    gc.collect()
    assert transport() is None
    assert client.id
    await hub.stop()


async def test_a_handler_that_outlives_its_socket_ends_as_any_other() -> None:
    hub = Hub()
    gone: list[int] = []
    done: list[object] = []

    @hub.rpc("slow")
    async def slow(client: Client, data: Any) -> None:
        await asyncio.sleep(0)
        peer.transport.abort()
        await settle(hub)
        done.append(session_of(peer.client).transport)

    @hub.on_disconnect
    def end(client: Client, close: Close) -> None:
        gone.append(len(done))

    await hub.start()
    peer = connect(hub, dialect="centrifuge")
    peer.send('{"id": 1, "connect": {}}\n{"id": 2, "rpc": {"method": "slow"}}')
    peer.send('{"id": 3, "refresh": {"token": "new"}}')
    await settle(hub)
    await settle(hub)
    assert done == [LOST]
    assert gone == [1], "once, and after the handler"
    assert hub.stats()["handler_errors"] == 0
    await hub.stop()
