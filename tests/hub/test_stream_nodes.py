"""Streams across two nodes: a text that one appends to is whole and in order for who reads it from another.

On real servers too, whose way is cut and mended.
"""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest

from broker_hubs import state
from exchange import CLUSTERS, Exchange, carried, cluster
from hubbub import Hub, StreamUnheard
from hubbub.brokers import reconnecting, unanswered
from hubbub.brokers.broker import Control
from hubbub.hub import stream as stream_module
from hubbub.hub.core import core_of
from hubbub.testing import FakeClock, settle
from started_hub import PATIENCE_S, until
from stream_reader import ROOM, RULES, Reader, append
from valkey_exchange import ValkeyExchange

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quickly_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no node wait long before it tries to reach its server again."""
    monkeypatch.setattr(reconnecting, "LONGEST_DELAY_S", 0.05)


async def reached(hub: Hub) -> Hub:
    """Return a hub as soon as it has its way to its broker's server."""
    await until(state(hub, "up"))
    return hub


async def all_told(*readers: Reader) -> None:
    """Wait until each has been told that the text is over."""

    def are_told() -> bool:
        for reader in readers:
            reader.read()
        return all(reader.said for reader in readers)

    await until(are_told)


async def kept(hub: Hub) -> str:
    """Return the text that the broker has."""
    pieces = (await hub.history(ROOM)).publications
    return "".join(msgspec.json.decode(each.data)["text"] for each in pieces)


@pytest.mark.parametrize("kind", ["late", "valkey", "nats"])
async def test_a_text_is_given_once_and_then_its_pieces(kind: str) -> None:
    async with cluster(CLUSTERS[kind](), room_rules=RULES) as (here, there):
        early, late = await Reader().come(there), Reader()
        async with here.room(ROOM).stream() as s:
            await append(s, "a", "b")
            await late.come(there)
            await s.append("c")
            await until(lambda: early.read() == late.read() == "abc")
            late.peer.close()
            await append(s, "d", "e")
            await late.come(there)
            await s.append("f")
        await all_told(early, late)
        assert [each["text"] for each in late.messages] == ["ab", "c", "de", "f", ""]
        assert [each["text"] for each in early.messages] == ["", "", *"abcdef", ""]
        assert early.said == late.said == {"is_final": True}


@pytest.mark.parametrize("kind", ["valkey", "nats"])
async def test_a_producer_whose_server_is_away_for_a_moment_goes_on(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on its way as it goes is there once, whether the server had taken it or not."""
    monkeypatch.setattr(unanswered, "WAIT_S", 60.0)  # it goes on before that
    chance, exchange = random.Random(1), CLUSTERS[kind]()
    async with cluster(exchange, room_rules=RULES) as (here, there):
        readers = [await Reader().come(hub) for hub in (here, there)]
        async with here.room(ROOM).stream() as s:
            for number in range(6):
                on_its_way = asyncio.create_task(s.append(f"{number}a "))
                for _ in range(chance.randrange(1, 12)):
                    await asyncio.sleep(0)
                exchange.brokers[0].cut()
                await until(state(here, "away"))
                waiting = asyncio.create_task(s.append(f"{number}b "))
                await until(lambda: here.stats()["broker_waiting"] >= 1)
                exchange.brokers[0].mend()
                await asyncio.wait_for(asyncio.gather(on_its_way, waiting), PATIENCE_S)
        await all_told(*readers)
        text = "".join(f"{number}a {number}b " for number in range(6))
        assert [reader.read() for reader in readers] == [text, text]


@pytest.mark.parametrize(("kind", "ask_s"), [("prompt", 0.01), ("valkey", 0.3), ("nats", 0.3)])
async def test_the_others_are_asked_whether_somebody_listens(
    kind: str, ask_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "ASK_S", ask_s)
    async with cluster(CLUSTERS[kind](), room_rules=RULES) as (here, there):
        clock = FakeClock()
        core_of(here).clock = clock
        reader = await Reader().come(there)

        async def produce() -> None:
            async with here.room(ROOM).stream(unheard_s=5) as s:
                clock.advance(5)
                await s.append("a")
                assert not s.has_listeners, "that is of this process"
                clock.advance(5)
                await s.append("b")
                await until(lambda: reader.read() == "ab")
                reader.peer.close()
                clock.advance(4)
                await s.append("c")
                clock.advance(5)
                await s.append("d")

        with pytest.raises(StreamUnheard):
            await produce()
        assert await kept(here) == "abcd", "as long as somebody listened it went on"


async def test_a_node_that_hears_no_question_for_a_moment_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_module, "ASK_S", 0.01)
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (here, there):
        clock = FakeClock()
        core_of(here).clock = clock
        await Reader().come(there)
        questions: list[Control] = []

        def loses_some(control: Control) -> None:
            questions.append(control)
            if len(questions) == 4:
                take(control)

        take = exchange.brokers[1].take_control
        monkeypatch.setattr(exchange.brokers[1], "take_control", loses_some)
        async with here.room(ROOM).stream(unheard_s=5) as s:
            await s.append("a")
            clock.advance(5)
            await s.append("b")
        assert [each.verb for each in questions] == ["seek"] * 4


@pytest.mark.parametrize(
    ("kind", "seed"), [*(("shuffled", seed) for seed in range(6)), ("valkey", 0), ("nats", 0)]
)
async def test_whoever_comes_and_comes_back_has_all_of_it(kind: str, seed: int) -> None:
    """One node is cut off and mended again and again; readers come to both, and come back to another."""
    chance = random.Random(seed)
    exchange: Exchange | ValkeyExchange
    if kind == "shuffled":
        exchange = Exchange(late_turns=chance.randrange(4), shuffle=chance)
    else:
        exchange = CLUSTERS[kind]()
    async with cluster(exchange, room_rules=RULES) as hubs:
        here, there = hubs
        readers = [await Reader().come(hub) for hub in (here, there, there)]
        words = [f"{number} " for number in range(60)]
        async with here.room(ROOM).stream() as s:
            for number, word in enumerate(words):
                await s.append(word)
                match chance.randrange(6):
                    case 0:
                        readers.append(await Reader().come(await reached(chance.choice(hubs))))
                    case 1:
                        back = chance.choice(readers)
                        back.read()
                        back.peer.close()
                        await back.come(await reached(chance.choice(hubs)))
                    case 2 if number % 3 == 0:
                        exchange.brokers[1].cut()
                        await s.append("cut ")
                        await until(state(there, "away"))
                        exchange.brokers[1].mend()
        await carried(exchange)
        for hub in hubs:
            await settle(hub)
        await all_told(*readers)
        text = await kept(here)
        for reader in readers:
            assert reader.read() == text
            assert reader.said == {"is_final": True}
