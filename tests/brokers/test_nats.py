"""The NATS broker with real servers: that go away, freeze, forget, and hold two applications."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nkeys
import pytest

from broker_node import KEEP, Node, is_away, is_up, message, nats_on
from certificates import certificate
from hubbub import (
    AsyncPublisher,
    BrokerUnavailable,
    ClientInfo,
    CommandError,
    Hub,
    MissingExtra,
    PositionLost,
    Receipt,
    RoomRules,
    SettingsError,
)
from hubbub.brokers import nats_format, reconnecting, unanswered
from hubbub.brokers.broker import (
    Ability,
    Control,
    Keep,
    PresenceTerms,
    RoomsRefused,
    as_broker,
)
from hubbub.brokers.nats import LOOKS, NatsBroker
from hubbub.brokers.nats_stream import NoAnswer
from hubbub.hub.core import core_of
from hubbub.limits import shown_url
from hubbub.testing import connect
from nats_server import NatsServer, hurry, nats_url, own_server, server_with
from places import ROOT
from started_hub import until
from tcp_proxy import Proxy
from valkey_server import fresh_prefix

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

server = own_server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(reconnecting, "PING_S", 0.2)
    monkeypatch.setattr(reconnecting, "SILENCE_S", 2.0)


async def test_two_brokers_see_one_order_of_a_room_that_remembers_and_each_its_own_of_another() -> (
    None
):
    prefix = fresh_prefix()
    async with (
        nats_on(nats_url(), "red", "blue", prefix=prefix) as (one, here),
        nats_on(nats_url(), "red", "blue", prefix=prefix) as (two, there),
    ):
        pending = []
        for n in range(200):
            broker = (one, two)[n % 2]
            pending.append(broker.publish_kept(message(str(n)), KEEP))
            pending.append(broker.publish(message(str(n), "blue")))
            if n % 10 == 9:
                await asyncio.sleep(0)
        receipts = await asyncio.gather(*pending)
        await until(lambda: len(here.delivered) == len(there.delivered) == 400)
        reds, blues = (
            [[text for name, text in node.delivered if name == room] for node in (here, there)]
            for room in ("red", "blue")
        )
        assert reds[0] == reds[1]
        for found in (*reds, *blues):
            assert sorted(map(int, found)) == list(range(200))
            for half in (0, 1):
                own = [int(text) for text in found if int(text) % 2 == half]
                assert own == sorted(own)
        assert {receipt.delivered_to for receipt in receipts} == {1}
        offsets = [receipt.position.offset for receipt in receipts if receipt.position]
        assert sorted(offsets) == list(range(1, 201))
        await one.send_control(Control("kick", "other", {"a": 1}))
        await until(lambda: bool(there.heard))
        assert there.heard == here.heard == [Control("kick", "other", {"a": 1})]


async def test_what_one_turn_publishes_to_a_room_comes_in_its_order_whatever_it_is() -> None:
    prefix = fresh_prefix()
    async with (
        nats_on(nats_url(), "red", "blue", prefix=prefix) as (one, here),
        nats_on(nats_url(), "red", "blue", prefix=prefix) as (two, there),
    ):
        pending = [one.publish(message("a"))]
        pending += [one.publish_kept(message(text), KEEP) for text in "bc"]
        pending += [one.publish(message("d")), one.publish(message("e", key="e"))]
        pending += [one.publish_kept(message("f", key="f"), KEEP), one.publish(message("g"))]
        receipts = await asyncio.gather(*pending)
        offsets = [each.position and each.position.offset for each in receipts]
        assert offsets == [None, 1, 2, None, None, 3, None]
        await until(lambda: len(there.delivered) == 7)
        for node in (here, there):
            assert [text for _, text in node.delivered] == list("abcdefg")
        kept = (await two.history("red")).publications
        assert [each.data for each in kept] == [b"b", b"c", b"f"]


async def test_two_applications_on_one_server_know_nothing_of_each_other() -> None:
    async with (
        nats_on(nats_url(), "red", prefix=fresh_prefix()) as (one, here),
        nats_on(nats_url(), "red", prefix=fresh_prefix()) as (two, there),
    ):
        await one.publish_kept(message("1"), KEEP)
        await two.publish(message("2"))
        assert (here.delivered, there.delivered) == ([("red", "1")], [("red", "2")])
        assert (await two.history("red")).publications == []


async def test_a_key_is_known_for_five_minutes() -> None:
    async with nats_on(nats_url(), prefix=fresh_prefix()) as (broker, _):
        rooms = broker._require_streams().rooms
        connection = broker._require_streams().feed.connection
        (answer,) = await connection.ask(f"$JS.API.STREAM.INFO.{rooms.name}", b"")
        assert json.loads(answer.data)["config"]["duplicate_window"] == 300 * 10**9
        await broker.publish(message("1", key="k"))
        last = json.dumps({"last_by_subj": broker._names.keyed("red")}).encode()
        (answer,) = await connection.ask(f"$JS.API.STREAM.MSG.GET.{rooms.name}", last)
        headers = base64.b64decode(json.loads(answer.data)["message"]["hdrs"])
        assert b"Nats-TTL: 300s\r\n" in headers, "what is kept for its key alone goes then"


async def test_what_is_too_old_is_lost_and_purged_but_for_the_position() -> None:
    async with nats_on(nats_url(), prefix=fresh_prefix()) as (broker, _):
        await broker.publish_kept(message("1"), Keep(10, 0.2, 1000))
        top = (await broker.publish_kept(message("2"), Keep(10, 0.2, 1000))).position
        page = await broker.history("red")
        while page.publications:
            await asyncio.sleep(0.02)
            page = await broker.history("red", since=top)
        assert page.position == top, "the position stays"
        running = broker._require()
        subject = broker._names.history("red")
        while len(await running.rooms.read(subject, 1, running.history.last_sequence)) > 1:
            await asyncio.sleep(0.02)
        third = await broker.publish_kept(message("3"), Keep(10, 60.0, 1000))
        assert third.position is not None
        assert third.position.offset == 3


async def test_a_server_that_is_killed_and_comes_back(server: NatsServer) -> None:
    """What waits is sent when it is back; a node is told of a gap; positions go on."""
    async with nats_on(server.url, "red") as (broker, node):
        await broker.publish_kept(message("1"), KEEP)
        server.kill()
        await until(is_away(broker))
        with pytest.raises(BrokerUnavailable):
            broker.subscribe(["blue"])
        waiting = [broker.publish_kept(message(text), KEEP) for text in "23"]
        plain = broker.publish(message("p", "blue"))
        with pytest.raises(BrokerUnavailable):
            await broker.history("red")
        await asyncio.to_thread(server.restart)
        receipts = await asyncio.gather(*waiting)
        assert (await plain).delivered_to == 0
        assert [r.position and r.position.offset for r in receipts] == [2, 3]
        assert (node.gaps, [text for _, text in node.delivered]) == (1, ["1", "2", "3"])
        await broker.subscribe(["blue"])
        assert (await broker.publish(message("4", "blue"))).delivered_to == 1


async def test_who_publishes_while_it_is_away_for_long_is_refused(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unanswered, "WAIT_S", 0.1)
    monkeypatch.setattr(unanswered, "MOST_WAITING", 4)
    async with nats_on(server.url, "red") as (broker, _):
        server.kill()
        await until(is_away(broker))
        waiting = [broker.publish(message(str(n))) for n in range(3)]
        waiting.append(broker.publish_kept(message("kept"), KEEP))
        assert broker.condition[:2] == ("away", 4)
        with pytest.raises(BrokerUnavailable, match="too many publications wait"):
            broker.publish(message("3"))
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert [str(each) for each in done] == ["the broker is away"] * 4
        assert broker.condition[:3] == ("away", 0, 0)
        await asyncio.to_thread(server.restart)
        await until(is_up(broker))
        assert (await broker.history("red")).publications == [], "what was refused never comes"


async def test_a_frozen_server_is_given_up_and_found_again(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unanswered, "WAIT_S", 30.0)
    async with nats_on(server.url, "red") as (broker, node):
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
        assert receipt.delivered_to == 1
        assert node.gaps >= 1
        kept_texts = [each.data for each in (await broker.history("red")).publications]
        assert kept_texts == [b"2"]


async def test_what_was_stored_without_an_answer_is_found_and_not_stored_again(
    server: NatsServer,
) -> None:
    """The way breaks when the server has the publication, and its answer is lost."""
    proxy = Proxy("127.0.0.1", server.port)
    await proxy.start()
    async with nats_on(server.url, "red") as (witness, node):
        async with nats_on(f"nats://127.0.0.1:{proxy.port}") as (broker, _):
            await broker.publish_kept(message("1"), KEEP)
            rooms = broker._require().rooms
            add = rooms.add

            async def add_and_lose(*args: Any, **options: Any) -> tuple[int, bool]:
                rooms.add = add  # type: ignore[method-assign]
                await add(*args, **options)
                proxy.cut()
                await until(is_away(broker))
                await witness.publish_kept(message("between"), KEEP)
                proxy.mend()
                raise NoAnswer("lost")

            for key in (None, "k"):
                rooms.add = add_and_lose  # type: ignore[method-assign]
                receipt = await broker.publish_kept(message(f"2{key}", key=key), KEEP)
                assert receipt.position is not None
                assert not receipt.is_repeated
                found = (await broker.history("red")).publications
                assert found[receipt.position.offset - 1].data == f"2{key}".encode()
            once = broker.publish(message("once", key="once"))
            assert not (await once).is_repeated
            assert (await broker.publish(message("once", key="once"))).is_repeated
        texts = [text for _, text in node.delivered]
        assert texts == ["1", "2None", "between", "2k", "between", "once"]
    await proxy.stop()


async def test_a_stream_of_people_that_is_gone_is_made_again(server: NatsServer) -> None:
    terms = PresenceTerms(60.0, 0.0, 10)
    async with nats_on(server.url) as (broker, _):
        await broker.enter("red", {"a": ClientInfo("a")}, terms)
        running = broker._require()
        await running.feed.connection.ask(f"$JS.API.STREAM.DELETE.{running.people.name}", b"")
        while True:
            try:
                assert list((await broker.presence("red")).infos) == []
            except BrokerUnavailable:
                await asyncio.sleep(0.01)
            else:
                break
        assert len((await broker.enter("red", {"a": ClientInfo("a")}, terms)).infos) == 1


async def test_of_a_stream_on_several_servers_a_loss_is_believed_when_it_lasts(
    server: NatsServer,
) -> None:
    """A server that has just begun to lead may not have read all that it has."""
    async with nats_on(server.url, "red") as (broker, node):
        top = (await broker.publish_kept(message("1"), KEEP)).position
        running = broker._require()
        connection = running.feed.connection
        state = await running.rooms.open(connection)
        assert state is not None
        assert running.watch is not None
        running.watch.cancel()
        on_three = state._replace(replicas=3)
        for _ in range(3):
            for _ in range(LOOKS - 1):
                assert not await broker._saw(running, on_three, state.last + 5, connection)
            assert not await broker._saw(running, on_three, state.last, connection)
        assert (await broker.history("red")).position == top
        found = [
            await broker._saw(running, on_three, state.last + 5, connection) for _ in range(LOOKS)
        ]
        assert found == [False] * (LOOKS - 1) + [True]
        assert (await broker.history("red")).position != top
        assert node.gaps == 0


async def test_a_stream_that_has_lost_its_newest_begins_new_epochs(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It has come back with an older state: positions would be given twice."""
    async with nats_on(server.url, "red") as (broker, node):
        top = (await broker.publish_kept(message("1"), KEEP)).position
        broker._require().history.last_sequence += 5
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


@pytest.mark.parametrize(
    "url", ["nats://127.0.0.1:1", "nats://user:secret@127.0.0.1:1,127.0.0.1:2", "tls://secret@127.0.0.1:1"]
)  # fmt: skip
async def test_a_server_that_is_not_there(url: str) -> None:
    hub = Hub(broker=url)
    with pytest.raises(
        BrokerUnavailable, match=f"the broker at {shown_url(url)}.* cannot be used: "
    ) as caught:
        await hub.start()
    assert (
        "secret" not in f"{caught.value} {core_of(hub).broker!r} {hub!r} {caught.value.__cause__}"
    )
    assert not hub.is_running


async def test_the_first_server_that_is_there_is_taken(server: NatsServer) -> None:
    url = f"nats://127.0.0.1:1,127.0.0.1:{server.port},127.0.0.1:2"
    async with nats_on(url, "red") as (broker, _):
        assert (await broker.publish(message("1"))).delivered_to == 1


@pytest.mark.parametrize(
    ("config", "login"),
    [
        ('authorization { token: "right-one" }', "right-one"),
        ('authorization { user: me, password: "right-one" }', "me:right-one"),
    ],
)
async def test_a_wrong_password_is_told_without_it(config: str, login: str) -> None:
    async with server_with(config) as server:
        place = f"127.0.0.1:{server.port}"
        for wrong in (login.replace("right", "wrong") + "@", ""):
            with pytest.raises(BrokerUnavailable, match="refuses the user, password") as caught:
                await NatsBroker(f"nats://{wrong}{place}").start(Node())
            assert "wrong-one" not in f"{caught.value} {caught.value.__cause__}"
        broker = NatsBroker(f"nats://{login}@{place}")
        await broker.start(Node())
        await broker.stop()
        assert "right-one" not in repr(broker)


@pytest.mark.parametrize("what", ["nats://{}?creds={}", "tls://{}?ca={}", "tls://{}?cert={}"])
async def test_a_file_that_is_missing_is_named(
    what: str, server: NatsServer, tmp_path: Path
) -> None:
    """A server that asks for no credentials would hide it, and what reads those of TLS says no name."""
    url = what.format(f"127.0.0.1:{server.port}", tmp_path / "missing.pem")
    with pytest.raises(BrokerUnavailable, match=r"missing\.pem'$"):
        await NatsBroker(url).start(Node())


async def test_a_certificate_has_to_be_good_and_there_has_to_be_one(
    server: NatsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate(tmp_path)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    config = f'tls {{ cert_file: "{cert}", key_file: "{key}" }}\nauthorization {{ token: secret }}'
    with pytest.raises(BrokerUnavailable, match="the server has no TLS"):
        await NatsBroker(f"tls://secret@127.0.0.1:{server.port}").start(Node())
    async with server_with(config) as other:
        url = f"tls://secret@127.0.0.1:{other.port}"
        with pytest.raises(BrokerUnavailable, match=r"(?i)certificate") as caught:
            await NatsBroker(url).start(Node())
        assert "secret" not in str(caught.value)
        for query in (f"ca={cert}", "verify=no"):
            async with nats_on(f"{url}?{query}", "red") as (broker, _):
                assert (await broker.publish(message("1"))).delivered_to == 1
        assert caplog.text.count("is not verified") == 1


@pytest.mark.parametrize("name", ["127.0.0.1", "127.0.0.2", "localhost"])
async def test_a_certificate_has_to_be_for_the_name_in_the_url(name: str, tmp_path: Path) -> None:
    """It is trusted in each case: what differs is for whom it is."""
    certificate(tmp_path, name)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    async with server_with(f'tls {{ cert_file: "{cert}", key_file: "{key}" }}') as server:
        url = f"tls://127.0.0.1:{server.port}?ca={cert}"
        if name == "127.0.0.1":
            async with nats_on(url, "red") as (broker, _):
                assert (await broker.publish(message("1"))).delivered_to == 1
        else:
            with pytest.raises(BrokerUnavailable, match=r"is not valid for '127\.0\.0\.1'"):
                await NatsBroker(url).start(Node())


async def test_a_message_that_the_server_does_not_take_is_refused_and_hurts_nobody() -> None:
    async with (
        server_with("max_payload: 10000") as server,
        nats_on(server.url, "red") as (one, _),
    ):
        pending = [one.publish(message("x" * size)) for size in (4000, 9950, 4000, 4000)]
        for size in (20_000, 9960):  # the second is too large with what is beside it
            with pytest.raises(CommandError, match=r"too_large: .* and the broker takes 10000"):
                one.publish(message("x" * size))
        assert [each.delivered_to for each in await asyncio.gather(*pending)] == [1] * 4
        assert one.condition.state == "up"


async def test_without_jetstream_there_is_control_and_order_and_no_more() -> None:
    async with server_with("") as server, nats_on(server.url, "red") as (broker, _):
        assert broker.abilities == {Ability.CONTROL}
        assert (await broker.publish(message("1"))).delivered_to == 1
        with pytest.raises(BrokerUnavailable, match="start it with -js"):
            broker.publish_kept(message("1"), KEEP)
        with pytest.raises(BrokerUnavailable, match="start it with -js"):
            broker.publish(message("1", key="k"))
        with pytest.raises(BrokerUnavailable, match="start it with -js"):
            await broker.history("red")
        with pytest.raises(BrokerUnavailable, match="start it with -js"):
            await broker.presence("red")


async def test_a_stream_of_that_name_that_is_none_of_ours_is_refused(server: NatsServer) -> None:
    async with nats_on(server.url) as (broker, _):
        ask = broker._require().feed.connection.ask
        body = b'{"name": "hubbub_x_rooms", "subjects": ["mine.*"]}'
        await ask("$JS.API.STREAM.CREATE.hubbub_x_rooms", body)
    with pytest.raises(BrokerUnavailable, match="hubbub_x_rooms is none of ours: its subjects"):
        await NatsBroker(server.url, prefix="x").start(Node())


async def test_a_publisher_goes_by_the_rules_of_the_hubs() -> None:
    url = f"{nats_url()}?prefix={fresh_prefix()}"
    hub = Hub(broker=url, room_rules=[RoomRules("chat:*", history=10)])
    await hub.start()
    peer = connect(hub)
    await peer.client.subscribe("chat:1")
    async with AsyncPublisher(url) as publisher:
        first = await publisher.publish("chat:1", "1", key="one")
        assert first.position == await hub.cursor("chat:1")
        assert (await publisher.publish("chat:1", "1", key="one")).is_repeated
        assert (await publisher.publish("plain", "nobody")).position is None
        assert [each.data for each in await publisher.history("chat:1")] == [b"1"]
    await until(lambda: peer.received == ["1"])
    await hub.stop()


async def test_who_is_there_survives_a_new_start_of_the_server(server: NatsServer) -> None:
    terms = PresenceTerms(60.0, 0.0, 10)
    async with nats_on(server.url) as (broker, _):
        await broker.enter("red", {"a": ClientInfo("a", "ann")}, terms)
        before = await broker.presence("red")
        server.kill()
        await until(is_away(broker))
        await asyncio.to_thread(server.restart)
        await until(is_up(broker))
        assert await broker.presence("red") == before
        await broker.leave("red", ["a"], terms)
        after = await broker.presence("red")
        assert (list(after.infos), after.at > before.at) == ([], True)


@pytest.mark.parametrize("prefix", ["", "a b", "a*", "a>", "a\n", "%", "ä", "x" * 65])
def test_a_prefix_that_cannot_be(prefix: str) -> None:
    with pytest.raises(SettingsError, match="prefix"):
        NatsBroker(prefix=prefix)


def test_it_is_a_broker() -> None:
    broker = NatsBroker()
    assert as_broker(broker) is broker


def test_a_package_that_is_missing_is_told_when_the_hub_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "nats"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nats", None)
    with pytest.raises(MissingExtra, match=r"pip install 'hubbub\[nats\]'"):
        Hub(broker="nats://localhost")


async def test_what_is_none_of_ours_is_logged_and_hurts_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    prefix = fresh_prefix()
    async with nats_on(nats_url(), "red", prefix=prefix) as (broker, node):
        connection = broker._require().feed.connection
        for data in (b"\n\xff\x00nonsense\r\n", b"h 1\nx", b"r\n5:x"):
            connection.publish(f"{prefix}.r.red", data)
        connection.publish(f"{prefix}.r.red", b"", {"Hubbub-Told": "x"})
        connection.publish(f"{prefix}.control", b"\n\xff\x00nonsense\r\n")
        await broker.publish(message("1"))
        assert node.delivered == [("red", "1")]
        assert caplog.text.count("is none of ours") + caplog.text.count("message failed") == 5


async def test_a_user_with_the_rights_of_the_guide_has_all_that_is_needed_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = (ROOT / "docs/guides/many-workers.md").read_text()
    rights = "authorization {" + guide.partition("authorization {")[2].partition("```")[0]
    store = f'jetstream {{ store_dir: "{tmp_path / "streams"}" }}\n'
    async with server_with(store + rights.replace("$WORD", "word")) as server:
        url = f"nats://shop:word@127.0.0.1:{server.port}"
        terms = PresenceTerms(60.0, 0.0, 10)
        async with nats_on(url, "red", prefix="shop") as (broker, node):
            assert (await broker.publish_kept(message("1", key="k"), KEEP)).delivered_to == 1
            assert (await broker.publish(message("2", key="l"))).delivered_to == 1
            await broker.enter("red", {"a": ClientInfo("a")}, terms)
            assert len((await broker.presence("red")).infos) == 1
            assert len((await broker.history("red")).publications) == 1
            await broker.remove_history("red")
            await broker.note("rules", b"none")
            assert await broker.noted("rules") == b"none"
            await broker.send_control(Control("kick", "other", {}))
            with monkeypatch.context() as newer:
                newer.setattr(nats_format, "FORMAT", "2")
                with pytest.raises(BrokerUnavailable, match="that writes format 1"):
                    await NatsBroker(url, prefix="shop").start(Node())
            assert (broker.condition.state, node.gaps) == ("up", 0)
        with pytest.raises(BrokerUnavailable, match="cannot be used"):
            await NatsBroker(url, prefix="other").start(Node())


RIGHTS = {
    "all": ('"shop.>", "$JS.API.>"', '"shop.>"'),
    "no JetStream": ('"shop.>"', '"shop.>"'),
    "no answers": ('"shop.>", "$JS.API.>"', '"shop.r.>"'),
    "one room": ('"shop.>", "$JS.API.>"', '"shop.i.>", "shop.r.blue"'),
    "no rooms": ('"shop.i.>", "$JS.API.>"', '"shop.i.>"'),
}


@asynccontextmanager
async def with_rights(which: str, folder: Path) -> AsyncIterator[tuple[NatsBroker, Node]]:
    """Have a broker that has not started, for a user with some rights."""
    publish, subscribe = RIGHTS[which]
    rights = f"publish: [{publish}], subscribe: [{subscribe}]"
    user = f"user: shop, password: word, permissions {{ {rights} }}"
    store = f'jetstream {{ store_dir: "{folder / "streams"}" }}\n'
    async with server_with(f"{store}authorization {{ users: [{{ {user} }}] }}") as server:
        broker = NatsBroker(f"nats://shop:word@127.0.0.1:{server.port}", prefix="shop")
        try:
            yield broker, Node()
        finally:
            await broker.stop()


@pytest.mark.parametrize(
    ("which", "what"),
    [
        ("no JetStream", r"no right to publish to \$js\.api\.stream\.info\.hubbub_shop_rooms"),
        ("no answers", r"no right to subscribe to shop\.i\."),
    ],
)
async def test_a_start_that_fails_for_want_of_a_right_says_which(
    which: str, what: str, tmp_path: Path
) -> None:
    async with with_rights(which, tmp_path) as (broker, node):
        with pytest.raises(BrokerUnavailable, match=what):
            await broker.start(node)


async def test_what_a_user_may_not_do_fails_with_that_reason_and_has_no_receipt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with with_rights("no rooms", tmp_path) as (broker, node):
        await broker.start(node)
        assert "no right to publish to shop.format" in caplog.text
        with pytest.raises(BrokerUnavailable, match=r"no right to subscribe to shop\.r\.red"):
            await broker.subscribe(["red"])
        with pytest.raises(BrokerUnavailable, match=r"^the server .* to publish to shop\.r\.red"):
            await broker.publish(message("1"))
        with pytest.raises(
            BrokerUnavailable, match=r"^the server .* to publish to shop\.s\.h\.red"
        ):
            await broker.publish_kept(message("1"), KEEP)
        with pytest.raises(BrokerUnavailable, match=r"no right to publish to shop\.control"):
            await broker.send_control(Control("kick", "other", {}))
        assert broker.condition.state == "up"


async def test_rooms_that_are_subscribed_to_with_one_that_is_refused_come(tmp_path: Path) -> None:
    async with with_rights("one room", tmp_path) as (broker, node):
        await broker.start(node)
        subscribed = broker.subscribe(["red", "blue", "green"])
        with pytest.raises(RoomsRefused) as refused:
            await subscribed
        assert list(refused.value.why) == ["red", "green"]
        assert "shop.r.green" in str(refused.value.why["green"])
        assert (await broker.publish(message("1", room="blue"))).delivered_to == 1


async def test_a_right_that_is_taken_away_while_it_runs_is_a_gap_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def users(denied: str) -> str:
        rights = f'publish: ">", subscribe: {{ allow: ">", deny: "{denied}" }}'
        user = f"user: shop, password: word, permissions {{ {rights} }}"
        return f"authorization {{ users: [{{ {user} }}] }}"

    async with server_with(users("elsewhere")) as server:
        url = f"nats://shop:word@127.0.0.1:{server.port}"
        async with nats_on(url, "red", prefix="shop") as (_, node):
            server.configure(users("shop.r.red"))
            async with asyncio.timeout(20):
                while not node.gaps:
                    await asyncio.sleep(0.01)
    text = "is lost: the server gives this user no right to subscribe to shop.r.red"
    assert text in caplog.text
    assert "refuses this user 1 rights" in caplog.text


async def test_a_server_that_takes_no_more_subscriptions_refuses_those_that_are_too_many() -> None:
    async with server_with("max_subscriptions: 10") as server, nats_on(server.url) as (one, node):
        rooms = [f"r{number}" for number in range(5)]
        await one.subscribe(rooms)
        for _ in range(2):
            with pytest.raises(RoomsRefused, match="no more subscriptions") as refused:
                await one.subscribe(["a", "b", "c"])
            assert list(refused.value.why) == ["a", "b", "c"]
        await one.subscribe(["d"])
        receipts = [await one.publish(message("1", room=room)) for room in (*rooms, "d", "a")]
        assert [each.delivered_to for each in receipts] == [1] * 6 + [0]
        assert (node.gaps, one.condition.state) == (0, "up")


async def test_a_hub_that_a_server_gives_too_few_subscriptions_does_not_start() -> None:
    async with server_with("max_subscriptions: 2") as server:
        with pytest.raises(BrokerUnavailable, match="no more subscriptions"):
            await NatsBroker(server.url).start(Node())


async def test_the_log_says_in_the_servers_words_why_it_has_ended_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with server_with("max_control_line: 256") as server, nats_on(server.url) as (one, _):
        feed = one._require().feed
        feed.connection.subscribe("a" * 300, 99)
        await until(lambda: feed.connections == 2)
    assert "is lost: the server says: maximum control line exceeded" in caplog.text


async def test_a_missing_right_is_told_of_what_it_was_needed_for_alone(tmp_path: Path) -> None:
    async with with_rights("all", tmp_path) as (broker, node):
        await broker.start(node)
        connection = broker._require().feed.connection
        connection.publish("elsewhere.a", b"")
        receipt = broker.publish(message("1"))
        asked = asyncio.create_task(connection.ask("Elsewhere.b", b""))
        with pytest.raises(BrokerUnavailable, match=r"publish to elsewhere\.b"):
            await asked
        assert await receipt == Receipt(0)
        assert (await broker.publish_kept(message("2"), KEEP)).position is not None
        await broker.subscribe(["red"])
        assert (await broker.publish(message("3"))).delivered_to == 1


def signed(claims: dict[str, Any], by: nkeys.KeyPair) -> str:
    """Return a JSON Web Token as NATS has them."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = part(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
    body = part(
        json.dumps({"jti": "1", "iat": 1, "iss": by.public_key.decode(), **claims}).encode()
    )
    return f"{head}.{body}.{part(by.sign(f'{head}.{body}'.encode()))}"


def key_of(kind: int) -> nkeys.KeyPair:
    """Return a new key of an operator, an account or a user."""
    return nkeys.from_seed(nkeys.encode_seed(secrets.token_bytes(32), kind))


async def test_a_file_of_credentials_logs_in(tmp_path: Path) -> None:
    operator, account, user = map(
        key_of, (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER)
    )

    def token(key: nkeys.KeyPair, by: nkeys.KeyPair, **nats: Any) -> str:
        claims = {"sub": key.public_key.decode(), "name": "x", "nats": {"version": 2, **nats}}
        return signed(claims, by)

    as_account = token(
        account,
        operator,
        type="account",
        limits={
            "subs": -1,
            "conn": -1,
            "leaf": -1,
            "imports": -1,
            "exports": -1,
            "data": -1,
            "payload": -1,
            "wildcards": True,
        },
    )
    config = (
        f'operator: "{token(operator, operator, type="operator")}"\nresolver: MEMORY\n'
        f'resolver_preload: {{ {account.public_key.decode()}: "{as_account}" }}\n'
    )
    creds = tmp_path / "user.creds"
    creds.write_text(
        "-----BEGIN NATS USER JWT-----\n"
        f"{token(user, account, type='user', subs=-1, data=-1, payload=-1)}\n"
        "------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    async with server_with(config) as server:
        async with nats_on(f"{server.url}?creds={creds}", "red") as (broker, _):
            assert (await broker.publish(message("1"))).delivered_to == 1
        with pytest.raises(BrokerUnavailable, match="refuses the user, password"):
            await NatsBroker(server.url).start(Node())
        with pytest.raises(BrokerUnavailable, match=r"missing\.creds") as caught:
            await NatsBroker(f"{server.url}?creds={tmp_path / 'missing.creds'}").start(Node())
        assert user.seed.decode() not in str(caught.value)
