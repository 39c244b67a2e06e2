"""Streams: what is taken and what refused, what is read, and what errors say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from broker_node import Node
from hubbub import BrokerUnavailable
from hubbub.brokers import nats_connection, nats_stream
from hubbub.brokers.nats import NatsBroker
from hubbub.brokers.nats_connection import Connection
from hubbub.brokers.nats_stream import NoAnswer, NotNow, Refused, Stored, Stream
from nats_server import nats_url, server_with
from valkey_server import fresh_prefix

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def stream_on(url: str) -> AsyncIterator[tuple[Stream, str, Connection]]:
    prefix = fresh_prefix()
    broker = NatsBroker(url, prefix=prefix)
    await broker.start(Node())
    running = broker._require()
    yield running.rooms, f"{prefix}.s.h.red", running.feed.connection
    await broker.stop()


async def test_a_message_is_taken_behind_the_one_that_it_follows() -> None:
    async with stream_on(nats_url()) as (stream, subject, connection):
        first, _ = await stream.add(subject, b"1", after=0, headers={})
        for wrong in (0, first + 1):
            with pytest.raises(Refused):
                await stream.add(subject, b"no", after=wrong, headers={})
        second, _ = await stream.add(subject, b"2", after=first, headers={"Nats-Msg-Id": "k"})
        assert await stream.add(subject, b"3", after=second, headers={"Nats-Msg-Id": "k"}) == (
            second,
            True,
        )
        one, two = await stream.one(first), await stream.one(second)
        state = await stream.open(connection)
        assert one is not None
        assert two is not None
        assert state is not None
        assert (one[:2], two[:2]) == ((first, b"1"), (second, b"2"))
        assert 0 < one.time_s < two.time_s < state.time_s, "by the server's clock"
        assert await stream.last(subject) == two
        assert await stream.next(subject, first) == one
        assert await stream.next(subject, second + 1) is None
        assert await stream.last(f"{subject}2") is None
        assert await stream.read(subject, 1, second) == [one, two]
        await stream.forget(subject, before=second)
        assert await stream.read(subject, 1, second) == [two]
        await stream.forget(subject)
        assert await stream.last(subject) is None


async def test_a_server_that_is_too_old_is_refused_before_its_answer_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = list[object]()
    monkeypatch.setattr(nats_stream, "OLDEST_VERSION", (99, 1))
    monkeypatch.setattr(nats_stream, "_state_of", read.append)
    with pytest.raises(BrokerUnavailable, match=r"JetStream is older than 99\.1"):
        await NatsBroker(nats_url(), prefix=fresh_prefix()).start(Node())
    assert read == []


async def test_what_is_purged_while_it_is_read_is_no_error_and_what_does_not_come_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nats_stream, "PAUSE_S", 0.0)
    async with stream_on(nats_url()) as (stream, subject, _):
        first, _ = await stream.add(subject, b"1", after=0, headers={})
        assert await stream.read(subject, 1, first + 5) == [await stream.one(first)]

        async def ahead(_: str) -> Stored:
            return Stored(first + 5, b"")

        stream.last = ahead  # type: ignore[method-assign, assignment]
        with pytest.raises(BrokerUnavailable, match="too far behind"):
            await stream.read(subject, 1, first + 5)


async def test_what_had_left_when_the_connection_was_closed_may_be_taken() -> None:
    async with stream_on(nats_url()) as (stream, subject, connection):
        asking = asyncio.create_task(stream.add(subject, b"1", after=0, headers={}))
        await asyncio.sleep(0)
        await connection.close()
        with pytest.raises(NoAnswer, match="the broker has stopped"):
            await asking


async def test_a_server_that_does_not_answer_may_have_taken_it_and_one_without_the_stream_has_not(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        server_with(folder=tmp_path_factory.mktemp("streams")) as server,
        stream_on(server.url) as (stream, subject, connection),
    ):
        await connection.ask(f"$JS.API.STREAM.DELETE.{stream.name}", b"")
        with pytest.raises(NotNow, match="the stream is gone"):
            await stream.add(subject, b"1", after=0, headers={})
        monkeypatch.setattr(nats_connection, "TIMEOUT_S", 0.05)
        server.freeze()
        with pytest.raises(NoAnswer, match="does not answer"):
            await stream.add(subject, b"1", after=0, headers={})
        with pytest.raises(NotNow, match="does not answer"):
            await stream.last(subject)
        server.thaw()


async def test_a_stream_is_made_once_and_none_without_jetstream() -> None:
    async with stream_on(nats_url()) as (stream, _, connection):
        states = await asyncio.gather(*(stream.open(connection) for _ in range(5)))
        assert len({state.made for state in states if state}) == 1
    async with server_with() as server, stream_on(server.url) as (stream, _, connection):
        assert await stream.open(connection) is None
