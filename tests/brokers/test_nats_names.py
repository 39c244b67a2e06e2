"""Names: whatever a room is called, its subjects are its own."""

from __future__ import annotations

import itertools

from hubbub.brokers.nats_names import LONGEST_TOKEN, NatsNames

ROOMS = ["", "%", "%25", "a", "a.b", "a.*", "*", ">", "a b", "a\nb", "a\r\nPUB x 0", "ä", "𝄞", "@ann", "$JS", "control"]  # fmt: skip


def subjects(names: NatsNames, room: str) -> list[str]:
    return [
        names.room(room),
        names.history(room),
        names.keyed(room),
        names.presence(room),
        names.note(room),
    ]


def test_no_room_has_a_subject_of_another_nor_a_wildcard() -> None:
    names = NatsNames("shop")
    for one, other in itertools.combinations(ROOMS, 2):
        assert not set(subjects(names, one)) & set(subjects(names, other))
    for room in ROOMS:
        for subject in (*subjects(names, room), names.control, names.format, names.inbox):
            assert subject.isascii()
            assert not set(subject) & set("*> \r\n\t\0")
            assert all(subject.split("."))
            assert subject.split(".")[0] == "shop"
        assert not {names.control, names.format, names.inbox} & set(subjects(names, room))
        assert [len(each.split(".")) for each in subjects(names, room)] == [3, 4, 4, 3, 3]


def test_a_long_name_is_short_and_its_own() -> None:
    names = NatsNames("shop")
    long = ["ä" * 5000, "ä" * 5001, "%%" * 3000]
    assert len({names.room(room) for room in long}) == 3
    assert all(len(names.room(room)) < LONGEST_TOKEN for room in long)
    assert names.room(names.room(long[0]).rpartition(".")[2]) != names.room(long[0])


def test_applications_share_nothing() -> None:
    one, other = NatsNames("shop"), NatsNames("shop.r")
    assert one.control != other.control
    for room in ROOMS:
        assert not set(subjects(one, room)) & set(subjects(other, "control"))
    assert one.stream("rooms") != other.stream("rooms") != other.stream("presence")
    assert NatsNames("a.b:c").stream("rooms") == "hubbub_a=2Eb=3Ac_rooms"


def test_a_key_is_of_one_room() -> None:
    names = NatsNames("shop")
    pairs = [
        ("a", "b"),
        ("b", "a"),
        ("a\0", "b"),
        ("a", "\0b"),
        ("a", "\0\0b"),
        ("", "ab"),
        ("ab", ""),
        ("1", "1:1"),
    ]
    assert len({names.unique(*pair) for pair in pairs}) == len(pairs)
