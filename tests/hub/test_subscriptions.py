"""Subscriptions: tokens for rooms let clients in, until they end; claims put them into rooms."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

import jwt
import pytest

from hubbub import Client, Hub, Identity, RoomRules, TokenKeysUnavailable, TokenVerifier
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.hub.deadlines import GRACE_S
from hubbub.hub.user_actions import Grant, Whom
from hubbub.testing import FakeClock, MemoryClient, advance_time, connect, set_clock, settle
from hubbub.tokens.claims import Override
from issuing import SECRET
from started_hub import code_of

pytestmark = pytest.mark.anyio


def token(**claims: Any) -> str:
    return jwt.encode({"sub": "ann", **claims}, SECRET, "HS256")


async def secured(clock: FakeClock | None = None, **settings: Any) -> Hub:
    rules = [RoomRules("news", history=5), RoomRules("here", presence=True)]
    hub = Hub(room_rules=rules, max_message_bytes=64 * 1024, **settings)
    hub.verify_tokens(TokenVerifier(hmac_secret=SECRET))
    hub.authorize(lambda client, action, room: room == "open")
    if clock is not None:
        set_clock(hub, clock)
    await hub.start()
    return hub


async def connected(hub: Hub, **claims: Any) -> MemoryClient:
    peer = connect(hub, dialect="centrifuge")
    await say(peer, hub, connect={"token": token(**claims)})
    return peer


async def say(peer: MemoryClient, hub: Hub, **command: Any) -> list[dict[str, Any]]:
    """Send a command; return all that has come since."""
    seen = len(lines(peer))
    peer.send(json.dumps({"id": 1 + seen, **command}))
    for _ in range(3):
        await settle(hub)
    return lines(peer)[seen:]


def lines(peer: MemoryClient) -> list[dict[str, Any]]:
    return [json.loads(line) for message in peer.received for line in str(message).split("\n")]


async def test_a_good_token_lets_in_without_the_authorize_handler() -> None:
    hub = await secured()
    peer = await connected(hub)
    (answer,) = await say(peer, hub, subscribe={"channel": "closed"})
    assert answer["error"]["code"] == 103
    (answer,) = await say(peer, hub, subscribe={"channel": "open"})
    assert answer["subscribe"] == {}
    shown = {"channel": "closed", "token": token(channel="closed")}
    (answer,) = await say(peer, hub, subscribe=shown)
    assert answer["subscribe"] == {}
    assert peer.client.rooms == {"open", "closed"}
    assert len(core_of(hub).subscriptions) == 0
    await hub.stop()


@pytest.mark.parametrize(
    ("claims", "code"),
    [({"exp": 5}, 109), ({"nbf": 10**10}, 109)],
)
async def test_one_that_is_out_of_its_time_is_answered_with_109(
    claims: dict[str, Any], code: int
) -> None:
    hub = await secured()
    peer = await connected(hub)
    shown = {"channel": "closed", "token": token(channel="closed", **claims)}
    (answer,) = await say(peer, hub, subscribe=shown)
    assert answer["error"]["code"] == code
    assert peer.closed is None
    await hub.stop()


async def test_one_that_is_forged_is_refused_and_the_client_stays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "hubbub")
    hub = await secured()
    peer = await connected(hub)
    forged = jwt.encode({"sub": "ann", "channel": "closed"}, SECRET[::-1], "HS256")
    (answer,) = await say(peer, hub, subscribe={"channel": "closed", "token": forged})
    assert answer["error"]["code"] == 103
    assert peer.closed is None
    assert peer.client.rooms == frozenset()
    said = f"the token of client {peer.client.id} for closed is not valid: "
    assert said in caplog.text
    await hub.stop()


@pytest.mark.parametrize("claims", [{"channel": "other"}, {"channel": "closed", "sub": "bob"}])
async def test_somebody_elses_token_closes_for_good(claims: dict[str, Any]) -> None:
    hub = await secured()
    peer = await connected(hub)
    await say(peer, hub, subscribe={"channel": "closed", "token": token(**claims)})
    assert code_of(peer) == 3500
    assert peer.closed is not None
    assert peer.closed.reason == "invalid token"
    await hub.stop()


async def test_keys_that_cannot_be_had_are_a_passing_error() -> None:
    class Away(TokenVerifier):
        async def subscription(self, *_: Any, **__: Any) -> Any:
            raise TokenKeysUnavailable

    hub = await secured()
    core_of(hub).access.verifier = Away(hmac_secret=SECRET)
    peer = await connected(hub)
    shown = {"channel": "closed", "token": token(channel="closed")}
    (answer,) = await say(peer, hub, subscribe=shown)
    assert answer["error"] == {"code": 100, "message": "try again later", "temporary": True}
    await hub.stop()


async def test_without_a_verifier_no_token_lets_in() -> None:
    hub = Hub(max_message_bytes=None)
    hub.authenticate(lambda handshake: Identity("ann"))
    await hub.start()
    peer = await connected(hub)
    shown = {"channel": "closed", "token": token(channel="closed")}
    (answer,) = await say(peer, hub, subscribe=shown)
    assert answer["error"]["code"] == 103
    await hub.stop()


async def test_a_subscription_ends_with_its_token_and_a_grace() -> None:
    clock = FakeClock()
    hub = await secured(clock)
    peer = await connected(hub)
    shown = {"channel": "news", "token": token(channel="news", exp=int(time.time()) + 60)}
    (answer,) = await say(peer, hub, subscribe=shown)
    assert answer["subscribe"]["expires"] is True
    assert 55 <= answer["subscribe"]["ttl"] <= 60
    seen = len(lines(peer))
    clock.advance(55 + GRACE_S)
    core_of(hub).subscriptions.look()
    assert peer.client.rooms == {"news"}
    clock.advance(6)
    core_of(hub).subscriptions.look()
    await settle(hub)
    (push,) = lines(peer)[seen:]
    assert push == {
        "push": {
            "channel": "news",
            "unsubscribe": {"code": 2501, "reason": "subscription expired"},
        }
    }
    assert peer.client.rooms == frozenset()
    assert len(core_of(hub).subscriptions) == 0
    await hub.stop()


async def test_who_cannot_come_back_to_a_room_by_itself_is_closed_when_its_time_there_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "hubbub")
    clock = FakeClock()
    hub = await secured(clock)
    peer, other = await connected(hub), await connected(hub)
    ends_at = int(time.time()) + 60
    for room, later_s in (("given", 0), ("also given", 5)):
        grant = Grant(room, expires_at=ends_at + later_s)
        await core_of(hub).user_actions.subscribe(Whom("ann", peer.client.id), grant)
    shown = {"channel": "asked for", "token": token(channel="asked for", exp=ends_at)}
    await say(other, hub, subscribe=shown)
    clock.advance(70 + GRACE_S)
    core_of(hub).subscriptions.look()
    assert code_of(peer) == 3006
    assert other.closed is None
    assert other.client.rooms == frozenset()
    assert len(core_of(hub).subscriptions) == 0
    assert hub.stats()["expired"] == 1
    assert "has no time left in given, which the server put it into; closed" in caplog.text
    await hub.stop()


async def test_a_new_token_gives_a_new_time() -> None:
    clock = FakeClock()
    hub = await secured(clock)
    peer = await connected(hub)
    soon = int(time.time()) + 60
    shown = {"channel": "news", "token": token(channel="news", exp=soon)}
    await say(peer, hub, subscribe=shown)
    longer = {"channel": "news", "token": token(channel="news", exp=soon + 3600)}
    (answer,) = await say(peer, hub, sub_refresh=longer)
    assert answer["sub_refresh"]["ttl"] > 3000
    clock.advance(600.0)
    core_of(hub).subscriptions.look()
    assert peer.client.rooms == {"news"}
    for_good = {"channel": "news", "token": token(channel="news")}
    (answer,) = await say(peer, hub, sub_refresh=for_good)
    assert answer["sub_refresh"] == {}
    assert len(core_of(hub).subscriptions) == 0
    await hub.stop()


async def test_a_new_token_gives_no_end_to_a_stay_that_has_none() -> None:
    clock = FakeClock()
    hub = await secured(clock)
    peer = await connected(hub)
    grant = Grant("given", expires_at=None)
    await core_of(hub).user_actions.subscribe(Whom("ann", peer.client.id), grant)
    shown = {"channel": "given", "token": token(channel="given", exp=int(time.time()) + 60)}
    (answer,) = await say(peer, hub, sub_refresh=shown)
    assert answer["sub_refresh"] == {}
    clock.advance(100 + GRACE_S)
    core_of(hub).subscriptions.look()
    assert peer.closed is None
    assert peer.client.rooms == {"given"}
    await hub.stop()


async def test_what_a_new_token_says_of_a_client_is_shown_to_others() -> None:
    hub = Hub(room_rules=[RoomRules("team", presence=True)])
    hub.verify_tokens(TokenVerifier(hmac_secret=SECRET))
    await hub.start()
    peer = await connected(hub)
    soon = int(time.time()) + 60
    for info, command in (("here", "subscribe"), ("busy", "sub_refresh")):
        shown = {"channel": "team", "token": token(channel="team", info=info, exp=soon)}
        await say(peer, hub, **{command: shown})
        (member,) = (await hub.presence("team")).values()
        assert member.info == info
    await hub.stop()


async def test_refreshes_that_cannot_be() -> None:
    hub = await secured()
    peer = await connected(hub)
    good = token(channel="news")
    (answer,) = await say(peer, hub, sub_refresh={"channel": "news", "token": good})
    assert answer["error"]["code"] == 103
    await say(peer, hub, subscribe={"channel": "news", "token": good})
    old = token(channel="news", exp=5)
    answers = await say(peer, hub, sub_refresh={"channel": "news", "token": old})
    assert answers[0]["push"]["unsubscribe"]["code"] == 2501
    assert answers[1]["sub_refresh"] == {}
    assert peer.client.rooms == frozenset()
    await hub.stop()


async def test_who_leaves_or_goes_has_no_deadline_any_more() -> None:
    hub = await secured()
    soon = int(time.time()) + 60
    one, other = await connected(hub), await connected(hub)
    for peer in (one, other):
        for room in ("a", "b"):
            shown = {"channel": room, "token": token(channel=room, exp=soon)}
            await say(peer, hub, subscribe=shown)
    subscriptions = core_of(hub).subscriptions
    assert len(subscriptions) == 4
    await say(one, hub, unsubscribe={"channel": "a"})
    other.transport.drop_connection()
    assert len(subscriptions) == 1
    one.close()
    assert len(subscriptions) == 0
    assert subscriptions._rooms == {}
    await hub.stop()


async def test_the_token_of_a_connection_names_rooms() -> None:
    hub = await secured()
    await hub.publish("news", "1")
    peer = await connected(hub, channels=["news", "closed"], subs={"third": {}})
    assert peer.client.rooms == {"news", "closed", "third"}
    (answer,) = lines(peer)
    given = answer["connect"]["subs"]
    assert (list(given), given["closed"]) == (["news", "closed", "third"], {})
    position = given["news"]
    assert (position["recoverable"], position["offset"]) == (True, 1)
    peer.close()
    await hub.publish("news", "2")
    again = connect(hub, dialect="centrifuge")
    subs = {"news": {"recover": True, "offset": 1, "epoch": position["epoch"]}}
    await say(again, hub, connect={"token": token(channels=["news"]), "subs": subs})
    recovered = lines(again)[-1]["connect"]["subs"]["news"]
    assert recovered["publications"] == [{"data": 2, "offset": 2}]
    assert (recovered["recovered"], recovered["was_recovering"], recovered["offset"]) == (
        (True, True, 1)
    )
    await hub.stop()


async def test_an_identity_names_rooms_for_plain_clients_too() -> None:
    hub = Hub()
    seen: list[frozenset[str]] = []
    hub.on_connect(lambda client: seen.append(client.rooms))
    await hub.start()
    peer = connect(hub, user="ann", rooms=["news", "sport"])
    assert seen == [{"news", "sport"}], "before the connect handlers run"
    hub.room("news").broadcast("1")
    await settle(hub)
    assert peer.received == ["1"]
    with pytest.raises(TypeError, match="a tuple, as in rooms="):
        Identity("ann", rooms=["news"])  # type: ignore[arg-type]
    await hub.stop()


def overriding(*, value: bool) -> dict[str, Any]:
    return {name: {"value": value} for name in Override._fields}


@pytest.mark.parametrize("value", [True, False])
async def test_options_of_rooms_in_a_connection_token_change_nothing(*, value: bool) -> None:
    """As the page on tokens says: they are not looked at yet."""
    hub = await secured()
    options = {"info": {"a": 1}, "data": {"b": 2}, "override": overriding(value=value)}
    told: list[dict[str, Any]] = []
    for each in ({}, options):
        peer = await connected(hub, subs=dict.fromkeys(("news", "here", "open"), each))
        (answer,) = lines(peer)
        rooms = answer["connect"]["subs"]
        rooms["news"]["epoch"], _, _ = rooms["news"]["epoch"].partition("~")
        told.append(rooms)
    assert told[0] == told[1]
    assert sorted(told[1]["news"]) == ["epoch", "offset", "positioned", "recoverable"]
    assert told[1]["open"] == {}
    infos = (await hub.presence("here")).values()
    assert [(each.conn_info, each.info) for each in infos] == [(None, None)] * 2
    await hub.stop()


@pytest.mark.parametrize("value", [True, False])
async def test_an_override_in_a_token_of_a_room_changes_nothing(*, value: bool) -> None:
    hub = await secured()
    peer = await connected(hub)
    for room in ("news", "here", "open"):
        shown = token(channel=room, override=overriding(value=value))
        (answer,) = await say(peer, hub, subscribe={"channel": room, "token": shown})
        capabilities = ["epoch", "offset", "positioned", "recoverable"]
        assert sorted(answer["subscribe"]) == (capabilities if room == "news" else [])
    for command in ("presence", "history"):
        (answer,) = await say(peer, hub, **{command: {"channel": "open"}})
        assert answer["error"]["code"] == 108, command
    assert [*await hub.presence("here")] == [peer.client.id]
    await hub.stop()


def test_a_second_way_to_authenticate_is_an_error() -> None:
    hub = Hub()
    hub.authenticate(lambda handshake: Identity("ann"))
    with pytest.raises(ValueError, match="authenticate"):
        hub.verify_tokens(TokenVerifier(hmac_secret=SECRET))


async def test_an_identity_with_rooms_that_cannot_be_is_refused_before_it_is_connected() -> None:
    hub = await secured()
    peer = await connected(hub, channels=["@bob"])
    (answer,) = lines(peer)
    assert answer["error"]["code"] == 107
    assert code_of(peer) == 3507
    assert hub.client_count == 0
    await hub.stop()


@pytest.mark.parametrize("claim", ["channels", "subs"])
async def test_a_token_with_too_many_rooms_is_refused_for_good(
    claim: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub = await secured(max_rooms_per_client=2)
    named = {"channels": ["a", "b", "b", "c"], "subs": {"a": {}, "b": {}, "c": {}}}
    peer = await connected(hub, **{claim: named[claim]})
    (answer,) = lines(peer)
    assert answer["error"] == {
        "code": 106,
        "message": "The identity names more than 2 rooms (max_rooms_per_client)",
    }
    assert code_of(peer) == 3505
    assert hub.client_count == 0
    assert [(each.levelname, "too_many_rooms" in each.message) for each in caplog.records] == [
        ("WARNING", True)
    ]
    just_enough = await connected(hub, channels=["a", "b", "b"])
    assert just_enough.closed is None
    await hub.stop()


@pytest.mark.parametrize("how", ["join", "subscribe"])
@pytest.mark.parametrize("dialect", ["plain", "centrifuge"])
async def test_a_connect_handler_that_wants_too_many_rooms_closes_who_cannot_be_answered(
    dialect: str, how: str
) -> None:
    hub = Hub(max_rooms_per_client=2)

    @hub.on_connect
    async def begin(client: Client) -> None:
        for room in ("a", "b", "c"):
            if how == "join":
                client.join(room)
            else:
                await client.subscribe(room)

    await hub.start()
    peer = connect(hub, dialect=dialect)
    if dialect == "plain":
        await settle(hub)
        assert [each["code"] for each in peer.json()] == ["too_many_rooms"]
        assert peer.client.rooms == {"a", "b"}
        assert peer.closed is None
    else:
        await say(peer, hub, connect={})
        assert code_of(peer) == 3505
        assert hub.client_count == 0
    assert hub.stats()["handler_errors"] == (dialect == "centrifuge")
    await hub.stop()


async def test_a_new_token_with_too_many_rooms_closes_for_good() -> None:
    hub = await secured(max_rooms_per_client=2)
    peer = await connected(hub)
    await say(peer, hub, refresh={"token": token(channels=["a", "b", "c"])})
    assert code_of(peer) == 3505
    await hub.stop()


async def test_a_subscription_that_ended_while_its_token_was_checked_has_no_deadline() -> None:
    class Slow(TokenVerifier):
        async def subscription(self, *args: Any, **keywords: Any) -> Any:
            peer.client.leave("news")
            return await super().subscription(*args, **keywords)

    hub = await secured()
    peer = await connected(hub)
    soon = token(channel="news", exp=int(time.time()) + 60)
    await say(peer, hub, subscribe={"channel": "news", "token": soon})
    core_of(hub).access.verifier = Slow(hmac_secret=SECRET)
    answers = await say(peer, hub, sub_refresh={"channel": "news", "token": soon})
    assert answers[-1]["error"]["code"] == 103
    assert len(core_of(hub).subscriptions) == 0
    await hub.stop()


async def test_numbers_that_nobody_can_read_are_a_protocol_error() -> None:
    hub = await secured()
    peer = connect(hub, dialect="centrifuge")
    peer.send('{"id":1,"connect":{"data":' + "9" * 5000 + "}}")
    await settle(hub)
    assert code_of(peer) == 3501
    await hub.stop()


async def test_a_frame_of_histories_leaves_the_others_their_turn() -> None:
    hub = Hub(room_rules=[RoomRules("news", history=100)], max_message_bytes=None)
    await hub.start()
    for _ in range(100):
        await hub.publish("news", "x" * 10_000)
    peer = connect(hub, dialect="centrifuge")
    await say(peer, hub, connect={})
    peer.transport.block()
    command = {"history": {"channel": "news", "limit": 100}}
    peer.send("\n".join(json.dumps({"id": 2 + n, **command}) for n in range(50)))
    for _ in range(5):
        await settle(hub)
    waiting = 0 if peer.client._session.outbox is None else peer.client._session.outbox.nbytes
    assert waiting < 3_000_000, "one or two answers wait, not fifty"
    peer.transport.unblock()
    await hub.stop()


async def test_time_that_passes_in_a_test_ends_subscriptions_too() -> None:
    hub = await secured(FakeClock())
    peer = await connected(hub)
    shown = {"channel": "news", "token": token(channel="news", exp=int(time.time()) + 60)}
    await say(peer, hub, subscribe=shown)
    advance_time(hub, 50 + GRACE_S)
    assert peer.client.rooms == {"news"}
    advance_time(hub, 15)
    assert peer.client.rooms == frozenset()
    await hub.stop()


# What tokens say of a client


async def test_tokens_say_what_others_see_of_a_client_and_what_it_is_told() -> None:
    rules = [RoomRules("team", publish="members", presence=True, join_leave=True, history=5)]
    hub = Hub(room_rules=rules, max_message_bytes=64 * 1024)
    hub.verify_tokens(TokenVerifier(hmac_secret=SECRET))
    await hub.start()
    plain = connect(hub)
    plain.client.join("team")
    peer = await connected(hub, info={"name": "Ann"})
    shown = token(channel="team", info=["guest"], data={"seat": 7})
    answer, *pushed = await say(peer, hub, subscribe={"channel": "team", "token": shown})
    assert answer["subscribe"]["data"] == {"seat": 7}
    info = {
        "user": "ann",
        "client": peer.client.id,
        "conn_info": {"name": "Ann"},
        "chan_info": ["guest"],
    }
    assert [each["push"]["join"] for each in pushed] == [{"info": info}]
    _, told = plain.json()
    assert told["joined"] == [
        {
            "client": peer.client.id,
            "user": "ann",
            "info": ["guest"],
            "conn_info": {"name": "Ann"},
        }
    ]
    await say(peer, hub, publish={"channel": "team", "data": 1})
    assert [
        each["push"]["pub"]["info"] for each in lines(peer) if "pub" in each.get("push", "")
    ] == [info]
    (answer,) = await say(peer, hub, presence={"channel": "team"})
    assert answer["presence"]["presence"][peer.client.id] == info
    await hub.stop()


async def test_what_a_token_says_of_a_room_is_of_that_room_and_until_the_client_leaves() -> None:
    hub = await secured()
    peer = await connected(hub, info="Ann")
    infos = core_of(hub).infos

    def said(room: str) -> tuple[Any, Any]:
        info = infos.of(session_of(peer.client), room)
        return info.info, info.conn_info

    for room, claims in (
        ("one", {"info": 1}),
        ("two", {"info": None}),
        ("bytes", {"b64info": "AP8="}),
    ):
        shown = {"channel": room, "token": token(channel=room, **claims)}
        await say(peer, hub, subscribe=shown)
    assert said("one") == (1, "Ann")
    assert said("two") == said("three") == (None, "Ann")
    assert said("bytes") == ("AP8=", "Ann")
    await say(peer, hub, unsubscribe={"channel": "one"})
    assert said("one") == (None, "Ann")
    await say(peer, hub, subscribe={"channel": "one", "token": token(channel="one", info=2)})
    assert said("one") == (2, "Ann")
    await hub.stop()


async def test_a_presence_info_handler_keeps_to_itself_what_tokens_say() -> None:
    hub = await secured()
    hub.presence_info(lambda client, room: client.meta["info"]["name"])
    peer = await connected(hub, info={"name": "Ann", "email": "ann@example.com"})
    shown = {"channel": "news", "token": token(channel="news", info="guest", data=[1])}
    (answer,) = await say(peer, hub, subscribe=shown)
    assert answer["subscribe"]["data"] == [1]
    info = core_of(hub).infos.of(session_of(peer.client), "news")
    assert (info.info, info.conn_info) == ("Ann", None)
    await hub.stop()


@pytest.mark.parametrize("ends_at_first", [True, False])
async def test_who_is_put_into_a_room_while_its_token_is_checked_is_shown_as_that_says_and_stays(
    ends_at_first: bool,
) -> None:
    checking, go_on = asyncio.Event(), asyncio.Event()

    class Slow(TokenVerifier):
        async def subscription(self, *args: Any, **keywords: Any) -> Any:
            checking.set()
            await go_on.wait()
            return await super().subscription(*args, **keywords)

    clock = FakeClock()
    rules = [RoomRules("team", publish="members", presence=True, join_leave=True)]
    hub = Hub(room_rules=rules, max_message_bytes=64 * 1024)
    set_clock(hub, clock)
    hub.verify_tokens(TokenVerifier(hmac_secret=SECRET))
    await hub.start()
    core = core_of(hub)
    peer = await connected(hub)
    core.access.verifier = Slow(hmac_secret=SECRET)
    ends_at = int(time.time()) + 60
    shown = token(channel="team", info="guest", data={"seat": 7}, exp=ends_at)
    await say(peer, hub, subscribe={"channel": "team", "token": shown})
    await checking.wait()
    peer.client.join("team")
    session = session_of(peer.client)
    if ends_at_first:
        core.subscriptions.expire(session, "team", ends_at + 500)
    await settle(hub)
    seen = len(lines(peer))
    go_on.set()
    for _ in range(3):
        await settle(hub)
    (answer,) = [each for each in lines(peer)[seen:] if "subscribe" in each]
    assert answer["subscribe"]["data"] == {"seat": 7}
    assert ("expires" in answer["subscribe"]) is ends_at_first
    info = {"user": "ann", "client": peer.client.id, "chan_info": "guest"}
    await say(peer, hub, publish={"channel": "team", "data": 1})
    pushes = [each["push"] for each in lines(peer) if "push" in each]
    assert [each["pub"]["info"] for each in pushes if "pub" in each] == [info]
    (listed,) = await say(peer, hub, presence={"channel": "team"})
    assert listed["presence"]["presence"] == {peer.client.id: info}
    assert sum("join" in each for each in pushes) == 1
    clock.advance(70 + GRACE_S)
    core.subscriptions.look()
    assert code_of(peer) == (3006 if ends_at_first else None)
    assert len(core.subscriptions) == 0
    await hub.stop()
