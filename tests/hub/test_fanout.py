"""Fan-out: against a model that delivers one message at a time, and its promises one by one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub import Frame, Hub, Publication
from hubbub.dialects.plain import PLAIN
from hubbub.hub import fanout as fanout_module
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.hub.fanout import (
    LAG_SAMPLE,
    MANY_WRITES,
    MAX_BATCHING_DELAY_S,
    MAX_SHARED_WRITE_BYTES,
    Fanout,
)
from hubbub.hub.room import RoomTable
from hubbub.hub.session import ClientSession
from hubbub.stats import Stats
from hubbub.testing import MemoryClient, connect, settle
from hubbub.transports.transport import Transport
from hubbub.wire.frame import encode

pytestmark = pytest.mark.anyio

PEERS = 5
ROOMS = ("red", "blue", "green")


class Model:
    """Delivers at once to who is a member at that moment: what every client has to see, in order."""

    def __init__(self) -> None:
        self.inboxes: list[list[str]] = [[] for _ in range(PEERS)]
        self.rooms: dict[str, set[int]] = {"": set(range(PEERS)), **{r: set() for r in ROOMS}}

    def publish(self, room: str, text: str, exclude: int | None) -> int:
        receivers = self.rooms[room] - {exclude}
        for number in receivers:
            self.inboxes[number].append(text)
        return len(receivers)

    def gone(self, number: int) -> None:
        for members in self.rooms.values():
            members.discard(number)


NUMBERS = st.integers(0, PEERS - 1)
NAMES = st.sampled_from(ROOMS)
PUBLISH = st.tuples(
    st.just("publish"), st.sampled_from(("", *ROOMS)), st.one_of(st.none(), st.none(), NUMBERS)
)
SEND = st.tuples(st.just("send"), NUMBERS, st.none())
JOIN = st.tuples(st.just("join"), NUMBERS, NAMES)
LEAVE = st.tuples(st.just("leave"), NUMBERS, NAMES)
FLUSH = st.tuples(st.sampled_from(["flush", "turn"]), st.none(), st.none())
BLOCK = st.tuples(st.just("block"), NUMBERS, st.none())
UNBLOCK = st.tuples(st.just("unblock"), NUMBERS, st.integers(0, 3))
CLOSE = st.tuples(st.just("close"), NUMBERS, st.none())
# Long enough, and with so many joins, that rooms are joined and left between publications.
STEPS = st.lists(
    st.one_of(PUBLISH, PUBLISH, PUBLISH, SEND, JOIN, JOIN, JOIN, LEAVE, FLUSH, BLOCK, UNBLOCK),
    min_size=30,
    max_size=60,
)


async def replay(
    steps: list[tuple[str, Any, Any]],
    lanes: list[bool],
    join: Callable[..., MemoryClient] = connect,
    **options: Any,
) -> None:
    """Do the steps to a hub and to the model; compare what every client got."""
    hub, model = Hub(outbox_max_entries=10_000, **options), Model()
    await hub.start()
    peers = [join(hub, fast=lane) for lane in lanes]
    for count, (what, a, b) in enumerate(steps):
        text = f"{count} {'x' * (count * 7 % 200)}"
        if what == "publish":
            exclude = None if b is None else peers[b].client
            receipt = await core_of(hub).publishing.publish(a, text, exclude)
            assert receipt.delivered_to == model.publish(a, text, b)
        elif what == "send":
            if peers[a].client.send(text):
                model.inboxes[a].append(text)
        elif what == "join" and peers[a].client.is_connected:
            peers[a].client.join(b)
            model.rooms[b].add(a)
        elif what == "leave":
            peers[a].client.leave(b)
            model.rooms[b].discard(a)
        elif what == "flush":
            core_of(hub).fanout.flush()
        elif what == "turn":
            await asyncio.sleep(0)
        elif what == "block":
            peers[a].transport.block()
        elif what == "unblock":
            peers[a].transport.unblock(writes=b)
        elif what == "close":
            peers[a].client.close()
            model.gone(a)
    await settle(hub)
    for peer in peers:
        peer.transport.unblock()
    assert [peer.received for peer in peers] == model.inboxes
    assert hub.stats()["messages_out"] == sum(map(len, model.inboxes))
    assert hub.stats()["bytes_out"] == sum(
        len(wire) for peer in peers for wire in peer.transport.writes
    )
    await hub.stop()


@settings(max_examples=250, deadline=None)
@given(steps=STEPS, close=CLOSE, lanes=st.lists(st.booleans(), min_size=PEERS, max_size=PEERS))
def test_every_client_sees_what_one_at_a_time_would_have_shown_it(
    steps: list[tuple[str, Any, Any]], close: tuple[str, Any, Any], lanes: list[bool]
) -> None:
    steps.insert(len(steps) * 2 // 3, close)
    with asyncio.Runner() as runner:
        runner.run(replay(steps, lanes))


WEIGHTS = {
    "publish": 40,
    "send": 8,
    "join": 25,
    "leave": 15,
    "flush": 3,
    "turn": 3,
    "block": 3,
    "unblock": 4,
    "close": 0.3,
}


def random_step(chance: random.Random) -> tuple[str, Any, Any]:
    """Make one step of a busy hub: much is joined, left and published between two turns."""
    what = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    number, room = chance.randrange(PEERS), chance.choice(ROOMS)
    if what == "publish":
        return what, chance.choice(("", *ROOMS)), chance.choice((None, None, number))
    if what == "unblock":
        return what, number, chance.randrange(4)
    return what, number, room


@pytest.mark.parametrize("seed", range(40))
async def test_a_busy_hub_shows_every_client_what_one_at_a_time_would_have(seed: int) -> None:
    chance = random.Random(seed)
    steps = [random_step(chance) for _ in range(400)]
    await replay(steps, [chance.random() < 0.6 for _ in range(PEERS)])


async def started(count: int, **options: Any) -> tuple[Hub, list[MemoryClient]]:
    hub = Hub()
    await hub.start()
    return hub, [connect(hub, **options) for _ in range(count)]


async def test_what_one_turn_publishes_is_one_shared_write_per_client() -> None:
    hub, peers = await started(3)
    for number in range(40):
        hub.broadcast(str(number))
    assert len(core_of(hub).fanout) == hub.stats()["broadcast"] == 40
    await settle(hub)
    for peer in peers:
        assert peer.received == [str(number) for number in range(40)]
        assert len(peer.transport.wire_writes) == 1
        assert peer.transport.wire_writes[0] is peers[0].transport.wire_writes[0]
    await hub.stop()


async def test_rooms_are_merged_into_one_write_that_equal_members_share() -> None:
    hub, peers = await started(4)
    for peer in peers[:3]:
        peer.client.join("red")
    for peer in peers[1:3]:
        peer.client.join("blue")
    for number in range(6):
        hub.room(("red", "blue")[number % 2]).broadcast(str(number))
    hub.broadcast("all")
    await settle(hub)
    assert [peer.received for peer in peers] == [
        ["0", "2", "4", "all"],
        ["0", "1", "2", "3", "4", "5", "all"],
        ["0", "1", "2", "3", "4", "5", "all"],
        ["all"],
    ]
    assert all(len(peer.transport.wire_writes) == 1 for peer in peers)
    assert peers[1].transport.wire_writes[0] is peers[2].transport.wire_writes[0]
    await hub.stop()


async def test_direct_sends_and_exclusions_are_one_write_too_and_in_their_place() -> None:
    hub, (ann, bob) = await started(2)
    hub.broadcast("1")
    ann.client.send("2")
    hub.broadcast("3", exclude=ann.client)
    hub.broadcast("4")
    await settle(hub)
    assert ann.received == ["1", "2", "4"]
    assert bob.received == ["1", "3", "4"]
    assert len(ann.transport.wire_writes) == len(bob.transport.wire_writes) == 1
    await hub.stop()


@pytest.mark.parametrize("policy", ["drop_newest", "latest"])
async def test_the_slow_lane_gets_one_entry_for_each_policy(policy: Any) -> None:
    hub = Hub(slow_policies={"cursor:*": policy})
    await hub.start()
    peer = connect(hub)
    for room in ("red", "cursor:1", "cursor:2"):
        peer.client.join(room)
    peer.transport.block()
    for room in ("red", "red", "cursor:1", "cursor:1", "cursor:2", "red"):
        hub.room(room).broadcast(room)
    peer.client.send("direct")
    await settle(hub)
    outbox = session_of(peer.client).outbox
    assert outbox is not None
    # latest: an entry for each room, drop_newest: the two rooms of one policy share one.
    assert len(outbox) == (4 if policy == "latest" else 3)
    peer.transport.unblock()
    cursors = ["cursor:1"] * (1 if policy == "latest" else 2) + ["cursor:2"]
    assert peer.received == ["red", "red", *cursors, "red", "direct"]
    await hub.stop()


async def test_large_writes_take_the_way_that_can_cut_them_in_pieces() -> None:
    hub, (peer,) = await started(1)
    piece = b"x" * (MAX_SHARED_WRITE_BYTES // 4)
    for count in (3, 4):
        for _ in range(count):
            hub.broadcast(piece)
        await settle(hub)
    assert [len(wire) > MAX_SHARED_WRITE_BYTES for wire in peer.transport.writes] == [False, True]
    assert len(peer.transport.wire_writes) == len(peer.transport.batches) == 1
    assert peer.received == [piece] * 7
    await hub.stop()


async def test_a_flush_with_nothing_to_do_is_harmless() -> None:
    hub, (peer,) = await started(1)
    core_of(hub).fanout.flush()
    hub.broadcast("1")
    core_of(hub).fanout.flush()
    core_of(hub).fanout.flush()
    await settle(hub)
    assert peer.received == ["1"]
    await hub.stop()


class Sink:
    """The least that a client can be written to."""

    writable = True
    deflates = False

    def __init__(self) -> None:
        self.count = 0

    def bind(self, session: object) -> None:
        """Be a transport."""

    def write_wire(self, wire: bytes) -> None:
        self.count += 1


@pytest.mark.parametrize("kind", ["direct", "room of one's own"])
def test_a_message_for_each_of_thousands_costs_no_thousands_squared(kind: str) -> None:
    """One of its own for each of 30,000 clients in one turn; squared, it would take minutes."""
    fanout = Fanout(Stats(), "disconnect", lambda flush, delay_s: None)
    rooms = RoomTable("disconnect", {})
    sinks, core = [Sink() for _ in range(30_000)], core_of(Hub())
    frame: Frame = encode("hello")
    for number, sink in enumerate(sinks):
        session = ClientSession(core, cast(Transport, sink), PLAIN)
        for room in ("", f"@{number}"):
            session.memberships[room] = rooms.add(session, room)
        if kind == "direct":
            fanout.send(session, frame)
        else:
            fanout.publish(session.memberships[f"@{number}"], Publication("", frame))
    fanout.flush()
    assert {sink.count for sink in sinks} == {1}


class Clock:
    """Time that stands still but for what is added to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(fanout_module, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time that a fan-out sees."""
    return Clock(monkeypatch)


class Crowd:
    """Clients for whom one fan-out together takes `seconds`, and what their fan-out scheduled."""

    def __init__(self, clock: Clock, count: int, seconds: float) -> None:
        self._clock, self._count, self._seconds = clock, count, seconds
        self.delays_s: list[float] = []
        self.written = 0
        self.writable = True
        self.deflates = False
        rooms, core = RoomTable("disconnect", {}), core_of(Hub())
        for _ in range(count):
            session = ClientSession(core, cast(Transport, self), PLAIN)
            self._members = rooms.add(session, "room")
        self._fanout = Fanout(Stats(), "disconnect", self._schedule)

    def _schedule(self, function: Callable[[], None], delay_s: float) -> None:
        self.delays_s.append(delay_s)

    def bind(self, session: object) -> None:
        """Be a transport."""

    def write_wire(self, wire: bytes) -> None:
        self.written += 1
        self._clock.now += self._seconds / self._count

    def publish(self, messages: int = 2) -> float:
        """Publish and deliver; return how long the fan-out was put off."""
        for _ in range(messages):
            self._fanout.publish(self._members, Publication("room", encode("hello")))
        self._fanout.flush()
        return self.delays_s[-1]


def test_the_fanout_after_a_long_one_waits_a_part_of_its_time(clock: Clock) -> None:
    crowd = Crowd(clock, MANY_WRITES, 0.008)
    assert [crowd.publish(), crowd.publish()] == [0, pytest.approx(0.002)]
    assert crowd.written == 2 * MANY_WRITES


def test_the_fanout_after_one_to_few_does_not_wait(clock: Clock) -> None:
    crowd = Crowd(clock, MANY_WRITES - 1, 0.008)
    assert [crowd.publish(), crowd.publish()] == [0, 0]


def test_messages_one_at_a_time_do_not_wait(clock: Clock) -> None:
    crowd = Crowd(clock, MANY_WRITES, 0.008)
    assert [crowd.publish(messages=1) for _ in range(3)] == [0, 0, 0]


def test_the_rest_is_over_when_its_time_has_passed(clock: Clock) -> None:
    crowd = Crowd(clock, MANY_WRITES, 0.008)
    crowd.publish()
    clock.now += 0.003
    assert crowd.publish() == 0


def test_a_process_suspended_in_a_fanout_does_not_rest_for_long(clock: Clock) -> None:
    crowd = Crowd(clock, MANY_WRITES, 70.0)
    crowd.publish()
    assert crowd.publish() == pytest.approx(MAX_BATCHING_DELAY_S)


async def test_what_is_published_in_a_rest_arrives_after_it_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fanout_module, "MANY_WRITES", 1)
    monkeypatch.setattr(fanout_module, "BATCHING_SHARE", 1e9)
    hub = Hub()
    await hub.start()
    peer = connect(hub)
    hub.broadcast("0")
    hub.broadcast("1")
    await settle(hub)
    assert peer.received == ["0", "1"]
    hub.broadcast("2")
    await asyncio.sleep(0)
    peer.client.send("3")
    await asyncio.sleep(0)
    assert peer.received == ["0", "1"]
    await asyncio.sleep(2 * MAX_BATCHING_DELAY_S)
    assert peer.received == ["0", "1", "2", "3"]
    assert len(peer.transport.writes) == 2
    await hub.stop()


async def test_the_lag_of_a_turn_is_taken_from_its_first_publication_and_counts_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a clock that the test moves, and that only one turn of many looks at."""
    looks = 0
    now = 100.0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return now

    monkeypatch.setattr(fanout_module, "perf_counter", clock)
    hub = Hub()
    await hub.start()
    lag, flush = core_of(hub).stats.delivery_lag, core_of(hub).fanout.flush
    connect(hub)
    peer = connect(hub)
    noted = []
    for turn in range(2 * LAG_SAMPLE + 1):
        looks, before = 0, lag.sum_s
        is_large = turn == LAG_SAMPLE
        for _ in range(3 if is_large else 1):
            hub.broadcast("x")
        if is_large:
            peer.client.send("y")
        now += 0.5
        flush()
        if lag.sum_s > before:
            noted.append((turn, lag.sum_s - before))
        assert looks == (2 if turn % LAG_SAMPLE == 0 else 0) + is_large
        await settle(hub)
    assert noted == [(0, 0.5), (LAG_SAMPLE, 4 * 0.5), (2 * LAG_SAMPLE, 0.5)]
    assert sum(lag.counts) == 6
    await hub.stop()
