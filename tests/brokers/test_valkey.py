"""The Valkey broker with real servers: that go away, freeze, forget, and hold two applications."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker_hubs import Publishers, hubs_on, member, texts
from broker_node import KEEP, Node, is_away, is_up, message, valkey_on
from certificates import certificate
from hubbub import (
    BrokerUnavailable,
    ClientInfo,
    Hub,
    PositionLost,
    SettingsError,
)
from hubbub.brokers import reconnecting, unanswered
from hubbub.brokers.broker import Control, Keep, PresenceTerms, as_broker
from hubbub.brokers.valkey import ValkeyBroker
from hubbub.brokers.valkey_names import Names
from hubbub.hub.core import core_of
from hubbub.limits import shown_url
from started_hub import until
from tcp_proxy import Proxy
from valkey_server import (
    Server,
    client_of,
    fresh_prefix,
    hurry,
    mended_server,
    own_server,
    server_url,
)

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

one_server, server = own_server, mended_server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(reconnecting, "PING_S", 0.2)
    monkeypatch.setattr(reconnecting, "SILENCE_S", 2.0)


async def test_two_brokers_see_each_other_in_one_order() -> None:
    prefix = fresh_prefix()
    async with (
        valkey_on(server_url(), "red", prefix=prefix) as (one, here),
        valkey_on(server_url(), "red", prefix=prefix) as (two, there),
    ):
        pending = [(one, two)[n % 2].publish(message(str(n))) for n in range(200)]
        receipts = await asyncio.gather(*pending)
        await until(lambda: len(here.delivered) == len(there.delivered) == 200)
        assert here.delivered == there.delivered
        assert {receipt.delivered_to for receipt in receipts} == {1}
        await one.send_control(Control("kick", "other", {"a": 1}))
        await until(lambda: bool(there.heard))
        assert there.heard == here.heard == [Control("kick", "other", {"a": 1})]


async def test_what_one_turn_keeps_is_a_run_with_positions_one_after_another() -> None:
    prefix = fresh_prefix()
    async with (
        valkey_on(server_url(), "red", "blue", prefix=prefix) as (one, here),
        valkey_on(server_url(), "red", "blue", prefix=prefix) as (two, there),
    ):
        rooms = ["red", "blue", "red", "red", "blue"]
        pending = [one.publish_kept(message(str(n), room), KEEP) for n, room in enumerate(rooms)]
        pending += [one.publish(message(text)) for text in "xy"]
        receipts = await asyncio.gather(*pending)
        offsets = [each.position and each.position.offset for each in receipts]
        assert offsets == [1, 1, 2, 3, 2, None, None]
        await until(lambda: len(there.delivered) == 7)
        for node in (here, there):
            red = [text for room, text in node.delivered if room == "red"]
            assert red == ["0", "2", "3", "x", "y"]
        kept = (await two.history("red")).publications
        assert [(each.position and each.position.offset, each.data) for each in kept] == [
            (1, b"0"),
            (2, b"2"),
            (3, b"3"),
        ]
        assert {each.delivered_to for each in receipts} == {1}


async def test_two_applications_on_one_server_know_nothing_of_each_other() -> None:
    async with (
        valkey_on(server_url(), "red", prefix=fresh_prefix()) as (one, here),
        valkey_on(server_url(), "red", prefix=fresh_prefix()) as (two, there),
    ):
        await one.publish_kept(message("1"), KEEP)
        await two.publish(message("2"))
        assert (here.delivered, there.delivered) == ([("red", "1")], [("red", "2")])
        assert (await two.history("red")).publications == []


@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_key_is_known_for_five_minutes(*, is_kept: bool) -> None:
    async with valkey_on(server_url(), prefix=(prefix := fresh_prefix())) as (broker, _):
        publication = message("1", key="k")
        await (broker.publish_kept(publication, KEEP) if is_kept else broker.publish(publication))
        left_ms = await client_of(broker).pttl(Names(prefix).key("red", "k:", "k"))
        assert 240_000 < left_ms <= 300_000, "it counts down on the server"


async def test_what_is_too_old_is_lost() -> None:
    async with valkey_on(server_url(), prefix=fresh_prefix()) as (broker, _):
        await broker.publish_kept(message("1"), Keep(10, 0.2, 1000))
        top = (await broker.publish_kept(message("2"), Keep(10, 0.2, 1000))).position
        assert len((await broker.history("red")).publications) == 2
        page = await broker.history("red")
        while page.publications:
            await asyncio.sleep(0.02)
            page = await broker.history("red", since=top)
        assert page.position == top, "the position stays"
        third = await broker.publish_kept(message("3"), Keep(10, 60.0, 1000))
        assert third.position is not None
        assert third.position.offset == 3


async def test_a_server_that_is_killed_and_comes_back(server: Server) -> None:
    """What waits is sent when it is back; a node is told of a gap; positions go on."""
    async with valkey_on(server.url, "red") as (broker, node):
        await broker.publish_kept(message("1"), KEEP)
        server.kill()
        await until(is_away(broker))
        with pytest.raises(BrokerUnavailable):
            broker.subscribe(["blue"])
        waiting = [broker.publish_kept(message(text), KEEP) for text in "23"]
        with pytest.raises(BrokerUnavailable):
            await broker.history("red")
        await asyncio.to_thread(server.restart)
        receipts = await asyncio.gather(*waiting)
        assert [r.position and r.position.offset for r in receipts] == [2, 3]
        assert (node.gaps, [text for _, text in node.delivered]) == (1, ["1", "2", "3"])
        await broker.subscribe(["blue"])
        assert (await broker.publish(message("4", "blue"))).delivered_to == 1


async def test_who_publishes_while_it_is_away_for_long_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unanswered, "WAIT_S", 0.1)
    monkeypatch.setattr(unanswered, "MOST_WAITING", 3)
    async with valkey_on(server.url, "red") as (broker, _):
        server.kill()
        await until(is_away(broker))
        waiting = [broker.publish(message(str(n))) for n in range(3)]
        assert broker.condition[:2] == ("away", 3)
        with pytest.raises(BrokerUnavailable, match="too many publications wait"):
            broker.publish(message("3"))
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert [str(each) for each in done] == ["the broker is away"] * 3
        assert broker.condition[:3] == ("away", 0, 0)


async def test_a_frozen_server_is_given_up_and_found_again(server: Server) -> None:
    async with valkey_on(server.url, "red") as (broker, node):
        server.freeze()
        plain, kept = broker.publish(message("1")), broker.publish_kept(message("2"), KEEP)
        await until(lambda: broker.condition.state == "silent")
        with pytest.raises(BrokerUnavailable, match="it may have been published, or not"):
            await plain
        await until(is_away(broker))
        server.thaw()
        await until(is_up(broker))
        assert (await kept).position is not None, "a second try is safe"
        receipt = await broker.publish(message("3"))
        assert (broker.condition.lag_s or 0) > 0
        assert (receipt.delivered_to, node.gaps) == (1, 1)
        kept_texts = [each.data for each in (await broker.history("red")).publications]
        assert kept_texts == [b"2"]


async def test_a_server_that_has_forgotten_all_begins_a_new_epoch_and_says_so(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with valkey_on(server.url, "red") as (broker, node):
        top = (await broker.publish_kept(message("1"), KEEP)).position
        await client_of(broker).flushall()
        await client_of(broker).script_flush()
        await until(lambda: node.gaps == 1)
        assert "has forgotten what it kept" in caplog.text
        with pytest.raises(PositionLost) as lost:
            await broker.history("red", since=top)
        assert lost.value.is_other_epoch
        second = (await broker.publish_kept(message("2"), KEEP)).position
        assert second is not None
        assert top is not None
        assert (second.offset, second.epoch != top.epoch) == (1, True)
        assert node.gaps == 1


async def test_a_server_that_may_have_lost_its_newest_begins_a_new_epoch_when_it_starts_again(
    tmp_path: Path,
) -> None:
    """Without an append-only file it comes back with an older state: positions would be given twice."""
    server = Server(tmp_path, appendonly="no")
    try:
        async with valkey_on(server.url, "red") as (broker, _node):
            await broker.publish_kept(message("1"), KEEP)
            server.command("SAVE")
            top = (await broker.publish_kept(message("2"), KEEP)).position
            server.kill()
            await until(is_away(broker))
            await asyncio.to_thread(server.restart)
            await until(is_up(broker))
            again = [await broker.publish_kept(message(text), KEEP) for text in "ab"]
            assert top is not None
            assert [each.position and each.position.offset for each in again] == [1, 2]
            with pytest.raises(PositionLost):
                await broker.history("red", since=top)
    finally:
        server.stop()


async def test_a_server_that_has_become_a_replica_is_given_up(
    server: Server, tmp_path: Path
) -> None:
    """What is published to a replica reaches nobody who is connected to its primary."""
    primary = Server(tmp_path / "primary")
    try:
        async with valkey_on(server.url, "red") as (broker, node):
            server.command("REPLICAOF", "127.0.0.1", primary.port)
            await until(is_away(broker))
            with pytest.raises(BrokerUnavailable, match="is a replica"):
                await ValkeyBroker(server.url).start(Node())
            server.command("REPLICAOF", "NO", "ONE")
            await until(is_up(broker))
            assert (await broker.publish(message("1"))).delivered_to == 1
            assert node.gaps >= 1
    finally:
        primary.stop()


async def test_a_server_without_memory_refuses_and_recovers(server: Server) -> None:
    server.command("CONFIG", "SET", "maxmemory", "1mb")
    async with valkey_on(server.url, "red") as (broker, node):
        with pytest.raises(BrokerUnavailable, match="no memory left"):
            await broker.publish_kept(message("1"), KEEP)
        with pytest.raises(BrokerUnavailable, match="no memory left"):
            await broker.publish(message("2", key="k"))
        assert (await broker.publish(message("3"))).delivered_to == 1
        server.command("CONFIG", "SET", "maxmemory", "0")
        receipt = await broker.publish_kept(message("4"), KEEP)
        assert receipt.position is not None
        assert receipt.position.offset == 1, "nothing was done by halves"
        assert [text for _, text in node.delivered] == ["3", "4"]


@pytest.mark.parametrize(
    "url",
    [
        "valkey://127.0.0.1:1",
        "valkey://user:secret@127.0.0.1:1/0",
        "unix://u:secret@/nowhere/at.sock",
    ],
)
async def test_a_server_that_is_not_there(url: str) -> None:
    hub = Hub(broker=url)
    with pytest.raises(
        BrokerUnavailable, match=f"the broker at {shown_url(url)} cannot be used: "
    ) as caught:
        await hub.start()
    assert (
        "secret" not in f"{caught.value} {core_of(hub).broker!r} {hub!r} {caught.value.__cause__}"
    )
    assert not hub.is_running


async def test_a_wrong_password_is_told_without_it(server: Server) -> None:
    server.command("CONFIG", "SET", "requirepass", "right-one")
    place = f"127.0.0.1:{server.port}"
    try:
        for login in (":wrong-one@", ""):
            with pytest.raises(
                BrokerUnavailable, match="refuses the user's name or the password"
            ) as caught:
                await ValkeyBroker(f"valkey://{login}{place}").start(Node())
            assert "wrong-one" not in f"{caught.value} {caught.value.__cause__}"
        broker = ValkeyBroker(f"valkey://:right-one@{place}")
        await broker.start(Node())
        await broker.stop()
    finally:
        server.command("CONFIG", "SET", "requirepass", "", password="right-one")


@pytest.mark.parametrize("prefix", ["", "a{b", "a b", "a*", "a\n", "%", "ä", "x" * 65])
def test_a_prefix_that_cannot_be(prefix: str) -> None:
    with pytest.raises(SettingsError, match="prefix"):
        ValkeyBroker(prefix=prefix)


def test_it_is_a_broker() -> None:
    broker = ValkeyBroker()
    assert as_broker(broker) is broker


async def test_what_is_none_of_ours_is_logged_and_hurts_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    prefix = fresh_prefix()
    async with valkey_on(server_url(), "red", prefix=prefix) as (broker, node):
        for channel in (f"{prefix}:r:red", f"{prefix}:control"):
            await client_of(broker).publish(channel, b"\n\xff\x00nonsense\r\n")
        await broker.publish(message("1"))
        assert node.delivered == [("red", "1")]
        assert caplog.text.count("is none of ours") == 2


async def test_a_user_with_rights_for_one_prefix_has_all_that_is_needed_and_no_more(
    server: Server,
) -> None:
    rights = "~shop:* &shop:* +@all -@dangerous +info +role"
    server.command("ACL", "SETUSER", "shop", "on", ">word", *rights.split())
    url = f"valkey://shop:word@127.0.0.1:{server.port}"
    try:
        async with valkey_on(url, "red", prefix="shop") as (broker, _):
            assert (await broker.publish_kept(message("1", key="k"), KEEP)).delivered_to == 1
            await broker.enter("red", {"a": ClientInfo("a")}, PresenceTerms(60.0, 0.0, 10))
            assert len((await broker.presence("red")).infos) == 1
            assert len((await broker.history("red")).publications) == 1
            await broker.remove_history("red")
            await broker.send_control(Control("kick", "other", {}))
            await until(is_up(broker))
        with pytest.raises(BrokerUnavailable, match="user may not do that"):
            await ValkeyBroker(url, prefix="other").start(Node())
        rights = "-role -info"
        server.command("ACL", "SETUSER", "shop", *rights.split())
        async with valkey_on(url, "red", prefix="shop") as (broker, _):
            assert (await broker.publish_kept(message("1"), KEEP)).position is not None
    finally:
        server.command("ACL", "DELUSER", "shop")


async def test_a_certificate_has_to_be_good(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = Proxy("127.0.0.1", server.port, certificate(tmp_path))
    await proxy.start()
    url = f"valkeys://:secret@127.0.0.1:{proxy.port}"
    with pytest.raises(BrokerUnavailable, match=r"(?i)certificate") as caught:
        await ValkeyBroker(url).start(Node())
    assert "secret" not in str(caught.value)
    server.command("CONFIG", "SET", "requirepass", "secret")
    try:
        for query in (f"ca={tmp_path / 'cert.pem'}", "verify=no"):
            async with valkey_on(f"{url}?{query}", "red") as (broker, _):
                assert (await broker.publish(message("1"))).delivered_to == 1
            assert ("is not verified" in caplog.text) == (query == "verify=no")
    finally:
        server.command("CONFIG", "SET", "requirepass", "", password="secret")
        await proxy.stop()


@pytest.mark.parametrize("query", ["ca={}", "ca=/dev/null&cert={}", "ca=/dev/null&key={}"])
async def test_a_file_that_is_missing_is_named(query: str, server: Server, tmp_path: Path) -> None:
    """What reads it for TLS says no name, and it would look as if no server were there."""
    url = f"valkeys://127.0.0.1:{server.port}?{query.format(tmp_path / 'missing.pem')}"
    with pytest.raises(BrokerUnavailable, match=r"missing\.pem'$"):
        await ValkeyBroker(url).start(Node())


@pytest.mark.parametrize("scheme", ["valkeys", "rediss"])
@pytest.mark.parametrize("name", ["127.0.0.1", "127.0.0.2", "localhost"])
async def test_a_certificate_has_to_be_for_the_name_in_the_url(
    scheme: str, name: str, server: Server, tmp_path: Path
) -> None:
    """It is trusted in each case: what differs is for whom it is."""
    proxy = Proxy("127.0.0.1", server.port, certificate(tmp_path, name))
    await proxy.start()
    url = f"{scheme}://127.0.0.1:{proxy.port}?ca={tmp_path / 'cert.pem'}"
    try:
        if name == "127.0.0.1":
            async with valkey_on(url, "red") as (broker, _):
                assert (await broker.publish(message("1"))).delivered_to == 1
        else:
            with pytest.raises(BrokerUnavailable, match=r"is not valid for '127\.0\.0\.1'"):
                await ValkeyBroker(url).start(Node())
    finally:
        await proxy.stop()


# Hubs


async def test_members_of_two_hubs_miss_nothing_while_the_server_is_killed_again_and_again(
    server: Server,
) -> None:
    async with hubs_on(server.url) as hubs:
        peers = [await member(hub, "log") for hub in hubs for _ in range(3)]
        publishers = Publishers(hubs, pause_s=0.005, rest_s=0.02, key_every=1, tries_again=True)
        for _ in range(3):
            await asyncio.sleep(0.3)
            server.kill()
            await asyncio.sleep(0.2)
            await asyncio.to_thread(server.restart)
        await asyncio.sleep(0.5)
        await publishers.end()
        taken = publishers.taken
        await until(lambda: all(len(texts(peer)) >= len(taken) for peer in peers))
        expected = texts(peers[0])
        assert sorted(map(str, expected)) == sorted(taken), "nothing is lost, or comes twice"
        assert all(texts(peer) == expected for peer in peers), "and all see one order"
        assert [peer.closed for peer in peers] == [None] * 6
        assert all(core_of(hub).recovery.joining_rooms == 0 for hub in hubs)
