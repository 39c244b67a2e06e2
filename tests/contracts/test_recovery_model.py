"""Recovery against a list: whatever happens, in whatever order, nobody misses anything unnoticed.

Two hubs on one exchange. Publishers, joins, leaves, exclusions, cut connections, cut brokers, slow clients,
expiry and new epochs come in an order that hypothesis chooses; turns of the event loop go by between them, or
do not. Clients subscribe by a command, have the room from their identity, or are plain ones that the
application brings in. The oracle is what the exchange has taken: a list for each epoch, and who was excluded
from what. Each client checks for itself that what it gets is the next, and nothing else (`recovering`), and
that it is given what is kept; in the end all have everything since they last began anew.

What must not live here: what a client does and checks (`recovering`), single cases (`tests/hub/test_recovery.py`).

`RECOVERY_EXAMPLES` sets how many runs of up to 40 steps there are, in all.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from exchange import Exchange
from hubbub import Client, Handshake, Hub, Identity, Position, PositionLost, RoomRules
from hubbub.brokers.broker import Keep
from hubbub.hub import recovery as recovery_module
from hubbub.testing import FakeClock, set_clock
from recovering import Place, PlainRecovering, Recovering, Returning, epoch_of

EXAMPLES = int(os.environ.get("RECOVERY_EXAMPLES", "320"))
PARTS = 2
TTL_S = 50.0
ROOMS = ("red", "blue")
CLIENTS = 4
WHO = st.integers(0, CLIENTS - 1)
MOST_TOGETHER = 4
QUIET_TURNS = 10
MOST_TURNS = 20_000
KINDS = ("subscribes", "given", "plain")


def _identity_of(handshake: Handshake) -> Identity:
    """Give a client the room that its token names."""
    room = handshake.connect_token
    return Identity(rooms=(room,) if room else ())


class Recoveries(RuleBasedStateMachine):
    """The steps. Each may leave things on their way. `kinds` are those of clients that there may be."""

    kinds: tuple[str, ...] = KINDS

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        late_turns = data.draw(st.integers(0, 3), "late turns")
        seed = data.draw(st.none() | st.integers(0, 99), "seed")
        history = data.draw(st.integers(2, 12), "history")
        some = st.lists(st.sampled_from(self.kinds), min_size=CLIENTS, max_size=CLIENTS)
        kinds = data.draw(some, "kinds")
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        shuffle = None if seed is None else random.Random(seed)
        self.exchange = Exchange(late_turns=late_turns, shuffle=shuffle)
        self.exchange.clock = self.clock
        self.published: dict[tuple[str, str], list[str]] = {}
        self.places: dict[str, Place] = {}
        self._note_what_is_taken()
        rules = [
            RoomRules("red", history=history, history_ttl_s=TTL_S, slow_policy="drop_oldest"),
            RoomRules("blue", history=history, history_ttl_s=TTL_S, slow_policy="drop_newest"),
        ]
        self.hubs = self.exchange.hubs(2, room_rules=rules, outbox_max_entries=2)
        for hub in self.hubs:
            set_clock(hub, self.clock)
            hub.authenticate(_identity_of)
            self.run(hub.start())
        self.run(self.exchange.carried())
        self.idle_tasks = len(asyncio.all_tasks(self.loop)) + 1  # and the test's own
        self.clients = [self._client(kind, number) for number, kind in enumerate(kinds)]
        self.number = 0
        self.holds_on = False
        self.waiting: list[Callable[[], object]] = []
        self.has_lost_unnoticed = False
        for number, client in enumerate(self.clients):
            self.do(client.come_back, self.hubs[number // 2])
        self.run(self._rest())

    def _client(self, kind: str, number: int) -> Returning:
        room, fast = ROOMS[number % 2], number % 4 < 2
        client: Returning
        if kind == "plain":
            client = PlainRecovering(room, self.places, fast=fast)
        else:
            client = Recovering(room, fast=fast, is_given=kind == "given")
        client.is_kept = self._is_kept
        return client

    def _is_kept(self, room: str, since: Position) -> bool:
        try:
            bare = Position(since.offset, epoch_of(since.epoch))
            self.exchange.store.read(room, self.clock(), since=bare)
        except PositionLost:
            return False
        return True

    def _note_what_is_taken(self) -> None:
        add = self.exchange.store.add

        def noting(publication: Any, keep: Keep, now: float) -> Any:
            position = add(publication, keep, now)
            taken = self.published.setdefault((publication.room, position.epoch), [])
            taken.append(publication.data.decode())
            assert len(taken) == position.offset
            place = self.places[taken[-1]] = (position.epoch, position.offset)
            for client in self.clients:
                if publication.exclude is not None:
                    client.note_exclusion(publication.exclude, place)
            return position

        self.exchange.store.add = noting  # type: ignore[method-assign]

    def run(self, work: Coroutine[Any, Any, Any]) -> None:
        self.loop.run_until_complete(work)

    def do(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function on the loop, which turns once; after `hold_on` it is called with others that follow."""
        self.waiting.append(partial(function, *arguments))
        if not self.holds_on or len(self.waiting) == MOST_TOGETHER:
            self.call_waiting()

    def call_waiting(self) -> None:
        """Call all that waits in one turn."""
        self.holds_on, functions, self.waiting = False, self.waiting, []

        async def call() -> None:
            for function in functions:
                function()
            await asyncio.sleep(0)

        self.run(call())

    @rule()
    def hold_on(self) -> None:
        """Let no turn go by between the steps that follow, until `turn`, or there are several."""
        self.holds_on = True

    @rule(turns=st.integers(1, 12))
    def turn(self, turns: int) -> None:
        async def turning() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.call_waiting()
        self.run(turning())

    @rule(hub=st.integers(0, 1), room=st.sampled_from(ROOMS), count=st.integers(1, 6))
    def publish(self, hub: int, room: str, count: int) -> None:
        for _ in range(count):
            self.do(self._publish, self.hubs[hub], room)

    def _publish(self, hub: Hub, room: str, exclude: Client | None = None) -> None:
        self.number += 1
        hub.room(room).broadcast(str(self.number), exclude=exclude)

    @rule(who=WHO, is_late=st.booleans())
    def publish_to_others(self, who: int, is_late: bool) -> None:
        """Publish to all but one client; `is_late`: the application knows it by the connection before."""
        self.do(self._publish_to_others, self.clients[who], is_late)

    def _publish_to_others(self, excluded: Returning, is_late: bool) -> None:
        was = excluded.last_clients()
        if was:
            client, hub = was[0 if is_late else -1]
            has_name = excluded.knows_its_name(client)
            self._publish(hub, excluded.room, client)
            place = self.places.get(str(self.number))  # None while the exchange cannot be reached
            assert place is None or not has_name or place in excluded.not_for_it

    @rule(hub=st.integers(0, 1), room=st.sampled_from(ROOMS), losing=st.integers(0, 1))
    def publish_and_lose(self, hub: int, room: str, losing: int) -> None:
        """Publish, and lose it on its way to a hub, which is not told."""

        def publish() -> None:
            self.exchange.hold()
            self.has_lost_unnoticed = True
            self._publish(self.hubs[hub], room)
            self.exchange._queues.pop((losing, room), None)
            self.exchange.release()

        self.do(publish)

    @rule(who=WHO, hub=st.integers(0, 1))
    def come(self, who: int, hub: int) -> None:
        """Have one that is away come back; if nobody is, one loses its connection and is back at once."""
        self.do(self._come, who, self.hubs[hub])

    def _come(self, who: int, hub: Hub) -> None:
        away = [each for each in self.clients if each.is_out or not each.is_connected]
        client = away[who % len(away)] if away else self.clients[who]
        if not client.is_out or not client.is_connected:
            client.cut()
        client.come_back(hub)

    @rule(who=WHO)
    def leave(self, who: int) -> None:
        """Leave the room and stay out, until `come`."""
        self.do(self._while_connected, who, lambda each: each.leave() if each.can_ask else None)

    @rule(who=WHO)
    def leave_and_return(self, who: int) -> None:
        self.do(
            self._while_connected,
            who,
            lambda each: each.leave_and_return() if each.can_ask else None,
        )

    @rule(who=WHO)
    def put_out(self, who: int) -> None:
        """Have the application take a client out of its room, until `come`."""
        self.do(self._while_connected, who, lambda each: each.be_put_out())

    @rule(who=WHO)
    def go(self, who: int) -> None:
        self.do(self.clients[who].cut)

    @rule(who=WHO)
    def be_slow(self, who: int) -> None:
        self.do(self._while_connected, who, lambda each: each.peer.transport.block())

    @rule(who=WHO, writes=st.none() | st.integers(1, 3))
    def take(self, who: int, writes: int | None) -> None:
        """Take what waits, or so many writes of it."""
        self.do(self._while_connected, who, lambda each: each.peer.transport.unblock(writes))
        self.do(self.clients[who].read)

    def _while_connected(self, who: int, act: Callable[[Returning], object]) -> None:
        if self.clients[who].is_connected:
            act(self.clients[who])

    @rule(hub=st.integers(0, 1))
    def cut(self, hub: int) -> None:
        self.do(self.exchange.brokers[hub].cut)

    @rule(hub=st.integers(0, 1))
    def mend(self, hub: int) -> None:
        self.do(self.exchange.brokers[hub].mend)

    @rule(seconds=st.sampled_from([1.0, 20.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.do(self.clock.advance, seconds)

    @rule(room=st.sampled_from(ROOMS))
    def forget(self, room: str) -> None:
        self.has_lost_unnoticed = True  # who is there learns of it from the next publication
        self.do(lambda: self.exchange.store.remove(room, self.clock()))

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.call_waiting()
            self.run(self._end())
        finally:
            self.run(self._end_tasks())
            self.loop.close()

    async def _end_tasks(self) -> None:
        """End what a failure has left behind."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _end(self) -> None:
        """Mend all, publish once more, and see that everybody has everything."""
        for broker in self.exchange.brokers:
            broker.mend()
        await self._all_back()
        if not self.has_lost_unnoticed:
            self._check_all_have_all()
        for room in ROOMS:  # what was lost unnoticed is found by the next one
            self.number += 1
            await self.hubs[0].publish(room, str(self.number))
        await self._all_back()
        self._check_all_have_all()
        for hub in self.hubs:
            assert hub.stats()["handler_errors"] == 0
            await hub.stop()

    async def _all_back(self) -> None:
        """Have all clients take what comes, and come back, until everybody is there."""
        for _ in range(20):
            for client in self.clients:
                if client.is_connected:
                    client.peer.transport.unblock()
            await self._rest()
            away = [client for client in self.clients if not client.is_at_rest]
            if not away:
                return
            for client in away:
                if not client.is_connected:
                    client.cut()
                client.come_back(self.hubs[0])
        raise AssertionError(f"{away} could not come back")

    def _check_all_have_all(self) -> None:
        for client in self.clients:
            position = self.exchange.store.read(client.room, self.clock()).position
            epoch = epoch_of(client.epoch)
            if isinstance(client, PlainRecovering):
                assert not client.is_owed_a_gap
                assert not client.lacks_unnoticed(position.epoch, position.offset)
                if client.knows_until is not None:
                    continue
            assert epoch == position.epoch
            assert not client.misses(position.offset)
            taken = self.published.get((client.room, epoch), [])
            due = [
                (text, offset)
                for offset, text in enumerate(taken, 1)
                if offset > client.began_at and client.is_for_it(offset)
            ]
            assert client.got == due
            if isinstance(client, Recovering) and not client.began_anew:
                assert client.began_at == 0  # it was there from the beginning

    async def _rest(self) -> None:
        """Have all that is on its way arrive, and the clients take it, until nothing more comes."""
        quiet = 0
        for _ in range(MOST_TURNS):
            await asyncio.sleep(0)
            before = [len(client.got) for client in self.clients]
            for client in self.clients:
                client.read()
            is_busy = self.exchange.is_busy or len(asyncio.all_tasks()) > self.idle_tasks
            is_quiet = not is_busy and before == [len(client.got) for client in self.clients]
            quiet = quiet + 1 if is_quiet else 0
            if quiet == QUIET_TURNS:
                return
        raise AssertionError(f"something goes on all the time: {asyncio.all_tasks()}")


class Subscribers(Recoveries):
    """All subscribe by a command."""

    kinds = ("subscribes",)


class Given(Recoveries):
    """All have the room from their identity."""

    kinds = ("given",)


class Plain(Recoveries):
    """All are brought in by the application."""

    kinds = ("plain",)


MACHINES = (Recoveries, Subscribers, Given, Plain)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("machine", MACHINES)
def test_nobody_misses_anything_unnoticed(machine: type[Recoveries], part: int) -> None:
    runs = settings(
        max_examples=max(1, EXAMPLES // (len(MACHINES) * PARTS)),
        stateful_step_count=40,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(machine, settings=runs)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery_module, "RETRY_S", 0.001)
