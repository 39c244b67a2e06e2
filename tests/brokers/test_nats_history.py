"""Histories in a stream: what a message says, who was quicker, what is purged, what is read of much."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broker_node import Node
from hubbub import BrokerUnavailable, PositionLost, Publication
from hubbub.brokers import nats_history, nats_stream
from hubbub.brokers.broker import Keep
from hubbub.brokers.envelope import pack, seal
from hubbub.brokers.nats import NatsBroker
from hubbub.brokers.nats_history import (
    NatsHistory,
    Record,
    Run,
    read_record,
    written,
)
from hubbub.brokers.nats_names import NatsNames
from hubbub.brokers.nats_stream import NoAnswer, NotNow, Stored, Stream
from hubbub.model import Position
from hubbub.wire.frame import Frame
from nats_server import nats_url
from valkey_server import fresh_prefix

pytestmark = pytest.mark.anyio

KEEP = Keep(20, 3600.0, 1024**2)


@asynccontextmanager
async def histories() -> AsyncIterator[tuple[NatsHistory, NatsHistory, Stream, NatsNames]]:
    """Two processes' sight of one stream, that do not hear each other."""
    prefix = fresh_prefix()
    broker = NatsBroker(nats_url(), prefix=prefix)
    await broker.start(Node())
    names, stream = NatsNames(prefix), broker._require().rooms
    yield (
        NatsHistory(stream, names, time.time),
        NatsHistory(stream, names, time.time),
        stream,
        names,
    )
    await broker.stop()


def run_of(*texts: str, room: str = "red", keep: Keep = KEEP) -> Run:
    sealed = [
        seal(Publication(room, Frame(text.encode(), True), time_ms=2**42), "me", number)
        for number, text in enumerate(texts)
    ]
    return Run(room, sealed, keep, None)


async def texts(history: NatsHistory, since: Position | None = None) -> list[str]:
    page = await history.read("red", since=since, limit=None, reverse=False)
    return [each.data.decode() for each in page.publications]


def test_a_message_is_read_as_it_was_written() -> None:
    record = Record(7, 12, 2, "abc", 99, Keep(5, 1.5, 1000), pack([b"x\ny", b""]))
    assert read_record(Stored(7, written(record))) == record
    assert (record.first, record.position) == (11, Position(12, "abc"))
    for data in (b"", b"h", b"h 1 2\n", b"r1 1 a 1 1 1 1\n", b"hx 1 a 1 1 1 1\n"):
        with pytest.raises(ValueError, match=r"no run|invalid literal"):
            read_record(Stored(1, data))


async def test_who_was_slower_stores_behind_who_was_quicker() -> None:
    async with histories() as (one, two, _, _):
        first = (await one.store(run_of("a"))).first
        assert first is not None
        assert (await two.store(run_of("b", "c"))).first == Position(2, first.epoch)
        assert (await one.store(run_of("d"))).first == Position(4, first.epoch)
        places = await asyncio.gather(
            *(history.store(run_of(str(n))) for n in range(10) for history in (one, two))
        )
        offsets = sorted(place.first.offset for place in places if place.first)
        assert offsets == list(range(5, 25))
        assert len(await texts(one)) == 20


async def test_who_reads_a_new_room_while_another_publishes_hides_nothing() -> None:
    async with histories() as (one, two, stream, _):
        last = stream.last

        async def overtaken(subject: str) -> Stored | None:
            """Return what there is, and have another publish before anything is made of it."""
            stored = await last(subject)
            if stored is None:
                stream.last = last  # type: ignore[method-assign]
                await two.store(run_of("a", "b"))
            return stored

        stream.last = overtaken  # type: ignore[method-assign]
        page = await one.read("red", since=None, limit=None, reverse=False)
        assert [each.data for each in page.publications] == [b"a", b"b"]
        assert await texts(two) == await texts(one) == ["a", "b"]
        assert (await two.store(run_of("c"))).first == Position(3, page.position.epoch)


async def test_a_run_whose_place_cannot_be_asked_for_at_once_is_stored_once() -> None:
    async with histories() as (one, _, stream, _):
        await one.store(run_of("a"))
        add, following = stream.add, stream.next

        async def lose_the_answer(*rest: Any, **options: Any) -> Any:
            await add(*rest, **options)
            stream.add = add  # type: ignore[method-assign]
            raise NoAnswer("lost")

        async def not_now(*rest: Any) -> Any:
            stream.next = following  # type: ignore[method-assign]
            raise NotNow("no leader")

        stream.add, stream.next = lose_the_answer, not_now  # type: ignore[method-assign, assignment]
        run = run_of("b")
        with pytest.raises(NoAnswer):
            await one.store(run)
        with pytest.raises(NotNow):
            await one.store(run)
        place = await one.store(run)
        assert place.first is not None
        assert place.first.offset == 2
        assert await texts(one) == ["a", "b"]


async def test_a_run_that_may_be_gone_again_is_never_stored_anew() -> None:
    """It may have been stored, and what is kept may have been cut behind it."""
    async with histories() as (one, two, stream, names):
        await one.store(run_of("a"))
        add = stream.add

        async def lose_the_answer(*rest: Any, **options: Any) -> Any:
            await add(*rest, **options)
            stream.add = add  # type: ignore[method-assign]
            raise NoAnswer("lost")

        stream.add = lose_the_answer  # type: ignore[method-assign]
        run = run_of("b")
        with pytest.raises(NoAnswer):
            await one.store(run)
        await two.store(run_of("c"))
        await stream.forget(names.history("red"), keep=1)
        for _ in range(3):  # while the server is away it is tried again and again
            with pytest.raises(BrokerUnavailable, match="others came after it"):
                await one.store(run)
        assert await texts(two) == ["c"]


async def test_a_room_is_purged_when_it_has_grown_and_shows_no_more_than_it_should() -> None:
    async with histories() as (one, two, stream, names):
        for number in range(60):
            await one.store(run_of(str(number)))
        assert await texts(two) == [str(number) for number in range(40, 60)]
        subject = names.history("red")
        while len(left := await stream.read(subject, 1, one.last_sequence)) > 40:
            await asyncio.sleep(0.01)
        assert len(left) >= 20
        for number in range(60, 100):  # this process has never seen where the oldest are
            await two.store(run_of(str(number)))
        while len(left := await stream.read(subject, 1, two.last_sequence)) > 40:
            await asyncio.sleep(0.01)
        assert await texts(one) == [str(number) for number in range(80, 100)]
        await one.stop()
        await two.stop()


async def test_a_room_that_is_too_large_in_bytes_is_purged_too() -> None:
    keep = Keep(1000, 3600.0, 5000)
    async with histories() as (one, _, stream, names):
        for _ in range(520):
            await one.store(run_of("x" * 1000, keep=keep))
        assert 1 <= len(await texts(one)) <= 5
        while len(await stream.read(names.history("red"), 1, one.last_sequence)) > 500:
            await asyncio.sleep(0.01)
        await one.stop()


async def test_much_is_read_by_parts_and_from_where_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nats_stream, "MOST_A_READ", 7)
    keep = Keep(100, 3600.0, 1024**2)
    async with histories() as (one, two, stream, _):
        for number in range(50):
            place = await one.store(run_of(str(number), f"{number}b", keep=keep))
        assert place.first is not None
        epoch = place.first.epoch
        firsts: list[int] = []
        read = stream.read

        async def watched(subject: str, first: int, last: int) -> list[Stored]:
            firsts.append(first)
            return await read(subject, first, last)

        stream.read = watched  # type: ignore[method-assign]
        expected = [text for n in range(50) for text in (str(n), f"{n}b")]
        assert await texts(two) == await texts(one) == expected
        for since in (0, 1, 2, 57, 98, 99):
            assert await texts(one, Position(since, epoch)) == expected[since:]
        assert await texts(one, Position(100, epoch)) == []
        assert firsts[:3] == [1, 1, 1], "what is asked from the start"
        assert firsts == sorted(firsts)
        assert firsts[-1] > firsts[2], "the last is asked from where it is"


async def test_what_is_kept_ages_by_the_servers_clock() -> None:
    keep = Keep(20, 600.0, 1024**2)
    async with histories() as (one, _, stream, names):
        place = await one.store(run_of("a", "b", keep=keep))
        assert place.first is not None
        for late_s, expected in ((590.0, ["a", "b"]), (601.0, [])):
            later = NatsHistory(stream, names, lambda late_s=late_s: time.time() + late_s)  # type: ignore[misc]
            assert await texts(later) == expected
            if not expected:
                with pytest.raises(PositionLost) as lost:
                    await texts(later, place.first)
                assert not lost.value.is_other_epoch
            assert await texts(later, Position(2, place.first.epoch)) == []


async def test_a_history_with_a_hole_is_lost_up_to_the_hole() -> None:
    async with histories() as (one, two, stream, names):
        for text in "abcd":
            await one.store(run_of(text))
        stored = await stream.read(names.history("red"), 1, one.last_sequence)
        await stream._asked("STREAM.MSG.DELETE", {"seq": stored[1].sequence})
        assert await texts(two) == ["c", "d"]
        epoch = (await two.read("red", since=None, limit=0, reverse=False)).position.epoch
        assert await texts(two, Position(2, epoch)) == ["c", "d"]
        with pytest.raises(PositionLost):
            await texts(two, Position(1, epoch))


async def test_a_room_that_was_removed_by_another_is_known_to_be_new() -> None:
    async with histories() as (one, two, _, _):
        first = (await one.store(run_of("a", "b"))).first
        await two.remove("red")
        again = (await one.store(run_of("c"))).first
        assert first is not None
        assert again is not None
        assert (again.offset, again.epoch != first.epoch) == (1, True)
        with pytest.raises(PositionLost):
            await two.read("red", since=first, limit=None, reverse=False)


async def test_of_more_rooms_than_are_known_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_history, "MOST_ROOMS", 2)
    async with histories() as (one, _, _, _):
        for turn in range(3):
            for room in "abc":
                place = await one.store(run_of("x", room=room))
                assert place.first is not None
                assert place.first.offset == turn + 1
        assert len(one._rooms) == 2
