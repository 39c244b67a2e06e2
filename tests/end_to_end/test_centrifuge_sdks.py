"""The Centrifuge SDKs, unmodified: npm `centrifuge` in Node and in Chromium, PyPI `centrifuge-python` here.

In Chromium it is the bundle that ships with the demo.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from centrifuge import (  # type: ignore[import-untyped]
    CentrifugeError,
    Client,
    ClientInfo,
    ClientState,
    DeltaType,
    ReplyError,
    StreamPosition,
    SubscriptionState,
)
from websockets.exceptions import ConnectionClosed

from centrifuge_app import do, make_app, make_hub
from end_to_end.playing import CENTRIFUGE as NPM_SDK
from end_to_end.playing import COMES_BACK, STAYS_AWAY, Player, Scenario, of
from end_to_end.python_sdk import Noting, enter, sdk
from hubbub import Hub
from hubbub.dialects.centrifuge import CENTRIFUGE
from hubbub.wire.fossil import fossil_delta
from serving import Served, serve, until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]


@pytest.fixture(params=["native", "portable"])
async def served(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Hub, Served]]:
    hub = make_hub()
    async with serve(make_app(hub), native=request.param == "native") as server:
        yield hub, server


@pytest.fixture
def play(served: tuple[Hub, Served], player: Player) -> Scenario:
    """Give what plays a scenario of the npm SDK and returns what happened."""
    return lambda name: player(NPM_SDK, served[1], name)


async def test_js_recovers_what_it_missed(play: Scenario) -> None:
    events = await play("recovery")
    publications = [[number, number] for number in range(1, 7)]
    assert [event[1:] for event in of(events, "publication")] == publications
    recovered = [[False, False], [True, True], [True, True]]
    assert [event[1:] for event in of(events, "subscribed")] == recovered


async def test_js_is_never_given_what_it_was_excluded_from(play: Scenario) -> None:
    events = await play("excluded")
    assert [event[1:] for event in of(events, "publication")] == [[n, n] for n in (1, 3, 5, 7)]
    recovered = [[False, False], *[[True, True]] * 3]
    assert [event[1:] for event in of(events, "subscribed")] == recovered


async def test_js_is_told_that_something_is_lost(play: Scenario) -> None:
    events = await play("lost")
    assert of(events, "publication") == [["publication", 1, 1], ["publication", 7, 7]]
    assert [event[1:] for event in of(events, "subscribed")] == [[False, False], [True, False]]


async def test_js_brings_all_its_subscriptions_in_one_message(play: Scenario) -> None:
    events = await play("several")
    assert len(of(events, "subscribed")) == 8
    publications = of(events, "publication")
    assert publications[0] == ["publication", "newest", 1], "of the room of which only that counts"
    assert publications[-1] == ["publication", "in a room without history", None]
    assert of(events, "error", "unsubscribed") == []


async def test_js_gets_the_newest_of_a_state(play: Scenario) -> None:
    events = await play("newest")
    assert of(events, "publication") == [["publication", "new", 2]]


async def test_js_commands(play: Scenario) -> None:
    events = await play("commands")
    found = {event[0]: event[1:] for event in events}
    assert found["publish"] == [{}]
    assert found["publish elsewhere failed"] == [103, False]
    assert found["history"] == [[[{"text": "é\n"}, 1]]]
    assert found["page"] == [[2, 3]]
    assert found["newest"] == [[4]]
    assert found["position"] == [4]
    assert found["other epoch failed"] == [112, False]
    assert found["no history failed"] == [108, False]
    assert found["rpc"] == [{"data": {"sum": 6}}]
    assert found["rpc of text"] == [{"data": "42"}]
    assert found["rpc with nonsense failed"] == [107, False]
    assert found["rpc of nobody failed"] == [104, False]
    assert found["rpc that fails failed"] == [450, False]
    assert found["presence stats failed"][0] == 108
    assert found["message"] == [{"type": "welcome", "to": "eve"}]
    assert found["meta"] == [[{"from": "a test"}]]
    assert found["unsubscribe twice"] == ["ready"]
    assert events[-1] == ["unsubscribed", 103]
    assert of(events, "disconnected") == []


async def test_js_stays_away_when_it_is_refused(play: Scenario) -> None:
    events = await play("refused")
    assert events == [["connecting", 0], ["disconnected", 101, "the token is not valid"]]


async def test_js_asks_for_a_new_token_when_its_own_has_expired(play: Scenario) -> None:
    events = await play("expired")
    assert events[-1] == ["asked", 1]
    assert of(events, "disconnected") == []


async def test_js_refreshes_its_token(play: Scenario) -> None:
    events = await play("refresh")
    assert events == [["connecting", 0], ["connected"], ["state", "connected"]]


async def test_js_sees_who_is_there(play: Scenario) -> None:
    events = await play("presence")
    assert of(events, "join", "leave") == [["join", "lea"], ["join", "max"], ["leave", "max"]]
    assert of(events, "users") == [["users", ["lea", "max"]]]
    assert of(events, "stats") == [["stats", {"numClients": 2, "numUsers": 2}]]
    assert of(events, "after") == [["after", {"numClients": 1, "numUsers": 1}]]


async def test_js_is_told_who_published_and_what_tokens_say_of_clients(play: Scenario) -> None:
    events = await play("publishers")
    ann, bob = ["ann", True, {"name": "Ann"}, ["guest"]], ["bob", True, None, None]
    assert of(events, "told") == [["told", {"seat": 7}]]
    assert of(events, "join")[:2] == [["join", bob], ["join", ann]]
    assert of(events, "by") == [["by", 1, ann], ["by", 2, bob], ["by", 3, None], ["by", 4, ann]]
    assert of(events, "recovered")[-1] == ["recovered", True]
    assert of(events, "kept") == [["kept", ["annAnn", "bob", None, "annAnn"]]]
    assert of(events, "there") == [["there", ann, bob]]


async def test_js_shows_tokens_for_single_rooms(play: Scenario) -> None:
    events = await play("tokens")
    assert of(events, "error") == [["error", 109]]
    assert len(of(events, "subscribed")) == 1
    assert of(events, "publication") == [["publication", "still here", 1]]
    assert of(events, "asked") == [["asked", 3]]
    assert of(events, "unsubscribed") == [["unsubscribed", 103]]
    assert events[-1] == ["disconnected", 3500, "invalid token"]


async def test_js_subscribes_again_after_a_gap_or_an_end_and_not_after_a_leave(
    play: Scenario,
) -> None:
    events = await play("taken")
    kinds = of(events, "subscribing", "subscribed", "unsubscribed", "state")
    assert kinds == [
        ["subscribing", 0],
        ["subscribed", False, False],
        ["subscribing", 2500],
        ["subscribed", True, True],
        ["subscribing", 2501],
        ["subscribed", True, True],
        ["unsubscribed", 2000],
        ["state", "connected"],
    ]


async def test_js_stays_while_pings_come_and_leaves_when_they_stop(
    play: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubbub.dialects.centrifuge_events.PING_INTERVAL_S", 1.0)
    monkeypatch.setattr(CENTRIFUGE, "ping_interval_s", 1.0)
    events = await play("pings")
    assert events == [
        ["connecting", 0],
        ["connected"],
        ["state", "connected"],
        ["connecting", 2],
        ["connected"],
    ]


async def test_js_server_side_subscriptions(play: Scenario) -> None:
    events = await play("given")
    assert of(events, "given")[0] == ["given", "chat:given", 0]
    publications = [event[1:] for event in of(events, "given publication")]
    assert publications == [[1, 1], [2, 2]]
    assert of(events, "message") == [["message", {"only": "you"}]]
    assert events[-1] == ["taken", "chat:given"]


async def test_js_comes_back_when_its_time_in_a_room_that_was_given_ends(play: Scenario) -> None:
    events = await play("ended")
    assert of(events, "connecting") == [["connecting", 0], ["connecting", 3006]]
    publications = [event[1:] for event in of(events, "given publication")]
    assert publications == [[1, 1], [2, 2], [3, 3]]
    assert of(events, "disconnected") == []


async def test_js_is_told_of_its_own_rooms_whether_it_has_all(play: Scenario) -> None:
    events = await play("assigned")
    had = [event[1:] for event in of(events, "had")]
    assert had == [
        ["chat:own", False, False],
        ["short:own", False, False],
        ["chat:own", True, True],
        ["short:own", True, True],
        ["chat:own", True, True],
        ["short:own", True, False],
    ]
    publications = [event[1:] for event in of(events, "given publication")]
    assert publications == [[1, 1], [2, 2], [3, 3], ["a", 1]]
    assert of(events, "taken") == [], "it has never left them"


@pytest.fixture
def patches(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Give the list of all patches that are made."""
    made: list[bytes] = []

    def noting(base: bytes, target: bytes) -> bytes | None:
        patch = fossil_delta(base, target)
        if patch is not None:
            made.append(patch)
        return patch

    monkeypatch.setattr("hubbub.dialects.centrifuge_events.fossil_delta", noting)
    return made


async def test_js_makes_messages_of_patches(play: Scenario, patches: list[bytes]) -> None:
    events = await play("delta")
    numbers = sorted(event[1]["n"] for event in of(events, "publication"))
    assert numbers == [1, 1, 2, 2, 3, 4, 5, 6, 7]
    assert {event[1]["text"] for event in of(events, "publication")} == {"äöü € 𝄞 and so on. " * 20}
    assert len(patches) == 3, "of the second and third, and of the last: the others are whole"


async def test_python_makes_messages_of_patches(
    served: tuple[Hub, Served], patches: list[bytes]
) -> None:
    hub, server = served
    client = Client(server.ws("/connection/websocket"), token="ann", min_reconnect_delay=0.02)
    noting = Noting()
    subscription = client.new_subscription("doc:1", events=noting, delta=DeltaType.FOSSIL)
    await client.connect()
    await subscription.subscribe()
    await subscription.ready(timeout=10)
    texts = [{"n": number, "text": "äöü € 𝄞 and so on. " * 20} for number in range(6)]
    await do(hub, ["publish", "doc:1", *texts[:3]])
    await until(lambda: len(noting.got) == 3)
    await do(hub, ["miss", "ann", "doc:1", texts[3]])
    await until(lambda: len(noting.got) == 4)
    await do(hub, ["publish", "doc:1", *texts[4:]])
    await until(lambda: len(noting.got) == 6)
    assert [data for data, _ in noting.got] == texts
    assert len(patches) == 3
    await client.disconnect()


async def test_a_room_that_is_given_begins_where_the_client_was(served: tuple[Hub, Served]) -> None:
    """Else what is cut off between the push and what was missed would never come."""
    hub, server = served
    for number in (1, 2, 3):
        await do(hub, ["publish", "chat:given", {"n": number}])
    epoch = (await hub.cursor("chat:given")).epoch
    for offset, told in ((1, 1), (3, 3), (9, 3)):
        place = {"recover": True, "offset": offset, "epoch": epoch}
        connect = {"token": "server-side", "subs": {"chat:given": place}}
        async with server.connect("/connection/websocket") as socket:
            await socket.send(json.dumps({"id": 1, "connect": connect}))
            lines: list[Any] = [*(await socket.recv()).splitlines()]
            while len(lines) < 2 + max(0, 3 - offset):
                lines += (await socket.recv()).splitlines()
        _, subscribed, *missed = (json.loads(line).get("push") for line in lines)
        assert subscribed["subscribe"]["offset"] == told
        assert [each["pub"]["offset"] for each in missed] == [*range(offset + 1, 4)]


async def test_js_codes_say_whether_to_come_back(play: Scenario) -> None:
    events = await play("codes")
    came_back = [["connecting", 0], *(["connecting", code] for code in COMES_BACK)]
    again = [["connecting", 0]] * len(STAYS_AWAY)
    assert of(events, "connecting") == came_back + again
    stayed_away = [["disconnected", code, "because"] for code in STAYS_AWAY]
    assert of(events, "disconnected") == stayed_away
    assert of(events, "state") == [["state", "disconnected"]] * len(STAYS_AWAY)


async def test_js_stays_away_after_a_message_that_is_too_long(play: Scenario) -> None:
    events = await play("too_long")
    assert of(events, "disconnected") == [["disconnected", 3, "message size limit exceeded"]]
    assert of(events, "publish failed") == [["publish failed", 11, None]], (
        "the connection is closed"
    )
    assert len(of(events, "subscribed")) == 1
    assert events[-1] == ["state", "disconnected"]


async def test_python_recovers_and_commands(served: tuple[Hub, Served]) -> None:
    hub, server = served
    client = Client(server.ws("/connection/websocket"), token="ann", min_reconnect_delay=0.02)
    noting = Noting()
    subscription = client.new_subscription("chat:python", events=noting)
    await client.connect()
    await subscription.subscribe()
    await subscription.ready(timeout=10)
    await subscription.publish({"text": "1"})
    await until(lambda: len(noting.got) == 1)
    await do(hub, ["cut", "ann"])
    await do(hub, ["publish", "chat:python", {"text": "2"}, {"text": "3"}])
    await until(lambda: len(noting.got) == 3)
    assert noting.got == [({"text": str(number)}, number) for number in (1, 2, 3)]
    assert noting.recovered == [(False, False), (True, True)]
    page = await subscription.history(limit=2)
    assert [each.data for each in page.publications] == [{"text": "1"}, {"text": "2"}]
    assert (await client.rpc("add", [2, 3])).data == {"sum": 5}
    with pytest.raises(CentrifugeError):
        await client.rpc("nobody", [])
    await do(hub, ["gap", "ann", "chat:python"])
    await until(lambda: len(noting.recovered) == 3)
    assert noting.recovered[-1] == (True, True)
    assert client.state is ClientState.CONNECTED
    await client.disconnect()


async def test_python_is_never_given_what_it_was_excluded_from(served: tuple[Hub, Served]) -> None:
    hub, server = served
    room = "chat:excluded"
    async with sdk(server, "uma") as (client, _):
        subscription, noting = await enter(client, room)
        await do(hub, ["publish", room, "1"])
        await until(lambda: len(noting.got) == 1)
        await do(hub, ["exclude", "uma", room, "2"])
        await do(hub, ["miss", "uma", room, "3"])
        await until(lambda: len(noting.got) == 2)
        await do(hub, ["cut and exclude", "uma", room, "4"])
        await until(lambda: len(noting.recovered) == 3)
        await subscription.unsubscribe()
        await do(hub, ["exclude", "uma", room, "5"])
        await do(hub, ["publish", room, "6"])
        await subscription.subscribe()
        await until(lambda: len(noting.got) == 3)
        assert noting.got == [(1, 1), (3, 3), (6, 6)]
        assert noting.recovered == [(False, False), *[(True, True)] * 3]


async def test_a_plain_client_and_an_sdk_hear_the_same(served: tuple[Hub, Served]) -> None:
    hub, server = served
    client = Client(server.ws("/connection/websocket"), token="ann")
    noting = Noting()
    subscription = client.new_subscription("chat:mixed", events=noting)
    await client.connect()
    await subscription.subscribe()
    await subscription.ready(timeout=10)
    async with server.connect() as socket:
        await until(lambda: hub.client_count == 2)
        (plain,) = [each for each in hub if each.user is None]
        plain.join("chat:mixed")
        await subscription.publish({"text": "hello"})
        await do(hub, ["publish", "chat:mixed", "no JSON"])
        assert [await socket.recv() for _ in range(2)] == ['{"text": "hello"}', "no JSON"]
        await until(lambda: len(noting.got) == 2)
        assert [data for data, _ in noting.got] == [{"text": "hello"}, "no JSON"]
    await client.disconnect()


@pytest.mark.parametrize("is_other_epoch", [False, True])
async def test_python_is_told_that_something_is_lost(
    served: tuple[Hub, Served], is_other_epoch: bool
) -> None:
    hub, server = served
    async with sdk(server, "bob") as (client, _):
        _, noting = await enter(client, "short:lost")
        await do(hub, ["publish", "short:lost", "1"])
        await until(lambda: len(noting.got) == 1)
        if is_other_epoch:  # in which there is more after the offset that it knows
            await do(hub, ["forget", "bob", "short:lost", "2", "3", "4"])
        else:
            await do(hub, ["miss", "bob", "short:lost", "2", "3", "4", "5", "6"])
        await until(lambda: len(noting.recovered) == 2)
        await do(hub, ["publish", "short:lost", "7"])
        await until(lambda: len(noting.got) == 2)
        assert noting.recovered == [(False, False), (True, False)]
        assert noting.got == [(1, 1), (7, 4 if is_other_epoch else 7)], "no part of what was missed"
        await do(hub, ["miss", "bob", "short:lost", "8"])
        await until(lambda: len(noting.recovered) == 3)
        assert noting.recovered[-1] == (True, True), "it remembers where the room stood"


async def test_python_refreshes_its_token(served: tuple[Hub, Served]) -> None:
    """Each answer says when to ask again; without a new token the connection is closed (3005)."""
    tokens = ["hal:2", "hal:2", "hal:3600"]
    asked = 0

    async def get_token() -> str:
        nonlocal asked
        asked += 1
        return tokens.pop(0)

    async with sdk(served[1], "hal:expired", get_token=get_token) as (client, noting):
        await until(lambda: not tokens)
        await client.rpc("add", [1])  # it is answered after the last refresh
        assert asked == 3, "one for the expired, and one at the end of each of two"
        assert (client.state, noting.codes) == (ClientState.CONNECTED, [("connecting", 0)])


async def test_python_stays_away_when_its_new_token_is_refused(
    served: tuple[Hub, Served],
) -> None:
    async def get_token() -> str:
        return "hal:invalid"

    async with sdk(served[1], "hal:1", get_token=get_token) as (client, noting):
        await until(lambda: client.state is ClientState.DISCONNECTED)
        assert noting.codes == [("connecting", 0), ("disconnected", 3500)]


async def test_python_shows_tokens_for_single_rooms(served: tuple[Hub, Served]) -> None:
    hub, server = served
    ends = [-10, 2, 2, 3600]

    async def get_token(room: str) -> str:
        token: str = await do(hub, ["token", "kim", room, ends.pop(0)])
        return token

    async with sdk(server, "kim") as (client, noting):
        room = "chat:secret of kim"
        subscription, its = await enter(client, room, get_token=get_token)
        await until(lambda: not ends)
        await do(hub, ["publish", room, "still here"])
        await until(lambda: len(its.got) == 1)
        assert its.recovered == [(False, False)], "a new token is no new subscription"
        assert its.codes == [("subscribing", 0), ("error", 109)]
        assert subscription.state is SubscriptionState.SUBSCRIBED
        strangers = Noting()
        forged = client.new_subscription("chat:secret", strangers, token="forged")
        await forged.subscribe()
        await until(lambda: strangers.codes == [("subscribing", 0), ("unsubscribed", 103)])
        foreign = await do(hub, ["token", "bob", "chat:a secret", 60])
        await client.new_subscription("chat:a secret", token=foreign).subscribe()
        await until(lambda: noting.codes[-1] == ("disconnected", 3500))


async def test_python_sees_who_is_there(served: tuple[Hub, Served]) -> None:
    server = served[1]
    async with sdk(server, "lea") as (lea, _):
        here, noting = await enter(lea, "here:all", join_leave=True)
        await until(lambda: noting.people == [("join", "lea")], "its own join")
        async with sdk(server, "max") as (max_, _):
            await enter(max_, "here:all", join_leave=True)
            await until(lambda: noting.people[1:] == [("join", "max")])
            found = await here.presence()
            assert sorted(each.user for each in found.clients.values()) == ["lea", "max"]
            assert all(name == each.client for name, each in found.clients.items())
            stats = await here.presence_stats()
            assert (stats.num_clients, stats.num_users) == (2, 2)
        await until(lambda: noting.people[2:] == [("leave", "max")])
        stats = await here.presence_stats()
        assert (stats.num_clients, stats.num_users) == (1, 1)
        for ask in (lea.presence, lea.presence_stats):
            with pytest.raises(ReplyError) as failed:
                await ask("chat:1")
            assert (failed.value.code, failed.value.temporary) == (108, False)


async def test_python_is_told_who_published_and_what_tokens_say_of_clients(
    served: tuple[Hub, Served],
) -> None:
    hub, server = served
    anns: str = await do(hub, ["sign", {"sub": "ann", "info": {"name": "Ann"}}])
    claims = {"sub": "ann", "channel": "team:1", "info": ["guest"], "data": {"seat": 7}}
    seat: str = await do(hub, ["sign", claims])

    def shown(info: ClientInfo | None) -> Any:
        return info and (info.user, info.conn_info, info.chan_info)

    ann, bob = ("ann", {"name": "Ann"}, ["guest"]), ("bob", None, None)
    async with sdk(server, anns) as (one, _), sdk(server, "bob") as (other, _):
        theirs, noting = await enter(other, "team:1", join_leave=True)
        mine, its = await enter(one, "team:1", token=seat)
        assert its.told == [{"seat": 7}]
        await mine.publish(1)
        await theirs.publish(2)
        await do(hub, ["publish", "team:1", "3"])
        await until(lambda: len(noting.got) == 3)
        await other.disconnect()
        await mine.publish(4)
        await other.connect()
        await until(lambda: len(noting.got) == 4)
        assert noting.recovered[-1] == (True, True)
        assert [shown(info) for info in noting.publishers] == [ann, bob, None, ann]
        page = await theirs.history(limit=10)
        assert [shown(each.info) for each in page.publications] == [ann, bob, None, ann]
        found = (await theirs.presence()).clients
        assert sorted(shown(each) for each in found.values()) == [ann, bob]
        assert noting.publishers[-1].client in found


async def test_python_reads_a_history_by_pages(served: tuple[Hub, Served]) -> None:
    hub, server = served
    async with sdk(server, "ann") as (client, _):
        subscription, _ = await enter(client, "chat:pages")
        await do(hub, ["publish", "chat:pages", *"123456"])

        async def page(since: int | None = None, **options: Any) -> list[tuple[Any, int]]:
            place = None if since is None else StreamPosition(since, top.epoch)
            found = await subscription.history(since=place, **options)
            assert (found.offset, found.epoch) == (6, top.epoch)
            return [(each.data, each.offset) for each in found.publications]

        top = await subscription.history()
        assert top.publications == [], "a limit of 0 asks for the position alone"
        assert await page(limit=-1) == [(number, number) for number in range(1, 7)]
        assert await page(limit=2) == [(1, 1), (2, 2)]
        assert await page(2, limit=2) == [(3, 3), (4, 4)]
        assert await page(4, limit=10) == [(5, 5), (6, 6)]
        assert await page(6, limit=10) == []
        assert await page(limit=2, reverse=True) == [(6, 6), (5, 5)]
        assert await page(5, limit=2, reverse=True) == [(4, 4), (3, 3)]
        assert await page(3, limit=10, reverse=True) == [(2, 2), (1, 1)]
        for room, since, code in (
            ("chat:pages", StreamPosition(1, "x"), 112),
            ("plain", None, 108),
        ):
            with pytest.raises(ReplyError) as failed:
                await client.history(room, limit=1, since=since)
            assert failed.value.code == code


async def test_python_calls_that_fail(served: tuple[Hub, Served]) -> None:
    async with sdk(served[1], "eve") as (client, _):
        for method, data, code in (
            ("add", "one", 107),
            ("subtract", [], 104),
            ("fail", {}, 450),
        ):
            with pytest.raises(ReplyError) as failed:
                await client.rpc(method, data)
            assert (failed.value.code, failed.value.temporary) == (code, False), method
        assert (await client.rpc("text", None)).data == "42"
        with pytest.raises(ReplyError) as failed:
            await client.publish("chat:other", {})
        assert failed.value.code == 103, "it is no member"


async def test_python_server_side_subscriptions(served: tuple[Hub, Served]) -> None:
    hub, server = served
    async with sdk(server, "server-side") as (_, noting):
        await until(lambda: noting.had == [("chat:given", False, False)])
        await do(hub, ["publish", "chat:given", "1"])
        await until(lambda: len(noting.got) == 1)
        await do(hub, ["miss", "server-side", "chat:given", "2"])
        await until(lambda: len(noting.got) == 2)
        assert noting.got == [("chat:given", 1, 1), ("chat:given", 2, 2)]
        gone = len(noting.taken)
        await do(hub, ["leave", "server-side", "chat:given"])
        await until(lambda: len(noting.taken) == gone + 1)
        assert set(noting.taken) == {"chat:given"}


async def test_python_comes_back_when_its_time_in_a_room_that_was_given_ends(
    served: tuple[Hub, Served],
) -> None:
    hub, server = served
    async with sdk(server, "server-side") as (_, noting):
        await until(lambda: len(noting.had) == 1)
        await do(hub, ["publish", "chat:given", "1"])
        await until(lambda: len(noting.got) == 1)
        await do(hub, ["expire", "server-side", "chat:given"])
        await do(hub, ["publish", "chat:given", "2"])
        await until(lambda: len(noting.got) == 2)
        assert noting.got == [("chat:given", 1, 1), ("chat:given", 2, 2)]
        assert noting.codes == [("connecting", 0), ("connecting", 3006)]


async def test_python_is_told_of_its_own_rooms_whether_it_has_all(
    served: tuple[Hub, Served],
) -> None:
    hub, server = served
    async with sdk(server, "assigned") as (_, noting):
        await until(lambda: len(noting.had) == 2)
        await do(hub, ["publish", "chat:own", "1"])
        await do(hub, ["publish", "short:own", '"a"'])
        await until(lambda: len(noting.got) == 2)
        await do(hub, ["miss", "assigned", "chat:own", "2", "3"])
        await until(lambda: len(noting.had) == 4 and len(noting.got) == 4)
        await do(hub, ["miss", "assigned", "short:own", *"bcdef"])
        await until(lambda: len(noting.had) == 6)
        assert noting.had == [
            ("chat:own", False, False),
            ("short:own", False, False),
            ("chat:own", True, True),
            ("short:own", True, True),
            ("chat:own", True, True),
            ("short:own", True, False),
        ]
        assert [row for row in noting.got if row[0] == "chat:own"] == [
            ("chat:own", number, number) for number in (1, 2, 3)
        ]
        assert [row for row in noting.got if row[0] == "short:own"] == [("short:own", "a", 1)]
        assert noting.taken == [], "it has never left them"


async def test_python_codes_say_whether_to_come_back(served: tuple[Hub, Served]) -> None:
    hub, server = served
    for code in COMES_BACK:
        async with sdk(server, "jim") as (client, noting):
            await client.ready(timeout=10)
            await do(hub, ["close", "jim", code, "come back"])
            await until(lambda noting=noting: len(noting.codes) > 1)  # type: ignore[misc]
            await client.ready(timeout=10)
            assert noting.codes == [("connecting", 0), ("connecting", code)]
    for code in STAYS_AWAY:
        async with sdk(server, "jim") as (client, noting):
            await client.ready(timeout=10)
            await do(hub, ["close", "jim", code, "stay away"])
            await until(lambda client=client: client.state is ClientState.DISCONNECTED)  # type: ignore[misc]
            assert noting.codes == [("connecting", 0), ("disconnected", code)]
    async with sdk(server, "fay:invalid") as (client, noting):
        await until(lambda: client.state is ClientState.DISCONNECTED)
        assert noting.codes == [("connecting", 0), ("disconnected", 101)]


async def test_python_stays_while_pings_come_and_leaves_when_they_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server pings each second here; the SDK gives up after two and a half without one."""
    monkeypatch.setattr("hubbub.dialects.centrifuge_events.PING_INTERVAL_S", 1.0)
    monkeypatch.setattr(CENTRIFUGE, "ping_interval_s", 1.0)
    hub = make_hub()
    async with (
        serve(make_app(hub)) as server,
        sdk(server, "pia", max_server_ping_delay=1.5) as (client, noting),
    ):
        await until(lambda: hub.stats()["messages_in"] == 1 + 3)  # its connect command, and pongs
        assert (client.state, noting.codes) == (ClientState.CONNECTED, [("connecting", 0)])
        await do(hub, ["silence", "pia"])
        await until(lambda: len(noting.codes) == 2)
        await client.ready(timeout=10)
        assert noting.codes == [("connecting", 0), ("connecting", 2)], "no ping"


async def test_python_subscribes_again_if_the_code_says_so(served: tuple[Hub, Served]) -> None:
    hub, server = served
    async with sdk(server, "ida") as (client, _):
        subscription, noting = await enter(client, "chat:taken")
        for number, how in enumerate(("gap", "expire"), 1):
            await do(hub, [how, "ida", "chat:taken"])
            await do(hub, ["publish", "chat:taken", str(number)])
            await until(lambda: len(noting.got) == number)  # noqa: B023
        assert noting.recovered == [(False, False), (True, True), (True, True)]
        assert noting.got == [(1, 1), (2, 2)]
        await do(hub, ["leave", "ida", "chat:taken"])
        await until(lambda: subscription.state is SubscriptionState.UNSUBSCRIBED)
        assert noting.codes == [
            ("subscribing", 0),
            ("subscribing", 2500),
            ("subscribing", 2501),
            ("unsubscribed", 2000),
        ]
        assert client.state is ClientState.CONNECTED


async def test_the_subprotocol_of_json_is_taken_and_that_of_protobuf_is_not(
    served: tuple[Hub, Served],
) -> None:
    """A client fails where one is taken that it has not offered, and where none is of those that it needs."""
    _, server = served
    json_too = ["centrifuge-protobuf", "centrifuge-json"]
    for offered, taken in (
        (["centrifuge-json"], "centrifuge-json"),
        (json_too, "centrifuge-json"),
        (["centrifuge-protobuf"], None),
        (None, None),
    ):
        async with server.connect("/connection/websocket", subprotocols=offered) as socket:
            assert socket.subprotocol == taken
            await socket.send('{"id":1,"connect":{"token":"ann"}}')
            assert json.loads(await socket.recv())["connect"]["client"]


async def test_a_command_in_protobuf_is_a_bad_request(served: tuple[Hub, Served]) -> None:
    offered = ["centrifuge-protobuf"]
    async with served[1].connect("/connection/websocket", subprotocols=offered) as socket:
        await socket.send(bytes.fromhex("07 08 01 22 03 22 01 78"))  # connect, by the name "x"
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 3501
        assert closed.value.rcvd.reason == "bad request: a message is text"
