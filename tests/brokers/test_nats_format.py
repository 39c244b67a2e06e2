"""The form that processes on NATS servers write: others are refused with a reason, with JetStream and without it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack

import pytest

from broker_node import Node, is_away, is_up, message, nats_on
from hubbub import BrokerUnavailable
from hubbub.brokers import nats_format
from hubbub.brokers.nats import NatsBroker
from hubbub.brokers.nats_address import read_address
from hubbub.brokers.nats_connection import Connection
from hubbub.brokers.nats_format import NatsFormat
from hubbub.brokers.nats_names import NatsNames
from nats_server import hurry, nats_url, server_with
from started_hub import until
from tcp_proxy import Proxy
from valkey_server import fresh_prefix

pytestmark = pytest.mark.anyio

REASON = "version of Hubbub that writes format 2, and this one writes 1"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


class Stranger:
    """A process that writes another form, as long as it is there; one that `stands_still` answers nothing."""

    def __init__(self, url: str, prefix: str, *, stands_still: bool = False) -> None:
        address = read_address(url)
        self._servers = address.servers
        self._format = NatsFormat(NatsNames(prefix).format)
        self._format._own = "2"
        self._stands_still = stands_still
        self.heard: list[bytes] = []
        """Who has said that it has come, by its form."""
        self._connection = Connection(address, self._take)

    def _take(self, number: int, data: bytes, headers: Mapping[str, str], reply: bytes) -> None:
        if not reply:
            self.heard.append(data)
        elif not self._stands_still:
            self._format.hear(self._connection, data, reply)

    async def come(self) -> None:
        """Be there without having asked, as a process that nobody has answered."""
        await self._connection.open(self._servers)
        self._connection.subscribe(self._format.subject, 7)
        self._format.say(self._connection)
        await self._connection.ping()

    async def go(self) -> None:
        """Be there no more."""
        await self._connection.close()


@pytest.fixture(params=["JetStream", "none"])
async def url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A server with JetStream, and one without."""
    if request.param == "JetStream":
        yield nats_url()
    else:
        async with server_with() as server:
            yield server.url


async def test_who_writes_another_form_than_those_who_are_there_does_not_start(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = fresh_prefix()
    async with nats_on(url, "red", prefix=prefix) as (broker, node):
        with monkeypatch.context() as newer:
            newer.setattr(nats_format, "FORMAT", "2")
            late = NatsBroker(url, prefix=prefix)
            with pytest.raises(BrokerUnavailable, match="writes format 1, and this one writes 2"):
                await late.start(Node(name="late"))
        async with nats_on(url, "red", prefix=prefix) as (_, same):
            await broker.publish(message("1"))
            await until(lambda: node.delivered == same.delivered == [("red", "1")])
        assert (broker.condition.state, node.gaps) == ("up", 0)


async def test_all_who_are_there_may_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = fresh_prefix()
    async with AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(nats_on(nats_url(), prefix=prefix))
        monkeypatch.setattr(nats_format, "FORMAT", "2")
        with pytest.raises(BrokerUnavailable, match="writes format 1, and this one writes 2"):
            await NatsBroker(nats_url(), prefix=prefix).start(Node())


async def test_who_hears_that_others_have_come_is_away_until_they_have_gone(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "hubbub")
    prefix = fresh_prefix()
    async with nats_on(url, "red", prefix=prefix) as (broker, node):
        stranger = Stranger(url, prefix)
        await stranger.come()
        await until(is_away(broker))
        await until(lambda: caplog.text.count("cannot be reached: other processes") >= 2)
        assert is_away(broker)()
        await stranger.go()
        await until(is_up(broker))
        await broker.publish(message("1"))
        assert node.delivered == [("red", "1")]
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith("the connection to the broker is lost: ")
    assert REASON in warnings[0]


async def test_who_comes_back_and_finds_others_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "hubbub")
    prefix = fresh_prefix()
    proxy = Proxy("127.0.0.1", int(nats_url().rpartition(":")[2]))
    await proxy.start()
    async with nats_on(f"nats://127.0.0.1:{proxy.port}", prefix=prefix) as (broker, _):
        proxy.cut()
        await until(is_away(broker))
        stranger = Stranger(nats_url(), prefix)
        await stranger.come()
        proxy.mend()
        await until(lambda: caplog.text.count(REASON) >= 3)
        levels = [each.levelno for each in caplog.records if REASON in each.getMessage()]
        assert levels[:3] == [logging.WARNING, logging.DEBUG, logging.DEBUG]
        await stranger.go()
        await until(is_up(broker))
    await proxy.stop()


async def test_who_stands_still_keeps_nobody_from_starting_and_hears_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nats_format, "ANSWER_S", 0.05)
    prefix = fresh_prefix()
    stranger = Stranger(nats_url(), prefix, stands_still=True)
    await stranger.come()
    async with nats_on(nats_url(), "red", prefix=prefix) as (broker, node):
        await broker.publish(message("1"))
        assert node.delivered == [("red", "1")]
        assert is_up(broker)()
        await until(lambda: stranger.heard == [b"2", b"1"])
    await stranger.go()


async def test_those_of_one_form_let_one_another_be() -> None:
    prefix = fresh_prefix()
    async with (
        nats_on(nats_url(), prefix=prefix) as (one, node),
        nats_on(nats_url(), prefix=prefix) as (other, _),
    ):
        await asyncio.gather(*(each._require().feed.connection.ping() for each in (one, other)))
        assert is_up(one)()
        assert (one._require().feed.connections, node.gaps) == (1, 0)
