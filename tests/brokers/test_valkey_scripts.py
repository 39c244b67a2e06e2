"""The scripts by which the Valkey broker publishes, against a list: what is kept, and what a second try does."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hubbub.brokers.valkey_connections import close_line, hear, holds_on, tell
from hubbub.brokers.valkey_presence_scripts import ENTER, EXPIRE, LEAVE
from hubbub.brokers.valkey_scripts import HISTORY, PUBLISH, sharded
from valkey_server import connections, fresh_prefix

pytestmark = pytest.mark.anyio

LONG_MS = 3_600_000
SHORT_MS = 600_000


class Room:
    """A room, and the scripts."""

    def __init__(self) -> None:
        self.connections = connections()
        client = self.connections.client
        self._publish, self._read = client.register_script(PUBLISH), client.register_script(HISTORY)
        self._name = fresh_prefix()
        self.keys = [f"{{{self._name}}}:{kind}" for kind in ("h", "s", "n:me")]
        self.channel = f"{self._name}:c"
        self.number = 0

    async def publish_run(self, run: dict[int, bytes]) -> Any:
        """Publish several, by their numbers."""
        bounds = [5, LONG_MS, 10_000, LONG_MS, 1000, LONG_MS, "e", "1"]
        rows = [each for row in run.items() for each in row]
        return await self._publish(keys=self.keys, args=[self.channel, *bounds, *rows])

    async def publish(
        self,
        data: bytes,
        entries: int = 5,
        most: int = 10_000,
        *,
        key: str | None = None,
        again: bool = False,
        state: str = "1",
        fresh: str = "e",
    ) -> Any:
        """Publish what is new, or the last once more."""
        self.number += not again
        keys = self.keys + ([] if key is None else [f"{{{self._name}}}:k:{key}"])
        bounds = [entries, LONG_MS, most, LONG_MS, 1000, LONG_MS, fresh, state]
        is_repeated, (place,) = await self._publish(
            keys=keys, args=[self.channel, *bounds, self.number, data]
        )
        return [is_repeated, place]

    async def read(
        self, since: Any = "", limit: Any = "", reverse: bool = False, state: str = "1"
    ) -> Any:
        """Read what is kept."""
        arguments = [since, "e", limit, int(reverse), "f", LONG_MS, state, SHORT_MS]
        return await self._read(keys=self.keys[:2], args=arguments)


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    made = Room()
    yield made
    await made.connections.close()


@pytest.mark.parametrize("seed", range(8))
async def test_number_and_bytes_bound_what_is_kept_as_in_a_list(room: Room, seed: int) -> None:
    draw = random.Random(seed)
    kept: list[tuple[int, bytes]] = []
    for top in range(1, 61):
        data, entries, most = draw.randbytes(draw.randrange(200)), draw.randrange(1, 8), 600
        kept.append((top, data))
        while len(kept) > entries or sum(len(each) for _, each in kept) > most:
            kept.pop(0)
        assert await room.publish(data, entries, most) == [0, b"%d e" % top]
        limit: Any = draw.choice(["", 0, 1, 3])
        since: Any = draw.choice(["", draw.randrange(top + 1)])
        reverse = draw.random() < 0.3
        answer = await room.read(since, limit, reverse)
        first = kept[0][0] if kept else top + 1
        if since != "" and not reverse and since < first - 1:
            assert answer == 2
            continue
        found = kept
        if since != "":
            found = [x for x in kept if (x[0] < since if reverse else x[0] > since)]
        found = found[::-1] if reverse else found
        found = found if limit == "" else found[:limit]
        assert answer == [top, b"e", [list(each) for each in found]]


async def test_what_never_had_a_publication_is_kept_for_a_short_while(room: Room) -> None:
    left = room.connections.client.pttl
    assert (await room.read())[0] == 0
    assert 0 < await left(room.keys[0]) <= SHORT_MS
    await room.publish(b"1")
    assert await left(room.keys[0]) > SHORT_MS
    await room.read()
    assert await left(room.keys[0]) > SHORT_MS


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_second_try_of_what_was_taken_publishes_nothing(
    room: Room, key: str | None
) -> None:
    await room.publish(b"1")
    assert await room.publish(b"2", key=key) == [0, b"2 e"]
    assert await room.publish(b"2", key=key, again=True) == [0, b"2 e"]
    assert (await room.read())[0] == 2
    assert await room.publish(b"3") == [0, b"3 e"]
    room.number = 1
    assert await room.publish(b"1", again=True) == [0, b"1 e"], "it came late"
    assert (await room.read())[0] == 3


async def test_of_a_run_that_is_tried_again_only_what_is_new_is_published(room: Room) -> None:
    line = await room.connections.open_line()
    await tell(line, "SUBSCRIBE", room.channel)
    await hear(line)
    assert await room.publish_run({1: b"a", 2: b"b"}) == [0, [b"1 e", b"2 e"]]
    assert await room.publish_run({1: b"a", 2: b"b", 4: b"c", 5: b""}) == [
        0,
        [b"1 e", b"2 e", b"3 e", b"4 e"],
    ]
    assert await room.publish_run({5: b"", 6: b"d"}) == [0, [b"4 e", b"5 e"]]
    assert await room.publish_run({5: b"", 6: b"d"}) == [0, [b"4 e", b"5 e"]]
    told = [(await hear(line))[2] for _ in range(3)]
    assert told == [b"r1 e\n1:a1:b", b"r3 e\n1:c0:", b"5 e\nd"]
    assert [data for _, data in (await room.read())[2]] == [b"a", b"b", b"c", b"", b"d"]
    await close_line(line)


async def test_a_second_try_of_what_is_not_kept_any_more_has_no_position(room: Room) -> None:
    await room.publish(b"1")
    other = Room()
    other.keys = [*room.keys[:2], room.keys[2] + "other"]
    for _ in range(5):
        await other.publish(b"x")
    assert await room.publish(b"1", again=True) == [0, b""]
    assert (await room.read())[0] == 6
    await other.connections.close()


async def test_a_server_in_another_state_begins_a_new_epoch(room: Room) -> None:
    await room.publish(b"1")
    assert await room.read(1, state="2") == 1
    assert await room.publish(b"2", state="2", fresh="g") == [0, b"1 f"]


async def test_a_room_that_has_come_from_another_shard_has_lost_nothing(room: Room) -> None:
    for state in ("@a one/", "@b two/"):  # it has moved
        await room.publish(b"1", state=state)
    assert (await room.read(1, state="@b two/"))[0] == 2
    assert await room.read(1, state="@b three/") == 1, "another node of the shard has taken over"
    assert await room.publish(b"2", state="@c four/") == [0, b"1 f"]
    assert await room.read(1, state="1") == 1


def test_in_a_cluster_scripts_publish_to_the_shard() -> None:
    for script in (PUBLISH, ENTER, LEAVE, EXPIRE):
        assert "'PUBLISH'" in script
        assert "'PUBLISH'" not in sharded(script)
        assert "'SPUBLISH'" in sharded(script)


@pytest.mark.parametrize(
    ("old", "new", "holds"),
    [
        ("", "", True),
        ("a", "a", True),
        ("", "a", False),
        ("@a n/", "@a n/", True),
        ("@a n/", "@a m/", False),
        ("@a n/", "@b m/x", True),
        ("@a n/", "", False),
    ],
)
async def test_processes_and_scripts_agree_which_states_hold(
    room: Room, old: str, new: str, holds: bool
) -> None:
    await room.publish(b"1", state=old)
    answer = await room.read(1, state=new)
    assert (answer != 1) == holds == holds_on(old, new)


async def test_positions_that_the_server_has_lost_begin_anew(room: Room) -> None:
    await room.publish(b"1")
    await room.connections.client.delete(room.keys[0])
    assert await room.publish(b"2", fresh="g") == [0, b"1 g"]
    assert (await room.read())[2] == [[1, b"2"]]


async def test_reading_shortens_the_life_of_no_history(room: Room) -> None:
    await room.publish(b"1")
    await room._read(keys=room.keys[:2], args=["", "", "", 0, "f", LONG_MS // 100, "1"])
    assert await room.connections.client.pttl(room.keys[0]) > LONG_MS // 2
    assert (await room.read())[2] == [[1, b"1"]]
