"""Patches: whoever takes them makes the same messages of them as all others get, whatever happens."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from hubbub import Hub, RoomRules, SettingsError
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.testing import MemoryClient, connect, settle
from hubbub.wire.fossil import apply_delta, fossil_delta

pytestmark = pytest.mark.anyio

RULES = [
    RoomRules("doc:*", history=500, delta=True, presence=True, join_leave=True),
    RoomRules("plain:*", history=500),
]


class Reader:
    """A client of the Centrifuge protocol. `texts` has what it was sent of each room, as JSON, in order;
    `patches` counts what came as a patch."""

    def __init__(self, hub: Hub, *, delta: bool) -> None:
        self.hub = hub
        self.delta = delta
        self.texts: dict[str, list[Any]] = {}
        self.patches = 0
        self.memory: MemoryClient = connect(hub, dialect="centrifuge")
        self._taken = 0
        self._last_id = 1
        self._asked: dict[int, str] = {}
        self._granted: dict[str, bool] = {}
        self._base: dict[str, bytes] = {}
        self.positions: dict[str, dict[str, Any]] = {}
        self.memory.send('{"id":1,"connect":{}}')

    def subscribe(self, room: str, *, recover: bool = False) -> None:
        place = {"recover": True, **self.positions[room]} if recover else {}
        self._ask(
            room,
            subscribe={"channel": room, **place, **({"delta": "fossil"} if self.delta else {})},
        )

    def unsubscribe(self, room: str) -> None:
        self._ask(room, unsubscribe={"channel": room})

    def _ask(self, room: str, **command: Any) -> None:
        self._last_id += 1
        self._asked[self._last_id] = room
        self.memory.send(json.dumps({"id": self._last_id, **command}))

    def read(self) -> None:
        """Take what has come as an SDK does."""
        lines = [line for each in self.memory.received for line in str(each).split("\n")]
        for line in lines[self._taken :]:
            message = json.loads(line)
            push = message.get("push", {})
            if "subscribe" in message:
                self._subscribed(self._asked[message["id"]], message["subscribe"])
            elif "pub" in push:
                self._take(push["channel"], push["pub"])
        self._taken = len(lines)

    def _subscribed(self, room: str, answer: dict[str, Any]) -> None:
        self._granted[room] = answer.get("delta", False)
        self.positions[room] = {"offset": answer["offset"], "epoch": answer["epoch"]}
        for each in answer.get("publications", ()):
            self._take(room, each)

    def _take(self, room: str, publication: dict[str, Any]) -> None:
        data = publication["data"]
        if self._granted[room]:
            made = data.encode()
            if publication.get("delta"):
                self.patches += 1
                made = apply_delta(self._base[room], made, max_bytes=2**20)
            self._base[room] = made
            data = json.loads(made)
        else:
            assert "delta" not in publication
        self.positions[room]["offset"] = publication["offset"]
        self.texts.setdefault(room, []).append(data)


def document(number: int) -> dict[str, Any]:
    return {"number": number, "body": "all that stays as it is: äöü € 𝄞 " * 10}


async def started(**settings: Any) -> Hub:
    hub = Hub(room_rules=RULES, **settings)
    await hub.start()
    return hub


async def reading(hub: Hub, *readers: Reader) -> None:
    for _ in range(3):
        await settle(hub)
    for reader in readers:
        reader.read()


async def test_what_resembles_the_message_before_it_comes_as_a_patch() -> None:
    hub = await started()
    patched, whole = Reader(hub, delta=True), Reader(hub, delta=False)
    for reader in (patched, whole):
        reader.subscribe("doc:1")
    await settle(hub)
    sizes = []
    for number in range(5):
        before = hub.stats()["bytes_out"]
        await hub.publish("doc:1", document(number))
        await reading(hub, patched, whole)
        sizes.append(hub.stats()["bytes_out"] - before)
    assert patched.texts == whole.texts == {"doc:1": [document(number) for number in range(5)]}
    assert (patched.patches, whole.patches) == (4, 0)
    assert sizes[1] < 0.7 * sizes[0], "half of the clients got next to nothing"
    await hub.stop()


async def test_a_patch_is_made_once_for_all_who_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bytes] = []

    def counted(base: bytes, target: bytes) -> bytes | None:
        calls.append(target)
        return fossil_delta(base, target)

    monkeypatch.setattr("hubbub.dialects.centrifuge_events.fossil_delta", counted)
    hub = await started()
    readers = [Reader(hub, delta=True) for _ in range(20)]
    for reader in readers:
        reader.subscribe("doc:1")
    await settle(hub)
    for number in range(4):
        await hub.publish("doc:1", document(number))
        await settle(hub)
    await reading(hub, *readers)
    assert [reader.patches for reader in readers] == [3] * 20
    assert len(calls) == 3
    await hub.stop()


async def test_a_room_without_such_a_rule_has_none() -> None:
    hub = await started()
    reader = Reader(hub, delta=True)
    reader.subscribe("plain:1")
    await settle(hub)
    for number in range(3):
        await hub.publish("plain:1", document(number))
    await reading(hub, reader)
    assert (len(reader.texts["plain:1"]), reader.patches) == (3, 0)
    await hub.stop()


async def test_one_who_comes_back_gets_strings_and_then_patches() -> None:
    hub = await started()
    reader = Reader(hub, delta=True)
    reader.subscribe("doc:1")
    await settle(hub)
    await hub.publish("doc:1", document(0))
    await reading(hub, reader)
    reader.unsubscribe("doc:1")
    await settle(hub)
    for number in range(1, 4):
        await hub.publish("doc:1", document(number))
    reader.subscribe("doc:1", recover=True)
    await reading(hub, reader)
    for number in range(4, 7):
        await hub.publish("doc:1", document(number))
        await reading(hub, reader)
    assert reader.texts["doc:1"] == [document(number) for number in range(7)]
    assert reader.patches == 2
    await hub.stop()


async def test_what_is_too_long_is_sent_whole() -> None:
    hub = await started()
    reader = Reader(hub, delta=True)
    reader.subscribe("doc:1")
    await settle(hub)
    for text in ("x" * 70_000, "x" * 70_001, "x" * 1000):
        await hub.publish("doc:1", text)
    await reading(hub, reader)
    assert (len(reader.texts["doc:1"]), reader.patches) == (3, 0)
    await hub.stop()


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_happens_the_messages_are_the_same(seed: int) -> None:
    """Joins, leaves, exclusions, several rooms and messages of one's own in one turn of the event loop."""
    draw = random.Random(seed)
    hub = await started(slow_policy=draw.choice(["disconnect", "drop_oldest"]))
    rooms = ["doc:1", "doc:2", "doc:3"]
    readers = [Reader(hub, delta=draw.random() < 0.7) for _ in range(6)]
    await settle(hub)
    expected: dict[tuple[Reader, str], list[Any]] = {
        (r, room): [] for r in readers for room in rooms
    }
    for number in range(150):
        room = draw.choice(rooms)
        reader = draw.choice(readers)
        is_in = room in reader.memory.client.rooms
        what = draw.random()
        if what < 0.15:
            (reader.unsubscribe if is_in else reader.subscribe)(room)
        elif what < 0.25:
            reader.memory.client.send({"direct": number})
        elif what < 0.4:
            await settle(hub)
        else:
            excluded = reader.memory.client if what > 0.85 else None
            members = members_of(readers, room)
            await hub.publish(room, document(number), exclude=excluded)
            for each in members:
                if each.memory.client is not excluded:
                    expected[each, room].append(document(number))
    await reading(hub, *readers)
    for (reader, room), texts in expected.items():
        assert reader.texts.get(room, []) == texts
    for reader in readers:
        for room in reader.memory.client.rooms:
            reader.memory.client.leave(room)
    assert not [each for each in core_of(hub).registry.memberships() if each.patches is not None]
    await hub.stop()


def members_of(readers: Sequence[Reader], room: str) -> list[Reader]:
    return [each for each in readers if room in each.memory.client.rooms]


async def test_a_slow_client_misses_nothing() -> None:
    hub = await started(slow_policy="drop_oldest", outbox_max_entries=2)
    reader = Reader(hub, delta=True)
    reader.subscribe("doc:1")
    await settle(hub)
    await hub.publish("doc:1", document(0))
    await reading(hub, reader)
    reader.memory.transport.block()
    for number in range(1, 9):
        await hub.publish("doc:1", document(number))
        await settle(hub)
    reader.memory.transport.unblock()
    await reading(hub, reader)
    assert "doc:1" not in reader.memory.client.rooms, "it was told, and comes back"
    reader.subscribe("doc:1", recover=True)
    await settle(hub)
    await hub.publish("doc:1", document(9))
    await reading(hub, reader)
    assert reader.texts["doc:1"] == [document(number) for number in range(10)]
    assert session_of(reader.memory.client).behind is None
    await hub.stop()


def test_a_rule_that_cannot_have_patches() -> None:
    with pytest.raises(SettingsError, match="delta needs recover=True and a history"):
        RoomRules("a", delta=True)
    with pytest.raises(SettingsError, match="delta"):
        RoomRules("a", history=5, stream=True, delta=True)
    with pytest.raises(SettingsError, match="slow_policy"):
        RoomRules("a", history=5, cache=True, delta=True, slow_policy="latest")
