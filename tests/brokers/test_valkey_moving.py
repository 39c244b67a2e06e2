"""What waits for a shard whose rooms move: it goes to the other as a whole, in order, and is there once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis

from hubbub import BrokerUnavailable, Receipt
from hubbub.brokers import unanswered
from hubbub.brokers.valkey_moving import MovingOutgoing
from hubbub.brokers.valkey_outgoing import Plain, Script, ValkeyWaiting
from valkey_server import connections, fresh_prefix

pytestmark = pytest.mark.anyio

LONG_MS = 100_000


class Shards:
    """Two shards, which are one server, and where rooms are."""

    def __init__(self) -> None:
        self.name = fresh_prefix()
        self.connections = [connections(), connections()]
        self.is_up = [True, True]
        self.at: dict[str, int] = {}
        self.refused = 0
        self.number = 0
        self.sent: list[tuple[int, list[int]]] = []
        self.each = [self._make(number) for number in range(2)]

    def _make(self, number: int) -> MovingOutgoing:
        made = MovingOutgoing(
            self.connections[number],
            lambda: self.is_up[number],
            lambda room: None,
            lambda waiting: self.each[self.at.get(waiting.room, 0)],
            self._refused,
        )
        ask: Any = made._ask

        async def noting(some: list[ValkeyWaiting]) -> Any:
            self.sent.append((number, [waiting.number for waiting in some]))
            return await ask(some)

        made._ask = noting  # type: ignore[method-assign]
        return made

    async def _refused(self) -> None:
        self.refused += 1

    def move(self, room: str, to: int) -> None:
        """Have a room be on another shard, as a map says that was read anew."""
        self.at[room] = to
        for each in self.each:
            each.note_moves()

    def put(self, room: str, *, is_kept: bool = True) -> asyncio.Future[Receipt]:
        """Publish a number, as the layout does."""
        self.number += 1
        data = b"%d" % self.number
        has = next((each for each in self.each if each.has(room)), None)
        to = has or self.each[self.at.get(room, 0)]
        command: Script | Plain = Plain(f"{self.name}{room}".encode(), data)
        if is_kept:
            keys = tuple(f"{{{self.name}{room}}}:{kind}" for kind in ("h", "s", "n"))
            bounds = (self.name, 100, LONG_MS, 10_000, LONG_MS, LONG_MS, LONG_MS)
            command = Script(keys, bounds, data)
        return to.put(self.number, room, command)

    async def stored(self, room: str) -> list[int]:
        """Return what is kept of a room."""
        rows = await self.connections[0].client.xrange(f"{{{self.name}{room}}}:s")
        return [int(fields[b"d"]) for _, fields in rows]

    async def __aenter__(self) -> Shards:
        for each in self.each:
            await each.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        for each, made in zip(self.each, self.connections, strict=True):
            await each.stop()
            await made.close()


async def test_of_a_room_one_command_is_on_its_way_at_a_time() -> None:
    async with Shards() as shards:
        kinds = [True, True, False, True]
        await asyncio.gather(*(shards.put("red", is_kept=kind) for kind in kinds))
        assert shards.sent == [(0, [1, 2]), (0, [3]), (0, [4])]
        assert not any(each.has("red") for each in shards.each)


async def test_what_waits_for_a_room_goes_with_it_and_what_comes_later_comes_behind() -> None:
    async with Shards() as shards:
        shards.is_up[0] = False
        waiting = [shards.put(room) for room in ("red", "blue", "red")]
        shards.move("red", 1)
        waiting.append(shards.put("red"))
        assert [each.has("red") for each in shards.each] == [False, True]
        red = [waiting[place] for place in (0, 2, 3)]
        assert [each.position and each.position.offset for each in await asyncio.gather(*red)] == [
            1,
            2,
            3,
        ]
        assert not waiting[1].done()
        shards.is_up[0] = True
        shards.each[0].wake()
        await waiting[1]
        assert await shards.stored("red") == [1, 3, 4]
        assert shards.each[0].untaken == shards.each[1].untaken == 0
        assert shards.each[0].nbytes == shards.each[1].nbytes == 0


@pytest.mark.parametrize("goes", [False, True], ids=["stays", "goes"])
@pytest.mark.parametrize("kind", ["MovedError", "AskError", "TryAgainError", "ClusterDownError"])
async def test_what_is_refused_stays_in_front(goes: bool, kind: str) -> None:
    error = getattr(redis.exceptions, kind)("5 127.0.0.1:7000")
    async with Shards() as shards:
        ask: Any = shards.each[0]._ask
        count = 0

        async def refusing(some: list[ValkeyWaiting]) -> list[Any]:
            nonlocal count
            count += 1
            answers = await ask([each for each in some if each.room != "red"]) if count == 1 else []
            if count > 1:
                return list(await ask(some))
            if goes:
                shards.move("red", 1)
            shards.put("red")
            return [error if each.room == "red" else answers.pop(0) for each in some]

        shards.each[0]._ask = refusing  # type: ignore[method-assign]
        red, blue = shards.put("red"), shards.put("blue")
        assert (await blue).position is not None
        assert (await red).position is not None
        last = await shards.put("red")
        assert last.position is not None
        assert last.position.offset == 3
        assert await shards.stored("red") == [1, 3, 4]
        assert shards.refused == 1
        assert shards.sent[-1][0] == int(goes)


async def test_what_is_refused_for_too_long_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unanswered, "WAIT_S", 0.2)
    monkeypatch.setattr(unanswered, "LOOK_S", 0.05)
    async with Shards() as shards:

        async def refusing(some: list[ValkeyWaiting]) -> list[Any]:
            return [redis.exceptions.TryAgainError("x") for _ in some]

        shards.each[0]._ask = refusing  # type: ignore[method-assign]
        with pytest.raises(BrokerUnavailable):
            await shards.put("red")
        assert not shards.each[0].has("red")
