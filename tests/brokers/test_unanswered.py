"""What waits for its receipt, whatever the server is: bounded, refused in time, and parted into runs."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from hubbub import BrokerUnavailable, CommandError, Position, Publication, Receipt
from hubbub.brokers import unanswered
from hubbub.brokers.envelope import seal
from hubbub.brokers.unanswered import Unanswered, Waiting, deliver_run, runs_of
from hubbub.wire.frame import Frame
from started_hub import until

pytestmark = pytest.mark.anyio

TAKEN = Receipt(0, Position(1, "e"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unanswered, "WAIT_S", 0.05)
    monkeypatch.setattr(unanswered, "LOOK_S", 0.01)


class Desk(Unanswered[Waiting]):
    """One whose server does what a test says. `why` is why the late are refused."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count(1)
        self.why: str | None = "late"

    def _why_late(self, waiting: Waiting) -> str | None:
        return self.why

    def put(self, room: str = "red", size: int = 1, comes_by: object = None) -> Waiting:
        """Have one wait."""
        self._check_room_for(size)
        waiting = Waiting(next(self.numbers), room, size)
        waiting.comes_by = comes_by
        self._add(waiting)
        return waiting

    def take(self, waiting: Waiting, comes_by: object, receipt: Receipt = TAKEN) -> None:
        """Have the server have taken it."""
        self._taken(waiting, receipt, comes_by)

    def stop(self) -> None:
        """Have all end."""
        self._end()


@pytest.mark.parametrize(
    ("before", "now", "is_repeated", "waits_on"),
    [
        (1, 1, False, True),
        (1, 1, True, False),  # it came with the first try, or does not come
        (1, 2, False, False),  # it may have come by the connection that broke
        (1, None, False, False),
        (None, None, False, False),
        (None, 1, False, False),
    ],
)
async def test_one_that_was_taken_waits_on_only_where_it_must_come_here(
    before: object, now: object, is_repeated: bool, waits_on: bool
) -> None:
    desk = Desk()
    waiting = desk.put(comes_by=before)
    receipt = Receipt(0, Position(1, "e"), is_repeated=is_repeated)
    desk.take(waiting, now, receipt)
    assert (desk.untaken, desk.nbytes) == (0, int(waits_on))
    assert waiting.future.done() is not waits_on
    desk.came(waiting.number, Receipt(3))
    assert await waiting.future == (Receipt(3) if waits_on else receipt)
    assert desk.nbytes == 0
    desk.came(waiting.number, Receipt(4))
    desk.stop()


async def test_one_may_come_here_before_the_server_says_that_it_is_taken() -> None:
    desk = Desk()
    waiting = desk.put(comes_by=1)
    desk.came(waiting.number, Receipt(3, Position(1, "e")))
    assert await waiting.future == Receipt(3, Position(1, "e"))
    desk.take(waiting, 1)
    assert (desk.untaken, desk.nbytes) == (0, 0)


@pytest.mark.parametrize("rooms", [None, {"red"}])
async def test_what_comes_here_no_more_is_not_waited_for(rooms: set[str] | None) -> None:
    desk = Desk()
    taken, on_its_way = desk.put(comes_by=1), desk.put(comes_by=1)
    blue = desk.put("blue", comes_by=1)
    for waiting in (taken, blue):
        desk.take(waiting, 1)
    desk.note_left(rooms)
    assert await taken.future == TAKEN
    assert blue.future.done() is (rooms is None)
    assert not on_its_way.future.done()
    desk.take(on_its_way, 1)
    assert await on_its_way.future == TAKEN
    desk.stop()
    assert await blue.future == TAKEN


async def test_the_late_are_refused_and_the_taken_have_their_receipts() -> None:
    desk = Desk()
    refused, taken = desk.put(), desk.put(comes_by=1)
    assert desk.untaken == 2
    desk.take(taken, 1)
    desk.take(taken, 1)
    assert desk.untaken == 1, "one that is taken twice counts once"
    with pytest.raises(BrokerUnavailable, match=r"^late$"):
        await refused.future
    assert await taken.future == TAKEN, "that it comes is not waited for without end"
    assert desk.untaken == 0
    assert desk, "one without work is there"
    desk.why = None
    on_its_way = desk.put()
    await asyncio.sleep(0.1)
    assert not on_its_way.future.done()
    desk.why = "now"
    with pytest.raises(BrokerUnavailable, match=r"^now$"):
        await on_its_way.future
    await until(lambda: desk._timer is None)
    again = desk.put()
    with pytest.raises(BrokerUnavailable):
        await again.future


async def test_the_late_are_refused_where_they_stand_behind_younger_ones() -> None:
    desk = Desk()
    young, old = desk.put(), desk.put()
    young.since += 1000
    with pytest.raises(BrokerUnavailable, match=r"^late$"):
        await asyncio.wait_for(old.future, 5)
    assert not young.future.done()
    desk.stop()


async def test_who_gave_up_waiting_is_in_nobodys_way() -> None:
    desk = Desk()
    gone, late, here = desk.put(), desk.put(), desk.put(comes_by=1)
    gone.future.cancel()
    late.future.cancel()
    desk.take(gone, None)
    desk.take(here, 1)
    await until(lambda: desk.nbytes == 0)
    assert await here.future == TAKEN
    assert (gone.future.cancelled(), late.future.cancelled()) == (True, True)


async def test_too_many_and_too_large_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unanswered, "MOST_WAITING", 3)
    monkeypatch.setattr(unanswered, "MOST_WAITING_BYTES", 100)
    desk = Desk()
    first = desk.put(size=60)
    with pytest.raises(BrokerUnavailable, match="too many publications wait"):
        desk.put(size=41)
    desk.put(size=40)
    desk.put(size=0)
    with pytest.raises(BrokerUnavailable, match="too many publications wait"):
        desk.put(size=0)
    assert (desk.untaken, desk.nbytes) == (3, 100)
    with pytest.raises(CommandError, match=r"a message has 101 bytes .* takes 100"):
        desk.put(size=101)
    desk.take(first, None)
    desk._check_room_for(10, 20, 10)
    with pytest.raises(CommandError, match=r"a message has 21 bytes .* takes 20"):
        desk._check_room_for(10, 20, 11)
    desk.put(size=60)
    desk.stop()


@pytest.mark.parametrize("unknown", [0, 1, 2])
async def test_what_may_be_there_is_refused_with_these_words_whoever_refuses_it(
    unknown: int,
) -> None:
    desk = Desk()
    before = "it may have been published, or not: " if unknown else ""
    late = desk.put()
    late.unknown = unknown
    with pytest.raises(BrokerUnavailable, match=f"^{before}late$"):
        await late.future
    stopped = desk.put()
    stopped.unknown = unknown
    desk.stop()
    with pytest.raises(BrokerUnavailable, match=f"^{before}the broker has stopped$"):
        await stopped.future


async def test_at_the_end_none_is_left() -> None:
    desk = Desk()
    waiting, taken = desk.put(), desk.put(comes_by=1)
    desk.take(taken, 1)
    desk.stop()
    assert await taken.future == TAKEN
    with pytest.raises(BrokerUnavailable, match="the broker has stopped"):
        await waiting.future
    assert desk.nbytes == 0


async def test_runs_keep_the_order_of_each_room_and_their_bounds() -> None:
    desk = Desk()
    rows = [("a", 4), ("b", 9), ("a", 4), ("a", 4), ("b", 1), ("a", 20), ("a", 1), ("b", 0)]
    some = [desk.put(room, size) for room, size in rows]

    def runs(most_bytes: int, most: int, apart: int = 0) -> list[list[int]]:
        def go_together(one: Waiting, other: Waiting) -> bool:
            return apart not in (one.number, other.number)

        found = runs_of(some, go_together, most_bytes, most)
        return [[waiting.number for waiting in run] for run in found]

    assert runs(1000, 100) == [[1, 3, 4, 6, 7], [2, 5, 8]]
    assert runs(12, 100) == [[1, 3], [2], [4], [5, 8], [6], [7]], "what `pack` adds counts"
    assert runs(11, 100) == [[1], [2], [3], [4], [5, 8], [6], [7]]
    assert runs(1000, 2) == [[1, 3], [2, 5], [4, 6], [7], [8]]
    assert runs(1000, 100, apart=3) == [[1], [2, 5, 8], [3], [4, 6, 7]]
    assert runs_of([], lambda one, other: True, 1, 1) == []
    desk.stop()


class Told:
    """A node that writes down what it is told to deliver."""

    def __init__(self) -> None:
        self.rows: list[Publication] = []

    def deliver(self, publication: Publication) -> int:
        self.rows.append(publication)
        return len(self.rows)


@pytest.mark.parametrize("position", [None, Position(7, "e")])
def test_a_run_is_delivered_one_by_one_with_a_position_each(position: Position | None) -> None:
    node, came = Told(), list[tuple[int, Receipt]]()
    run = [
        seal(Publication("red", Frame(data, True)), sender, number)
        for data, sender, number in ((b"1", "me", 1), (b"2", "other", 1), (b"3", "me", 2))
    ]
    deliver_run(node, "red", run, position, "me", lambda *row: came.append(row))  # type: ignore[arg-type]
    first, last = (position, Position(9, "e")) if position else (None, None)
    assert [row.room for row in node.rows] == ["red"] * 3
    assert [row.position for row in node.rows][::2] == [first, last]
    assert came == [(1, Receipt(1, first)), (2, Receipt(3, last))]
