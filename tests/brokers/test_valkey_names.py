"""Names: whatever a room is called, its keys and channels are its own."""

from __future__ import annotations

import itertools
import re

from hubbub.brokers.valkey_connections import slot_of
from hubbub.brokers.valkey_names import Names

ROOMS = [
    "",
    "%",
    "%25",
    "a",
    "a:s",
    "a}b",
    "{a}",
    "{",
    "}{",
    "*",
    "a b",
    "a\nb",
    "ä",
    "@ann",
    "control",
    "r:a",
]


def test_no_room_has_a_key_or_a_channel_of_another() -> None:
    names = Names("shop")
    for one, other in itertools.combinations(ROOMS, 2):
        for kind in ("h", "s", "k:"):
            assert names.key(one, kind, "x") != names.key(other, kind, "x")
        assert names.channel(one) != names.channel(other)
    assert names.control not in {names.channel(room) for room in ROOMS}


def test_all_keys_of_a_room_are_in_one_slot_and_those_of_others_are_not() -> None:
    names = Names("shop")
    for room in ROOMS:
        keys = [names.key(room, kind, more) for kind in "hs" for more in ("", "}", "{x}", "\ud800")]
        (tag,) = {re.search(r"\{(.*?)\}", key)[1] for key in keys}  # type: ignore[index]
        assert tag
        assert len(set(keys)) == len(keys)


def test_a_text_that_is_no_utf_8_is_one_too() -> None:
    names = Names("shop")
    assert names.key("\ud800", "h") == "shop:{%ED%A0%80}:h"
    assert names.channel("\ud800") == b"shop:r:\xed\xa0\x80"


def test_applications_share_nothing() -> None:
    one, other = Names("shop"), Names("shop2")
    assert one.mark != other.mark
    assert one.control != other.control
    assert one.channel("2:r:a") != other.channel("a")


def test_channels_of_each_database_are_its_own_since_the_server_has_them_for_all() -> None:
    all_names = [Names("shop", database=number) for number in range(3)]
    assert len({names.control for names in all_names}) == 3
    assert len({names.channel("a") for names in all_names}) == 3
    assert len({names.mark for names in all_names}) == 1
    assert all_names[0].control == b"shop:control"


def test_in_a_cluster_a_channel_is_in_the_slot_of_the_rooms_keys() -> None:
    names = Names("shop", is_sharded=True)
    channels = [names.channel(room) for room in ROOMS]
    assert len(set(channels)) == len(ROOMS)
    for room, channel in zip(ROOMS, channels, strict=True):
        slots = {slot_of(names.key(room, kind, "x").encode()) for kind in ("h", "s", "n:", "p:")}
        assert slots == {slot_of(channel)}
        assert channel not in {names.key(room, kind, "").encode() for kind in ("h", "s")}
    mark = names.mark_in(lambda key: slot_of(key) < 1000)
    assert slot_of(mark.encode()) < 1000
    assert mark.startswith("shop:mark:")
