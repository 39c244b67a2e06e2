"""FirstMessage: who speaks the Centrifuge protocol at a plain route is told so, before anybody hears it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from hub.dispatching import started
from hubbub import Client, Handshake, Hub
from hubbub.errors import MAX_REASON_BYTES
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.hub.disconnects import WRONG_ROUTE
from hubbub.testing import connect, settle

pytestmark = pytest.mark.anyio

CONNECT = '{"id":1,"connect":{"token":"secret"}}\n{"id":2,"subscribe":{"channel":"a"}}'


async def test_an_sdk_at_a_plain_route_is_sent_away_and_its_token_goes_to_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = await started()
    ann, sdk = connect(hub), connect(hub)
    with caplog.at_level(logging.DEBUG, "hubbub"):
        sdk.send(CONNECT)
        await settle(hub)
    assert sdk.closed is not None
    assert (sdk.closed.code, sdk.closed.by_server) == (3501, True)
    assert 'dialect="centrifuge"' in sdk.closed.reason
    assert len(WRONG_ROUTE.reason) <= MAX_REASON_BYTES
    assert (ann.received, hub.stats()["protocol_errors"]) == ([], 1)
    assert "sent a connect command to a route of plain clients" in caplog.text
    assert "secret" not in caplog.text
    await hub.stop()


async def test_no_handler_sees_it_not_after_a_connect_handler_that_waits_either() -> None:
    hub = Hub()
    seen: list[str] = []
    gate = asyncio.Event()
    hub.on_message(lambda client, message: seen.append(message))

    @hub.on_connect
    async def waits(client: Client, handshake: Handshake) -> None:
        await gate.wait()

    await started(hub)
    sdk, ann = connect(hub), connect(hub)
    sdk.send(CONNECT)
    ann.send("1")
    ann.send(CONNECT)
    assert sdk.closed is None
    gate.set()
    await settle(hub)
    assert sdk.closed is not None
    assert ann.closed is None, "an application may have such messages of its own, later"
    assert seen == ["1", CONNECT]
    await hub.stop()


async def test_it_is_asked_once_and_costs_later_messages_nothing() -> None:
    hub = Hub()
    hub.on_message(lambda client, message: None)
    await started(hub)
    peer = connect(hub)
    session, core = session_of(peer.client), core_of(hub)
    assert session.dispatcher is core.first_message
    peer.send(CONNECT.encode())
    assert session.dispatcher is core.dispatcher
    assert peer.closed is None, "SDKs say it in text"
    await hub.stop()
