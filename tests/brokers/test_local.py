"""The broker of one machine: several processes, and nothing to install or to start."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from broker_hubs import GAP, Publishers, hubs_on, member, rows, state, texts
from brokers.local_folder import ask, guard_of, is_gone, process_of, short_folder
from commands import clean_environment
from hubbub import BrokerUnavailable, Hub, RoomRules, SettingsError
from hubbub.brokers import local as local_module
from hubbub.brokers import unanswered
from hubbub.brokers.local import LocalBroker
from hubbub.brokers.schemes import broker_at
from hubbub.brokers.valkey import ValkeyBroker
from hubbub.hub.core import core_of
from hubbub.testing import connect, settle
from started_hub import until
from valkey_server import hurry

pytestmark = pytest.mark.anyio

folder = short_folder

RULES = [RoomRules("chat:*", history=10)]
OTHER = """
import asyncio, sys
from hubbub import Hub, RoomRules

async def main():
    hub = Hub(broker=sys.argv[1], room_rules=[RoomRules("chat:*", history=10)])
    await hub.start()
    for line in sys.stdin:
        receipt = await hub.publish("chat:1", line.strip())
        print(receipt.position.offset, flush=True)
    await hub.stop()

asyncio.run(main())
"""


@asynccontextmanager
async def running(url: str) -> AsyncIterator[Hub]:
    hub = Hub(broker=url, room_rules=RULES)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()


def broker_of(hub: Hub) -> LocalBroker:
    broker = core_of(hub).broker
    assert isinstance(broker, LocalBroker)
    return broker


async def test_two_processes_are_one(folder: Path) -> None:
    command = [sys.executable, "-c", OTHER, "local://shop"]
    environment = {**clean_environment(), "TMPDIR": str(folder)}
    async with running("local://shop") as hub:
        peer = connect(hub)
        await peer.client.subscribe("chat:1")
        other = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write(b"from the other\n")
        await until(lambda: peer.received == ["from the other"])
        assert await other.stdout.readline() == b"1\n"
        other.stdin.close()
        assert await other.wait() == 0
        assert (await hub.publish("chat:1", "here")).position is not None
        await until(lambda: peer.received == ["from the other", "here"])


async def test_a_name_or_a_prefix_of_its_own_is_a_world_of_its_own(folder: Path) -> None:
    async with (
        running("local://shop") as shop,
        running("local://shop?prefix=other") as other,
        running("local://blog") as blog,
    ):
        await shop.publish("chat:1", "for the shop")
        assert [len((await hub.history("chat:1")).publications) for hub in (shop, other, blog)] == [
            1,
            0,
            0,
        ]


@pytest.mark.parametrize("what", ["the guard", "the server", "both"])
async def test_what_is_killed_comes_back_while_a_hub_runs(
    folder: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_module, "LOOK_S", 0.05)
    async with running("local://shop") as hub:
        server = broker_of(hub)._server
        process, guard = process_of(server), guard_of(server)
        assert process is not None
        if what != "the server":
            os.kill(guard, signal.SIGKILL)
            await until(lambda: is_gone(guard))
        if what != "the guard":
            os.kill(process, signal.SIGKILL)
            await until(lambda: process_of(server) not in (None, process))
            await until(lambda: hub.stats()["broker_gaps"] == 1)
        await until(lambda: hub.stats()["broker_state"] == "up")
        peer = connect(hub)
        await peer.client.subscribe("chat:1")
        while "again" not in peer.received:  # the first may fall into a new epoch, which is told
            await hub.publish("chat:1", "again")
            await settle(hub)
        last = process_of(server)
        assert last is not None
    await until(lambda: is_gone(last))


@contextmanager
def away(hub: Hub) -> Iterator[None]:
    """Kill the server, and let its guard start another when the block ends."""
    server = broker_of(hub)._server
    process, guard = process_of(server), guard_of(server)
    assert process is not None
    os.kill(guard, signal.SIGSTOP)
    try:
        os.kill(process, signal.SIGKILL)
        yield
    finally:
        os.kill(guard, signal.SIGCONT)


async def test_what_is_published_while_it_is_away_waits_and_not_without_bound(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    async with hubs_on("local://shop", 1) as (hub,):
        peer = await member(hub, "log")
        with away(hub):
            await until(state(hub, "away"))
            monkeypatch.setattr(unanswered, "MOST_WAITING", 3)
            waiting = [asyncio.create_task(hub.publish("log", str(number))) for number in range(3)]
            await until(lambda: hub.stats()["broker_waiting"] == 3)
            with pytest.raises(BrokerUnavailable, match="too many publications wait"):
                await hub.publish("log", "refused")
        receipts = await asyncio.gather(*waiting)
        assert [each.position and each.position.offset for each in receipts] == [1, 2, 3]
        await hub.publish("log", "3")
        await until(lambda: texts(peer)[-1:] == ["3"])
        # Its history began anew: whatever of that the room's members were not given, they were told.
        got, all_of_it = texts(peer), ["0", "1", "2", "3"]
        assert got == all_of_it[-len(got) :]
        assert got == all_of_it or {"type": "gap", "room": "log"} in rows(peer)
        monkeypatch.setattr(unanswered, "WAIT_S", 0.1)
        with away(hub):
            await until(state(hub, "away"))
            with pytest.raises(BrokerUnavailable, match="the broker is away"):
                await hub.publish("log", "waited for long")
        assert peer.closed is None


@pytest.mark.timeout(60)
@pytest.mark.parametrize("is_kept", [True, False], ids=["in a folder", "in memory"])
async def test_while_it_is_killed_under_publishers_clients_stay_and_are_brought_up_to_date_or_told(
    folder: Path, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a folder keeps comes once, in one order. What is only in memory is gone, and its members know it."""
    hurry(monkeypatch)
    async with hubs_on(f"local://{folder}/kept" if is_kept else "local://shop") as hubs:
        peers = [await member(hub, "log") for hub in hubs for _ in range(2)]
        news = [await member(hub, "news") for hub in hubs]
        with ask(
            broker_of(hubs[0])._server
        ) as client:  # else a busy disk may lose what was answered
            client.config_set("appendfsync", "always")
        publishers = Publishers(hubs, pause_s=0.005, rest_s=0.02, key_every=1, tries_again=True)
        await publishers.take(50)
        with away(hubs[0]):
            for hub in hubs:
                await until(state(hub, "away"))
            await until(lambda: all(hub.stats()["broker_waiting"] == 1 for hub in hubs))
        await publishers.take(50)
        await publishers.end()
        await hubs[0].publish("log", "last")
        await until(lambda: all(texts(peer)[-1:] == ["last"] for peer in peers))
        await until(lambda: all(GAP in rows(peer) for peer in news))
        told = [{"type": "gap", "room": "log"} in rows(peer) for peer in peers]
        assert told == [not is_kept] * 4
        if is_kept:
            assert sorted(map(str, texts(peers[0]))) == sorted([*publishers.taken, "last"])
            assert all(texts(peer) == texts(peers[0]) for peer in peers)
            assert [hub.stats()["broker_gaps"] for hub in hubs] == [1, 1]
        assert [peer.closed for peer in (*peers, *news)] == [None] * 6


async def test_a_folder_keeps_the_history(folder: Path) -> None:
    url = f"local://{folder}/kept"
    async with running(url) as hub:
        await hub.publish("chat:1", "one")
        position = await hub.cursor("chat:1")
    async with running(url) as hub:
        assert [each.data for each in (await hub.history("chat:1")).publications] == [b"one"]
        assert (await hub.cursor("chat:1")).offset == position.offset


async def test_a_hub_that_cannot_start_leaves_no_server_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = LocalBroker("shop")
    hub = Hub(broker=broker)

    async def fail(self: object, node: object) -> None:
        raise LookupError("no")

    monkeypatch.setattr(ValkeyBroker, "start", fail)
    with pytest.raises(LookupError):
        await hub.start()
    await until(lambda: not broker._server.socket.exists())


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("local://a b", "a name has letters"),
        ("local://name/folder", "a name and a folder"),
        ("local://name?keep=1", "prefix=… alone"),
        ("local://name?prefix=a b", "a prefix of 1 to 64"),
    ],
)
def test_what_is_no_url_of_a_local_server_says_what_is(url: str, what: str) -> None:
    with pytest.raises(SettingsError, match=what):
        broker_at(url)


def test_it_says_what_it_is(folder: Path) -> None:
    broker = broker_at("local://shop?prefix=one", prefix="two")
    assert isinstance(broker, LocalBroker)
    assert repr(broker) == f"<LocalBroker {str(broker._server.folder)!r} prefix='one.two'>"
    assert broker.abilities == ValkeyBroker.abilities
