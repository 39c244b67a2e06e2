"""TimingWheel: who is due a ping and who is overdue, on a clock that the test moves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.hub.timing_wheel import TimingWheel

PING_S, PONG_S = 54.0, 60.0


class Member:
    """Something that lives, and what the wheel said of it."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.last_seen = 0.0
        self.pinged_at: list[float] = []
        self.dead_at: float | None = None


class Wheel:
    """A wheel and its clock; `pass_time` turns it once per tick, `lag` seconds after the tick."""

    def __init__(self, ping_s: float = PING_S, pong_s: float = PONG_S, lag: float = 0.0) -> None:
        self.start = 1000.0
        self.now = self.start
        self.ticks = 0
        self.lag = lag
        self.wheel: TimingWheel[Member] = TimingWheel(ping_s, pong_s, self.start)

    @property
    def tick_s(self) -> float:
        return self.wheel.tick_s

    def add(self, member: Member) -> None:
        self.wheel.add(member, self.now)

    def tick(self) -> None:
        self.ticks += 1
        self.now = max(self.now, self.start + self.ticks * self.tick_s + self.lag)
        self.turn()

    def turn(self) -> None:
        self.wheel.advance(self.now, self.ping, self.overdue)

    def ping(self, member: Member) -> None:
        member.pinged_at.append(self.now)

    def overdue(self, member: Member) -> None:
        assert member.dead_at is None
        member.dead_at = self.now

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.start + (self.ticks + 1) * self.tick_s + self.lag <= end:
            self.tick()
        self.now = max(self.now, end)


def test_a_silent_member_gets_one_ping_and_is_dead_in_time() -> None:
    wheel, member = Wheel(), Member()
    wheel.add(member)
    wheel.pass_time(PING_S - wheel.tick_s - 0.1)
    assert member.pinged_at == []
    wheel.pass_time(PONG_S - PING_S + wheel.tick_s + 0.1)
    assert len(member.pinged_at) == 1
    assert PING_S - wheel.tick_s < member.pinged_at[0] - member.last_seen <= PING_S
    assert member.dead_at is not None
    assert PONG_S - wheel.tick_s < member.dead_at - member.last_seen <= PONG_S
    assert len(wheel.wheel) == 0, "who is dead is watched no more"


def test_who_answers_its_pings_lives() -> None:
    wheel, member = Wheel(), Member()
    wheel.add(member)
    for _ in range(600):
        wheel.pass_time(1.0)
        if member.pinged_at and member.pinged_at[-1] > member.last_seen:
            member.last_seen = wheel.now
    assert member.dead_at is None
    assert len(member.pinged_at) == pytest.approx(600 / PING_S, abs=1)


def test_who_talks_gets_no_pings() -> None:
    wheel, member = Wheel(), Member()
    wheel.add(member)
    for _ in range(60):
        wheel.pass_time(10.0)
        member.last_seen = wheel.now
    assert member.pinged_at == []
    assert member.dead_at is None


def test_removed_members_are_forgotten() -> None:
    wheel, member = Wheel(), Member()
    wheel.add(member)
    assert len(wheel.wheel) == 1
    wheel.wheel.remove(member)
    wheel.wheel.remove(member)
    wheel.wheel.remove(Member())
    wheel.pass_time(200.0)
    assert (member.pinged_at, member.dead_at, len(wheel.wheel)) == ([], None, 0)


def test_a_machine_that_slept_finds_nobody_dead() -> None:
    wheel = Wheel()
    members = [Member() for _ in range(500)]
    for number, member in enumerate(members):
        wheel.add(member)
        member.last_seen -= number % 50
    wheel.pass_time(5.0)
    silent = {member: wheel.now - member.last_seen for member in members}
    wheel.ticks += round(70 / wheel.tick_s)
    wheel.now += 70.0
    wheel.turn()
    assert not any(member.dead_at for member in members)
    for member in members:
        assert wheel.now - member.last_seen <= silent[member] + wheel.tick_s
    wheel.pass_time(PONG_S + wheel.tick_s)
    assert all(member.dead_at for member in members), "and afterwards time counts again"


def test_a_short_stall_is_forgiven_where_the_timeouts_are_short() -> None:
    """A stall of 40 ms eats the whole margin of these timeouts; nobody could read a pong in it."""
    wheel: TimingWheel[Member] = TimingWheel(0.02, 0.05, 0.0)
    member = Member()
    wheel.add(member, 0.0)
    dead: list[Member] = []
    pings: list[Member] = []
    now = 0.0
    while not pings:
        now += wheel.tick_s
        wheel.advance(now, pings.append, dead.append)
    now += 0.04
    wheel.advance(now, pings.append, dead.append)
    assert dead == []
    member.last_seen = now
    wheel.advance(now + wheel.tick_s, pings.append, dead.append)
    assert dead == []


def test_who_spoke_just_after_the_sleep_is_given_no_time_for_it() -> None:
    wheel, member = Wheel(), Member()
    wheel.add(member)
    wheel.ticks += 3600
    wheel.now += 3600.0
    member.last_seen = wheel.now
    wheel.turn()
    assert member.last_seen == wheel.now
    wheel.pass_time(PONG_S)
    assert member.dead_at is not None


def test_who_is_removed_because_of_another_is_neither_judged_nor_kept() -> None:
    wheel: TimingWheel[Member] = TimingWheel(PING_S, PONG_S, 0.0)
    pair = [Member("first"), Member("second")]
    dead: list[str] = []

    def overdue(member: Member) -> None:
        dead.append(member.name)
        for other in pair:
            wheel.remove(other)

    for member in pair:
        wheel.add(member, 0.0)
    for now in range(1, 100):
        wheel.advance(float(now), lambda member: None, overdue)
    assert dead == ["first"]
    assert len(wheel) == 0


def test_a_turn_before_its_time_does_nothing_and_costs_nothing() -> None:
    wheel, member = Wheel(), Member()
    wheel.add(member)
    for step in range(1, 601):
        wheel.wheel.advance(wheel.start + step * 0.1, wheel.ping, wheel.overdue)
    assert len(member.pinged_at) == 1


def test_floating_point_ticks_add_up() -> None:
    """Turns at 0.1, 0.2, 0.30000000000000004 ... are one tick each."""
    wheel: TimingWheel[Member] = TimingWheel(0.4, 0.8, 0.0)
    assert wheel.tick_s == 0.1
    member = Member()
    wheel.add(member, 0.0)
    dead: list[float] = []
    now = 0.0
    for _ in range(20):
        now += 0.1
        wheel.advance(now, lambda _: None, lambda _, at=now: dead.append(at))  # type: ignore[misc]
    assert len(dead) == 1
    assert dead[0] == pytest.approx(0.8, abs=0.1 + 1e-6)
    assert dead[0] <= 0.8 + 1e-6


EVENTS = st.lists(
    st.tuples(
        st.floats(0.0, 20.0, allow_nan=False),
        st.sampled_from(["add", "add", "add", "speak", "speak", "remove", "wait"]),
        st.integers(0, 9),
    ),
    min_size=15,
    max_size=60,
)
TIMES = st.sampled_from([(54.0, 60.0), (20.0, 25.0), (1.0, 60.0), (0.3, 0.7), (5.0, 5.5)])


@settings(deadline=None)
@given(events=EVENTS, times=TIMES, lag=st.sampled_from([0.0, 0.001]))
def test_any_schedule_finds_the_dead_in_time_and_nobody_else(
    events: list[tuple[float, str, int]], times: tuple[float, float], lag: float
) -> None:
    ping_s, pong_s = times
    wheel = Wheel(ping_s, pong_s, lag)
    members = [Member() for _ in range(10)]
    watched: set[Member] = set()
    scale = pong_s / 60.0
    late = lag + 1e-6 * pong_s

    def check() -> None:
        for member in list(watched):
            silent = wheel.now - member.last_seen
            if member.dead_at is None:
                # Between two turns a member may be silent for a tick less than the turn allows.
                assert silent <= pong_s + late
                continue
            assert pong_s - wheel.tick_s - late < member.dead_at - member.last_seen <= pong_s + late
            watched.discard(member)

    for seconds, what, number in events:
        member = members[number]
        for _ in range(round(seconds * scale / wheel.tick_s)):
            wheel.tick()
            check()
        if what == "add" and member not in watched:
            member.dead_at = None
            wheel.add(member)
            watched.add(member)
        elif what == "speak" and member in watched:
            member.last_seen = wheel.now
        elif what == "remove":
            wheel.wheel.remove(member)
            watched.discard(member)
        assert len(wheel.wheel) == len(watched)
    for _ in range(round(pong_s / wheel.tick_s) + 1):
        wheel.tick()
        check()
    assert not watched
    assert len(wheel.wheel) == 0
