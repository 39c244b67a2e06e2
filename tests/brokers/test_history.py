"""The history of rooms in memory: positions, what is lost and when, and that it is bounded."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hubbub import ClientInfo, Frame, Position, PositionLost, Publication
from hubbub.brokers import history as history_module
from hubbub.brokers.broker import KEY_TTL_S, UNUSED_TTL_S, Keep
from hubbub.brokers.history import (
    BARE_TTL_S,
    ENTRY_BYTES,
    MOST_LOOKED_AT,
    RENEW_S,
    ROOM_BYTES,
    Entry,
    HistoryStore,
)

MIB = 1024**2
FIVE = Keep(entries=5, ttl_s=60.0, max_bytes=MIB)


def store(max_bytes: int = MIB) -> HistoryStore:
    return HistoryStore(max_bytes)


def add(
    kept: HistoryStore, room: str, *texts: str, keep: Keep = FIVE, now: float = 0.0
) -> Position:
    for text in texts:
        publication = Publication(room, Frame(text.encode(), True), "node.7", time_ms=5)
        position = kept.add(publication, keep, now)
        assert publication.position == position, "who publishes has it in hand"
    return position


def texts(publications: Sequence[Publication]) -> list[str]:
    return [publication.data.decode() for publication in publications]


def test_publications_have_offsets_from_one_within_an_epoch() -> None:
    kept = store()
    first, second = add(kept, "red", "a"), add(kept, "red", "b")
    assert (first.offset, second.offset) == (1, 2)
    assert first.epoch == second.epoch
    assert add(kept, "blue", "x").epoch != first.epoch
    page = kept.read("red", 0.0)
    assert texts(page.publications) == ["a", "b"]
    assert page.position == second
    assert [each.position for each in page.publications] == [first, second]
    one = page.publications[0]
    assert (one.room, one.is_text, one.exclude, one.time_ms) == ("red", True, "node.7", 5)


def test_who_asks_before_anything_was_published_has_missed_nothing() -> None:
    kept = store()
    start = kept.read("red", 0.0).position
    assert start.offset == 0
    add(kept, "red", "a")
    assert texts(kept.read("red", 0.0, since=start).publications) == ["a"]


@pytest.mark.parametrize(
    ("since", "limit", "reverse", "expected"),
    [
        (None, None, False, "cdefg"),
        (None, 2, False, "cd"),
        (None, 0, False, ""),
        (None, 99, False, "cdefg"),
        (2, None, False, "cdefg"),
        (4, None, False, "efg"),
        (4, 1, False, "e"),
        (7, None, False, ""),
        (None, None, True, "gfedc"),
        (None, 2, True, "gf"),
        (5, None, True, "dc"),
        (5, 1, True, "d"),
        (3, None, True, ""),
        (1, None, True, ""),
    ],
)
def test_a_part_is_read(since: int | None, limit: int | None, reverse: bool, expected: str) -> None:
    kept = store()
    top = add(kept, "red", *"abcdefg")
    start = None if since is None else Position(since, top.epoch)
    page = kept.read("red", 0.0, since=start, limit=limit, reverse=reverse)
    assert "".join(texts(page.publications)) == expected
    assert page.position == top


def test_a_part_is_never_given_as_if_it_were_all() -> None:
    kept = store()
    top = add(kept, "red", *"abcdefg")
    with pytest.raises(PositionLost, match="not kept any more") as caught:
        kept.read("red", 0.0, since=Position(1, top.epoch))
    assert not caught.value.is_other_epoch
    for strange in (Position(3, "other"), Position(8, top.epoch)):
        with pytest.raises(PositionLost, match="began anew") as caught:
            kept.read("red", 0.0, since=strange)
        assert caught.value.is_other_epoch
        assert isinstance(caught.value, LookupError)


def test_a_room_that_is_removed_begins_a_new_epoch() -> None:
    kept = store()
    old = add(kept, "red", "a", "b")
    kept.remove("red", 0.0)
    kept.remove("nobody's", 0.0)
    assert (kept.entries, kept.nbytes) == (0, 0)
    with pytest.raises(PositionLost):
        kept.read("red", 0.0, since=old)
    assert add(kept, "red", "c") == Position(1, kept.read("red", 0.0).position.epoch)


def test_entries_go_by_number_by_bytes_and_by_age() -> None:
    kept = store()
    by_bytes = Keep(entries=100, ttl_s=60.0, max_bytes=10)
    add(kept, "red", "aaaa", "bbbb", "cccc", keep=by_bytes)
    assert texts(kept.read("red", 0.0).publications) == ["bbbb", "cccc"]
    add(kept, "blue", "old", now=0.0)
    add(kept, "blue", "new", now=30.0)
    assert texts(kept.read("blue", 59.9).publications) == ["old", "new"]
    page = kept.read("blue", 60.0)
    assert (texts(page.publications), page.position.offset) == (["new"], 2)


def test_a_message_that_is_too_large_is_not_kept_and_moves_the_position() -> None:
    kept = store()
    small = Keep(entries=5, ttl_s=60.0, max_bytes=3)
    first = add(kept, "red", "ok", keep=small)
    top = add(kept, "red", "too large", keep=small)
    assert top.offset == 2
    assert kept.entries == 0
    assert kept.read("red", 0.0, since=top).publications == []
    with pytest.raises(PositionLost):
        kept.read("red", 0.0, since=first)


def test_all_rooms_together_are_bounded_and_the_most_silent_loses_first() -> None:
    kept = store(max_bytes=10 * (ENTRY_BYTES + 10) + 2 * ROOM_BYTES)
    for number, room in enumerate(["silent", "busy"]):
        add(kept, room, *["x" * 10] * 5, now=float(number))
    assert kept.entries == 10
    add(kept, "busy", "y" * 10, "y" * 10, now=2.0)  # which loses two of its own, and two are left
    assert (len(kept.read("silent", 2.0).publications), kept.entries) == (5, 10)
    add(kept, "busy", "z" * 10, keep=Keep(9, 60.0, MIB), now=3.0)
    assert len(kept.read("silent", 3.0).publications) == 4
    add(kept, "third", "z" * 10, now=4.0)  # and a room costs more than its messages
    assert (len(kept.read("silent", 4.0).publications), kept.entries) == (0, 7)
    assert kept.nbytes <= kept.max_bytes


def test_a_room_without_publications_keeps_its_position_for_a_day_and_then_vanishes() -> None:
    kept = store()
    top = add(kept, "red", "a", now=0.0)
    kept.sweep(60.0)
    assert (kept.entries, kept.rooms, kept.nbytes) == (0, 1, 0)
    assert kept.read("red", 61.0, since=top).publications == []
    kept.sweep(BARE_TTL_S - 1)
    assert kept.rooms == 1
    kept.sweep(BARE_TTL_S)
    assert kept.rooms == 0
    assert not kept.is_in_use


def test_rooms_of_several_ages_are_swept_each_in_its_time() -> None:
    kept = store()
    short, long = (Keep(5, ttl_s, MIB) for ttl_s in (10.0, 1000.0))
    add(kept, "long", "a", keep=long, now=0.0)
    for number in range(20):
        add(kept, f"short {number}", "b", keep=short, now=1.0)
    kept.sweep(11.0)
    assert kept.entries == 1
    assert texts(kept.read("long", 11.0).publications) == ["a"]


def test_positions_alone_are_bounded_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "MOST_BARE", 3)
    kept = store()
    for number in range(10):
        kept.read(str(number), 0.0)
    assert kept.rooms == 3


def test_the_position_of_a_room_with_members_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "MOST_BARE", 3)
    members = {"red", "blue"}
    kept = HistoryStore(MIB, members.__contains__)
    red, blue = (kept.read(room, 0.0).position for room in ("red", "blue"))
    for number in range(50):
        kept.read(str(number), 1.0)
    assert kept.rooms == 3
    kept.sweep(BARE_TTL_S + 1)
    assert (kept.rooms, kept.read("red", BARE_TTL_S + 1).position) == (2, red)
    members.clear()
    kept.sweep(2 * BARE_TTL_S + 1)
    assert kept.rooms == 0
    assert kept.read("blue", 2 * BARE_TTL_S).position.epoch != blue.epoch


@pytest.mark.parametrize("is_used", [True, False])
def test_the_position_of_a_room_stays_for_a_while_after_its_last_member(is_used: bool) -> None:
    ttl_s = BARE_TTL_S if is_used else UNUSED_TTL_S
    members = {"red"}
    kept = HistoryStore(MIB, members.__contains__)
    for room in ("red", "blue"):
        if is_used:
            add(kept, room, "a", keep=Keep(5, 1.0, MIB))
    red, blue = (kept.read(room, 1.0).position for room in ("red", "blue"))
    now = 1.0
    while now < 1.8 * ttl_s:
        now += RENEW_S / 2
        kept.sweep(now)
    members.clear()
    now += 0.7 * ttl_s
    kept.sweep(now)
    assert kept.read("red", now).position == red
    assert kept.read("blue", now).position.epoch != blue.epoch, "nobody was in that"
    kept.sweep(now := now + 2 * ttl_s)
    assert kept.rooms == 0


def test_a_room_that_never_had_a_publication_has_a_position_for_a_while() -> None:
    kept = store()
    cursor = kept.read("red", 0.0).position
    assert kept.read("red", 100.0).position == cursor
    kept.sweep(UNUSED_TTL_S + 99)
    add(kept, "red", "a", now=UNUSED_TTL_S + 99)
    assert texts(kept.read("red", UNUSED_TTL_S + 99, since=cursor).publications) == ["a"]
    kept.read("blue", 0.0)
    kept.sweep(UNUSED_TTL_S)
    assert kept.rooms == 1


def test_names_that_somebody_invents_take_no_position_of_a_room_that_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history_module, "MOST_BARE", 3)
    kept = store()
    tops = {room: add(kept, room, "a") for room in ("red", "blue", "green")}
    kept.sweep(60.0)
    for number in range(50):
        kept.read(str(number), 61.0)
        kept.sweep(61.0)
    assert {room: kept.read(room, 61.0).position for room in tops} == tops
    assert kept.rooms == 6
    for number in range(50):
        add(kept, str(number), "x" * 10, keep=Keep(5, 60.0, 1), now=61.0)
    assert kept.rooms <= 7, "the used are bounded too"


def test_of_many_rooms_with_members_few_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "MOST_BARE", 3)
    looked_at: list[str] = []

    def has_members(room: str) -> bool:
        looked_at.append(room)
        return True

    kept = HistoryStore(MIB, has_members)
    for number in range(100):
        kept.read(str(number), 0.0)
    assert kept.rooms == 100, "who is in a room keeps it"
    assert len(looked_at) <= 97 * MOST_LOOKED_AT


def test_a_key_is_known_for_five_minutes() -> None:
    assert KEY_TTL_S == 300
    kept = store()
    kept.note_key("red", "k", Position(1, "e"), 0.0)
    assert kept.seen("red", "k", KEY_TTL_S - 0.1) == (Position(1, "e"),)
    assert kept.seen("red", "k", KEY_TTL_S) is None
    assert kept.seen("blue", "k", 0.0) is None
    assert kept.seen("red", "other", 0.0) is None
    kept.sweep(KEY_TTL_S)
    assert not kept.is_in_use


def test_keys_are_bounded_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "MOST_KEYS", 2)
    kept = store()
    for key in "abc":
        kept.note_key("red", key, None, 0.0)
    assert [kept.seen("red", key, 0.0) for key in "abc"] == [None, (None,), (None,)]


def test_who_asks_for_the_same_shares_what_was_made_of_it() -> None:
    kept = store()
    add(kept, "red", "a", "b")
    once, again = (kept.read("red", 0.0).publications for _ in range(2))
    assert all(one is other for one, other in zip(once, again, strict=True))
    kept.let_go()
    assert kept.read("red", 0.0).publications[0] is not once[0]


def test_who_published_an_entry_is_kept_and_counted() -> None:
    kept = store()
    ann = ClientInfo("c1", "ann", {"n": 1}, "x" * 100)
    for publisher in (ann, None):
        kept.add(Publication("red", Frame(b"hi", True), publisher=publisher), FIVE, 0.0)
    found = kept.read("red", 0.0).publications
    assert [each.publisher for each in found] == [ann, None]
    with_publisher = kept.nbytes - 2 * ENTRY_BYTES - ROOM_BYTES - 2 * len(b"hi")
    assert 100 < with_publisher < 250
    for _ in range(5):
        add(kept, "red", "hi")
    assert kept.nbytes == 5 * (ENTRY_BYTES + len(b"hi")) + ROOM_BYTES, "it is gone with its entry"


def test_what_is_said_of_publishers_counts_towards_the_bounds() -> None:
    kept = store()
    ann = ClientInfo("c1", "ann", "x" * 1000)
    for _ in range(5):
        kept.add(Publication("red", Frame(b"hi", True), publisher=ann), Keep(5, 60.0, 2500), 0.0)
    assert len(kept.read("red", 0.0).publications) == 2


@pytest.mark.parametrize("publisher", [None, ClientInfo("c1", "ann", "x" * 300)], ids=["no", "yes"])
def test_an_entry_costs_no_more_than_is_counted(publisher: ClientInfo | None) -> None:
    publication = Publication(
        "red", Frame(b"", True), "name", time_ms=1_700_000_000_000, publisher=publisher
    )
    entry = Entry.of(publication, 123.5)
    own: list[object] = [entry, entry.payload, entry.time_ms, entry.kept_at]
    if entry.publisher is not None:
        own.append(entry.publisher)
    place = 2 * 8  # in the deque, whose blocks are not always full
    assert sum(map(sys.getsizeof, own)) + place <= ENTRY_BYTES + entry.nbytes


class Model(RuleBasedStateMachine):
    """The store against a list for each room that nothing is ever lost from."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = store(max_bytes=3000 + 2 * ROOM_BYTES)
        self.now = 0.0
        self.published: dict[str, list[tuple[Position, str]]] = {}

    @rule(room=st.sampled_from("ab"), size=st.integers(0, 400), entries=st.integers(1, 6))
    def publish(self, room: str, size: int, entries: int) -> None:
        text = f"{len(self.published.get(room, ()))}".ljust(size, ".")
        keep = Keep(entries, 20.0, 900)
        self.published.setdefault(room, []).append(
            (add(self.kept, room, text, keep=keep, now=self.now), text)
        )

    @rule(seconds=st.floats(0.0, 30.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def sweep(self) -> None:
        self.kept.sweep(self.now)

    @rule(room=st.sampled_from("ab"))
    def remove(self, room: str) -> None:
        self.kept.remove(room, self.now)

    @precondition(lambda self: any(self.published.values()))
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        """Whoever comes back gets all that followed, or is told that it cannot have that."""
        room = data.draw(st.sampled_from(sorted(self.published)))
        known = self.published[room]
        number = data.draw(st.integers(0, len(known) - 1))
        since = known[number][0]
        owed = [(position, text) for position, text in known[number + 1 :]]
        now = self.kept.read(room, self.now)
        first = now.position.offset - len(now.publications)
        if now.position.epoch == since.epoch and since.offset >= first:
            page = self.kept.read(room, self.now, since=since)
            assert [(each.position, each.data.decode()) for each in page.publications] == owed
        else:
            with pytest.raises(PositionLost) as caught:
                self.kept.read(room, self.now, since=since)
            assert caught.value.is_other_epoch == (now.position.epoch != since.epoch)

    @invariant()
    def it_is_bounded_and_counted(self) -> None:
        assert self.kept.nbytes <= self.kept.max_bytes
        pages = [self.kept.read(room, self.now).publications for room in "ab"]
        found = [each for page in pages for each in page]
        assert self.kept.entries == len(found)
        own = sum(len(each.data) + ENTRY_BYTES for each in found)
        assert self.kept.nbytes == own + ROOM_BYTES * sum(map(bool, pages))


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_what_is_too_large_for_all_rooms_together_costs_no_other_room_anything() -> None:
    kept = store(max_bytes=20_000)
    for room in ("a", "b"):
        add(kept, room, *"12345")
    assert add(kept, "huge", "x" * 20_000).offset == 1
    assert kept.read("huge", 0.0).publications == []
    add(kept, "b", "x" * 20_000)
    assert [len(kept.read(room, 0.0).publications) for room in ("a", "b")] == [5, 0]
    assert add(kept, "b", "7").offset == 7


@pytest.mark.parametrize("max_bytes", [1, 1000, 1300])
def test_a_bound_under_what_a_room_costs_keeps_nothing(max_bytes: int) -> None:
    kept = HistoryStore(max_bytes)
    for number in range(5):
        add(kept, f"room {number % 2}", "x" * 300, keep=Keep(5, 60.0, 200))
    assert (kept.entries, kept.nbytes) == (0, 0)
    assert kept.read("room 0", 0.0).position.offset == 3
