"""Feed: channels are confirmed in the order of the calls, and asked for again when the connection is back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from hubbub import BrokerUnavailable
from hubbub.brokers import reconnecting
from hubbub.brokers.valkey_feed import Feed
from started_hub import until
from valkey_server import Server, connections, fresh_prefix

pytestmark = pytest.mark.anyio


class Listening:
    """A feed on the tests' server, and what it has said."""

    def __init__(self, url: str | None = None) -> None:
        self.heard: list[tuple[bytes, bytes]] = []
        self.said: list[str] = []
        self.connections = connections(url)
        self.client = self.connections.client
        self.feed = Feed(
            self.connections,
            lambda channel, data: self.heard.append((channel, data)),
            lambda: self.said.append("lost"),
            lambda: self.said.append("back"),
        )

    async def break_connection(self) -> None:
        """Have the server end the feed's connection."""
        host, port = self.feed._line._writer.get_extra_info("sockname")[:2]
        await self.client.client_kill_filter(addr=f"{host}:{port}")

    async def __aenter__(self) -> Listening:
        self.first = fresh_prefix().encode()
        await self.feed.start([self.first])
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.feed.stop()
        await self.connections.close()


async def test_a_channel_comes_when_it_is_confirmed_and_not_after_it_was_left() -> None:
    async with Listening() as on:
        channel = fresh_prefix().encode()
        await on.client.publish(channel, b"early")
        await on.feed.subscribe([channel])
        assert on.feed.is_subscribed(channel)
        await on.client.publish(channel, b"1")
        await until(lambda: on.heard == [(channel, b"1")])
        on.feed.unsubscribe([channel])
        assert not on.feed.is_subscribed(channel)
        await on.feed.subscribe([channel])
        await on.client.publish(channel, b"2")
        await until(lambda: len(on.heard) == 2)


async def test_many_in_one_call_are_done_together() -> None:
    async with Listening() as on:
        channels = [f"{fresh_prefix()}.{n}".encode() for n in range(1000)]
        await asyncio.wait_for(on.feed.subscribe(channels), 10)
        assert all(map(on.feed.is_subscribed, channels))


async def test_when_it_is_back_all_that_is_wanted_comes_and_who_waited_was_told() -> None:
    async with Listening() as on:
        kept, left = fresh_prefix().encode(), fresh_prefix().encode()
        await on.feed.subscribe([kept, left])
        on.feed.unsubscribe([left])
        await on.break_connection()
        await until(lambda: on.said == ["lost", "back"])
        assert (on.feed.is_up, on.feed.connections) == (True, 2)
        assert [on.feed.is_subscribed(each) for each in (on.first, kept, left)] == [
            True,
            True,
            False,
        ]
        await on.client.publish(left, b"no")
        await on.client.publish(kept, b"yes")
        await until(lambda: on.heard == [(kept, b"yes")])


async def test_what_is_wanted_while_it_connects_comes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Listening() as on:
        late, left = fresh_prefix().encode(), fresh_prefix().encode()
        await on.feed.subscribe([left])
        confirm = on.feed._all_confirmed

        async def meanwhile(line: Any, channels: set[bytes]) -> list[bytes]:
            on.feed.want([late])
            on.feed.unsubscribe([left])
            return await confirm(line, channels)

        monkeypatch.setattr(on.feed, "_all_confirmed", meanwhile)
        await on.break_connection()
        await until(lambda: on.said == ["lost", "back"])
        assert [on.feed.is_subscribed(each) for each in (on.first, late, left)] == [
            True,
            True,
            False,
        ]
        await on.client.publish(left, b"no")
        await on.client.publish(late, b"yes")
        await on.client.publish(on.first, b"last")
        await until(lambda: on.heard[-1:] == [(on.first, b"last")])
        assert on.heard == [(late, b"yes"), (on.first, b"last")]


async def test_who_waits_for_a_channel_when_it_stops_is_told() -> None:
    async with Listening() as on:
        waiting = on.feed.subscribe([fresh_prefix().encode()])
        await on.feed.stop()
        with pytest.raises(BrokerUnavailable, match="stopped"):
            await waiting
        assert not on.feed.is_up


async def test_a_server_that_is_silent_is_so_at_once_and_given_up_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnecting, "PING_S", 0.05)
    monkeypatch.setattr(reconnecting, "SILENCE_S", 0.2)
    monkeypatch.setattr(reconnecting, "LOOK_S", 0.02)
    server = Server(tmp_path)
    try:
        async with Listening(server.url) as on:
            server.freeze()
            await until(lambda: on.feed.is_silent)
            assert on.feed.is_up
            server.thaw()
            await until(lambda: not on.feed.is_silent)
            assert (on.feed.is_up, on.said) == (True, [])
            server.freeze()
            await until(lambda: on.said == ["lost"])
            assert not on.feed.is_up
            server.thaw()
            await until(lambda: on.said == ["lost", "back"])
    finally:
        server.stop()


async def test_what_has_failed_elsewhere_makes_it_connect_anew() -> None:
    async with Listening() as on:
        on.feed.fail(RuntimeError("on purpose"))
        await until(lambda: on.said == ["lost", "back"])
        assert on.feed.connections == 2


async def test_it_stops_in_whatever_it_is_doing() -> None:
    """A cancelled wait that is done in the same moment must not go on: it once did, on Python 3.11."""
    for turns in range(40):
        async with Listening() as on:
            await on.break_connection()
            for _ in range(turns):
                await asyncio.sleep(0)
        assert not on.feed.is_up
