"""Recovery against a list: whatever happens, in whatever order, nobody misses anything unnoticed.

Two hubs on one exchange. Publishers, joins, leaves, cut connections, cut brokers, slow clients, expiry and
new epochs come in an order that hypothesis chooses; turns of the event loop go by between them, or do not.
The oracle is what the exchange has taken: a list for each epoch. Each client checks for itself that what it
gets is the next, and nothing else (`recovering`); in the end all have everything since they last began anew.

`RECOVERY_EXAMPLES` sets how many runs of 40 steps there are.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from exchange import Exchange, carried
from hubbub import Position, RoomRules
from hubbub.brokers.broker import Keep
from hubbub.hub import recovery as recovery_module
from hubbub.testing import FakeClock, set_clock
from recovering import Recovering, read_all

EXAMPLES = int(os.environ.get("RECOVERY_EXAMPLES", "60"))
TTL_S = 50.0
ROOMS = ("red", "blue")
CLIENTS = 4


class Recoveries(RuleBasedStateMachine):
    """The steps. Each may leave things on their way."""

    @initialize(
        late_turns=st.integers(0, 3),
        seed=st.none() | st.integers(0, 99),
        history=st.integers(2, 12),
    )
    def begin(self, late_turns: int, seed: int | None, history: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        shuffle = None if seed is None else random.Random(seed)
        self.exchange = Exchange(late_turns=late_turns, shuffle=shuffle)
        self.exchange.clock = self.clock
        self.published: dict[tuple[str, str], list[str]] = {}
        self._note_what_is_taken()
        rules = [
            RoomRules("red", history=history, history_ttl_s=TTL_S, slow_policy="drop_oldest"),
            RoomRules("blue", history=history, history_ttl_s=TTL_S, slow_policy="drop_newest"),
        ]
        self.hubs = self.exchange.hubs(2, room_rules=rules, outbox_max_entries=3)
        for hub in self.hubs:
            set_clock(hub, self.clock)
            self.run(hub.start())
        self.clients = [
            Recovering(ROOMS[number % 2], fast=number % 4 < 2) for number in range(CLIENTS)
        ]
        self.number = 0
        self.has_lost_unnoticed = False
        for number, client in enumerate(self.clients):
            self.within(client.come_back, self.hubs[number // 2])
        self.run(self._rest())

    def _note_what_is_taken(self) -> None:
        add = self.exchange.store.add

        def noting(publication: Any, keep: Keep, now: float) -> Any:
            position = add(publication, keep, now)
            taken = self.published.setdefault((publication.room, position.epoch), [])
            taken.append(publication.data.decode())
            assert len(taken) == position.offset
            return position

        self.exchange.store.add = noting  # type: ignore[method-assign]

    def run(self, work: Coroutine[Any, Any, Any]) -> None:
        self.loop.run_until_complete(work)

    def within(self, function: Any, *arguments: Any) -> None:
        """Call a function on the loop, which turns once."""

        async def call() -> None:
            function(*arguments)
            await asyncio.sleep(0)

        self.run(call())

    @rule(hub=st.integers(0, 1), room=st.sampled_from(ROOMS), count=st.integers(1, 4))
    def publish(self, hub: int, room: str, count: int) -> None:
        for _ in range(count):
            self.number += 1
            self.within(self.hubs[hub].room(room).broadcast, str(self.number))

    @rule(hub=st.integers(0, 1), room=st.sampled_from(ROOMS), losing=st.integers(0, 1))
    def publish_and_lose(self, hub: int, room: str, losing: int) -> None:
        """Publish, and lose it on its way to a hub, which is not told."""

        async def publishing() -> None:
            self.exchange.hold()
            self.has_lost_unnoticed = True
            self.number += 1
            self.hubs[hub].room(room).broadcast(str(self.number))
            self.exchange._queues.pop((losing, room), None)
            self.exchange.release()

        self.run(publishing())

    @rule(turns=st.integers(1, 12))
    def turn(self, turns: int) -> None:
        async def turning() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.run(turning())

    @rule(who=st.integers(0, CLIENTS - 1), hub=st.integers(0, 1))
    def come(self, who: int, hub: int) -> None:
        client = self.clients[who]
        if not client.is_connected:
            client.cut()
            self.within(client.come_back, self.hubs[hub])

    @rule(who=st.integers(0, CLIENTS - 1))
    def go(self, who: int) -> None:
        self.within(self.clients[who].cut)

    @rule(who=st.integers(0, CLIENTS - 1))
    def be_slow(self, who: int) -> None:
        if self.clients[who].is_connected:
            self.within(self.clients[who].peer.transport.block)

    @rule(who=st.integers(0, CLIENTS - 1))
    def take_all(self, who: int) -> None:
        if self.clients[who].is_connected:
            self.within(self.clients[who].peer.transport.unblock)
            self.within(self.clients[who].read)

    @rule(hub=st.integers(0, 1))
    def cut(self, hub: int) -> None:
        self.within(self.exchange.brokers[hub].cut)

    @rule(hub=st.integers(0, 1))
    def mend(self, hub: int) -> None:
        self.within(self.exchange.brokers[hub].mend)

    @rule(seconds=st.sampled_from([1.0, 20.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(room=st.sampled_from(ROOMS))
    def forget(self, room: str) -> None:
        self.has_lost_unnoticed = True  # who is there learns of it from the next publication
        self.within(self.exchange.store.remove, room, self.clock())

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.run(asyncio.wait_for(self._end(), 30.0))
        finally:
            self.loop.close()

    async def _end(self) -> None:
        """Mend all, publish once more, and see that everybody has everything."""
        for broker in self.exchange.brokers:
            broker.mend()
        for client in self.clients:
            if client.is_connected:
                client.peer.transport.unblock()
        await self._rest()
        for client in self.clients:
            if not client.is_connected:
                client.cut()
                client.come_back(self.hubs[0])
        await self._rest()
        if not self.has_lost_unnoticed:
            self._check_all_have_all()
        for room in ROOMS:  # what was lost unnoticed is found by the next one
            await self.hubs[0].publish(room, "last")
        await self._rest()
        self._check_all_have_all()
        for hub in self.hubs:
            assert hub.stats()["handler_errors"] == 0
            await hub.stop()

    def _check_all_have_all(self) -> None:
        for client in self.clients:
            position = self.exchange.store.read(client.room, self.clock()).position
            epoch = client.epoch.split("~")[0]
            assert Position(client.offset, epoch) == position
            taken = self.published.get((client.room, epoch), [])
            texts = [text for text, _ in client.got]
            assert texts == taken[len(taken) - len(texts) :]
            if not client.began_anew:  # it was there from the beginning
                assert texts == taken

    async def _rest(self) -> None:
        for _ in range(5):
            await carried(self.exchange)
            await read_all(self.clients, self.hubs)
            await asyncio.sleep(0.002)


TestRecoveries = Recoveries.TestCase
TestRecoveries.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=40, deadline=None, database=None
)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery_module, "RETRY_S", 0.001)
