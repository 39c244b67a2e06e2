"""Presence while the broker is asked: what comes and goes meanwhile, and what becomes of a failure."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from exchange import Exchange, ExchangeBroker, carried
from hubbub import BrokerUnavailable, Client, ClientInfo, Hub, MemoryBroker, PresenceStats
from hubbub.hub import presence as presence_module
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from hubbub.hub.presence import RETRY_S
from hubbub.hub.presence_roll import RENEW_S
from hubbub.hub.rules import LEASE_S
from hubbub.testing import FakeClock, MemoryClient, advance_time, connect, settle
from presence_rooms import Said, told, users, with_presence
from started_hub import until

pytestmark = pytest.mark.anyio


class SlowBroker(MemoryBroker):
    """The memory broker, with a turn of the event loop on the way to it; see `ExchangeBroker`."""

    def __init__(self) -> None:
        super().__init__()
        self.presence_calls: list[tuple[str, tuple[str, ...]]] = []
        self.meanwhile: Callable[[str, tuple[str, ...]], object] = lambda verb, names: None

    async def _ask(self, verb: str, names: tuple[str, ...] = ()) -> None:
        self.presence_calls.append((verb, names))
        await asyncio.sleep(0)
        self.meanwhile(verb, names)

    async def enter(self, room: str, members: Any, terms: Any) -> Any:
        """Do it a turn later."""
        await self._ask("enter", tuple(members))
        return await super().enter(room, members, terms)

    async def leave(self, room: str, names: Any, terms: Any) -> Any:
        """Do it a turn later."""
        await self._ask("leave", tuple(names))
        return await super().leave(room, names, terms)

    async def expire(self, room: str, terms: Any) -> Any:
        """Do it a turn later."""
        await self._ask("expire")
        return await super().expire(room, terms)


class Case:
    """A hub whose broker is slow, and what is done with both."""

    def __init__(self, exchange: Exchange | None) -> None:
        self.exchange = exchange
        self.broker: SlowBroker | ExchangeBroker = (
            SlowBroker() if exchange is None else exchange.broker()
        )
        self.hub: Hub
        self.clock: FakeClock

    async def start(self, **settings: Any) -> Hub:
        self.hub = await with_presence(broker=self.broker, **settings)
        clock = core_of(self.hub).clock
        assert isinstance(clock, FakeClock)
        self.clock = clock
        if self.exchange is not None:
            self.exchange.clock = clock
        return self.hub

    async def quiet(self) -> None:
        for _ in range(3):
            if self.exchange is not None:
                await carried(self.exchange)
            await settle(self.hub)

    async def pass_time(self, seconds: float) -> None:
        advance_time(self.hub, seconds)
        await self.quiet()

    async def member(self, room: str, user: str | None, **options: Any) -> MemoryClient:
        peer = connect(self.hub, user=user, **options)
        await peer.client.subscribe(room)
        await self.quiet()
        return peer

    def at(self, verb: str, number: int, action: Callable[[], object]) -> None:
        """Have something done while the broker is asked for the `number`-th time from now on."""
        before = self.count(verb)
        former = self.broker.meanwhile

        def meanwhile(asked: str, names: tuple[str, ...]) -> None:
            former(asked, names)
            if asked == verb and self.count(verb) - before == number:
                action()

        self.broker.meanwhile = meanwhile

    def count(self, verb: str) -> int:
        return sum(asked == verb for asked, _ in self.broker.presence_calls)

    def named(self, verb: str, peer: MemoryClient) -> int:
        """Return how often a client was named to the broker."""
        name = session_of(peer.client).connection_id
        return sum(asked == verb and name in names for asked, names in self.broker.presence_calls)


@pytest.fixture(params=["memory", "exchange"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(None if request.param == "memory" else Exchange(late_turns=2))


def fail(error: BaseException) -> Callable[[], object]:
    def raise_it() -> None:
        raise error

    return raise_it


@pytest.mark.parametrize("room", ["now", "red"])
async def test_changes_without_an_end_hold_up_neither_leases_nor_answers(
    case: Case, room: str
) -> None:
    hub = await case.start()
    ann = await case.member(room, "ann")
    others: list[MemoryClient] = []
    is_going_on = True
    rounds = 0

    def come_and_go(verb: str, names: tuple[str, ...]) -> None:
        nonlocal rounds
        if is_going_on:
            rounds += 1
            case.clock.advance(1)
            others.append(connect(hub, user=f"u{rounds}"))
            others[-1].client.join(room)
            if len(others) > 3:
                others.pop(0).close()

    case.broker.meanwhile = come_and_go
    come_and_go("", ())
    stats = await asyncio.wait_for(hub.presence_stats(room), 5)
    assert stats.clients >= 2, "ann, and who had come before the question"
    assert "ann" in [each.user for each in (await asyncio.wait_for(hub.presence(room), 5)).values()]
    await until(lambda: rounds > 3 * LEASE_S)
    is_going_on = False
    assert case.named("enter", ann) >= LEASE_S / RENEW_S
    assert case.count("expire") >= LEASE_S / RENEW_S
    await case.quiet()
    assert [names for _, names in told(ann)].count(["ann"]) == 1, "it has not left meanwhile"
    await case.pass_time(12)
    assert await hub.presence_stats(room) == PresenceStats(4, 4)
    await hub.stop()


async def test_what_a_broker_answers_at_once_leaves_the_others_their_turn() -> None:
    """A member that never rests, by way of a handler, must not take the event loop."""
    hub = await with_presence()

    @hub.on_join
    def out(room: str, info: ClientInfo) -> None:
        for client in list(hub.room(room)):
            client.leave(room)
            client.join(room)
            client.leave(room)

    @hub.on_leave
    def back(room: str, info: ClientInfo) -> None:
        if peer.closed is None:
            peer.client.join(room)

    peer = connect(hub, user="ann")
    peer.client.join("now")
    for _ in range(20):
        await asyncio.sleep(0)
    peer.close()
    await until(lambda: len(core_of(hub).presence) == 0)
    await hub.stop()


@pytest.mark.parametrize("act", ["close", "leave", "both", "another"])
async def test_who_is_gone_after_presence_info_was_never_there(case: Case, act: str) -> None:
    hub = await case.start()
    said = Said(hub)
    peers: dict[str, MemoryClient] = {}

    @hub.presence_info
    def info(client: Client, room: str) -> None:
        if client.user == "bad":
            if act == "another":
                for user in ("eve", "joe"):  # one has been seen before, one not yet
                    peers[user].client.close(4001, "no")
            if act in ("leave", "both"):
                client.leave(room)
            if act in ("close", "both"):
                client.close(4001, "no")

    gone = ["eve", "joe"] if act == "another" else ["bad"]
    for user in ("eve", "bad", "joe"):
        peers[user] = connect(hub, user=user)
        peers[user].client.join("now")
    await case.quiet()
    there = sorted({"eve", "bad", "joe"} - set(gone))
    assert await users(hub, "now") == there
    assert sorted(str(user) for _, _, user in said.rows) == there
    await case.pass_time(RENEW_S + 1)
    assert await users(hub, "now") == there
    for peer in peers.values():
        peer.close()
    await case.quiet()
    assert await hub.presence_stats("now") == PresenceStats(0, 0)
    assert len(core_of(hub).presence) == 0
    await hub.stop()


async def test_who_is_out_and_in_again_after_presence_info_is_there(case: Case) -> None:
    hub = await case.start()
    said = Said(hub)

    @hub.presence_info
    def info(client: Client, room: str) -> None:
        client.leave(room)
        client.join(room)

    ann = await case.member("now", "ann")
    assert await users(hub, "now") == ["ann"]
    ann.close()
    await case.quiet()
    assert said.rows == [("join", "now", "ann"), ("leave", "now", "ann")]
    await hub.stop()


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError(), BrokerUnavailable("on purpose")], ids=["cancelled", "away"]
)
@pytest.mark.parametrize("verb", ["enter", "leave", "expire"])
async def test_a_failure_of_any_kind_is_made_good_a_second_later(
    case: Case, verb: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    hub = await case.start()
    ann, bob = await case.member("red", "ann"), await case.member("red", "bob")
    case.at(verb, 1, fail(error))
    if verb == "enter":
        await case.member("red", "eve")
    else:
        bob.close()
        await case.quiet()
        await case.pass_time(RETRY_S + 1)
        await case.pass_time(10)
    assert "the broker was not told who is in red" in caplog.text
    await case.pass_time(RETRY_S + 1)
    there = ["ann", "bob", "eve"] if verb == "enter" else ["ann"]
    assert await users(hub, "red") == there
    assert told(ann)[2:] == [("joined", ["eve"]) if verb == "enter" else ("left", ["bob"])]
    await hub.stop()


async def test_the_last_of_a_room_leaves_though_the_broker_fails_when_its_time_of_grace_is_over(
    case: Case,
) -> None:
    hub = await case.start()
    said = Said(hub)
    ann = await case.member("red", "ann")
    ann.close()
    await case.quiet()
    case.at("expire", 1, fail(BrokerUnavailable("on purpose")))
    await case.pass_time(12)
    await case.pass_time(RETRY_S + 1)
    assert said.rows == [("join", "red", "ann"), ("leave", "red", "ann")]
    assert len(core_of(hub).presence) == 0
    await hub.stop()


async def test_a_broker_that_gives_up_at_the_end_does_not_break_the_stop(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    hub = await case.start()

    def give_up(verb: str, names: tuple[str, ...]) -> None:
        if verb == "leave":
            raise asyncio.CancelledError

    case.broker.meanwhile = give_up
    await case.member("now", "ann")
    await hub.stop()
    assert case.count("leave") >= 2
    assert "the broker was not told who has gone" in caplog.text


async def test_of_whom_the_broker_was_just_told_at_the_end_it_is_told_again() -> None:
    class Stuck(SlowBroker):
        async def leave(self, *rest: Any) -> Any:
            if not self.count:
                self.count += 1
                await asyncio.get_running_loop().create_future()
            return await super().leave(*rest)

        count = 0

    broker = Stuck()
    hub = await with_presence(broker=broker, shutdown_timeout_s=0.2)
    ann = connect(hub, user="ann")
    ann.client.join("now")
    await settle(hub)
    name = session_of(ann.client).connection_id
    ann.close()
    await settle(hub)
    await hub.stop()
    assert broker.presence_calls[-1] == ("leave", (name,))


async def test_who_asks_while_a_call_hangs_goes_on_when_the_hub_stops() -> None:
    class Stuck(MemoryBroker):
        async def enter(self, *rest: Any) -> Any:
            return await asyncio.get_running_loop().create_future()

    hub = await with_presence(broker=Stuck(), shutdown_timeout_s=0.2)
    connect(hub, user="ann").client.join("now")
    await settle(hub)
    asking = asyncio.create_task(hub.presence_stats("now"))
    await settle(hub)
    assert not asking.done()
    await hub.stop()
    assert await asyncio.wait_for(asking, 5) == PresenceStats(0, 0)


async def test_who_is_away_while_its_part_is_told_and_comes_back_is_known(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence_module, "MOST_MEMBERS_A_CALL", 1)
    hub = await case.start()
    await case.member("now", "ann")
    peers = {user: connect(hub, user=user) for user in ("bob", "eve", "joe")}
    case.at("enter", 1, lambda: peers["eve"].client.leave("now"))
    case.at("enter", 2, lambda: peers["eve"].client.join("now"))
    for peer in peers.values():
        peer.client.join("now")
    await case.quiet()
    assert await users(hub, "now") == ["ann", "bob", "eve", "joe"]
    await hub.stop()


async def test_who_could_not_be_entered_and_is_away_in_the_renewal_is_known(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = await case.start()
    peers = {user: connect(hub, user=user) for user in ("ann", "bob", "eve")}
    case.at("enter", 1, fail(BrokerUnavailable("on purpose")))
    for peer in peers.values():
        peer.client.join("now")
    await case.quiet()
    monkeypatch.setattr(presence_module, "MOST_MEMBERS_A_CALL", 1)
    case.at("enter", 1, lambda: peers["bob"].client.leave("now"))
    case.at("enter", 2, lambda: peers["bob"].client.join("now"))
    await case.pass_time(RETRY_S + 1)
    assert await users(hub, "now") == ["ann", "bob", "eve"]
    await hub.stop()


async def test_who_is_back_while_its_leave_fails_and_goes_again_is_no_ghost(case: Case) -> None:
    hub = await case.start()
    ann, bob = await case.member("now", "ann"), await case.member("now", "bob")

    def come_back() -> None:
        bob.client.join("now")
        raise BrokerUnavailable("on purpose")

    case.at("leave", 1, come_back)
    bob.client.leave("now")
    await until(lambda: case.count("leave") == 1)
    await until(lambda: "now" in bob.client.rooms)
    bob.client.leave("now")
    await case.quiet()
    await case.pass_time(RETRY_S + 1)
    assert await users(hub, "now") == ["ann"]
    assert told(ann)[-1] == ("left", ["bob"])
    await hub.stop()


async def test_those_who_go_while_others_cannot_be_entered_are_bounded_too(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence_module, "MOST_LEAVING", 3)
    hub = await case.start()
    peers = [await case.member("now", f"u{number}") for number in range(5)]
    for number in range(1, 12):
        case.at("enter", number, fail(BrokerUnavailable("on purpose")))
    for number, peer in enumerate(peers):
        connect(hub, user=f"late{number}").client.join("now")
        peer.close()
        await case.quiet()
    case.broker.meanwhile = lambda verb, names: None
    await case.pass_time(RETRY_S + 1)
    there = await users(hub, "now")
    assert [user for user in there if str(user).startswith("u")] == ["u3", "u4"], "leases end"
    await hub.stop()


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_fails_and_whoever_comes_and_goes_the_end_is_true_in_a_moment(
    case: Case, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has to wait for a lease: neither who is there, nor who is not."""
    monkeypatch.setattr(presence_module, "MOST_MEMBERS_A_CALL", 2)
    rng = random.Random(seed)
    hub = await case.start()
    await case.member("now", "watcher")
    peers = [connect(hub, user=f"u{number}") for number in range(8)]

    def change() -> None:
        client = rng.choice(peers).client
        if "now" in client.rooms:
            client.leave("now")
        else:
            client.join("now")

    def meanwhile(verb: str, names: tuple[str, ...]) -> None:
        for _ in range(rng.choice([0, 1, 2])):
            change()
        if rng.random() < 0.2:
            raise rng.choice([BrokerUnavailable("on purpose"), asyncio.CancelledError()])

    case.broker.meanwhile = meanwhile
    for _ in range(60):
        change()
        for _ in range(rng.randrange(6)):
            await asyncio.sleep(0)
        if rng.random() < 0.2:
            advance_time(hub, 1)
    case.broker.meanwhile = lambda verb, names: None
    await case.quiet()
    await case.pass_time(RETRY_S + 1)
    there = {str(peer.client.user) for peer in peers if "now" in peer.client.rooms}
    assert await users(hub, "now") == sorted({"watcher", *there})
    await hub.stop()
