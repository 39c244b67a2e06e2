"""ClientInfos: what others see of a client is one thing, in presence and beside what it publishes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from hubbub import Client, ClientInfo, Hub, Identity, RoomRules
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.testing import MemoryClient, connect, settle
from started_hub import started

pytestmark = pytest.mark.anyio

RULES = [
    RoomRules("team", publish="members", presence=True, join_leave=True, history=10),
    RoomRules("chat", publish="members", history=10),
    RoomRules("doc", publish="members", history=10, delta=True),
]


def seen(hub: Hub, client: Client, room: str = "chat") -> ClientInfo:
    return core_of(hub).infos.of(session_of(client), room)


async def with_rooms() -> Hub:
    """Start a hub where a token is the name of a user of which its identity says something."""
    hub = Hub(room_rules=RULES, max_message_bytes=64 * 1024)

    @hub.authenticate
    def who(handshake: Any) -> Identity:
        name = handshake.token
        if not name:
            return Identity(client_id="nobody")
        return Identity(user=name, client_id=name, info={"name": name.title()})

    await hub.start()
    return hub


async def sdk(hub: Hub, token: str, *rooms: str, **how: Any) -> MemoryClient:
    """Connect a client with commands that subscribes to rooms."""
    peer = connect(hub, dialect="centrifuge")
    await say(peer, hub, connect={"token": token})
    for room in rooms:
        await say(peer, hub, subscribe={"channel": room, **how})
    return peer


async def say(peer: MemoryClient, hub: Hub, **command: Any) -> list[dict[str, Any]]:
    """Send a command; return all that has come since."""
    before = len(lines(peer))
    peer.send(json.dumps({"id": 1 + before, **command}))
    for _ in range(3):
        await settle(hub)
    return lines(peer)[before:]


def lines(peer: MemoryClient) -> list[dict[str, Any]]:
    return [json.loads(line) for message in peer.received for line in str(message).split("\n")]


def published(peer: MemoryClient) -> list[Any]:
    """Return the publications that a client was pushed."""
    pushes = [line["push"] for line in lines(peer) if "push" in line]
    return [push["pub"] for push in pushes if "pub" in push]


# What is said


async def test_without_a_handler_an_identity_says_it_in_all_rooms_at_the_cost_of_one() -> None:
    hub = await started()
    ann, bob = connect(hub, user="ann", client_id="a", info={"n": 1}).client, connect(hub).client
    assert seen(hub, ann) == ClientInfo("a", "ann", None, {"n": 1})
    assert seen(hub, ann, "another") is seen(hub, ann)
    assert seen(hub, bob) == ClientInfo(bob.id)
    assert seen(hub, bob, "another") is seen(hub, bob)
    await hub.stop()


async def test_a_handler_stands_in_place_of_all_that_is_said_by_others() -> None:
    hub = await started()
    hub.presence_info(lambda client, room: {"in": room})
    ann = connect(hub, user="ann", client_id="a", info={"n": 1}).client
    core_of(hub).infos.note_token(session_of(ann), "chat", "of a token")
    ann.join("chat")
    assert seen(hub, ann) == ClientInfo("a", "ann", {"in": "chat"})
    await hub.stop()


async def test_a_handler_is_asked_once_for_a_member_and_each_time_for_who_is_none() -> None:
    hub = await started()
    asked: list[str] = []

    @hub.presence_info
    def told(client: Client, room: str) -> int:
        asked.append(room)
        return len(asked)

    ann = connect(hub).client
    ann.join("chat")
    assert [seen(hub, ann).info for _ in range(3)] == [1, 1, 1]
    ann.leave("chat")
    assert [seen(hub, ann).info for _ in range(3)] == [2, 3, 4]
    ann.join("chat")
    assert [seen(hub, ann).info for _ in range(3)] == [5, 5, 5]
    assert session_of(ann).infos == {"chat": ClientInfo(ann.id, None, 5)}
    await hub.stop()


async def test_nothing_is_kept_of_a_client_that_its_handler_takes_out_of_the_room() -> None:
    hub = await started()

    @hub.presence_info
    def told(client: Client, room: str) -> int:
        client.leave(room)
        return 1

    ann = connect(hub).client
    ann.join("chat")
    assert seen(hub, ann).info == 1
    assert session_of(ann).infos is None
    await hub.stop()


@pytest.mark.parametrize(
    "said", [object(), "x" * 5000, 2**64, {1, object()}], ids=["object", "long", "number", "set"]
)
async def test_what_cannot_be_said_is_left_out_and_logged(
    said: Any, caplog: pytest.LogCaptureFixture
) -> None:
    hub = await started()
    ann = connect(hub, user="ann", client_id="a", info=said).client
    assert seen(hub, ann) == ClientInfo("a", "ann")
    assert "the info of client a is not shown to others: " in caplog.text
    caplog.clear()
    hub.presence_info(lambda client, room: said)
    assert seen(hub, ann) == ClientInfo("a", "ann")
    assert "presence_info failed for client a in chat" in caplog.text
    await hub.stop()


async def test_what_an_identity_says_is_not_kept_where_a_handler_says_it() -> None:
    hub = Hub()
    hub.presence_info(lambda client, room: "handler")
    await hub.start()
    ann = connect(hub, info={"name": "x" * 1000}).client
    assert session_of(ann).infos is None
    assert seen(hub, ann).info == "handler"
    await hub.stop()


async def test_bytes_are_shown_as_base64() -> None:
    hub = await started()
    assert seen(hub, connect(hub, info=b"\x00\xff").client).conn_info == "AP8="
    await hub.stop()


# What is published by a command


async def test_what_a_client_publishes_says_who_it_is_live_recovered_and_in_the_history() -> None:
    hub = await with_rooms()
    ann, bob = await sdk(hub, "ann", "chat"), await sdk(hub, "bob", "chat")
    plain = connect(hub)
    plain.client.join("chat")
    await say(ann, hub, publish={"channel": "chat", "data": {"text": "hi"}})
    info = {"user": "ann", "client": "ann", "conn_info": {"name": "Ann"}}
    pub = {"data": {"text": "hi"}, "info": info, "offset": 1}
    assert published(ann) == published(bob) == [pub]
    assert plain.received == ['{"text": "hi"}'], "who is plain gets the message alone"
    (kept,) = (await hub.history("chat")).publications
    assert kept.publisher == ClientInfo("ann", "ann", None, {"name": "Ann"})
    (page,) = await say(bob, hub, history={"channel": "chat", "limit": 9})
    assert page["history"]["publications"] == [pub]
    since = {"recover": True, "offset": 0, "epoch": page["history"]["epoch"]}
    (_, answer) = lines(await sdk(hub, "eve", "chat", **since))
    assert answer["subscribe"]["publications"] == [pub]
    await hub.stop()


async def test_it_says_so_beside_patches_too() -> None:
    hub = await with_rooms()
    text = "so it was, and so it is, and so on and so forth " * 3
    ann, bob = await sdk(hub, "ann", "doc", delta="fossil"), await sdk(hub, "bob", "doc")
    for number in (1, 2):
        await say(ann, hub, publish={"channel": "doc", "data": {"n": number, "text": text}})
    assert [pub.get("delta", False) for pub in published(ann)] == [False, True]
    assert [pub["info"] for pub in published(ann)] == [pub["info"] for pub in published(bob)]
    assert published(ann)[1]["info"]["conn_info"] == {"name": "Ann"}
    await hub.stop()


async def test_an_anonymous_client_is_known_by_its_id() -> None:
    hub = await with_rooms()
    somebody = await sdk(hub, "", "chat")
    await say(somebody, hub, publish={"channel": "chat", "data": 1})
    (pub,) = published(somebody)
    assert pub["info"] == {"user": "", "client": "nobody"}
    await hub.stop()


async def test_what_the_application_publishes_is_nobodys_whoever_has_asked_for_it() -> None:
    hub = await with_rooms()

    @hub.rpc("relay")
    async def relay(client: Client, data: int) -> None:
        await hub.publish("chat", data)

    @hub.on_message
    async def heard(client: Client, message: str) -> None:
        await hub.publish("chat", message, exclude=client)

    ann, bob = await sdk(hub, "ann", "chat"), await sdk(hub, "bob", "chat")
    hub.room("chat").broadcast(1)
    await hub.publish("chat", 2)
    await say(ann, hub, rpc={"method": "relay", "data": 3})
    ann.send(json.dumps({"send": {"data": 4}}))
    await settle(hub)
    expected = [{"data": number, "offset": number} for number in (1, 2, 3, 4)]
    assert published(bob) == expected
    assert published(ann) == expected[:3]
    await hub.stop()


async def test_who_is_no_member_may_publish_and_is_shown_as_its_identity_says() -> None:
    hub = await with_rooms()
    hub.authorize(lambda client, action, room: True)
    ann, bob = await sdk(hub, "ann"), await sdk(hub, "bob", "free")
    await say(ann, hub, publish={"channel": "free", "data": 1})
    (pub,) = published(bob)
    assert pub == {
        "data": 1,
        "info": {"user": "ann", "client": "ann", "conn_info": {"name": "Ann"}},
    }
    await hub.stop()


async def test_presence_and_publications_show_the_same_and_ask_once() -> None:
    hub = await with_rooms()
    asked: list[str] = []

    @hub.presence_info
    def told(client: Client, room: str) -> dict[str, int]:
        asked.append(client.id)
        return {"asked": len(asked)}

    peer = connect(hub, dialect="centrifuge")
    commands = [
        {"id": 1, "connect": {"token": "ann"}},
        {"id": 2, "subscribe": {"channel": "team"}},
        *({"id": number, "publish": {"channel": "team", "data": number}} for number in (3, 4)),
    ]
    peer.send("\n".join(map(json.dumps, commands)))
    for _ in range(3):
        await settle(hub)
    info = {"user": "ann", "client": "ann", "chan_info": {"asked": 1}}
    assert [pub["info"] for pub in published(peer)] == [info, info]
    joins = [line["push"]["join"] for line in lines(peer) if "join" in line.get("push", {})]
    assert joins == [{"info": info}]
    (answer,) = await say(peer, hub, presence={"channel": "team"})
    assert answer["presence"]["presence"] == {"ann": info}
    await say(peer, hub, unsubscribe={"channel": "team"})
    await say(peer, hub, subscribe={"channel": "team"})
    await say(peer, hub, publish={"channel": "team", "data": 5})
    (answer,) = await say(peer, hub, presence={"channel": "team"})
    again = {**info, "chan_info": {"asked": 2}}
    assert published(peer)[-1]["info"] == answer["presence"]["presence"]["ann"] == again
    assert asked == ["ann", "ann"]
    await hub.stop()


async def test_who_leaves_and_comes_within_a_turn_is_shown_as_it_came_last() -> None:
    hub = await with_rooms()
    answers = iter("ab")
    hub.presence_info(lambda client, room: next(answers))
    ann = connect(hub, user="ann", client_id="a")
    ann.client.join("team")
    await settle(hub)
    ann.client.leave("team")
    ann.client.join("team")
    assert seen(hub, ann.client, "team").info == "b"
    await settle(hub)
    assert (await hub.presence("team"))["a"].info == "b"
    await hub.stop()


async def test_the_infos_of_members_are_the_same_objects_in_presence() -> None:
    """So a crowd without infos of its own costs one for each client, not one for each room."""
    hub = Hub(room_rules=[RoomRules("*", presence=True)])
    await hub.start()
    ann = connect(hub, user="ann", info=[1])
    for room in ("red", "blue"):
        ann.client.join(room)
    await asyncio.sleep(0)
    await settle(hub)
    (red,), (blue,) = [(await hub.presence(room)).values() for room in ("red", "blue")]
    assert red is blue
    assert red is seen(hub, ann.client)
    await hub.stop()
