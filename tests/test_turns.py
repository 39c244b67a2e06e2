"""Turns: what many ask for at once is parted among turns of the event loop."""

from __future__ import annotations

import asyncio
import json

import pytest

from hubbub import RoomRules
from hubbub.hub.core import MOST_A_TURN, core_of
from hubbub.testing import connect, settle
from hubbub.turns import Turns
from started_hub import started

pytestmark = pytest.mark.anyio


class Work:
    """What takes a place, and notes in which turn it was done."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.turn = 0
        self.done: list[tuple[int, int]] = []

    async def do(self, number: int) -> None:
        await self.turns.take()
        self.done.append((number, self.turn))

    async def pass_turns(self) -> None:
        while self.turns.waiting or not self.done:
            await asyncio.sleep(0)
            self.turn += 1


async def test_a_turn_has_so_many_places_and_they_are_taken_in_order() -> None:
    work = Work(Turns(3))
    await asyncio.gather(work.pass_turns(), *(work.do(number) for number in range(10)))
    assert [number for number, _ in work.done] == list(range(10))
    turns = [turn for _, turn in work.done]
    assert all(turns.count(turn) <= 3 for turn in turns)
    assert len(set(turns)) == 4


async def test_who_comes_while_others_wait_waits_behind_them() -> None:
    work = Work(Turns(1))
    first = [asyncio.create_task(work.do(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert work.turns.waiting == 2
    await asyncio.gather(work.do(3), *first)
    assert [number for number, _ in work.done] == [0, 1, 2, 3]


async def test_a_place_that_is_not_wanted_any_more_goes_to_the_next() -> None:
    work = Work(Turns(1))
    tasks = [asyncio.create_task(work.do(number)) for number in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [number for number, _ in work.done] == [0, 2, 3]


async def test_where_nobody_waits_nothing_is_called_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[Turns] = []
    begin = Turns._begin

    def note(turns: Turns) -> None:
        begun.append(turns)
        begin(turns)

    monkeypatch.setattr(Turns, "_begin", note)
    turns = Turns(2)
    for count in (1, 2, 3):
        await turns.take()
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(begun) == count


async def test_a_crowd_that_comes_back_leaves_others_their_turns() -> None:
    hub = await started(room_rules=[RoomRules("chat", history=100)])
    try:
        position = await hub.cursor("chat")
        await hub.publish("chat", {"n": 1})
        peers = [connect(hub, dialect="centrifuge") for _ in range(5 * MOST_A_TURN)]
        for peer in peers:
            peer.send(
                '{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"chat","recover":true,'
                f'"epoch":"{position.epoch}","offset":0}}}}'
            )
        whole: list[int] = []
        while not whole or whole[-1] < len(peers):
            await asyncio.sleep(0)
            whole.append(len(hub.room("chat")))
        steps = [after - before for before, after in zip([0, *whole], whole, strict=False)]
        assert max(steps) <= MOST_A_TURN
        await settle(hub)
        for peer in peers:
            answer = json.loads(str(peer.received[-1]).splitlines()[-1])["subscribe"]
            assert answer["recovered"]
            assert [each["offset"] for each in answer["publications"]] == [1]
    finally:
        await hub.stop()


async def test_who_has_gone_while_it_waited_is_not_asked_who_it_is() -> None:
    hub = await started()
    asked: list[object] = []

    @hub.authenticate
    def who(handshake: object) -> None:
        asked.append(handshake)

    try:
        peers = [connect(hub, dialect="centrifuge") for _ in range(MOST_A_TURN + 3)]
        for peer in peers:
            peer.send('{"id":1,"connect":{}}')
        while core_of(hub).turns.waiting < 3:
            await asyncio.sleep(0)
        for peer in peers:
            peer.transport.drop_connection()
        await settle(hub)
        assert len(asked) == MOST_A_TURN
        assert core_of(hub).turns.waiting == 0
    finally:
        await hub.stop()


async def test_who_takes_a_whole_turn_is_alone_in_it_and_nobody_overtakes() -> None:
    turns, order = Turns(4), []

    async def take(name: str, places: int) -> None:
        await turns.take(places)
        order.append(name)

    tasks = [
        asyncio.create_task(take(f"{n}", places)) for n, places in enumerate((1, 4, 1, 4, 2, 2))
    ]
    for _ in range(2):
        await asyncio.sleep(0)
    assert order == ["0"]
    seen = []
    while len(order) < 6:
        await asyncio.sleep(0)
        seen.append(tuple(order))
    await asyncio.gather(*tasks)
    assert order == ["0", "1", "2", "3", "4", "5"]
    assert ("0", "1") in seen, "the second had its turn for itself"
    assert turns.waiting == 0
