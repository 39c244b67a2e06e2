"""The methods of the HTTP API, each on the memory broker, and those that reach other nodes on two."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from calling import KEY, api_of, call, error, result
from exchange import CLUSTERS, Exchange, carried, cluster
from hubbub import ApiKey, Hub, Identity, RoomRules
from hubbub.asgi import api_methods
from hubbub.asgi.api_methods import METHODS
from hubbub.hub.core import core_of
from hubbub.testing import FakeClock, MemoryClient, advance_time, connect, set_clock, settle
from started_hub import PATIENCE_S, code_of, until

pytestmark = pytest.mark.anyio

RULES = (
    RoomRules("chat:*", history=5, presence=True),
    RoomRules("text:*", stream=True, history=10),
    RoomRules("doc:*", history=5, delta=True),
    RoomRules("here:*", presence=True),
)


@asynccontextmanager
async def served(clock: FakeClock | None = None, **options: Any) -> AsyncIterator[tuple[Hub, Any]]:
    """Run a hub with these rules; give it and its API."""
    hub = Hub(room_rules=RULES, max_rooms_per_client=3)
    if clock is not None:
        set_clock(hub, clock)
    await hub.start()
    try:
        yield hub, api_of(hub, **options)
    finally:
        await hub.stop()


async def sdk(hub: Hub, user: str | None) -> MemoryClient:
    """Connect a client with commands."""
    core_of(hub).handlers.authenticate = lambda handshake: handshake.connect_token or None
    if user is None:
        core_of(hub).handlers.authenticate = None
    client = connect(hub, dialect="centrifuge")
    client.send({"id": 1, "connect": {} if user is None else {"token": user}})
    await settle(hub)
    assert "connect" in client.json()[0]
    return client


def pushes(client: MemoryClient) -> list[Any]:
    """Return what an SDK has been pushed."""
    lines = [line for message in client.received for line in str(message).split("\n")]
    return [found["push"] for line in lines if "push" in (found := json.loads(line))]


# publish and broadcast


async def test_publish_gives_what_was_written_to_plain_clients_and_to_sdks() -> None:
    async with served() as (hub, app):
        plain, other = connect(hub, user="ann"), await sdk(hub, "bob")
        for client in (plain, other):
            client.client.join("a")
        values = [{"text": "ä", "n": 12345678901234567890}, "42", 42, None, [], "", 1.0]
        for value in values:
            assert await result(app, "publish", channel="a", data=value) == {}
        await settle(hub)
        assert plain.json() == values
        assert plain.received[1] == '"42"'
        assert [push["pub"]["data"] for push in pushes(other)[1:]] == values


async def test_publish_takes_bytes_in_base64() -> None:
    async with served() as (hub, app):
        plain, other = connect(hub), await sdk(hub, None)
        for client in (plain, other):
            client.client.join("a")
        data = bytes(range(256))
        text = base64.b64encode(data).decode()
        assert await result(app, "publish", channel="a", b64data=text) == {}
        assert await result(app, "publish", channel="a", b64data=text, data=None) == {}
        await settle(hub)
        assert plain.received == [data, data]
        assert [push["pub"]["data"] for push in pushes(other)[1:]] == [text, text]
        for wrong in ("*", "abc", "a b=="):
            assert (await error(app, "publish", channel="a", b64data=wrong))[0] == 107


async def test_a_room_that_remembers_gives_positions_unless_it_is_not_to_keep_it() -> None:
    async with served() as (hub, app):
        member = connect(hub)
        member.client.join("chat:1")
        first = await result(app, "publish", channel="chat:1", data=1)
        assert await result(app, "publish", channel="chat:1", data=2, skip_history=True) == {}
        third = await result(app, "publish", channel="chat:1", data=3, skip_history=False)
        assert (first["offset"], third["offset"]) == (1, 2)
        assert first["epoch"] == third["epoch"]
        await settle(hub)
        assert member.received == ["1", "2", "3"]
        assert [kept.data for kept in (await hub.history("chat:1")).publications] == [b"1", b"3"]


async def test_a_message_with_a_key_is_published_once() -> None:
    async with served() as (hub, app):
        member = connect(hub)
        for room in ("chat:1", "a"):
            member.client.join(room)
        for room in ("chat:1", "a"):
            fields = {"channel": room, "data": 1, "idempotency_key": "order 5"}
            answers = [await result(app, "publish", **fields) for _ in range(3)]
            assert answers[0] == answers[1] == answers[2]
        await settle(hub)
        assert member.received == ["1", "1"]
        for wrong in ("x" * 257, "\ud800"):
            fields = {"channel": "a", "data": 1, "idempotency_key": wrong}
            if wrong.isascii():
                assert (await error(app, "publish", **fields))[0] == 107


@pytest.mark.parametrize(
    ("fields", "code", "why"),
    [
        ({"channel": "a"}, 107, "no data"),
        ({"data": 1}, 107, "channel"),
        ({"channel": "", "data": 1}, 107, "must not be empty"),
        ({"channel": "@ann", "data": 1}, 107, "must not begin with '@'"),
        ({"channel": "x" * 257, "data": 1}, 107, "256 bytes"),
        ({"channel": "a\nb", "data": 1}, 107, "must not hold"),
        ({"channel": 5, "data": 1}, 107, "Expected `str`"),
        ({"channel": "text:1", "data": 1}, 108, "stream"),
        ({"channel": "doc:1", "data": 1, "skip_history": True}, 108, "keeps every message"),
        ({"channel": "a", "data": 1, "tags": {"a": "b"}}, 108, "tags"),
        ({"channel": "a", "data": 1, "version": 5}, 108, "version"),
        ({"channel": "a", "data": 1, "version_epoch": "x"}, 108, "version_epoch"),
    ],
)
async def test_what_cannot_be_published_is_an_error(
    fields: dict[str, Any], code: int, why: str
) -> None:
    async with served() as (_, app):
        found, message = await error(app, "publish", **fields)
        assert found == code
        assert why in message


async def test_what_is_empty_or_unknown_is_passed_over() -> None:
    async with served() as (_, app):
        fields: dict[str, Any] = {"tags": {}, "version": 0, "delta": True, "new_in_2030": [1]}
        assert await result(app, "publish", channel="a", data=1, **fields) == {}
        fields = {"tags": None, "skip_history": None, "b64data": None, "idempotency_key": None}
        assert await result(app, "publish", channel="a", data=1, **fields) == {}


@pytest.mark.parametrize("method", ["subscribe", "refresh"])
async def test_an_info_of_null_is_none_and_any_other_is_one(method: str) -> None:
    async with served() as (_, app):
        fields = {"user": "ann"} | ({"channel": "a"} if method == "subscribe" else {})
        assert await result(app, method, **fields, info=None) == {}
        values: list[Any] = [{}, 0, ""]
        for info in values:
            refused = (108, "not available: info")
            assert await error(app, method, **fields, info=info) == refused


async def test_a_broadcast_with_a_key_is_published_once_in_each_room() -> None:
    async with served() as (hub, app):
        member = connect(hub)
        for room in ("chat:1", "chat:2", "a"):
            member.client.join(room)
        fields: dict[str, Any] = {"data": 1, "idempotency_key": "order 5"}
        first = await result(app, "broadcast", channels=["chat:1", "a"], **fields)
        assert first["responses"][0]["result"]["offset"] == 1
        assert first["responses"][1] == {"result": {}}
        assert await result(app, "broadcast", channels=["chat:1", "a"], **fields) == first
        more = await result(app, "broadcast", channels=["chat:2", "chat:1", "a"], **fields)
        assert more["responses"][0]["result"]["offset"] == 1
        assert more["responses"][1:] == first["responses"]
        again = await result(app, "publish", channel="chat:1", **fields)
        assert again == first["responses"][0]["result"]
        await settle(hub)
        assert member.received == ["1", "1", "1"]
        fields["idempotency_key"] = "x" * 257
        found = await result(app, "broadcast", channels=["chat:1", "a"], **fields)
        assert [reply["error"]["code"] for reply in found["responses"]] == [107, 107]


async def test_broadcast_answers_for_each_room_in_order() -> None:
    async with served() as (hub, app):
        member = connect(hub)
        for room in ("chat:1", "b"):
            member.client.join(room)
        rooms = ["chat:1", "@bad", "b", "text:1", "chat:1"]
        found = (await result(app, "broadcast", channels=rooms, data={"n": 1}))["responses"]
        assert [reply.get("error", {}).get("code") for reply in found] == [
            None,
            107,
            None,
            108,
            None,
        ]
        assert [reply.get("result", {}).get("offset") for reply in found] == [
            1,
            None,
            None,
            None,
            2,
        ]
        assert await result(app, "broadcast", channels=[], data=1) == {"responses": []}
        await settle(hub)
        assert member.json() == [{"n": 1}] * 3
        assert (await error(app, "broadcast", channels=["a"]))[0] == 107


async def test_a_broadcast_has_a_bounded_number_of_rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_methods, "MOST_CHANNELS", 200)
    async with served() as (_, app):
        rooms = [str(n) for n in range(200)]
        assert len((await result(app, "broadcast", channels=rooms, data=1))["responses"]) == 200
        found = await error(app, "broadcast", channels=[*rooms, "one more"], data=1)
        assert found == (107, "bad request: more than 200 channels")


# subscribe and unsubscribe


async def test_subscribe_puts_all_of_a_users_clients_into_a_room_and_tells_them() -> None:
    async with served() as (hub, app):
        hub.authorize(lambda client, action, room: False)
        ann, plain, bob = await sdk(hub, "ann"), connect(hub, user="ann"), connect(hub, user="bob")
        await result(app, "publish", channel="chat:1", data="before")
        answer = await result(app, "subscribe", user="ann", channel="chat:1", data={"w": 1})
        assert answer == {}
        assert (len(hub.room("chat:1")), bob.client.rooms) == (2, frozenset())
        [push] = pushes(ann)
        assert push["channel"] == "chat:1"
        assert push["subscribe"]["data"] == {"w": 1}
        assert (push["subscribe"]["offset"], push["subscribe"]["recoverable"]) == (1, True)
        assert plain.received == []
        again = await result(app, "subscribe", user="ann", channel="chat:1")
        assert (again, len(pushes(ann))) == ({}, 1)
        await result(app, "publish", channel="chat:1", data="after")
        await settle(hub)
        assert plain.received == ['"after"']


async def test_subscribe_sends_what_was_missed_since_a_position() -> None:
    async with served() as (hub, app):
        ann = connect(hub, user="ann")
        sent = [await result(app, "publish", channel="chat:1", data=n) for n in range(4)]
        since = {"offset": 2, "epoch": sent[0]["epoch"]}
        await result(app, "subscribe", user="ann", channel="chat:1", recover_since=since)
        await settle(hub)
        assert ann.received == ["2", "3"]


async def test_subscribe_means_one_client_or_those_without_a_user() -> None:
    async with served() as (hub, app):
        one, two = (connect(hub, user="ann", client_id=name) for name in ("c1", "c2"))
        nobody, unnamed = connect(hub, client_id="c3"), connect(hub, user="", client_id="c4")
        await result(app, "subscribe", user="ann", client="c1", channel="a")
        await result(app, "subscribe", user="", channel="b")
        await result(app, "subscribe", user="bob", client="c2", channel="c")
        await result(app, "subscribe", user="ann", session="anything", channel="d")
        await result(app, "subscribe", user="ann", client="nobody", channel="e")
        await result(app, "subscribe", user="ann", client="", session="", channel="f")
        found = [set(client.client.rooms) for client in (one, two, nobody, unnamed)]
        assert found == [{"a", "f"}, {"f"}, {"b"}, {"b"}]


async def test_a_subscription_may_have_an_end() -> None:
    clock = FakeClock()
    async with served(clock) as (hub, app):
        ann, plain = await sdk(hub, "ann"), connect(hub, user="ann")
        await result(app, "subscribe", user="ann", channel="a", expire_at=int(time.time()) + 60)
        advance_time(hub, 50)
        assert ann.client.rooms == plain.client.rooms == {"a"}
        advance_time(hub, 60)
        assert plain.client.rooms == set()
        assert plain.closed is None
        assert ann.closed is not None
        assert (ann.closed.code, ann.closed.reason) == (3006, "subscription expired")
        assert (await error(app, "subscribe", user="ann", channel="a", expire_at=5))[0] == 110


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"info": {"a": 1}}, 108),
        ({"b64info": "AAAA"}, 108),
        ({"override": {"presence": {"value": True}}}, 108),
        ({"channel": "@x"}, 107),
        ({"b64data": "*"}, 107),
        ({"recover_since": {"offset": -1}}, 107),
        ({"recover_since": {"offset": 10**30}}, 107),
        ({"expire_at": 10**30}, 107),
        ({"expire_at": 10**400}, 107),
        ({"user": None}, 107),
    ],
)
async def test_what_subscribe_cannot_do_is_an_error(fields: dict[str, Any], code: int) -> None:
    async with served() as (hub, app):
        ann = connect(hub, user="ann")
        asked = {"user": "ann", "channel": "a", **fields}
        assert (await error(app, "subscribe", **asked))[0] == code
        assert ann.client.rooms == set()


async def test_a_client_in_too_many_rooms_is_an_error_and_the_others_are_in() -> None:
    async with served() as (hub, app):
        full, other = connect(hub, user="ann"), connect(hub, user="ann")
        for room in "bcd":
            full.client.join(room)
        assert (await error(app, "subscribe", user="ann", channel="a"))[0] == 106
        assert other.client.rooms == {"a"}


async def test_unsubscribe_takes_a_users_clients_out_of_a_room() -> None:
    async with served() as (hub, app):
        ann, other = await sdk(hub, "ann"), connect(hub, user="ann", client_id="c2")
        for client in (ann, other):
            client.client.join("a")
        await result(app, "unsubscribe", user="ann", client="c2", channel="a")
        assert (len(ann.client.rooms), len(other.client.rooms)) == (1, 0)
        await result(app, "unsubscribe", user="ann", channel="a")
        await settle(hub)
        assert pushes(ann)[-1] == {
            "channel": "a",
            "unsubscribe": {"code": 2000, "reason": "server unsubscribe"},
        }
        await result(app, "unsubscribe", user="ann", session="s", channel="a")
        assert (await error(app, "unsubscribe", user="ann", channel=""))[0] == 107


# disconnect and refresh


async def test_disconnect_closes_a_users_clients() -> None:
    async with served() as (hub, app):
        ann, bob = connect(hub, user="ann"), connect(hub, user="bob")
        await result(app, "disconnect", user="ann", disconnect={"code": 0, "reason": ""})
        assert ann.closed is not None
        assert (ann.closed.code, ann.closed.reason) == (3503, "force disconnect")
        assert bob.closed is None


async def test_disconnect_has_a_code_a_reason_and_whom_it_spares() -> None:
    async with served() as (hub, app):
        names = ("c1", "c2", "c3")
        one, two, three = (connect(hub, user="ann", client_id=name) for name in names)
        close = {"code": 4100, "reason": "moved"}
        await result(app, "disconnect", user="ann", session="s", disconnect=close)
        await result(app, "disconnect", user="ann", client="c1", whitelist=["c1"], disconnect=close)
        assert len(hub) == 3
        await result(app, "disconnect", user="ann", whitelist=["c1", "c3"], disconnect=close)
        assert two.closed is not None
        assert (two.closed.code, two.closed.reason) == (4100, "moved")
        await result(app, "disconnect", user="ann", client="c1", disconnect={"code": 4200})
        assert (code_of(one), code_of(three)) == (4200, None)


@pytest.mark.parametrize("code", [1005, 1006, 2999, 5000, -1])
async def test_a_code_that_may_not_be_sent_is_an_error(code: int) -> None:
    async with served() as (hub, app):
        ann = connect(hub, user="ann")
        close = {"code": code, "reason": "x"}
        assert (await error(app, "disconnect", user="ann", disconnect=close))[0] == 107
        assert ann.closed is None


async def test_disconnect_of_the_empty_user_closes_those_without_one() -> None:
    async with served() as (hub, app):
        nobody, ann = connect(hub), connect(hub, user="ann")
        await result(app, "disconnect", user="")
        assert (code_of(nobody), code_of(ann)) == (3503, None)


async def test_refresh_lets_clients_stay_or_ends_them() -> None:
    clock = FakeClock()
    async with served(clock) as (hub, app):
        one, two, three = (
            connect(hub, user=name, expires_at=time.time() + 30) for name in ("a", "b", "c")
        )
        await result(app, "refresh", user="a", expire_at=int(time.time()) + 600)
        await result(app, "refresh", user="b")
        await result(app, "refresh", user="c", session="s")
        for client in (one, two, three):
            client.transport.answers_pings = True
        advance_time(hub, 45)
        assert [code_of(client) for client in (one, two, three)] == [None, None, 3005]
        await result(app, "refresh", user="b", expired=True)
        assert code_of(two) == 3005
        assert hub.stats()["expired"] == 2
        assert (await error(app, "refresh", user="a", info={"x": 1}))[0] == 108
        assert (await error(app, "refresh", user="a", expire_at=10**15))[0] == 107
        assert (await error(app, "refresh", user="a", expire_at=10**400))[0] == 107


# presence and history


async def test_presence_lists_clients_and_counts_people() -> None:
    async with served() as (hub, app):
        hub.presence_info(lambda client, room: {"at": room} if client.user else None)
        for name, user in (("c1", "ann"), ("c2", "ann"), ("c3", None)):
            connect(hub, user=user, client_id=name).client.join("here:1")
        assert (await result(app, "presence", channel="here:1"))["presence"] == {
            "c1": {"user": "ann", "client": "c1", "chan_info": {"at": "here:1"}},
            "c2": {"user": "ann", "client": "c2", "chan_info": {"at": "here:1"}},
            "c3": {"user": "", "client": "c3"},
        }
        assert await result(app, "presence_stats", channel="here:1") == {
            "num_clients": 3,
            "num_users": 2,
        }
        for method in ("presence", "presence_stats"):
            assert (await error(app, method, channel="a"))[0] == 108
            assert (await error(app, method, channel=""))[0] == 107


async def test_history_is_read_in_parts_and_both_ways() -> None:
    async with served() as (hub, app):
        for n in range(4):
            await hub.publish("chat:1", {"n": n})
        await hub.publish("chat:1", b"\x00\x01")

        async def read(**fields: Any) -> list[int]:
            found = await result(app, "history", channel="chat:1", **fields)
            assert (found["offset"], found["epoch"]) == (5, position["epoch"])
            return [each["offset"] for each in found["publications"]]

        position = await result(app, "history", channel="chat:1")
        assert position["publications"] == []
        since = {"offset": 2, "epoch": position["epoch"]}
        assert await read() == await read(limit=0) == []
        assert await read(limit=-1) == [1, 2, 3, 4, 5]
        assert await read(limit=2) == [1, 2]
        assert await read(limit=2, reverse=True) == [5, 4]
        assert await read(limit=-1, since=since) == [3, 4, 5]
        assert await read(limit=-1, since={"offset": 2}) == [3, 4, 5]
        assert await read(limit=-1, since=since, reverse=True) == [1]
        whole = await result(app, "history", channel="chat:1", limit=-1)
        assert [each["data"] for each in whole["publications"]] == [
            *({"n": n} for n in range(4)),
            "AAE=",
        ]
        lost = {"offset": 2, "epoch": "another"}
        assert (await error(app, "history", channel="chat:1", since=lost))[0] == 112
        for limit in (-2, 2**63, 10**400):
            assert (await error(app, "history", channel="chat:1", limit=limit))[0] == 107
        assert (await error(app, "history", channel="a"))[0] == 108


async def test_history_and_presence_say_what_is_said_of_clients() -> None:
    async with served() as (hub, app):
        core_of(hub).handlers.authorize = lambda client, action, room: True
        core_of(hub).handlers.authenticate = lambda handshake: Identity(
            "ann", client_id="c1", info={"n": 1}
        )
        ann = connect(hub, dialect="centrifuge")
        ann.send({"id": 1, "connect": {}})
        await settle(hub)
        ann.client.join("chat:1")
        ann.send({"id": 2, "publish": {"channel": "chat:1", "data": "hi"}})
        await settle(hub)
        await hub.publish("chat:1", "5")
        info = {"user": "ann", "client": "c1", "conn_info": {"n": 1}}
        whole = await result(app, "history", channel="chat:1", limit=-1)
        assert whole["publications"] == [
            {"data": "hi", "offset": 1, "info": info},
            {"data": 5, "offset": 2},
        ]
        assert (await result(app, "presence", channel="chat:1"))["presence"] == {"c1": info}


async def test_history_remove_forgets_and_begins_a_new_epoch() -> None:
    async with served() as (hub, app):
        sent = await result(app, "publish", channel="chat:1", data=1)
        assert await result(app, "history_remove", channel="chat:1") == {}
        found = await result(app, "history", channel="chat:1", limit=-1)
        assert (found["publications"], found["offset"]) == ([], 0)
        assert found["epoch"] != sent["epoch"]
        assert (await error(app, "history_remove", channel="a"))[0] == 108
        assert (await hub.history("chat:1")).position.offset == 0


# channels and info


async def test_channels_names_the_rooms_that_a_pattern_fits_and_a_key_is_for() -> None:
    key = ApiKey("another-key-0123456789", rooms=["news:*"])
    async with served(keys=[KEY, key]) as (hub, app):
        one, two = connect(hub, user="ann"), connect(hub)
        for room in ("news:1", "news:2", "lobby"):
            one.client.join(room)
        two.client.join("news:1")

        async def names(**fields: Any) -> dict[str, int]:
            found = (await result(app, "channels", **fields))["channels"]
            return {name: info["num_clients"] for name, info in found.items()}

        assert await names() == await names(pattern="*") == {"news:1": 2, "news:2": 1, "lobby": 1}
        assert await names(pattern="news:[2-9]") == {"news:2": 1}
        assert await names(pattern="lobb?") == {"lobby": 1}
        assert await names(pattern="LOBBY") == {}
        assert await names(key=key_text(key)) == {"news:1": 2, "news:2": 1}
        assert (await error(app, "channels", pattern="{a,b}"))[0] == 107
        assert (await error(app, "channels", pattern="*" * 257))[0] == 107


def key_text(key: ApiKey) -> str:
    assert not key.is_same(ApiKey(KEY))
    return "another-key-0123456789"


async def test_info_counts_clients_people_rooms_and_members() -> None:
    async with served() as (hub, app):
        for user in ("ann", "ann", None, None):
            connect(hub, user=user).client.join("a")
        [node] = (await result(app, "info"))["nodes"]
        assert isinstance(node.pop("uptime"), int)
        assert node.pop("uid") == node.pop("name")
        assert node == {
            "version": "hubbub",
            "num_clients": 4,
            "num_users": 3,
            "num_channels": 1,
            "num_subs": 4,
        }


# batch


@pytest.mark.parametrize("parallel", [False, True])
async def test_a_batch_answers_each_command_in_order(parallel: bool) -> None:
    async with served() as (hub, app):
        member = connect(hub)
        member.client.join("chat:1")
        commands: list[Any] = [
            {"publish": {"channel": "chat:1", "data": 1}},
            {"publish": {"channel": "@bad", "data": 1}},
            {"nothing": {}},
            {"batch": {"commands": []}},
            {},
            {"publish": {}, "info": {}},
            {"presence_stats": {"channel": "chat:1"}},
            {"broadcast": {"channels": ["chat:1", "a"], "data": 2}},
            {"unsubscribe": {"user": "ann", "channel": "a"}},
        ]
        found = (await call(app, "batch", commands=commands, parallel=parallel))["replies"]
        codes = [reply.get("error", {}).get("code") for reply in found]
        assert codes == [None, 107, 104, 107, 107, 107, None, None, None]
        assert found[0]["publish"]["offset"] == 1
        assert found[6]["presence_stats"] == {"num_clients": 1, "num_users": 1}
        assert found[7]["broadcast"]["responses"][0]["result"]["offset"] == 2
        assert found[8] == {"unsubscribe": {}}
        await settle(hub)
        assert member.received == ["1", "2"]


async def test_a_batch_is_bounded_and_may_be_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_methods, "MOST_COMMANDS", 2)
    async with served() as (_, app):
        assert await call(app, "batch", commands=[]) == {"replies": []}
        assert (await error(app, "batch", commands=[{"info": {}}] * 3))[0] == 107
        assert (await error(app, "batch"))[0] == 107
        assert (await error(app, "batch", commands=[5]))[0] == 107


async def test_a_key_is_asked_for_each_command_of_a_batch_and_each_room() -> None:
    key = ApiKey("another-key-0123456789", methods=["publish", "broadcast"], rooms=["news:*"])
    async with served(keys=[key]) as (_, app):
        commands: list[Any] = [
            {"publish": {"channel": "news:1", "data": 1}},
            {"publish": {"channel": "lobby", "data": 1}},
            {"info": {}},
            {"broadcast": {"channels": ["news:1", "lobby"], "data": 1}},
        ]
        answer = await call(app, "batch", key=key_text(key), commands=commands)
        first, second, third, fourth = answer["replies"]
        assert first == {"publish": {}}
        assert (second["error"]["code"], third["error"]["code"]) == (103, 103)
        assert [list(each) for each in fourth["broadcast"]["responses"]] == [["result"], ["error"]]


@pytest.mark.parametrize("method", sorted(METHODS))
async def test_no_method_does_anything_with_a_room_that_the_key_is_not_for(method: str) -> None:
    key = ApiKey("another-key-0123456789", rooms=["news:*"])
    async with served(keys=[key]) as (_, app):
        fields: dict[str, Any] = {"channel": "lobby", "data": 1, "user": "ann"}
        if method in ("channels", "batch", "broadcast"):
            return await of_several(app, method, key_text(key))
        code, _ = await error(app, method, key=key_text(key), **fields)
        assert code == 103
    return None


async def of_several(app: Any, method: str, key: str) -> None:
    commands = [{"publish": {"channel": "lobby", "data": 1}}]
    fields: dict[str, Any] = {"channels": ["lobby"], "data": 1, "commands": commands}
    answer = await call(app, method, key=key, **fields)
    if method == "channels":
        assert answer == {"result": {"channels": {}}}
    else:
        replies = answer.get("replies") or answer["result"]["responses"]
        assert [reply["error"]["code"] for reply in replies] == [103]


# On two nodes


async def until_answered(app: Any, method: str, expected: Any, **fields: Any) -> None:
    """Call a method until it says this: what others have to do or to say takes its time."""
    async with asyncio.timeout(PATIENCE_S):
        while await result(app, method, **fields) != expected:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("travels", ["prompt", "valkey", "nats"])
async def test_what_is_called_on_one_node_is_done_on_the_other(
    travels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_methods, "WAIT_S", 0.05)
    exchange = CLUSTERS[travels]()
    async with cluster(exchange, room_rules=RULES) as (here, there):
        app = api_of(here)
        ann = connect(there, user="ann", client_id="c1")
        await result(app, "subscribe", user="ann", channel="chat:1")
        await until(lambda: ann.client.rooms == {"chat:1"})
        placed = await result(app, "publish", channel="chat:1", data="hello")
        await until(lambda: bool(ann.received))
        assert ann.received == ['"hello"']
        of_both = await asyncio.gather(
            *(result(api_of(hub), "history", channel="chat:1", limit=-1) for hub in (here, there))
        )
        assert of_both[0] == of_both[1]
        assert (of_both[0]["offset"], of_both[0]["epoch"]) == (1, placed["epoch"])
        assert [kept["data"] for kept in of_both[0]["publications"]] == ["hello"]
        await until_answered(app, "channels", {"channels": {"chat:1": {"num_clients": 1}}})
        counts = {"num_clients": 1, "num_users": 1}
        await until_answered(app, "presence_stats", counts, channel="chat:1")
        assert list((await result(app, "presence", channel="chat:1"))["presence"]) == ["c1"]
        async with asyncio.timeout(PATIENCE_S):
            while len(nodes := (await result(app, "info"))["nodes"]) < 2:
                pass
        assert [node["num_clients"] for node in nodes] == [0, 1]
        assert [node["num_subs"] for node in nodes] == [0, 1]
        assert len({node["uid"] for node in nodes}) == 2
        await result(app, "history_remove", channel="chat:1")
        assert (await result(api_of(there), "history", channel="chat:1"))["publications"] == []
        await result(app, "unsubscribe", user="ann", channel="chat:1")
        await until(lambda: ann.client.rooms == set())
        bob = connect(there, user="bob")
        await result(app, "refresh", user="bob", expired=True)
        await until(lambda: code_of(bob) == 3005)
        await result(app, "disconnect", user="ann", disconnect={"code": 4001, "reason": "bye"})
        await until(lambda: code_of(ann) is not None)
        assert code_of(ann) == 4001


async def test_a_broker_that_is_away_is_an_internal_error_for_now() -> None:
    exchange = Exchange()
    async with cluster(exchange, count=1, room_rules=RULES) as (hub,):
        app = api_of(hub)
        exchange.brokers[0].cut()
        assert (await error(app, "publish", channel="a", data=1))[0] == 100
        assert (await error(app, "history", channel="chat:1"))[0] == 100
        [reply] = (await result(app, "broadcast", channels=["a"], data=1))["responses"]
        assert reply["error"]["code"] == 100
        exchange.brokers[0].mend()
        assert await result(app, "publish", channel="a", data=1) == {}


NEEDS_OTHERS: dict[str, dict[str, Any]] = {
    "disconnect": {"user": "ann"},
    "subscribe": {"user": "ann", "channel": "a"},
    "unsubscribe": {"user": "ann", "channel": "a"},
    "refresh": {"user": "ann", "expired": True},
    "channels": {},
    "info": {},
}


@pytest.mark.parametrize("travels", ["prompt", "valkey", "nats"])
async def test_what_the_others_cannot_be_told_or_asked_is_no_success(
    travels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_methods, "WAIT_S", 0.05)
    exchange = CLUSTERS[travels]()
    async with cluster(exchange) as (here, there):
        app, ann = api_of(here), connect(there, user="ann")
        exchange.brokers[0].cut()
        for method, fields in NEEDS_OTHERS.items():
            assert (await error(app, method, **fields))[0] == 100, method
        assert ann.closed is None
        exchange.brokers[0].mend()
        await carried(exchange)
        for method in ("info", "disconnect"):
            await result(app, method, **NEEDS_OTHERS[method])
        await carried(exchange)
        assert code_of(ann) == 3503


async def test_a_broadcast_of_much_waits_for_room_and_what_never_fits_says_so() -> None:
    exchange = CLUSTERS["valkey"]()
    async with cluster(exchange, count=1) as (hub,):
        app, rooms = api_of(hub, max_body_bytes=20 * 1024**2), [f"a{n}" for n in range(100)]
        done = await result(app, "broadcast", channels=rooms, data="y" * 300_000)
        assert done["responses"] == [{"result": {}}] * 100
        code, text = await error(app, "publish", channel="a", data="z" * 17 * 1024**2)
        assert (code, "the broker takes 16777216" in text) == (107, True)


async def test_who_gives_up_waiting_leaves_nothing_running() -> None:
    async with served() as (hub, app):
        held: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def wait(*_: object, **__: object) -> None:
            await held

        core_of(hub).publishing.publish_in_turn = wait  # type: ignore[assignment, method-assign]
        before = asyncio.all_tasks()
        commands = [{"publish": {"channel": "a", "data": n}} for n in range(5)]
        for parallel in (False, True):
            task = asyncio.create_task(call(app, "batch", commands=commands, parallel=parallel))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: asyncio.all_tasks() == before)
