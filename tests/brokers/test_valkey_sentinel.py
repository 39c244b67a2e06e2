"""Sentinel: the primary is found, and its successor followed, with real servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker_hubs import Publishers, hubs_on, member, rows, texts
from broker_node import KEEP, Node, is_away, is_up, message, valkey_on
from hubbub import BrokerUnavailable, PositionLost
from hubbub.brokers import valkey_link, valkey_sentinel
from hubbub.brokers.valkey import ValkeyBroker
from hubbub.brokers.valkey_address import read_address
from hubbub.brokers.valkey_sentinel import Sentinels
from started_hub import until
from valkey_sentinels import NAME, Watched
from valkey_server import hurry

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    hurry(monkeypatch)
    made = Watched(tmp_path)
    yield made
    made.stop()


async def test_a_primary_is_killed_and_what_follows_it_is_followed(watched: Watched) -> None:
    """Nothing comes twice; what was acknowledged and is lost was told; all stay connected."""
    async with hubs_on(watched.url) as hubs:
        peers = [await member(hub, "log") for hub in hubs for _ in range(2)]
        publishers = Publishers(hubs, pause_s=0.002, rest_s=0.02)
        taken = publishers.taken
        await publishers.take(50)
        watched.primary.kill()
        await publishers.take(50)
        await publishers.end()
        last = [await hub.publish("log", "last") for hub in hubs]
        assert last[0].position is not None
        await until(lambda: all(list(peer.received).count("last") == 2 for peer in peers))
        assert watched.primary_port() == watched.replica.port
        for peer in peers:
            received = texts(peer)
            assert len(set(received)) == len(received) - 1, "nothing twice, but for the last"
            missing = set(taken) - set(received)
            assert rows(peer), "a new epoch is told"
            # What the successor took before its epoch was told is before that gap; nothing later is lost.
            told = max(at for at, each in enumerate(peer.received) if '"type"' in str(each))
            later = map(str, peer.received[told + 1 :])
            first = next((text for text in later if text in taken), taken[-1])
            after = [text for text in taken[taken.index(first) + 10 :] if text in missing]
            assert not after, "what comes after the new epoch is not lost"
        assert [peer.closed for peer in peers] == [None] * 4


async def test_positions_of_the_old_primary_hold_no_more(watched: Watched) -> None:
    """The successor may lack the newest of them, and would give them twice."""
    async with valkey_on(watched.url, "red") as (broker, node):
        top = (await broker.publish_kept(message("1"), KEEP)).position
        watched.primary.kill()
        await until(is_away(broker))
        waiting = broker.publish_kept(message("2"), KEEP)
        await until(is_up(broker))
        await asyncio.gather(waiting, return_exceptions=True)
        with pytest.raises(PositionLost) as lost:
            await broker.history("red", since=top)
        assert lost.value.is_other_epoch
        assert node.gaps >= 1


async def test_a_primary_that_is_relieved_by_hand_is_left(watched: Watched) -> None:
    async with valkey_on(watched.url, "red") as (broker, node):
        assert (await broker.publish(message("1"))).delivered_to == 1
        await asyncio.to_thread(watched.relieve)
        await until(lambda: watched.primary_port() == watched.replica.port)
        await until(lambda: _place(broker) == watched.replica.port and is_up(broker)())
        assert (await broker.publish(message("2"))).delivered_to == 1
        assert [text for _, text in node.delivered] == ["1", "2"]


async def test_a_primary_that_is_relieved_is_left_when_the_sentinel_says_so(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the old one takes nothing more: that may be ten seconds later."""
    monkeypatch.setattr(valkey_link, "PLACE_LOOKS", 1_000_000)  # it is not asked meanwhile
    async with valkey_on(watched.url, "red") as (broker, _):
        await asyncio.to_thread(watched.relieve)
        await until(lambda: _place(broker) == watched.replica.port and is_up(broker)())
        assert (await broker.publish(message("2"))).delivered_to == 1
    assert "lost: another server has become the primary" in caplog.text


async def test_who_hears_no_sentinel_asks_it_now_and_then(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    async def until_moved(self: Sentinels) -> None:
        asked.append(1)
        raise OSError("refused")

    monkeypatch.setattr(Sentinels, "until_moved", until_moved)
    async with valkey_on(watched.url, "red") as (broker, _):
        await until(lambda: len(asked) == 2)
        await asyncio.to_thread(watched.relieve)
        await until(lambda: _place(broker) == watched.replica.port and is_up(broker)())


async def test_a_primary_that_only_we_can_reach_is_left_too(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(valkey_link, "PLACE_LOOKS", 1)
    async with valkey_on(watched.url, "red") as (broker, node):
        link = broker._running.layout.links[0]  # type: ignore[union-attr]
        ports = iter([watched.replica.port])

        async def find() -> tuple[str, int]:
            return "127.0.0.1", next(ports, watched.primary.port)

        monkeypatch.setattr(link.connections._locator, "find", find)
        await until(lambda: node.gaps == 1)
        assert (await broker.publish(message("1"))).delivered_to == 1


def _place(broker: ValkeyBroker) -> int:
    assert broker._running is not None
    return broker._running.layout.links[0].connections.place[1]


async def test_sentinels_with_a_password_and_such_as_know_nothing(tmp_path: Path) -> None:
    watched = Watched(tmp_path, password="word-of-sentinels")
    try:
        found = await Sentinels(read_address(watched.url)).find()
        assert found == ("127.0.0.1", watched.primary.port)
        async with valkey_on(watched.url, "red") as (broker, _):
            assert (await broker.publish(message("1"))).delivered_to == 1
            assert "word-of" not in repr(broker)
        other = watched.url.replace(NAME, "other")
        with pytest.raises(BrokerUnavailable, match="knows no primary of that name"):
            await ValkeyBroker(other).start(Node())
        wrong = watched.url.replace("word-of-sentinels", "wrong-word")
        with pytest.raises(BrokerUnavailable, match="refuses the user's name") as caught:
            await ValkeyBroker(wrong).start(Node())
        assert "wrong-word" not in str(caught.value)
    finally:
        watched.stop()


@asynccontextmanager
async def spoken_to(signs: int, sign: bytes = b"") -> AsyncIterator[tuple[Sentinels, list[bytes]]]:
    """Have a Sentinel that gives so many signs of life, and then names a successor if it is asked once more; below 0 it
    gives none. Beside it, what it was told."""
    told: list[bytes] = []

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                await reader.readline()
                words.append((await reader.readline()).strip())
            told.append(words[0])
            pings = told.count(b"PING")
            if words[0] == b"SUBSCRIBE":
                writer.write(b"*3\r\n$9\r\nsubscribe\r\n$14\r\n+switch-master\r\n:1\r\n")
            elif words[0] != b"PING":
                writer.write(b"+OK\r\n")
            elif pings <= signs:
                writer.write(sign)
            elif signs >= 0:
                text = f"{NAME} 127.0.0.1 1 127.0.0.1 2".encode()
                head = b"*3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n"
                writer.write(b"%b$%d\r\n%b\r\n" % (head, len(text), text))
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        ended.set()

    ended = asyncio.Event()
    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield Sentinels(read_address(f"valkey+sentinel://127.0.0.1:{port}/{NAME}")), told
    server.close()
    await asyncio.wait_for(ended.wait(), 20)


@pytest.mark.parametrize(
    "sign", [b"*2\r\n$4\r\npong\r\n$0\r\n\r\n", b"-NOPERM User x has no permissions\r\n"]
)
async def test_a_sentinel_from_which_nothing_is_heard_is_asked_for_a_sign_of_life(
    sign: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(valkey_sentinel, "SIGN_S", 0.5)
    async with spoken_to(1, sign) as (sentinels, told):
        async with asyncio.timeout(20):
            await sentinels.until_moved()
        assert told.count(b"PING") == 2


async def test_a_sentinel_that_gives_no_sign_of_life_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(valkey_sentinel, "SIGN_S", 0.05)
    async with spoken_to(-1) as (sentinels, told):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(20):
                await sentinels.until_moved()
        assert told.count(b"PING") == 1
