"""Presence in a stream: how a room is written, and what is told of it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broker_node import Node
from hubbub import BrokerUnavailable, ClientInfo, PresenceStats
from hubbub.brokers import nats_presence
from hubbub.brokers.broker import CallFailed, CallRefused, PresenceTerms
from hubbub.brokers.nats import NatsBroker
from hubbub.brokers.nats_names import NatsNames
from hubbub.brokers.nats_presence import COUNTED, TOLD_BYTES, NatsPresence, told_publication
from hubbub.brokers.nats_stream import Stream
from hubbub.brokers.presence import Rows
from hubbub.wire.presence import Told, read_told
from hubbub.wire.publication import Kind
from nats_server import nats_url, server_with
from valkey_server import fresh_prefix

pytestmark = pytest.mark.anyio

TERMS = PresenceTerms(lease_s=60.0, grace_s=0.0, told_up_to=100)


@asynccontextmanager
async def presences(
    url: str,
) -> AsyncIterator[tuple[NatsPresence, NatsPresence, Stream, NatsNames]]:
    prefix = fresh_prefix()
    broker = NatsBroker(url, prefix=prefix)
    await broker.start(Node())
    names, stream = NatsNames(prefix), broker._require().people
    yield (*(NatsPresence(stream, names, lambda: 1e9) for _ in "ab"), stream, names)  # type: ignore[misc]
    await broker.stop()


@asynccontextmanager
async def small_presence(
    most: int, folder: Path
) -> AsyncIterator[tuple[NatsPresence, Stream, NatsNames]]:
    """Presence on a server of its own that takes messages of so many bytes at most."""
    async with (
        server_with(f"max_payload: {most}\n", folder) as server,
        presences(server.url) as (one, _, stream, names),
    ):
        yield one, stream, names


async def test_two_processes_that_meet_lose_nobody() -> None:
    async with presences(nats_url()) as (one, two, _, _):
        await asyncio.gather(
            *(
                each.enter("red", {f"{n}.{name}": ClientInfo(f"{n}.{name}")}, TERMS)
                for n in range(10)
                for name, each in (("a", one), ("b", two))
            )
        )
        assert (await one.stats("red")).clients == 20
        left = await asyncio.gather(
            *(
                each.leave("red", [f"{n}.a", f"{n}.b"], TERMS)
                for n in range(10)
                for each in (one, two)
            )
        )
        assert sum(map(len, left)) == 20
        assert (await two.stats("red")).clients == 0


async def test_what_changes_nothing_writes_nothing() -> None:
    async with presences(nats_url()) as (one, _, stream, names):
        await one.enter("red", {"a": ClientInfo("a")}, TERMS)
        before = await stream.last(names.presence("red"))
        assert list(await one.expire("red", TERMS)) == []
        assert list(await one.leave("red", ["nobody"], TERMS)) == []
        assert await stream.last(names.presence("red")) == before
        assert list(await one.expire("empty", TERMS)) == []
        assert await stream.last(names.presence("empty")) is None


async def test_a_room_is_counted_without_being_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with presences(nats_url()) as (one, two, _, _):
        waits = PresenceTerms(lease_s=60.0, grace_s=10.0, told_up_to=0)
        people = {f"n{n}": ClientInfo(f"c{n}", f"u{n // 2}") for n in range(6)}
        await one.enter("red", people, TERMS)
        await two.leave("red", ["n0", "n4", "n5"], waits)
        with monkeypatch.context() as patch:
            patch.setattr(nats_presence, "_unpacked", never)
            assert await one.stats("red") == PresenceStats(clients=4, users=3)
            assert (await one.snapshot("red", 3)).is_too_long
            assert await one.stats("blue") == PresenceStats(0, 0)
        assert len((await one.snapshot("red", 4)).infos) == 4


def never(data: bytes) -> Rows:
    raise AssertionError("the room was unpacked")


async def test_a_room_that_an_older_version_has_written_is_counted_too() -> None:
    async with presences(nats_url()) as (one, _, stream, names):
        await one.enter("red", {"a": ClientInfo("a"), "b": ClientInfo("b")}, TERMS)
        stored = await stream.last(names.presence("red"))
        assert stored is not None
        assert stored.headers[COUNTED] == "2 2"
        subject, after = names.presence("red"), stored.sequence
        await stream.add(subject, stored.data, after=after, headers={"Nats-TTL": "60s"})
        assert await one.stats("red") == PresenceStats(2, 2)
        assert (await one.snapshot("red", 1)).is_too_long
        await one.leave("red", ["a"], TERMS)
        stored = await stream.last(names.presence("red"))
        assert stored is not None
        assert stored.headers[COUNTED] == "1 1"


async def test_a_large_room_is_packed_and_one_that_is_too_large_is_refused(
    tmp_path: Path,
) -> None:
    async with small_presence(20000, tmp_path) as (one, stream, names):
        quiet = PresenceTerms(60.0, 0.0, 0)
        people = {f"n{n}": ClientInfo(f"c{n}", "u", {"same": "x" * 50}) for n in range(500)}
        await one.enter("red", people, quiet)
        stored = await stream.last(names.presence("red"))
        assert stored is not None
        assert stored.data[:1] == b"z"
        assert list((await one.snapshot("red")).infos) == list(people.values())
        large = {"large": ClientInfo("c", None, secrets.token_hex(25_000))}
        with pytest.raises(CallRefused, match="the server takes 20000"):
            await one.enter("red", large, quiet)
        assert (await one.stats("red")).clients == 500


async def test_a_member_of_whom_more_is_said_than_can_be_told_is_refused() -> None:
    async with presences(nats_url()) as (one, _, _, _):
        quiet = PresenceTerms(60.0, 0.0, 0)
        large = {"large": ClientInfo("c", "u" * TOLD_BYTES)}
        for terms in (TERMS, quiet):  # where nothing is told now something may be later
            with pytest.raises(CallRefused, match=f"may have {TOLD_BYTES}"):
                await one.enter("red", {"a": ClientInfo("a")} | large, terms)
        assert (await one.stats("red")).clients == 0
        longest = {"long": ClientInfo("c", "u" * (TOLD_BYTES - 100))}
        assert list((await one.enter("red", longest, TERMS)).infos) == list(longest.values())
        assert list(await one.leave("red", ["long"], TERMS)) == list(longest.values())


async def test_who_has_joined_before_a_room_is_full_is_named_by_the_refusal(
    tmp_path: Path,
) -> None:
    async with small_presence(100000, tmp_path) as (one, _, _):
        people = {f"n{n}": ClientInfo(f"c{n}", f"u{n}", secrets.token_hex(1500)) for n in range(60)}
        with pytest.raises(CallRefused, match="the server takes 100000") as refused:
            await one.enter("red", people, TERMS)
        joined = list(refused.value.infos)
        assert 0 < len(joined) < 60
        assert joined == list((await one.snapshot("red")).infos)


async def test_whom_a_call_concerned_before_the_server_went_is_named_by_its_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with presences(nats_url()) as (one, _, stream, _):
        people = {f"n{n}": ClientInfo(f"c{n}", f"u{n}", "x" * 1500) for n in range(60)}
        add = stream.add
        left = 1

        async def add_once(*rest: Any, **options: Any) -> Any:
            nonlocal left
            if not left:
                raise BrokerUnavailable("the server has gone")
            left -= 1
            return await add(*rest, **options)

        monkeypatch.setattr(stream, "add", add_once)
        with pytest.raises(CallFailed, match="the server has gone") as failed:
            await one.enter("red", people, TERMS)
        joined = list(failed.value.infos)
        assert 0 < len(joined) < 60
        assert joined == list((await one.snapshot("red")).infos)
        left = 60
        rest = (await one.enter("red", people, TERMS)).infos
        assert [*joined, *rest] == list(people.values())
        left = 1
        with pytest.raises(CallFailed) as failed:
            await one.leave("red", list(people), TERMS)
        gone = list(failed.value.infos)
        left = 60
        assert [*gone, *await one.leave("red", list(people), TERMS)] == list(people.values())
        left = 0
        with pytest.raises(BrokerUnavailable) as nothing:
            await one.enter("red", people, TERMS)
        assert not isinstance(nothing.value, CallFailed), "nothing was done of it"


def test_what_is_told_is_read_and_what_is_none_is_refused() -> None:
    found = told_publication("red", 'l 5 - [{"client":"a","user":"ä","info":null}]')
    told = read_told(found.frame, found.kind)
    assert told == Told(Kind.LEAVE, (ClientInfo("a", "ä"),), 5)
    assert read_told(told_publication("red", "j 6 1 []").frame, Kind.JOIN).is_paused is True
    for text in ("", "j 5", "j x - []", "j 5 - {"):
        with pytest.raises(ValueError, match=r"."):
            told_publication("red", text)
