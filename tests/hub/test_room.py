"""Rooms: the table of who is where, policies by name, and what an application holds in its hand."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from hubbub import CommandError, Hub, Receipt, SettingsError
from hubbub.hub.room import RoomTable
from hubbub.hub.session import ClientSession
from hubbub.testing import connect, settle

pytestmark = pytest.mark.anyio


class Member:
    """What a room has to know of a member."""

    def __init__(self, variant: str = "plain") -> None:
        self.variant = variant


def clients(count: int, variant: str = "plain") -> list[ClientSession]:
    return [cast(ClientSession, Member(variant)) for _ in range(count)]


def test_an_empty_room_has_no_entry() -> None:
    rooms = RoomTable("disconnect", {})
    first, second = clients(2)
    red = rooms.add(first, "red")
    assert rooms.add(second, "red") is red
    assert rooms.add(second, "red") is red
    assert (len(rooms), rooms.sizes(), rooms.get("red")) == (1, {"red": 2}, red)
    rooms.remove(first, red)
    rooms.remove(first, red)
    assert rooms.sizes() == {"red": 1}
    rooms.remove(second, red)
    assert (len(rooms), rooms.sizes(), rooms.get("red")) == (0, {}, None)


def test_fault_32_rooms_may_be_counted_in_any_thread_while_they_come_and_go() -> None:
    """The guides read `hub.rooms` and `hub.stats()` in plain routes, which run in threads."""
    rooms = RoomTable("disconnect", {})
    (client,) = clients(1)
    for number in range(3000):
        rooms.add(client, f"old {number}")
    failures: list[str] = []
    is_over = threading.Event()

    def count() -> None:
        while not is_over.is_set():
            try:
                assert len(rooms.sizes()) >= 3000
            except RuntimeError as error:
                failures.append(str(error))

    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    counter = threading.Thread(target=count)
    counter.start()
    try:
        for number in range(3000):
            rooms.add(client, f"new {number}")
    finally:
        is_over.set()
        counter.join()
        sys.setswitchinterval(switch_s)
    assert failures == []


def test_an_old_record_of_a_room_does_not_strike_out_the_new_one() -> None:
    rooms = RoomTable("disconnect", {})
    first, second = clients(2)
    old = rooms.add(first, "red")
    rooms.remove(first, old)
    new = rooms.add(second, "red")
    rooms.remove(first, old)
    assert rooms.get("red") is new
    assert repr(new) == "<Membership 'red': 1>"
    rooms.clear()
    assert len(rooms) == 0


def test_the_rooms_of_everybody_and_of_users_are_not_shown() -> None:
    rooms = RoomTable("disconnect", {})
    (client,) = clients(1)
    everybody = rooms.add(client, "")
    rooms.add(client, "@ann")
    rooms.add(client, "red")
    assert rooms.sizes() == {"red": 1}
    assert len(rooms) == 3
    assert "everybody" in repr(everybody)


def test_the_longest_match_decides_a_policy() -> None:
    rooms = RoomTable(
        "disconnect",
        {"*": "drop_newest", "cursor:*": "latest", "cursor:log": "disconnect", "a": "drop_oldest"},
    )
    expected = {
        "red": "drop_newest",
        "cursor:1": "latest",
        "cursor:log": "disconnect",
        "cursor:log2": "latest",
        "a": "drop_oldest",
        "ab": "drop_newest",
        "": "disconnect",
    }
    assert {room: rooms.policy_of(room) for room in expected} == expected
    assert rooms.add(clients(1)[0], "cursor:1").policy == "latest"


@pytest.mark.parametrize("pattern", ["a*b", "**", "*x*", ""])
def test_a_pattern_is_a_name_or_a_prefix(pattern: str) -> None:
    with pytest.raises(SettingsError, match="prefix"):
        RoomTable("disconnect", {pattern: "latest"})


def test_an_unknown_policy_is_refused_with_its_room() -> None:
    with pytest.raises(SettingsError, match="red") as error:
        Hub(slow_policies={"red": cast(Any, "newest")})
    assert error.value.field == "slow_policies"


async def test_s21_a_room_is_a_name_and_its_members() -> None:
    hub = Hub()
    room = hub.room("red")
    assert (room.name, len(room), list(room), bool(room)) == ("red", 0, [], True)
    assert repr(room) == "<Room 'red'>"
    await hub.start()
    ann, bob, eve = connect(hub), connect(hub), connect(hub)
    ann.client.join("red")
    bob.client.join("red")
    assert len(room) == 2
    assert list(room) == [ann.client, bob.client]
    assert ann.client in room
    assert eve.client not in room
    assert "ann" not in room
    room.broadcast("1")
    room.broadcast("2", exclude=ann.client)
    assert await room.publish("3") == Receipt(2)
    assert await room.publish("4", exclude=bob.client) == Receipt(1)
    assert await room.publish("5", exclude=eve.client) == Receipt(2)
    await settle(hub)
    assert ann.received == ["1", "3", "4", "5"]
    assert bob.received == ["1", "2", "3", "5"]
    assert eve.received == []
    assert hub.rooms == {"red": 2}
    ann.close()
    bob.client.leave("red")
    assert (hub.rooms, hub.stats()["rooms"], len(room)) == ({}, 0, 0)
    await hub.stop()


async def test_a_user_without_a_name_in_utf_8_is_an_error() -> None:
    hub = Hub()
    await hub.start()
    verbs: list[Callable[[str], object]] = [hub.to_user, hub.clients_of, hub.disconnect]
    for verb in verbs:
        with pytest.raises(ValueError, match="half of a surrogate pair"):
            verb("\ud800")
    await hub.stop()


async def test_s21_a_user_is_all_of_the_users_clients() -> None:
    hub = Hub()
    await hub.start()
    phone, laptop = connect(hub, user="ann"), connect(hub, user="ann")
    other = connect(hub, user="annabel")
    user = hub.to_user("ann")
    assert user.name == "ann"
    assert repr(user) == "<User '@ann'>"
    assert list(user) == [phone.client, laptop.client] == hub.clients_of("ann")
    user.send({"n": 1})
    hub.to_user("nobody").send("x")
    await settle(hub)
    assert phone.json() == laptop.json() == [{"n": 1}]
    assert other.received == []
    phone.close()
    assert hub.clients_of("ann") == [laptop.client]
    assert phone.client.rooms == frozenset()
    await hub.stop()


@pytest.mark.parametrize("name", ["", "@ann", "a\n", "x" * 257])
def test_names_that_no_room_has(name: str) -> None:
    with pytest.raises(CommandError):
        Hub().room(name)


def test_members_are_parted_by_variant_when_they_come_and_not_before_there_are_two() -> None:
    rooms = RoomTable("disconnect", {})
    first, second = clients(2)
    (other,) = clients(1, "array")
    red = rooms.add(first, "red")
    rooms.add(second, "red")
    ((variant, part),) = red.by_variant()
    assert str(variant) == "plain"
    assert (part, red.parts) == ([first, second], None), "one form needs no second table"
    rooms.add(other, "red")
    assert {str(v): list(p) for v, p in red.by_variant()} == {
        "plain": [first, second],
        "array": [other],
    }
    assert list(red.sessions) == [first, second, other], "the order of joining is kept"
    rooms.remove(first, red)
    rooms.remove(first, red)
    assert {str(v): list(p) for v, p in red.by_variant()} == {"plain": [second], "array": [other]}
    rooms.remove(other, red)
    ((variant, part),) = red.by_variant()
    assert (str(variant), list(part)) == ("plain", [second])
    rooms.remove(second, red)
    assert list(red.by_variant()) == []
