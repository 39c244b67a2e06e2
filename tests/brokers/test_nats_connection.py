"""Connections to NATS servers: what goes by them, and what their errors say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from hubbub import BrokerUnavailable
from hubbub.brokers import nats_connection
from hubbub.brokers.nats_address import read_address
from hubbub.brokers.nats_connection import Connection, NoRight, unavailable
from nats_server import nats_url, server_with
from tcp_proxy import Proxy

pytestmark = pytest.mark.anyio

Row = tuple[int, bytes, Mapping[str, str]]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[Connection, list[Row]]]:
    rows: list[Row] = []
    address = read_address(url)
    made = Connection(address, lambda *row: rows.append(row[:3]))
    await made.open(address.servers)
    yield made, rows
    await made.close()


async def test_what_is_written_comes_in_order_before_the_answer_to_a_ping() -> None:
    async with connected(nats_url()) as (one, rows):
        one.subscribe("conn.a", 5)
        one.subscribe("conn.b", 6)
        one.publish("conn.a", b"1")
        one.publish("conn.b", b"\r\n2\x00", {"Name": "a: ä"})
        one.unsubscribe(5)
        one.publish("conn.a", b"nobody")
        one.publish("conn.b", b"")
        await one.ping()
        assert rows == [(5, b"1", {}), (6, b"\r\n2\x00", {"Name": "a: ä"}), (6, b"", {})]
        assert one.version >= (2, 11)


async def test_the_library_asks_for_no_signs_of_life_which_would_end_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = Connection._options
    often = {"ping_interval": 0.01}
    monkeypatch.setattr(Connection, "_options", lambda self: options(self) | often)
    async with connected(nats_url()) as (one, _):
        for _ in range(10):
            await asyncio.sleep(0.01)
            await one.ping()
        assert not one.failed.done()


async def test_a_question_is_answered_by_one_or_by_many_or_by_nobody() -> None:
    async with connected(nats_url()) as (one, _), connected(nats_url()) as (other, asked):
        other.subscribe("conn.question", 7)
        await other.ping()
        asking = asyncio.create_task(one.ask("conn.question", b"?"))
        while not asked:
            await asyncio.sleep(0.001)
        inbox = f"{one._inbox}.1"
        other.publish(inbox, b"!")
        assert [each.data for each in await asking] == [b"!"]
        other.publish(inbox, b"too late")
        many = asyncio.create_task(one.ask("conn.question", b"?", has_many=True))
        while len(asked) < 2:
            await asyncio.sleep(0.001)
        for data in (b"1", b"2"):
            other.publish(f"{one._inbox}.2", data)
        end = b"NATS/1.0 204 EOB\r\n\r\n"
        other.write(b"HPUB %b.2 %d %d\r\n%b\r\n" % (one._inbox.encode(), len(end), len(end), end))
        assert [(each.data, each.status) for each in await many] == [
            (b"1", ""),
            (b"2", ""),
            (b"", "204"),
        ]
        (answer,) = await one.ask("conn.nobody", b"?")
        assert answer.is_nobody


async def test_who_gets_no_answers_is_told_so_each_time_by_an_error_of_its_own() -> None:
    rights = 'publish: ">", subscribe: { deny: "_INBOX.>" }'
    user = f"user: shop, password: word, permissions {{ {rights} }}"
    async with (
        server_with(f"authorization {{ users: [{{ {user} }}] }}") as server,
        connected(f"nats://shop:word@127.0.0.1:{server.port}") as (one, _),
    ):
        errors = []
        for _ in range(3):
            with pytest.raises(NoRight, match=r"subscribe to _inbox\.") as caught:
                await one.ask("conn.question", b"?")
            errors.append(caught.value)
        assert len(set(errors)) == 3


async def test_a_connection_that_breaks_tells_all_who_wait() -> None:
    proxy = Proxy("127.0.0.1", int(nats_url().rpartition(":")[2]))
    await proxy.start()
    async with connected(f"nats://127.0.0.1:{proxy.port}") as (one, _):
        one.subscribe("conn.silent", 8)
        await one.ping()
        asking = asyncio.create_task(one.ask("conn.silent", b"?"))
        await asyncio.sleep(0)
        proxy.cut()
        with pytest.raises(Exception, match=r"(?i)eof|reset|closed"):
            await one.failed
        with pytest.raises(Exception, match=r"(?i)eof|reset|closed"):
            await asking
        one.publish("conn.silent", b"nobody takes it")
    await proxy.stop()


async def test_a_handler_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def take(number: int, data: bytes, headers: Mapping[str, str], reply: bytes) -> None:
        raise RuntimeError("a bug")

    address = read_address(nats_url())
    one = Connection(address, take)
    await one.open(address.servers)
    one.subscribe("conn.fails", 9)
    one.publish("conn.fails", b"1")
    await one.ping()
    await one.ping()
    assert "a broker's message failed" in caplog.text
    assert not one.failed.done()
    await one.close()


async def test_what_does_not_answer_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_connection, "TIMEOUT_S", 0.05)
    writers: list[asyncio.StreamWriter] = []
    listening = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    address = read_address(f"nats://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    made = Connection(address, lambda *_: None)
    with pytest.raises(TimeoutError) as caught:
        await made.open(address.servers)
    assert str(unavailable(caught.value)) == "the server does not answer"
    await made.close()
    for writer in writers:
        writer.close()
    listening.close()


async def test_a_ping_by_a_connection_that_was_given_up_is_not_waited_for() -> None:
    async with connected(nats_url()) as (one, _):
        earlier = one.ping()
        one.fail(BrokerUnavailable("given up"))
        for pong in (earlier, one.ping()):
            with pytest.raises(BrokerUnavailable, match="given up"):
                await asyncio.wait_for(pong, 10)


@pytest.mark.parametrize(
    "name", ["_process_msg", "_process_err", "_process_info", "_ping_interval"]
)
async def test_a_library_that_calls_something_else_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(nats_connection.library().aio.client.Client, name)
    with pytest.raises(BrokerUnavailable, match=f"nats-py is not known: it has no {name}"):
        async with connected(nats_url()):
            pass


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (BrokerUnavailable("so"), "so"),
        (TimeoutError(), "the server does not answer"),
        (RuntimeError("nats: 'Authorization Violation'"), "the server refuses the user, password"),
        (RuntimeError("user authentication expired"), "the server refuses the user, password"),
        (OSError("a\nb"), "a\ufffdb"),
        (ValueError(), "ValueError"),
    ],
)
def test_what_an_error_means(error: Exception, says: str) -> None:
    assert says in str(unavailable(error))
