"""What waits for the server: it leaves together, is tried again where that is safe, and refused in time."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from hubbub import BrokerUnavailable, Position, Receipt
from hubbub.brokers import unanswered, valkey_outgoing
from hubbub.brokers.envelope import unpack
from hubbub.brokers.valkey_connections import ask, close_line, hear, tell
from hubbub.brokers.valkey_outgoing import (
    Outgoing,
    Plain,
    Script,
    ValkeyWaiting,
    position_of,
    runs_in,
)
from started_hub import until
from tcp_proxy import Proxy
from valkey_server import connections, fresh_prefix, server_url

pytestmark = pytest.mark.anyio

LONG_MS = 100_000


@pytest.fixture(autouse=True)
def one_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each epoch be called "e"."""
    monkeypatch.setattr(secrets, "token_hex", lambda size: "e")


class Sending:
    """Outgoing, by a way that can be cut, and what came of each."""

    def __init__(self) -> None:
        self.proxy = Proxy("127.0.0.1", int(server_url().rpartition(":")[2]))
        self.connections = connections(f"valkey://127.0.0.1:{self.proxy.port}")
        self.is_up = True
        self.comes_by: int | None = None
        self.outgoing = Outgoing(self.connections, lambda: self.is_up, lambda room: self.comes_by)
        self.name = fresh_prefix()
        self.number = 0

    def kept(self, data: bytes, entries: int = 100) -> asyncio.Future[Receipt]:
        """Publish to the one room, which remembers so many."""
        self.number += 1
        keys = tuple(f"{{{self.name}}}:{kind}" for kind in ("h", "s", "n"))
        bounds = (self.name, entries, LONG_MS, 10_000, LONG_MS, LONG_MS, LONG_MS)
        command = Script(keys, bounds, data)
        return self.outgoing.put(self.number, "red", command)

    def plain(self, data: bytes) -> asyncio.Future[Receipt]:
        """Publish to the one room, which does not."""
        self.number += 1
        return self.outgoing.put(self.number, "red", Plain(self.name.encode(), data))

    async def stored(self) -> list[bytes]:
        """Return what the server has kept."""
        made = connections()
        rows = await made.client.xrange(f"{{{self.name}}}:s")
        await made.close()
        return [fields[b"d"] for _, fields in rows]

    async def __aenter__(self) -> Sending:
        await self.proxy.start()
        await self.outgoing.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.outgoing.stop()
        await self.connections.close()
        await self.proxy.stop()


def counted(on: Sending, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Write down how many go in each pipeline."""
    sizes: list[int] = []
    ask: Callable[..., Any] = on.outgoing._ask

    async def noting(some: Any) -> Any:
        sizes.append(len(some))
        return await ask(some)

    monkeypatch.setattr(on.outgoing, "_ask", noting)
    return sizes


def losing_answers(
    on: Sending,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    meanwhile: Callable[[Any], object] = lambda some: None,
) -> list[int]:
    """Lose the answers to the first pipelines, which the server has taken; write down how many went in each of these."""
    ask = on.outgoing._ask
    lost: list[int] = []

    async def losing(some: Any) -> Any:
        found = await ask(some)
        if len(lost) == count:
            return found
        lost.append(len(some))
        meanwhile(some)
        raise ConnectionError("on purpose")

    monkeypatch.setattr(on.outgoing, "_ask", losing)
    return lost


async def test_what_is_published_in_a_turn_leaves_together(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Sending() as on:
        sizes = counted(on, monkeypatch)
        receipts = await asyncio.gather(*(on.kept(b"%d" % n) for n in range(300)))
        assert sizes == [300]
        assert [each.position for each in receipts[:2]] == [Position(1, "e"), Position(2, "e")]
        await asyncio.gather(*(on.plain(b"x") for _ in range(valkey_outgoing.PIPELINE_ENTRIES + 1)))
        assert sizes[1:] == [valkey_outgoing.PIPELINE_ENTRIES, 1]


async def test_a_receipt_waits_until_the_publication_has_come_here_too() -> None:
    async with Sending() as on:
        on.comes_by = 1
        waiting = on.kept(b"1")
        await until(lambda: on.outgoing.untaken == 0)
        assert not waiting.done()
        on.outgoing.came(1, Receipt(7, Position(1, "e")))
        assert await waiting == (7, Position(1, "e"), False)
        on.outgoing.came(1, Receipt(8))
        left, other = on.kept(b"2"), on.kept(b"3")
        await until(lambda: on.outgoing.untaken == 0)
        on.outgoing.note_left({"blue"})
        assert not left.done()
        on.outgoing.note_left({"red"})
        assert await left == (0, Position(2, "e"), False)
        assert await other == (0, Position(3, "e"), False)


async def test_a_room_that_was_left_and_joined_again_meanwhile_keeps_no_receipt_back() -> None:
    async with Sending() as on:
        on.comes_by = 1
        waiting = on.kept(b"1")
        await asyncio.sleep(0)
        on.outgoing.note_left({"red"})  # its publication may come, or not
        assert (await asyncio.wait_for(waiting, 5)).position == Position(1, "e")


async def test_what_was_on_its_way_is_tried_again_if_it_can_be_and_is_there_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Sending() as on:
        lost = losing_answers(on, monkeypatch, 3)
        kept = [on.kept(b"%d" % n) for n in range(4)]
        plain = on.plain(b"x")
        receipts = await asyncio.gather(*kept)
        assert [each.position for each in receipts] == [Position(n + 1, "e") for n in range(4)]
        with pytest.raises(
            BrokerUnavailable, match="it may have been published, or not: on purpose"
        ):
            await plain
        assert await on.stored() == [b"0", b"1", b"2", b"3"]
        assert len(lost) == 3


async def test_a_second_try_does_not_wait_for_what_a_broken_connection_has_brought_or_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Sending() as on:
        on.comes_by = 1

        def reconnect(some: Any) -> None:
            on.comes_by = 2
            on.outgoing.note_left(None)

        losing_answers(on, monkeypatch, 1, reconnect)
        assert await asyncio.wait_for(on.kept(b"1"), 2) == Receipt(0, Position(1, "e"))


async def test_what_is_refused_at_its_second_try_may_be_there_by_its_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Sending() as on:
        ask = on.outgoing._ask
        asked = 0

        async def full_the_second_time(some: Any) -> Any:
            nonlocal asked
            asked += 1
            if asked == 2:
                return [OSError("full") for _ in some]
            await ask(some)
            raise ConnectionError("on purpose")

        monkeypatch.setattr(on.outgoing, "_ask", full_the_second_time)
        with pytest.raises(BrokerUnavailable, match=r"^it may have been published, or not: full$"):
            await on.kept(b"1")
        assert await on.stored() == [b"1"]
        asked = 1
        with pytest.raises(BrokerUnavailable, match=r"^full$"):
            await on.kept(b"2")


async def test_what_was_on_its_way_for_too_long_is_tried_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a process that stood still: the server has forgotten by then what would know a second try."""

    def stand_still(some: Any) -> None:
        some[0].since -= unanswered.WAIT_S

    async with Sending() as on:
        lost = losing_answers(on, monkeypatch, 2, stand_still)
        with pytest.raises(BrokerUnavailable, match="may have been published, or not: on purpose"):
            await on.kept(b"1")
        assert (lost, await on.stored()) == ([1], [b"1"])


async def test_what_waits_is_sent_in_order_when_the_server_is_back() -> None:
    async with Sending() as on:
        await on.kept(b"0")
        on.is_up = False
        on.proxy.cut()
        waiting = [on.kept(b"%d" % n) for n in (1, 2, 3)]
        await asyncio.sleep(0)
        on.proxy.mend()
        on.is_up = True
        on.outgoing.wake()
        await asyncio.gather(*waiting)
        assert await on.stored() == [b"0", b"1", b"2", b"3"]


async def test_what_waits_for_too_long_is_refused_and_never_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unanswered, "WAIT_S", 0.05)
    monkeypatch.setattr(unanswered, "LOOK_S", 0.02)
    async with Sending() as on:
        on.is_up = False
        with pytest.raises(BrokerUnavailable, match=r"^the broker is away$"):
            await on.kept(b"1")
        on.is_up = True
        assert (await on.kept(b"2")).position == Position(1, "e")
        assert await on.stored() == [b"2"]


async def test_what_waits_is_bounded_by_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unanswered, "MOST_WAITING_BYTES", 100)
    monkeypatch.setattr(unanswered, "MOST_WAITING", 3)
    async with Sending() as on:
        on.is_up = False
        first = on.kept(b"x" * 60)
        with pytest.raises(BrokerUnavailable, match="too many publications wait"):
            on.kept(b"x" * 60)
        on.plain(b"1")
        on.plain(b"2")
        with pytest.raises(BrokerUnavailable, match="too many publications wait"):
            on.plain(b"3")
        on.is_up = True
        on.outgoing.wake()
        await first
        await until(lambda: on.outgoing.untaken == 0)
        await on.kept(b"x" * 60)


async def test_scripts_that_the_server_has_forgotten_are_loaded_again() -> None:
    async with Sending() as on:
        await on.kept(b"1")
        await on.connections.client.script_flush()
        receipts = await asyncio.gather(on.plain(b"x"), on.kept(b"2"), on.kept(b"3", 99))
        assert [each.position and each.position.offset for each in receipts] == [None, 2, 3]


@pytest.mark.parametrize("breaks", [False, True], ids=["goes_on", "breaks"])
async def test_what_a_later_one_has_overtaken_as_scripts_were_forgotten_is_refused(
    breaks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Sending() as on:
        asked: list[int] = []

        async def forgetful(line: Any, commands: list[tuple[Any, ...]]) -> list[Any]:
            asked.append(len(commands))
            if len(asked) == 1:
                for place in (0, 2):
                    name, _, *rest = commands[place]
                    commands[place] = (name, "0" * 40, *rest)
            if len(asked) == 2 and breaks:
                raise ConnectionError("on purpose")
            return await ask(line, commands)

        monkeypatch.setattr(valkey_outgoing, "ask", forgetful)
        sent = [on.kept(b"1", 100), on.kept(b"2", 99), on.kept(b"3", 98)]
        refused, *receipts = await asyncio.gather(*sent, return_exceptions=True)
        assert isinstance(refused, BrokerUnavailable)
        assert str(refused).startswith("the server had forgotten its scripts")
        assert receipts == [Receipt(0, Position(1, "e")), Receipt(0, Position(2, "e"))]
        assert await on.stored() == [b"2", b"3"]
        assert asked == ([3, 1, 1, 2] if breaks else [3, 1, 1])


async def test_after_the_stop_nothing_is_left_undone() -> None:
    sending = Sending()
    async with sending as on:
        on.comes_by = 1
        taken = on.kept(b"1")
        await until(lambda: on.outgoing.untaken == 0)
        on.is_up = False
        waits = on.kept(b"2")
    assert taken.result().position == Position(1, "e")
    with pytest.raises(BrokerUnavailable, match="stopped"):
        waits.result()


async def test_it_stops_in_whatever_it_is_doing() -> None:
    for turns in range(40):
        async with Sending() as on:
            sent = [on.plain(b"x") for _ in range(3)]
            for _ in range(turns):
                await asyncio.sleep(0)
        assert all(each.done() for each in sent)
        for each in sent:
            each.exception()


async def test_what_is_of_one_kind_goes_in_runs_that_keep_the_order_of_each_room() -> None:
    small, large = b"s" * (unanswered.RUN_BYTES // 4), b"l" * unanswered.RUN_BYTES
    rows: list[tuple[str, Plain | Script]] = [
        *(("a", Plain(b"", small)), ("b", Script((), (1,), small))),
        *(("a", Plain(b"", small)), ("b", Script((), (1,), small))),
        *(("a", Script((), (1,), small)), ("a", Plain(b"", small)), ("a", Plain(b"", large))),
        *(("b", Script((), (2,), small)), ("b", Script((), (1,), small, is_single=True))),
        *(("b", Script((), (1,), small, is_single=True)), ("b", Script((), (1,), small))),
        ("a", Plain(b"", b"1")),
    ]
    some = [ValkeyWaiting(number, room, command) for number, (room, command) in enumerate(rows)]
    runs = [[waiting.number for waiting in run] for run in runs_in(some)]
    assert runs == [[0, 2], [1, 3], [4], [5], [6], [7], [8], [9], [10], [11]]


async def test_a_run_is_one_message_and_comes_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Sending() as on:
        feed = await on.connections.open_line()
        await tell(feed, "SUBSCRIBE", on.name)
        await hear(feed)
        await asyncio.gather(*(on.plain(b"%d" % n) for n in range(3)))
        *_, data = await hear(feed)
        assert data[:2] == valkey_outgoing.RUN + b"\n"
        assert unpack(data[2:]) == [b"0", b"1", b"2"]
        await on.plain(b"alone")
        assert (await hear(feed))[2] == b"\nalone"
        await close_line(feed)


def test_what_a_script_says_of_a_position() -> None:
    assert position_of(b"") is None
    assert position_of(b"5 ab") == Position(5, "ab")
