"""What waits for a server: it leaves in runs, in the order of its room, and is refused in time."""

from __future__ import annotations

import asyncio
from asyncio import Future
from typing import Any

import pytest

from hubbub import BrokerUnavailable, CommandError, Position, Receipt
from hubbub.brokers import nats_outgoing, unanswered
from hubbub.brokers.broker import Keep
from hubbub.brokers.envelope import pack, unpack
from hubbub.brokers.nats_connection import Rights
from hubbub.brokers.nats_history import Place, Run
from hubbub.brokers.nats_names import NatsNames
from hubbub.brokers.nats_outgoing import HEADERS_BYTES, NatsOutgoing
from hubbub.brokers.nats_stream import NoAnswer, NotNow

pytestmark = pytest.mark.anyio

KEEP = Keep(10, 60.0, 1000)


class Way:
    """A feed, its connection and a history, none of which has a server."""

    def __init__(self) -> None:
        self.connection = self
        self.connections = 1
        self.max_payload = 10_000
        self.is_up = True
        self.wanted: set[str] = set()
        self.log: list[tuple[str, list[bytes]]] = []
        self.pongs: list[Future[Rights]] = []
        self.answers: list[Place | Exception] = []
        self.may_store = asyncio.Event()
        self.may_store.set()
        self.outgoing = NatsOutgoing(self, NatsNames("t"), lambda: self)  # type: ignore[arg-type, return-value]
        self.number = 0

    def is_subscribed(self, room: str) -> bool:
        return self.is_up and room in self.wanted

    async def until_up(self) -> None:
        while not self.is_up:
            await asyncio.sleep(0)

    def publish(self, subject: str, data: bytes) -> None:
        if len(data) > self.max_payload:
            raise BrokerUnavailable("too large")
        self.log.append((subject, unpack(data.removeprefix(b"r\n"))))

    def ping(self) -> Future[Rights]:
        self.pongs.append(asyncio.get_running_loop().create_future())
        return self.pongs[-1]

    async def store(self, run: Run) -> Place:
        if len(pack(run.envelopes)) + HEADERS_BYTES > self.max_payload:
            raise BrokerUnavailable("too large")
        self.log.append((f"store {run.room}", list(run.envelopes)))
        await self.may_store.wait()
        answer = self.answers.pop(0) if self.answers else Place(Position(1, "e"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def put(self, room: str, text: str, keep: Keep | None = None, key: str | None = None) -> Any:
        self.number += 1
        return self.outgoing.put(self.number, room, text.encode(), keep, key)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_outgoing, "PAUSE_S", 0.001)
    monkeypatch.setattr(unanswered, "LOOK_S", 0.005)


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_one_turn_has_for_a_room_is_a_run_and_taken_when_a_ping_is_answered() -> None:
    way = Way()
    receipts = [way.put("ab"[n % 2], str(n)) for n in range(5)]
    await turns()
    assert way.log == [("t.r.a", [b"0", b"2", b"4"]), ("t.r.b", [b"1", b"3"])]
    assert len(way.pongs) == 1
    assert (way.outgoing.untaken, way.outgoing.nbytes) == (5, 5)
    way.outgoing.came(1, Receipt(7))
    way.pongs[0].set_result(Rights())
    found = await asyncio.gather(*receipts)
    assert [receipt.delivered_to for receipt in found] == [7, 0, 0, 0, 0]
    assert (way.outgoing.untaken, way.outgoing.nbytes) == (0, 0)


async def test_what_comes_while_a_ping_has_no_answer_leaves_together_after_that() -> None:
    way = Way()
    receipts = []
    for turn in range(4):
        receipts += [way.put("a", f"{turn}"), way.put("b", f"{turn}b")]
        await turns()
    assert way.log == [("t.r.a", [b"0"]), ("t.r.b", [b"0b"])]
    way.pongs[0].set_result(Rights())
    await turns()
    assert way.log[2:] == [("t.r.a", [b"1", b"2", b"3"]), ("t.r.b", [b"1b", b"2b", b"3b"])]
    way.pongs[1].set_exception(OSError("broken"))
    found = await asyncio.gather(*receipts, return_exceptions=True)
    assert [type(each) for each in found] == [Receipt] * 2 + [BrokerUnavailable] * 6
    assert "it may have been published, or not: broken" in str(found[-1])


async def test_the_lag_is_what_the_last_answer_took() -> None:
    way = Way()
    assert way.outgoing.lag_s is None
    receipt = way.put("a", "1")
    await turns()
    await asyncio.sleep(0.02)
    way.pongs[0].set_result(Rights())
    await receipt
    lag_s = way.outgoing.lag_s
    assert lag_s is not None
    assert lag_s >= 0.02
    await way.put("a", "2", KEEP)
    assert way.outgoing.lag_s not in (None, lag_s)
    lag_s = way.outgoing.lag_s
    receipt = way.put("a", "3")
    await turns()
    way.pongs[1].set_exception(OSError("broken"))
    with pytest.raises(BrokerUnavailable):
        await receipt
    assert way.outgoing.lag_s == lag_s


async def test_a_second_try_does_not_wait_for_what_a_broken_connection_has_brought_or_lost() -> (
    None
):
    way = Way()
    way.wanted = {"a"}
    way.may_store.clear()
    receipt = way.put("a", "1", KEEP)
    await turns()
    way.connections = 2
    way.outgoing.note_left(None)
    way.answers = [NoAnswer("broken"), Place(Position(4, "e"))]
    way.may_store.set()
    assert await asyncio.wait_for(receipt, 2) == Receipt(0, Position(4, "e"))
    assert len(way.log) == 2


async def test_runs_are_bounded_and_one_that_is_too_large_is_refused_alone() -> None:
    way = Way()
    sizes = (4000, 4000, 4000, 9_993, 10)
    receipts = [way.put("a", "x" * size) for size in sizes]
    with pytest.raises(
        CommandError, match=r"too_large: a message has 10001 .* the broker takes 10000"
    ):
        way.put("a", "x" * 9_994)
    with pytest.raises(
        CommandError, match=r"too_large: a message has 10001 .* the broker takes 10000"
    ):
        way.put("a", "x" * 8_972, KEEP)
    await turns()
    runs = [[len(each) for each in run] for _, run in way.log]
    assert runs == [[4000, 4000], [4000], [9_993], [10]]
    way.pongs[0].set_result(Rights())
    found = await asyncio.gather(*receipts, return_exceptions=True)
    assert [type(each) for each in found] == [Receipt] * 5


@pytest.mark.parametrize("keep", [None, KEEP], ids=["plain", "kept"])
@pytest.mark.parametrize("is_up", [True, False], ids=["up", "away"])
async def test_what_is_put_before_each_of_a_run_counts(keep: Keep | None, is_up: bool) -> None:
    way = Way()
    way.is_up = is_up
    way.max_payload = 18_000  # 500 of 34 bytes, and not what is before each of them
    receipts = [way.put("a", "x" * 34, keep) for _ in range(600)]
    await turns()
    way.is_up = True
    way.outgoing.wake()
    await turns(20)
    for pong in way.pongs:
        pong.set_result(Rights())
    found = await asyncio.gather(*receipts, return_exceptions=True)
    assert [type(each) for each in found] == [Receipt] * 600
    assert max(len(pack(run)) for _, run in way.log) <= 18_000 - (HEADERS_BYTES if keep else 0)


async def test_what_comes_after_something_that_is_stored_waits_for_it_in_its_room_alone() -> None:
    way = Way()
    way.may_store.clear()
    for text, options in (("1", {}), ("2", {"keep": KEEP}), ("3", {"keep": KEEP})):
        way.put("a", text, **options)  # type: ignore[arg-type]
    way.put("a", "4")
    way.put("a", "5", keep=KEEP, key="k")
    way.put("a", "6", keep=KEEP)
    way.put("b", "7")
    await turns()
    assert way.log == [("t.r.a", [b"1"]), ("store a", [b"2", b"3"])]
    way.pongs[0].set_result(Rights())
    await turns()
    assert way.log[2:] == [("t.r.b", [b"7"])]
    way.may_store.set()
    await turns()
    assert way.log[3:] == [("t.r.a", [b"4"])]
    way.pongs[-1].set_result(Rights())
    await turns()
    assert way.log[4:] == [("store a", [b"5"]), ("store a", [b"6"])]
    await way.outgoing.stop()


async def test_a_receipt_waits_until_what_is_stored_has_come_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    way = Way()
    way.wanted.add("a")
    way.answers = [Place(Position(5, "e")), Place(Position(1, "e"), is_repeated=True)]
    first, second = way.put("a", "1", KEEP), way.put("a", "2", KEEP)
    repeated, other = way.put("a", "3", KEEP, "k"), way.put("b", "4", KEEP)
    assert (await repeated) == Receipt(0, Position(1, "e"), is_repeated=True)
    assert (await other).position == Position(1, "e")
    assert not first.done()
    assert not second.done()
    way.outgoing.came(1, Receipt(3, Position(5, "e")))
    assert (await first) == Receipt(3, Position(5, "e"))
    way.outgoing.note_left(["a"])
    assert (await second) == Receipt(0, Position(6, "e"))
    third = way.put("a", "5", KEEP)
    monkeypatch.setattr(unanswered, "WAIT_S", 0.01)
    assert (await third).delivered_to == 0, "it is not waited for longer than for anything else"


async def test_what_may_have_been_stored_is_stored_again_as_the_same_run() -> None:
    way = Way()
    way.answers = [NoAnswer("lost"), NotNow("no leader"), Place(Position(9, "e"))]
    first = way.put("a", "1", KEEP)
    await turns(2)
    second = way.put("a", "2", KEEP)
    assert (await first).position == Position(9, "e")
    await second
    assert way.log == [("store a", [b"1"])] * 3 + [("store a", [b"2"])]


async def test_what_was_refused_for_good_is_not_stored_with_the_rest_of_its_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nats_outgoing, "PAUSE_S", 0.05)
    way = Way()
    way.answers = [NotNow("no leader")]
    old, young = way.put("a", "1", KEEP), way.put("a", "2", KEEP)
    way.outgoing._unanswered[1].since -= unanswered.WAIT_S
    with pytest.raises(BrokerUnavailable, match=r"^no leader$"):
        await old
    assert (await young).position == Position(1, "e")
    assert way.log == [("store a", [b"1", b"2"]), ("store a", [b"2"])]


async def test_what_was_refused_and_may_be_stored_stays_in_its_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nats_outgoing, "PAUSE_S", 0.05)
    way = Way()
    way.answers = [NoAnswer("silence")]
    old, young = way.put("a", "1", KEEP), way.put("a", "2", KEEP)
    way.outgoing._unanswered[1].since -= unanswered.WAIT_S
    with pytest.raises(BrokerUnavailable, match=r"^it may have been published, or not: silence$"):
        await old
    assert (await young).position == Position(2, "e")
    assert way.log == [("store a", [b"1", b"2"])] * 2


@pytest.mark.parametrize(
    ("errors", "says"),
    [
        ([NoAnswer("silence")], "it may have been published, or not: silence"),
        ([NotNow("no leader")], "no leader"),
        (
            [NoAnswer("silence"), NotNow("no leader")],
            "it may have been published, or not: no leader",
        ),
        (
            [NoAnswer("silence"), NotNow("no leader"), BrokerUnavailable("full")],
            "it may have been published, or not: full",
        ),
        ([NotNow("no leader"), BrokerUnavailable("full")], "full"),
    ],
)
async def test_what_is_not_stored_is_refused_with_a_reason(
    errors: list[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unanswered, "WAIT_S", 0.05)
    way = Way()
    way.answers = [*errors, *errors[-1:] * 10_000]
    with pytest.raises(BrokerUnavailable) as caught:
        await way.put("a", "1", KEEP)
    assert str(caught.value) == says
    way.answers.clear()
    assert (await way.put("a", "2", KEEP)).position is not None


async def test_a_refusal_is_final() -> None:
    way = Way()
    way.answers = [BrokerUnavailable("full"), ValueError("a bug")]
    for says in ("full", "a bug"):
        with pytest.raises(BrokerUnavailable, match=says):
            await way.put("a", "1", KEEP)
    assert len(way.log) == 2


async def test_while_the_server_is_away_all_wait_and_go_in_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    way = Way()
    way.is_up = False
    way.put("a", "1")
    way.put("a", "2", KEEP)
    way.put("a", "3")
    await turns()
    assert way.log == []
    way.is_up = True
    way.outgoing.wake()
    await turns()
    assert way.log == [("t.r.a", [b"1"]), ("store a", [b"2"]), ("t.r.a", [b"3"])]
    way.pongs[0].set_exception(OSError("broken"))
    await turns()
    way.is_up = False
    monkeypatch.setattr(unanswered, "WAIT_S", 0.02)
    with pytest.raises(BrokerUnavailable, match=r"^the broker is away$"):
        await way.put("b", "4")
    way.is_up = True
    way.outgoing.wake()
    assert len(way.log) == 3, "what was refused never goes"
    await way.outgoing.stop()


async def test_of_what_was_refused_while_the_server_was_away_nothing_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unanswered, "WAIT_S", 0.02)
    way = Way()
    way.is_up = False
    for n in range(20):
        with pytest.raises(BrokerUnavailable, match="away"):
            await way.put(f"room{n}", "1")
    outgoing = way.outgoing
    assert (len(outgoing._plain), len(outgoing._plain_rooms)) == (0, 0)


async def test_who_waits_when_it_stops_is_told() -> None:
    way = Way()
    way.may_store.clear()
    waiting = [way.put("a", "1"), way.put("b", "2", KEEP), way.put("c", "3", KEEP)]
    await turns()
    waiting.append(way.put("b", "4"))
    await way.outgoing.stop()
    away = "the broker has stopped"
    unknown = f"it may have been published, or not: {away}"
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(each) for each in found] == [unknown, unknown, unknown, away]
    assert way.outgoing.untaken == 0
