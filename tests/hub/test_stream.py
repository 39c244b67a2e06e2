"""Streams: a text grows, and whoever comes, and comes back, has it once and in order."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from exchange import Exchange, carried, cluster
from hubbub import (
    BrokerUnavailable,
    CommandError,
    Hub,
    HubNotRunning,
    Position,
    RoomRules,
    StreamUnheard,
)
from hubbub.testing import FakeClock, MemoryClient, connect, set_clock, settle
from started_hub import code_of, started, until
from stream_reader import ROOM, RULES, Reader, append, finished

pytestmark = pytest.mark.anyio


async def streaming(**settings: Any) -> Hub:
    return await started(room_rules=RULES, **settings)


async def test_late_joiners_get_the_text_so_far_once_and_then_the_pieces() -> None:
    hub = await streaming()
    early = await Reader().come(hub)
    readers = [early]
    async with hub.room(ROOM).stream() as s:
        for word in ("Es ", "war ", "ein", "mal ", "🎉", "é"):
            await s.append(word)
            readers.append(await Reader().come(hub))
    late = await Reader().come(hub)
    await settle(hub)
    for number, reader in enumerate(readers):
        assert reader.read() == "Es war einmal 🎉é"
        assert reader.said == {"is_final": True}
        assert reader.begun == (2 if reader is early else 1), "the early one: nothing, then a text"
        if number:
            assert len(reader.messages) == 1 + (6 - number) + 1
    assert late.read() == "Es war einmal 🎉é"
    assert [message["type"] for message in late.messages] == ["stream"]
    await hub.stop()


async def test_what_a_plain_client_is_told_is_this() -> None:
    hub = await streaming()
    async with hub.room(ROOM).stream() as s:
        await s.append("a")
        reader = await Reader().come(hub)
        await s.append("b")
        await settle(hub)
    await settle(hub)
    so_far, piece, end = reader.peer.json()
    epoch = so_far.pop("epoch")
    assert so_far == {"type": "stream", "room": ROOM, "text": "a", "offset": 2}
    assert piece == {"type": "append", "room": ROOM, "text": "b", "offset": 3}
    assert end == {"type": "append", "room": ROOM, "text": "", "offset": 4, "is_final": True}
    assert Position(4, epoch.split("~")[0]) == await hub.cursor(ROOM)
    await hub.stop()


async def test_who_comes_back_goes_on_where_it_was() -> None:
    hub = await streaming()
    reader = await Reader().come(hub)
    async with hub.room(ROOM).stream() as s:
        await append(s, "a", "b")
        await settle(hub)
        assert reader.read() == "ab"
        reader.peer.close()
        await append(s, "c", "d")
        await reader.come(hub)
        await append(s, "e")
        await settle(hub)
        assert reader.read() == "abcde"
        assert reader.begun == 2
        assert [m["text"] for m in reader.messages[-2:]] == ["cd", "e"], "what it missed is one"
        reader.peer.close()
        await reader.come(hub)
        await settle(hub)
        assert reader.read() == "abcde"
    await settle(hub)
    assert reader.read() == "abcde"
    assert reader.begun == 2
    await hub.stop()


async def test_who_comes_back_from_another_history_begins_anew() -> None:
    hub = await streaming()
    reader = Reader()
    reader.position, reader.text = Position(7, "of a hub before this one"), "something else"
    await finished(hub, "a", "b")
    await reader.come(hub)
    await settle(hub)
    assert reader.read() == "ab"
    await hub.stop()


async def test_another_text_begins_in_the_same_room() -> None:
    hub = await streaming()
    reader = await Reader().come(hub)
    away = await Reader().come(hub)
    await finished(hub, "old")
    await settle(hub)
    assert reader.read() == away.read() == "old"
    away.peer.close()
    async with hub.room(ROOM).stream() as s:
        await s.append("new")
        await away.come(hub)
        late = await Reader().come(hub)
        await settle(hub)
        assert [each.read() for each in (reader, away, late)] == ["new"] * 3
        assert not reader.said
        with pytest.raises(CommandError, match="one at a time"):
            await finished(hub, "x")
    await hub.stop()


async def test_a_stream_whose_producer_fails_is_told_as_broken() -> None:
    hub = await streaming()
    reader = await Reader().come(hub)
    s = hub.room(ROOM).stream()

    async def produce() -> None:
        async with s:
            await s.append("half of")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await produce()
    late = await Reader().come(hub)
    await settle(hub)
    for each in (reader, late):
        assert each.read() == "half of"
        assert each.said == {"is_final": True, "is_broken": True}
    with pytest.raises(RuntimeError, match="inside of the block"):
        await s.append("more")
    await finished(hub, "a new one may begin")
    await hub.stop()


async def test_a_producer_that_is_cancelled_leaves_a_broken_stream() -> None:
    hub = await streaming()
    reader = await Reader().come(hub)

    async def produce() -> None:
        async with hub.room(ROOM).stream() as s:
            await s.append("a")
            await asyncio.Event().wait()

    task = asyncio.create_task(produce())
    await settle(hub)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle(hub)
    assert reader.read() == "a"
    assert reader.said["is_broken"]
    await hub.stop()


async def test_a_producer_can_stop_when_nobody_listens_any_more() -> None:
    hub = Hub(room_rules=RULES)
    clock = FakeClock()
    set_clock(hub, clock)
    await hub.start()
    reader = await Reader().come(hub)

    async def produce() -> None:
        async with hub.room(ROOM).stream(unheard_s=10) as s:
            clock.advance(60)
            await s.append("a")
            assert s.has_listeners
            await settle(hub)
            assert reader.read() == "a"
            reader.peer.close()
            clock.advance(9)
            await s.append("b")
            assert not s.has_listeners
            await reader.come(hub)
            await s.append("c")
            reader.peer.close()
            clock.advance(60)
            # The first that nobody was there for: the listener may have gone just now.
            await s.append("d")
            clock.advance(10)
            await s.append("e")

    with pytest.raises(StreamUnheard, match="'answer:42' for 10 s") as caught:
        await produce()
    assert (caught.value.room, caught.value.unheard_s) == (ROOM, 10)
    await reader.come(hub)
    await settle(hub)
    assert reader.read() == "abcde", "what was generated is kept"
    assert reader.said["is_broken"]
    with pytest.raises(ValueError, match="number of seconds"):
        hub.room(ROOM).stream(unheard_s=-1)
    await hub.stop()


async def test_a_producer_that_does_not_ask_goes_on_unheard() -> None:
    hub = await streaming()
    await finished(hub, "a", "b")
    reader = await Reader().come(hub)
    await settle(hub)
    assert reader.read() == "ab"
    await hub.stop()


async def test_all_bytes_are_linear() -> None:
    """Each of k joiners costs the text once, and its pieces; no append costs the text so far."""
    hub = await streaming()

    async def sent(appends: int, joiners: int) -> int:
        readers = []
        before: int = hub.stats()["bytes_out"]
        room = f"answer:{appends}"
        async with hub.room(room).stream() as s:
            for number in range(appends):
                if number % (appends // joiners) == 0:
                    readers.append(await Reader(room).come(hub))
                await s.append("token ")
                await settle(hub)
        await settle(hub)
        assert all(reader.read() == "token " * appends for reader in readers)
        for reader in readers:
            reader.peer.close()
        after: int = hub.stats()["bytes_out"]
        return after - before

    few, many = await sent(100, 5), await sent(400, 5)
    assert 3.5 * few < many < 4.5 * few
    a_piece = len(b'{"type":"append","room":"answer:400","text":"token ","offset":400}') + 2
    most = 5 * (400 * a_piece + 400 * len("token ") + 200)
    assert many < most
    await hub.stop()


async def test_excluded_clients_do_not_get_a_piece_and_not_later_either() -> None:
    hub = await streaming()
    ann, bob = await Reader().come(hub), await Reader().come(hub)
    async with hub.room(ROOM).stream() as s:
        await s.append("all ")
        await s.append("not ann ", exclude=ann.peer.client)
        await s.append("all")
        await settle(hub)
        assert ann.read() == "all all"
        ann.peer.close()
        await s.append("!")
        await ann.come(hub)
        await s.append("?", exclude=ann.peer.client)
        ann.read()
        ann.peer.close()
        await ann.come(hub)
        await settle(hub)
        assert ann.read() == "all all!"
        assert bob.read() == "all not ann all!?"
    await hub.stop()


async def test_a_late_joiner_is_told_that_the_beginning_is_lost() -> None:
    hub = await streaming()
    reader = await Reader("short").come(hub)
    async with hub.room("short").stream() as s:
        await append(s, "a", "b")
        whole = await Reader("short").come(hub)
        await settle(hub)
        assert whole.read() == "ab"
        assert not whole.said
        await append(s, "c", "d")
        late = await Reader("short").come(hub)
        await settle(hub)
        assert (late.read(), late.said) == ("bcd", {"is_cut": True})
        assert reader.read() == "abcd"
    await hub.stop()


@pytest.mark.parametrize("has_member", [False, True])
@pytest.mark.parametrize("entries", [3, 100])
async def test_whoever_lacks_the_beginning_is_given_the_text_so_far(
    has_member: bool, entries: int
) -> None:
    """From no position, from before all, and from beyond the end: a part is never given as if it were all."""
    hub = await started(room_rules=[RoomRules("answer", stream=True, history=entries)])
    if has_member:
        await connect(hub).client.subscribe("answer")
    async with hub.room("answer").stream() as s:
        await append(s, *"abcdef")
        top = await hub.cursor("answer")
        beyond = Position(top.offset + 7, top.epoch)
        for since in (None, Position(0, ""), beyond, Position(2, "another")):
            late = connect(hub)
            answer = await late.client.subscribe("answer", since=since)
            await settle(hub)
            is_all = entries == 100
            assert answer.recovered is (is_all and since == Position(0, ""))
            (told,) = map(msgspec.json.decode, late.received)
            assert (told["type"], told["text"]) == ("stream", "abcdef" if is_all else "def")
            assert told.get("is_cut", False) is not is_all
    await hub.stop()


async def test_a_client_that_is_too_slow_is_closed_comes_back_and_goes_on() -> None:
    hub = await streaming(outbox_max_entries=2)
    slow, quick = await Reader().come(hub), await Reader().come(hub)
    async with hub.room(ROOM).stream() as s:
        await s.append("a")
        await settle(hub)
        slow.read()
        slow.peer.transport.block()
        for text in "bcdefg":
            await s.append(text)
            await settle(hub)
        await until(lambda: slow.peer.closed is not None)
        assert code_of(slow.peer) == 3008
        await slow.come(hub)
    await settle(hub)
    assert slow.read() == quick.read() == "abcdefg"
    assert slow.begun == 2
    await hub.stop()


async def test_a_slow_client_that_stays_has_no_hole_in_its_text() -> None:
    hub = await streaming(outbox_max_entries=2)
    slow = await Reader("lossy").come(hub)
    async with hub.room("lossy").stream() as s:
        await s.append("a")
        await settle(hub)
        slow.peer.transport.block()
        for text in "bcdefg":
            await s.append(text)
            await settle(hub)
        assert slow.read() == "a"
        slow.peer.transport.unblock()
        await settle(hub)
        await s.append("h")
        await settle(hub)
        assert slow.read() == "abcdefgh"
        assert (slow.begun, slow.gaps) == (3, 0), "it was given the text so far once more"
        slow.peer.transport.block()
        for text in "ijklm":
            await s.append(text)
            await settle(hub)
        slow.peer.client.leave("lossy")
        slow.peer.transport.unblock()
        await settle(hub)
        assert "lossy" not in slow.peer.client.rooms, "it had left, and is not brought back"
    await hub.stop()


async def test_only_a_stream_is_a_stream_and_it_takes_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = await streaming()
    for room in (hub.room("chat"), hub.room("nothing"), hub.everybody, hub.to_user("ann")):
        with pytest.raises(CommandError, match="no stream; RoomRules make it one"):
            room.stream()
    with pytest.raises(CommandError, match="takes what its producer appends"):
        await hub.publish(ROOM, {"type": "append", "text": "forged"})
    hub.room(ROOM).broadcast("forged")
    assert "takes what its producer appends" in caplog.text
    peer = connect(hub)
    with pytest.raises(CommandError, match=r"await client\.subscribe"):
        peer.client.join(ROOM)
    async with hub.room(ROOM).stream() as s:
        with pytest.raises(TypeError, match="a piece is a str, not bytes"):
            await s.append(b"a")  # type: ignore[arg-type]
        await s.append("")
    assert len((await hub.history(ROOM)).publications) == 2, "an empty text adds nothing"
    await hub.stop()


async def test_a_client_s_command_cannot_append() -> None:
    hub = Hub(room_rules=RULES)
    hub.authorize(lambda client, action, room: True)
    await hub.start()
    peer = connect(hub, dialect="centrifuge")
    peer.send('{"id":1,"connect":{}}')
    command = {"channel": ROOM, "data": {"type": "append", "text": "forged"}}
    peer.send(msgspec.json.encode({"id": 2, "publish": command}).decode())
    await settle(hub)
    assert pushes(peer)[-1]["error"]["code"] == 108
    assert (await hub.cursor(ROOM)).offset == 0
    await hub.stop()


def pushes(peer: MemoryClient) -> list[dict[str, Any]]:
    return [json.loads(line) for text in peer.received for line in str(text).split("\n")]


async def test_a_client_of_the_centrifuge_protocol_gets_the_same_as_publications() -> None:
    hub = await streaming()
    async with hub.room(ROOM).stream() as s:
        await append(s, "a", "b")
        peer = connect(hub, dialect="centrifuge")
        peer.send('{"id":1,"connect":{}}')
        peer.send('{"id":2,"subscribe":{"channel":"answer:42"}}')
        await settle(hub)
        await s.append("c")
        await settle(hub)
        _, answer, push = pushes(peer)
        [so_far] = answer["subscribe"]["publications"]
        epoch = answer["subscribe"]["epoch"]
        assert (so_far["data"]["type"], so_far["data"]["text"]) == ("stream", "ab")
        assert so_far["offset"] == so_far["data"]["offset"] == answer["subscribe"]["offset"] == 3
        piece = {"type": "append", "room": ROOM, "text": "c", "offset": 4}
        assert push["push"]["pub"] == {"data": piece, "offset": 4}
        peer.close()
        await append(s, "d", "e")
        again = connect(hub, dialect="centrifuge")
        again.send('{"id":1,"connect":{}}')
        place = {"channel": ROOM, "recover": True, "offset": 4, "epoch": epoch}
        again.send(msgspec.json.encode({"id": 2, "subscribe": place}).decode())
        await settle(hub)
        answer = pushes(again)[1]["subscribe"]
        assert (answer["recovered"], answer["offset"]) == (True, 4)
        [rest] = answer["publications"]
        assert (rest["offset"], rest["data"]["type"], rest["data"]["text"]) == (6, "append", "de")
    await hub.stop()


async def test_a_broker_s_error_reaches_the_producer() -> None:
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (here, _):

        async def produce() -> None:
            async with here.room(ROOM).stream() as s:
                await s.append("a")
                exchange.brokers[0].cut()
                await s.append("b")

        with pytest.raises(BrokerUnavailable):
            await produce()
        with pytest.raises(BrokerUnavailable):
            await finished(here, "x")
        exchange.brokers[0].mend()
        await finished(here, "y")
    with pytest.raises(HubNotRunning):
        await finished(here, "z")


async def test_a_slow_broker_slows_the_producer() -> None:
    exchange = Exchange()
    async with cluster(exchange, room_rules=RULES) as (here, _), here.room(ROOM).stream() as s:
        exchange.hold()
        appending = asyncio.create_task(s.append("a"))
        await carried(exchange)
        assert not appending.done()
        exchange.release()
        await appending


@pytest.mark.parametrize("is_allowed", [True, False])
async def test_a_text_whose_history_is_lost_begins_anew_for_its_members(is_allowed: bool) -> None:
    exchange = Exchange()
    (hub,) = exchange.hubs(1, room_rules=RULES)
    allowed = [True]
    hub.authorize(lambda client, action, room: allowed[0])
    await hub.start()
    reader = await Reader().come(hub)
    async with hub.room(ROOM).stream() as s:
        await s.append("a")
        await settle(hub)
        assert reader.read() == "a"
        await exchange.brokers[0].remove_history(ROOM)
        allowed[0] = is_allowed
        await s.append("b")
        await carried(exchange)
        await settle(hub)
        await s.append("c")
        await carried(exchange)
        await settle(hub)
    if is_allowed:
        assert reader.read() == "bc"
        assert reader.said["is_cut"], "it is not taken for the whole"
    else:
        assert reader.read() == "a"
        assert reader.gaps == 1
        assert ROOM not in reader.peer.client.rooms
    await hub.stop()


async def test_many_clients_share_one_form_of_a_piece() -> None:
    hub = await streaming()
    readers = [await Reader().come(hub) for _ in range(20)]
    async with hub.room(ROOM).stream() as s:
        await asyncio.gather(*(s.append(text) for text in "abcdef"))
        await settle(hub)
    assert {reader.read() for reader in readers} == {"abcdef"}, "in the order of the calls"
    payloads = {id(reader.peer.transport.wire_writes[-1]) for reader in readers}
    assert len(payloads) == 1
    await hub.stop()
