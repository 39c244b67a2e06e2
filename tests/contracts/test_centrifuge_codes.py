"""The codes of the Centrifuge protocol: each that can arise here arises where an SDK expects it."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import jwt
import pytest

from hubbub import (
    BrokerUnavailable,
    Client,
    CommandError,
    Disconnected,
    Frame,
    Hub,
    Refused,
    RoomRules,
    TokenVerifier,
)
from hubbub.dialects.centrifuge import CENTRIFUGE, CLOSE_CODES
from hubbub.errors import should_come_back
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.hub.deadlines import GRACE_S
from hubbub.hub.user_actions import Grant, Whom
from hubbub.testing import FakeClock, MemoryClient, advance_time, connect, set_clock, settle
from issuing import SECRET
from started_hub import code_of, until

pytestmark = pytest.mark.anyio

EXPIRED = {"exp": 1}


def token(**claims: Any) -> str:
    return jwt.encode({"sub": "ann", **claims}, SECRET, "HS256")


class Peer:
    """A client in memory that asks and reads as an SDK does."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.memory: MemoryClient = connect(hub, dialect="centrifuge")
        self.last_id = 0

    async def say(self, **command: Any) -> list[dict[str, Any]]:
        """Send a command; return what has come since."""
        seen = len(self.lines)
        self.last_id += 1
        self.memory.send(json.dumps({"id": self.last_id, **command}))
        for _ in range(3):
            await settle(self.hub)
        return self.lines[seen:]

    async def error_of(self, **command: Any) -> tuple[int, bool]:
        """Send a command; return the code of its error, and whether it may succeed later."""
        (answer,) = await self.say(**command)
        assert answer["id"] == self.last_id
        assert answer["error"]["message"]
        return answer["error"]["code"], answer["error"].get("temporary", False)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(x) for each in self.memory.received for x in str(each).split("\n")]


async def running(**settings: Any) -> Hub:
    """Start a hub whose clock stands still."""
    rules = [RoomRules("log:*", history=3), RoomRules("book", history=400)]
    rules.append(RoomRules("here", presence=True))
    hub = Hub(room_rules=rules, **settings)
    set_clock(hub, FakeClock())
    hub.verify_tokens(TokenVerifier(hmac_secret=SECRET))
    hub.authorize(lambda client, action, room: room != "closed")
    await hub.start()
    return hub


async def connected(hub: Hub, **claims: Any) -> Peer:
    peer = Peer(hub)
    (answer,) = await peer.say(connect={"token": token(**claims)})
    assert "connect" in answer
    return peer


# Errors

COMMANDS: dict[str, tuple[int, bool, dict[str, Any]]] = {
    "no permission": (103, False, {"subscribe": {"channel": "closed"}}),
    "no permission to read": (103, False, {"history": {"channel": "closed"}}),
    "not subscribed": (103, False, {"sub_refresh": {"channel": "red", "token": "x"}}),
    "a bad token of a subscription": (103, False, {"subscribe": {"channel": "red", "token": "x"}}),
    "no such method": (104, False, {"rpc": {"method": "divide"}}),
    "already subscribed": (105, False, {"subscribe": {"channel": "log:1"}}),
    "a name that is none": (107, False, {"subscribe": {"channel": "@ann"}}),
    "no data": (107, False, {"publish": {"channel": "log:1"}}),
    "a message that is no number": (107, False, {"rpc": {"method": "double", "data": "x"}}),
    "nothing before the beginning": (
        107,
        False,
        {"history": {"channel": "log:1", "reverse": True, "limit": 1, "since": {"offset": 0}}},
    ),
    "no history": (108, False, {"history": {"channel": "red"}}),
    "no presence": (108, False, {"presence": {"channel": "red"}}),
    "no presence to count": (108, False, {"presence_stats": {"channel": "red"}}),
    **{
        f"{verb} {kind}": (108, False, {verb: {"channel": "log:1", "type": number, "data": 1}})
        for number, kind in enumerate(
            ("a map", "a map of clients", "a map of users", "a shared poll", "what comes later"), 1
        )
        for verb in ("subscribe", "publish")
    },
    "an expired token of a subscription": (
        109,
        False,
        {"subscribe": {"channel": "red", "token": token(channel="red", **EXPIRED)}},
    ),
    "a token of a subscription whose end has passed": (
        109,
        False,
        {"subscribe": {"channel": "red", "token": token(channel="red", expire_at=1)}},
    ),
    "another history": (
        112,
        False,
        {"history": {"channel": "log:1", "since": {"offset": 1, "epoch": "another"}}},
    ),
    "rather no subscription than a gap": (
        112,
        False,
        {"subscribe": {"channel": "log:2", "flag": 2, "recover": True, "epoch": "other"}},
    ),
    "the application's own": (450, True, {"rpc": {"method": "later"}}),
    "a failure": (100, True, {"rpc": {"method": "fail"}}),
}


@pytest.mark.parametrize("name", COMMANDS)
async def test_each_error_of_a_command(name: str) -> None:
    hub = await running(on_handler_error="stay")

    @hub.rpc("double")
    def double(client: Client, number: int) -> int:
        return 2 * number

    @hub.rpc("later")
    def later(client: Client, data: object) -> None:
        raise CommandError("450", "not today", temporary=True)

    @hub.rpc("fail")
    def fail(client: Client, data: object) -> None:
        raise LookupError

    peer = await connected(hub)
    await peer.say(subscribe={"channel": "log:1"})
    code, is_temporary, command = COMMANDS[name]
    assert await peer.error_of(**command) == (code, is_temporary)
    assert peer.memory.closed is None, "the connection lives"
    await hub.stop()


async def test_error_106_too_many_rooms() -> None:
    hub = await running(max_rooms_per_client=1)
    peer = await connected(hub)
    await peer.say(subscribe={"channel": "red"})
    assert await peer.error_of(subscribe={"channel": "blue"}) == (106, False)
    await hub.stop()


async def test_error_100_while_the_broker_is_away() -> None:
    hub = await running()

    async def away(*args: Any, **options: Any) -> Any:
        raise BrokerUnavailable("away")

    core_of(hub).broker.history = away  # type: ignore[attr-defined]
    peer = await connected(hub)
    assert await peer.error_of(subscribe={"channel": "log:1"}) == (100, True)
    assert await peer.error_of(history={"channel": "log:1"}) == (100, True)
    await hub.stop()


async def test_error_111_for_each_command_too_many() -> None:
    hub = await running(messages_per_second=2, on_rate_limit="reply")
    peer = Peer(hub)
    rows: list[dict[str, Any]] = [{"id": 1, "connect": {"token": token()}}]
    rows += [{"id": 2 + n, "subscribe": {"channel": str(n)}} for n in range(10)]
    peer.memory.send("\n".join(map(json.dumps, rows)))
    await settle(hub)
    assert len(peer.memory.client.rooms) == 10, "what comes with the connect command is free"
    history = [{"id": 20 + n, "history": {"channel": "log:1"}} for n in range(6)]
    peer.memory.send("\n".join(map(json.dumps, history)))
    await settle(hub)
    codes = {each["id"]: each.get("error", {}).get("code") for each in peer.lines[-6:]}
    assert codes == {20: None, 21: None, 22: None, 23: None, 24: 111, 25: 111}
    assert peer.lines[-1]["error"]["temporary"] is True
    assert hub.stats()["rate_limited"] == 2
    await hub.stop()


REFUSALS: dict[str, tuple[Refused | None, str | None, int | None, int]] = {
    "unauthorized": (Refused(401, "unauthorized", "who?"), None, 101, 3500),
    "forbidden": (Refused(403, "forbidden", "not you"), None, 103, 3507),
    "unavailable": (Refused(503, "unavailable", "later"), None, 100, 1013),
    "busy": (Refused(503, "busy", "later"), None, 400, 1013),
    "too many": (Refused(429, "slow_down", "later"), None, 400, 1013),
    "an expired token": (None, token(**EXPIRED), 109, 3005),
    "an end that has passed": (None, token(expire_at=1), 109, 3005),
    "a bad token": (None, "x", 101, 3500),
    "too many rooms": (None, token(channels=[str(n) for n in range(129)]), 106, 3505),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_each_error_of_a_connect_command(name: str) -> None:
    refusal, shown, error, close = REFUSALS[name]
    hub = Hub()
    if refusal is not None:
        hub.authenticate(refusing(refusal))
    else:
        hub.verify_tokens(TokenVerifier(hmac_secret=SECRET))
    await hub.start()
    peer = Peer(hub)
    rows: list[dict[str, Any]] = [
        {"id": 1, "connect": {"token": shown or ""}},
        {"id": 2, "subscribe": {"channel": "red"}},
    ]
    peer.memory.send("\n".join(map(json.dumps, rows)))
    for _ in range(3):
        await settle(hub)
    assert [each["error"]["code"] for each in peer.lines] == [error], "and nothing after it"
    assert peer.lines[0]["error"].get("temporary", False) == (close == 1013)
    assert code_of(peer.memory) == close
    await hub.stop()


def refusing(refusal: Refused) -> Callable[..., Any]:
    def refuse(handshake: Any) -> None:
        raise refusal

    return refuse


# Disconnections


async def bad_request(hub: Hub, peer: Peer) -> None:
    peer.memory.send("no JSON")


async def twice(hub: Hub, peer: Peer) -> None:
    await peer.say(connect={})


async def out_of_range(hub: Hub, peer: Peer) -> None:
    await peer.say(history={"channel": "log:1", "since": {"offset": 2**64, "epoch": ""}})


async def below_zero(hub: Hub, peer: Peer) -> None:
    await peer.say(subscribe={"channel": "log:1", "recover": True, "offset": -1})


async def too_far(hub: Hub, peer: Peer) -> None:
    await peer.say(history={"channel": "log:1", "limit": 2**31})


async def bytes_come(hub: Hub, peer: Peer) -> None:
    peer.memory.send(b"{}")


async def shutdown(hub: Hub, peer: Peer) -> None:
    await hub.stop()


async def failure(hub: Hub, peer: Peer) -> None:
    await peer.say(send={"data": "fail"})


async def expired_token(hub: Hub, peer: Peer) -> None:
    await peer.say(refresh={"token": token(**EXPIRED)})


async def bad_token(hub: Hub, peer: Peer) -> None:
    await peer.say(refresh={"token": "x.y.z"})


async def foreign_token(hub: Hub, peer: Peer) -> None:
    await peer.say(refresh={"token": token(sub="bob")})


async def too_many_rooms(hub: Hub, peer: Peer) -> None:
    await peer.say(refresh={"token": token(channels=[str(number) for number in range(129)])})


async def foreign_room(hub: Hub, peer: Peer) -> None:
    await peer.say(subscribe={"channel": "red", "token": token(channel="blue")})


async def kicked(hub: Hub, peer: Peer) -> None:
    hub.disconnect(peer.memory.client)


async def normally_closed(hub: Hub, peer: Peer) -> None:
    hub.disconnect(peer.memory.client, 1000, "bye")


async def policy(hub: Hub, peer: Peer) -> None:
    await peer.say(send={"data": "policy"})


async def own_code(hub: Hub, peer: Peer) -> None:
    hub.disconnect(peer.memory.client, 4000, "rebalance")


async def slow(hub: Hub, peer: Peer) -> None:
    """Its socket takes nothing, and more is published than its outbox holds."""
    await peer.say(subscribe={"channel": "red"})
    peer.memory.transport.block()
    for number in range(FULL + 1):
        assert peer.memory.closed is None
        await hub.publish("red", number)
        await settle(hub)


async def no_pong(hub: Hub, peer: Peer) -> None:
    peer.memory.transport.answers_pings = False
    advance_time(hub, 60.0)


async def over(hub: Hub, peer: Peer) -> None:
    """The server has put it into a room for a minute."""
    await core_of(hub).user_actions.subscribe(
        Whom("ann"), Grant("log:1", None, None, time.time() + 60)
    )
    advance_time(hub, 61 + GRACE_S)


async def flood(hub: Hub, peer: Peer) -> None:
    peer.memory.send("\n".join(['{"id":9,"publish":{"channel":"a","data":1}}'] * 500))
    await settle(hub)


async def gap(hub: Hub, peer: Peer) -> None:
    await peer.memory.client.subscribe("log:1")
    core_of(hub).gaps.tell(session_of(peer.memory.client), "log:1")


FULL = 4
"""How much an outbox holds."""
DISCONNECTIONS: dict[Callable[[Hub, Peer], Awaitable[None]], int] = {
    shutdown: 3001,
    failure: 3004,
    expired_token: 3005,
    over: 3006,
    slow: 3008,
    gap: 3010,
    no_pong: 3012,
    flood: 3013,
    bad_token: 3500,
    foreign_token: 3500,
    foreign_room: 3500,
    bad_request: 3501,
    twice: 3501,
    out_of_range: 3501,
    below_zero: 3501,
    too_far: 3501,
    bytes_come: 3501,
    kicked: 3503,
    too_many_rooms: 3505,
    normally_closed: 3503,
    policy: 3507,
    own_code: 4000,
}


@pytest.mark.parametrize("what", DISCONNECTIONS, ids=lambda each: each.__name__)
async def test_each_code_of_a_disconnection(what: Callable[[Hub, Peer], Awaitable[None]]) -> None:
    hub = await running(messages_per_second=100, outbox_max_entries=FULL)

    @hub.on_message
    def heard(client: Client, message: str) -> None:
        if message == '"policy"':
            raise Disconnected(1008, "")
        raise LookupError

    peer = await connected(hub)
    await what(hub, peer)
    for _ in range(3):
        await settle(hub)
    close = peer.memory.closed
    assert close is not None
    assert (close.code, close.by_server) == (DISCONNECTIONS[what], True)
    assert close.reason, "an empty one makes an SDK come back for ever"
    await hub.stop()


async def test_code_3502_for_who_never_connects() -> None:
    hub = Hub(handshake_timeout_s=0.01)
    await hub.start()
    peer = Peer(hub)
    await until(lambda: peer.memory.closed is not None)
    assert peer.memory.closed is not None
    assert peer.memory.closed.code == 3502
    assert peer.memory.closed.reason.startswith("stale: no connect command")
    await hub.stop()


@pytest.mark.parametrize("on_invalid", ["reply", "close", "ignore"])
async def test_code_3508_for_a_message_that_no_handler_of_any_kind_takes(on_invalid: Any) -> None:
    hub = await running(on_invalid=on_invalid)
    peer = await connected(hub)
    await peer.say(subscribe={"channel": "red"})
    assert await peer.say(send={"data": 1}) == []
    assert code_of(peer.memory) == (None if on_invalid == "ignore" else 3508)
    assert hub.stats()["invalid"] == 1
    await hub.stop()


async def test_a_message_of_a_type_that_no_handler_takes_closes_nobody() -> None:
    hub = await running()
    hub.on("known")(lambda client, message: None)
    peer = await connected(hub)
    assert await peer.say(send={"data": {"type": "unknown"}}) == []
    assert peer.memory.closed is None
    assert hub.stats()["invalid"] == 1
    await hub.stop()


CLOSES = {1000: 3503, 1002: 3501, 1003: 3501, 1007: 3501, 1008: 3507, 1011: 3004, 1012: 3001}
"""What codes of the WebSocket become: an SDK comes back after each of them as it is."""


def test_no_code_of_the_websocket_that_becomes_another_is_left_out() -> None:
    assert CLOSES.keys() == CLOSE_CODES.keys()


@pytest.mark.parametrize("code", CLOSES)
@pytest.mark.parametrize("who", ["a handler", "the hub"])
async def test_a_code_of_the_websocket_becomes_one_that_an_sdk_goes_by(code: int, who: str) -> None:
    hub = await running()

    @hub.on_message
    def heard(client: Client, message: str) -> None:
        raise Disconnected(code, "so it is")

    peer = await connected(hub)
    if who == "a handler":
        await peer.say(send={"data": 1})
    else:
        hub.disconnect(peer.memory.client, code, "so it is")
    assert peer.memory.closed is not None
    assert (peer.memory.closed.code, peer.memory.closed.reason) == (CLOSES[code], "so it is")
    assert should_come_back(CLOSES[code]) == should_come_back(code)
    await hub.stop()


@pytest.mark.parametrize("reason", ["", "42", '"x"', "{}", "null", "[1]", "true"])
def test_a_reason_is_never_empty_or_json(reason: str) -> None:
    closing: Any = CENTRIFUGE
    assert closing.closing(3503, reason) == (3503, f"closed: {reason}" if reason else "closed")
    assert closing.closing(4321, "bye") == (4321, "bye")


# Unsubscriptions


async def unsubscribed(peer: Peer) -> tuple[int, str]:
    await settle(peer.hub)
    push = peer.lines[-1]["push"]
    assert push["channel"] == "log:1"
    return push["unsubscribe"]["code"], push["unsubscribe"]["reason"]


async def test_code_2000_when_the_server_unsubscribes() -> None:
    hub = await running()
    peer = await connected(hub)
    await peer.say(subscribe={"channel": "log:1"})
    peer.memory.client.leave("log:1")
    assert await unsubscribed(peer) == (2000, "server unsubscribe")
    await hub.stop()


async def test_code_2500_when_something_was_missed() -> None:
    hub = await running()
    peer = await connected(hub)
    await peer.say(subscribe={"channel": "log:1"})
    core_of(hub).gaps.tell(session_of(peer.memory.client), "log:1")
    assert await unsubscribed(peer) == (2500, "insufficient state")
    await hub.stop()


async def test_code_2501_when_a_subscription_has_expired() -> None:
    hub = await running()
    peer = await connected(hub)
    shown = token(channel="log:1", exp=int(time.time()) + 60)
    await peer.say(subscribe={"channel": "log:1", "token": shown})
    advance_time(hub, 61 + GRACE_S)
    assert peer.memory.closed is None, "it comes back to the room by itself"
    assert await unsubscribed(peer) == (2501, "subscription expired")
    await hub.stop()


@pytest.mark.parametrize("channel", ["red", "@ann", "x" * 300, "a\u202eb"])
async def test_an_unsubscribe_command_never_fails(channel: str) -> None:
    """An error makes an SDK give up its connection."""
    hub = await running()
    peer = await connected(hub)
    (answer,) = await peer.say(unsubscribe={"channel": channel})
    assert answer == {"id": 2, "unsubscribe": {}}
    hub.to_user("ann").send("still here")
    await settle(hub)
    assert peer.lines[-1] == {"push": {"message": {"data": "still here"}}}
    await hub.stop()


async def test_a_page_begins_with_the_oldest_that_is_kept() -> None:
    hub = await running()
    for number in range(6):
        await hub.publish("log:1", number)
    epoch = (await hub.cursor("log:1")).epoch
    peer = await connected(hub)

    async def offsets(**since: Any) -> list[int]:
        (answer,) = await peer.say(history={"channel": "log:1", "limit": 2, "since": since})
        assert answer["history"]["offset"] == 6
        return [each["offset"] for each in answer["history"]["publications"]]

    assert await offsets(offset=1, epoch=epoch) == [4, 5]
    assert await offsets(offset=5, epoch=epoch) == [6]
    assert await offsets(offset=400, epoch=epoch) == []
    assert await offsets(offset=4) == [5, 6], "without an epoch that of today is meant"
    await hub.stop()


@pytest.mark.parametrize("limit", [-1, 301, 10_000])
async def test_a_page_has_300_publications_at_most_and_the_next_one_goes_on(limit: int) -> None:
    hub = await running()
    for number in range(400):
        await hub.publish("book", number)
    epoch = (await hub.cursor("book")).epoch
    peer = await connected(hub)

    async def offsets(**more: Any) -> list[int]:
        (answer,) = await peer.say(history={"channel": "book", "limit": limit, **more})
        assert (answer["history"]["offset"], answer["history"]["epoch"].split("~")[0]) == (
            400,
            epoch,
        )
        return [each["offset"] for each in answer["history"]["publications"]]

    assert await offsets() == [*range(1, 301)]
    assert await offsets(since={"offset": 300, "epoch": epoch}) == [*range(301, 401)]
    assert await offsets(reverse=True) == [*range(400, 100, -1)]
    assert await offsets(reverse=True, since={"offset": 101, "epoch": epoch}) == [
        *range(100, 0, -1)
    ]
    await hub.stop()


def test_bytes_of_a_frame_are_passed_as_text() -> None:
    frame = CENTRIFUGE.merge([Frame(b"{}", True)])[0]
    assert frame.is_text
