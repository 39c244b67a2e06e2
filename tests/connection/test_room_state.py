"""What becomes of a room: refusals, ends and gaps, said by a server that a test writes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from answering import asynchronous, until
from connection.scripted import at, data_of, end_of, entered, gap_of, meeting, pubs
from hubbub.connection.room_inbox import MAX_ROOM_MESSAGES
from hubbub.errors import Disconnected, Unsubscribed
from hubbub.model import Position

# Refusals


@asynchronous
async def test_refused_for_now_it_asks_again(caplog: pytest.LogCaptureFixture) -> None:
    async with meeting() as (_, connection, peer):
        room = connection.subscribe("r")
        entering = asyncio.create_task(room.__aenter__())
        await peer.refuse("subscribe", 100, temporary=True)
        number, _params = await peer.take("subscribe")
        assert room.refusal is not None
        assert room.refusal.code == 100
        await peer.say({"id": number, "subscribe": {}})
        await entering
        assert room.refusal is None
        assert "refused for now in 'r'" in caplog.text


@asynchronous
async def test_a_refusal_for_good_after_a_reconnection_comes_behind_the_messages() -> None:
    async with meeting() as (script, connection, peer):
        room = await entered(connection, peer, at(0))
        await peer.publish("r", "one", 1)
        await until(lambda: len(room._state.inbox) == 1)
        peer.cut()
        peer = await script.welcomed()
        await peer.refuse("subscribe", 103)
        await until(lambda: room.state == "unsubscribed")
        assert await data_of(room, 1) == ["one"]
        assert await end_of(room) == 103
        assert await end_of(room) == 103
        await room.__aexit__(None, None, None)
        again = await entered(connection, peer, at(1), since=room.position)
        assert again.state == "subscribed"


@asynchronous
async def test_no_answer_to_subscribe_is_a_lost_connection() -> None:
    async with meeting(timeout_s=0.05) as (script, connection, peer):
        entering = asyncio.create_task(connection.subscribe("r").__aenter__())
        await peer.take("subscribe")
        peer = await script.welcomed()
        await peer.answer("subscribe", {})
        await entering
        assert connection.last_close is not None
        assert connection.last_close.reason == "no answer to subscribe"


@asynchronous
async def test_an_unsubscribe_that_is_refused_is_a_lost_connection() -> None:
    async with meeting() as (script, connection, peer):
        room = await entered(connection, peer, {})
        await room.__aexit__(None, None, None)
        await peer.refuse("unsubscribe", 100)
        await script.welcomed()
        await connection.wait_open()
        assert connection.last_close is not None
        assert connection.last_close.reason == "no answer to unsubscribe"


@asynchronous
async def test_who_gives_up_entering_is_out() -> None:
    async with meeting() as (_, connection, peer):
        room = connection.subscribe("r")
        entering = asyncio.create_task(room.__aenter__())
        number, _params = await peer.take("subscribe")
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        await peer.answer("unsubscribe", {})
        # The answer that is on its way belongs to the time before.
        again = asyncio.create_task(room.__aenter__())
        await peer.say({"id": number, "subscribe": at(7)})
        await peer.publish("r", "old", 8)
        await peer.answer("subscribe", at(9))
        await again
        await peer.publish("r", "new", 10)
        assert await data_of(room, 1) == ["new"]


@asynchronous
async def test_a_connection_that_ends_for_good_ends_those_who_wait_to_enter() -> None:
    async with meeting() as (_, connection, peer):
        entering = asyncio.create_task(connection.subscribe("r").__aenter__())
        await peer.take("subscribe")
        await peer.close(3500, "invalid token")
        with pytest.raises(Disconnected, match="3500 invalid token"):
            await entering


# Gaps


@pytest.mark.parametrize(
    ("answer", "gap"),
    [
        (at(3, recovered=True, was_recovering=True), ()),
        (at(3, was_recovering=True), ()),
        ({**at(3, was_recovering=True), "epoch": "e~other"}, ()),
        (at(7, was_recovering=True), (Position(7, "e"),)),
        ({**at(3, was_recovering=True), "epoch": "f"}, (Position(3, "f"),)),
        ({}, (None,)),
        (at(8, was_recovering=True, publications=pubs(8)), (None,)),
    ],
    ids=["recovered", "nothing new", "same epoch", "too much", "another epoch", "forgets", "whole"],
)
def test_when_something_was_missed(
    answer: dict[str, Any], gap: tuple[Position | None, ...]
) -> None:
    @asynchronous
    async def scenario() -> None:
        async with meeting() as (script, connection, peer):
            room = await entered(connection, peer, at(3))
            peer.cut()
            peer = await script.welcomed()
            params = await peer.answer("subscribe", answer)
            assert params == {"channel": "r", "recover": True, "offset": 3, "epoch": "e"}
            for position in gap:
                assert await gap_of(room) == position
                assert room.position == position
            if "publications" in answer:
                assert await data_of(room, 1) == [8]
                assert room.position == Position(8, "e")
            await peer.publish("r", "next", 9)
            assert await data_of(room, 1) == ["next"]

    scenario()


@asynchronous
async def test_what_was_read_ahead_is_not_asked_for_again() -> None:
    async with meeting() as (script, connection, peer):
        room = await entered(connection, peer, at(0))
        await peer.say(*({"push": {"channel": "r", "pub": each}} for each in pubs(1, 2, 3)))
        assert await data_of(room, 1) == [1]
        peer.cut()
        peer = await script.welcomed()
        answer = at(3, recovered=True, publications=pubs(4, 6))
        assert (await peer.answer("subscribe", answer))["offset"] == 3
        assert room.position == Position(1, "e")
        assert await data_of(room, 4) == [2, 3, 4, 6]
        assert room.position == Position(6, "e")


@asynchronous
async def test_a_cut_in_the_middle_of_an_answer_and_one_before_it() -> None:
    async with meeting() as (script, connection, peer):
        room = await entered(connection, peer, at(0), since=Position(0, "e"))
        for offset in range(1, 6):
            peer.cut()
            peer = await script.welcomed()
            _, params = await peer.take("subscribe")
            assert params["offset"] == offset - 1
            peer.cut()  # before the answer
            peer = await script.welcomed()
            number, params = await peer.take("subscribe")
            assert params["offset"] == offset - 1
            answer = at(offset - 1, recovered=True, publications=pubs(offset))
            await peer.say({"id": number, "subscribe": answer})
            assert await data_of(room, 1) == [offset]


# Ends that the server says


@pytest.mark.parametrize("code", [2500, 2501])
def test_codes_after_which_it_asks_again(code: int) -> None:
    @asynchronous
    async def scenario() -> None:
        async with meeting() as (_, connection, peer):
            room = await entered(connection, peer, at(3))
            await peer.push("r", unsubscribe={"code": code, "reason": "why"})
            await peer.publish("r", "not in it", 4)
            params = await peer.answer("subscribe", at(3, recovered=True, publications=pubs(4)))
            assert params["offset"] == 3
            assert await data_of(room, 1) == [4]

    scenario()


@asynchronous
async def test_a_position_that_is_worth_nothing_any_more_is_a_gap() -> None:
    async with meeting() as (_, connection, peer):
        room = await entered(connection, peer, at(3))
        await peer.push("r", unsubscribe={"code": 2502, "reason": "state invalidated"})
        assert await peer.answer("subscribe", at(3)) == {"channel": "r"}
        assert await gap_of(room) == Position(3, "e")


@asynchronous
async def test_a_connection_whose_state_is_worth_nothing_any_more_forgets_it_all() -> None:
    tokens = iter("abc")
    async with meeting(token=lambda: next(tokens)) as (script, connection, peer):
        room = await entered(connection, peer, at(3))
        never_in = connection.subscribe("later", since=Position(3, "e"))
        entering = asyncio.create_task(never_in.__aenter__())
        await peer.take("subscribe")
        await peer.close(3014, "state invalidated")
        peer = await script.peer()
        assert (await peer.answer("connect", {"client": "c"}))["token"] == "b"
        assert await peer.answer("subscribe", at(3)) == {"channel": "r"}
        assert await peer.answer("subscribe", at(3)) == {"channel": "later"}
        assert await gap_of(room) == Position(3, "e")
        await entering
        assert await gap_of(never_in) == Position(3, "e")


@asynchronous
async def test_a_code_after_which_it_is_out_for_good() -> None:
    async with meeting() as (script, connection, peer):
        room = await entered(connection, peer, at(3))
        await peer.push("r", unsubscribe={"code": 2499, "reason": "enough"})
        assert await end_of(room) == 2499
        peer.cut()
        await script.welcomed()
        assert connection.state == "connecting"
        assert await end_of(room) == 2499


# Rooms of the server's


@asynchronous
async def test_a_room_that_is_given_and_lost_says_what_it_missed() -> None:
    async with meeting() as (script, connection, peer):
        await peer.push("r", subscribe=at(3))
        async with await anext(aiter(connection.given_rooms())) as room:
            for offset, is_missed in ((3, False), (5, True)):
                peer.cut()
                peer = await script.peer()
                params = await peer.answer("connect", {"client": "c"})
                assert params["subs"] == {"r": {"recover": True, "offset": 3, "epoch": "e"}}
                await peer.push("r", subscribe=at(offset))
                if is_missed:
                    assert await gap_of(room) == Position(5, "e")
            await peer.push("r", unsubscribe={"code": 2500, "reason": "insufficient state"})
            assert await end_of(room) == 2500, "who did not ask cannot ask again"


@asynchronous
async def test_a_room_that_the_server_does_not_give_again_is_asked_for_by_who_wanted_it() -> None:
    async with meeting() as (script, connection, peer):
        await peer.push("r", subscribe=at(3))
        await until(lambda: connection._session.given)
        async with connection.subscribe("r") as room:
            peer.cut()
            peer = await script.peer()
            place = {"recover": True, "offset": 3, "epoch": "e"}
            params = await peer.answer("connect", {"client": "c"})
            assert params["subs"] == {"r": place}
            assert (await peer.refuse("history", 108)) == {"channel": "r", "limit": 0}
            answer = at(3, recovered=True, publications=pubs(4))
            assert await peer.answer("subscribe", answer) == {"channel": "r", **place}
            assert await data_of(room, 1) == [4]
            peer.cut()  # from now on it is the program's
            peer = await script.welcomed()
            await peer.refuse("subscribe", 103)
            assert await end_of(room) == 103


@asynchronous
async def test_a_room_that_the_server_gives_only_in_the_end_is_not_asked_for() -> None:
    async with meeting() as (script, connection, peer):
        await peer.push("r", subscribe=at(3))
        await until(lambda: connection._session.given)
        async with connection.subscribe("r") as room:
            peer.cut()
            peer = await script.welcomed()
            await peer.push("r", subscribe=at(3, recovered=True, publications=pubs(4)))
            await peer.answer("history", at(4))
            assert await data_of(room, 1) == [4]
            calling = asyncio.create_task(connection.call("next"))
            await peer.answer("rpc", {"data": 1})
            assert await calling == 1


@asynchronous
async def test_a_given_room_that_nobody_asked_for_ends_when_it_is_not_given_again() -> None:
    async with meeting() as (script, connection, peer):
        await peer.push("r", subscribe=at(3))
        await peer.push("unread", subscribe={})
        given = aiter(connection.given_rooms())
        async with await anext(given) as room:
            peer.cut()
            peer = await script.welcomed()
            assert (await peer.answer("history", at(9)))["channel"] == "r"
            assert (await peer.refuse("history", 103))["channel"] == "unread"
            assert await end_of(room) == 2000
            await peer.push("new", subscribe={})
            assert (await anext(given)).name == "new"
            assert list(connection._session.rooms) == ["r", "new"]


@asynchronous
async def test_who_enters_while_it_is_unknown_whether_the_room_is_given_ends_in_it() -> None:
    async with meeting() as (script, connection, peer):
        await peer.push("r", subscribe=at(3))
        await until(lambda: connection._session.given)
        peer.cut()
        peer = await script.welcomed()
        number, _ = await peer.take("history")
        entering = asyncio.create_task(connection.subscribe("r").__aenter__())
        await until(lambda: connection._session.rooms["r"].is_wanted)
        await peer.say({"id": number, "history": at(3)})
        await peer.answer("subscribe", at(3, recovered=True))
        assert (await entering).state == "subscribed"


@asynchronous
async def test_no_answer_about_a_room_that_is_not_given_is_a_lost_connection() -> None:
    async with meeting(timeout_s=0.05) as (script, connection, peer):
        await peer.push("r", subscribe=at(3))
        async with await anext(aiter(connection.given_rooms())) as room:
            peer.cut()
            peer = await script.welcomed()
            await peer.take("history")
            peer = await script.peer()
            answer = at(3, recovered=True, publications=pubs(4))
            await peer.answer("connect", {"client": "c", "subs": {"r": answer}})
            assert await data_of(room, 1) == [4]
            assert connection.last_close is not None
            assert connection.last_close.reason == "no answer to history"


@asynchronous
async def test_a_given_room_that_ended_before_it_was_entered_is_asked_for() -> None:
    async with meeting() as (_, connection, peer):
        await peer.push("r", subscribe=at(3))
        room = await anext(aiter(connection.given_rooms()))
        await peer.push("r", unsubscribe={"code": 2000, "reason": "no more"})
        await until(lambda: room.state == "unsubscribed")
        entering = asyncio.create_task(room.__aenter__())
        await peer.refuse("subscribe", 103)
        with pytest.raises(Unsubscribed, match="103"):
            await entering


@asynchronous
async def test_a_room_that_both_ask_for_is_the_programs() -> None:
    async with meeting() as (script, connection, peer):
        room = await entered(connection, peer, at(3))
        peer.cut()
        peer = await script.welcomed()
        number, _ = await peer.take("subscribe")
        await peer.push("r", subscribe=at(5))
        await peer.say({"id": number, "error": {"code": 105, "message": "already subscribed"}})
        assert await peer.answer("unsubscribe", {}) == {"channel": "r"}
        answer = at(3, recovered=True, publications=pubs(4, 5))
        assert (await peer.answer("subscribe", answer))["offset"] == 3
        assert await data_of(room, 2) == [4, 5]


@asynchronous
async def test_a_given_room_that_nobody_reads_drops_and_tells() -> None:
    async with meeting() as (script, connection, peer):
        await peer.push("r", subscribe=at(0))
        async with await anext(aiter(connection.given_rooms())) as room:
            last = MAX_ROOM_MESSAGES + 5
            offsets = range(1, last + 1)
            await peer.say(*({"push": {"channel": "r", "pub": each}} for each in pubs(*offsets)))
            await until(lambda: room._state.inbox.read == Position(last, "e"))
            peer.cut()
            peer = await script.peer()
            missed = at(last, recovered=True, publications=pubs(last + 1))
            await peer.answer("connect", {"client": "c", "subs": {"r": missed}})
            await connection.wait_open()
            assert await data_of(room, MAX_ROOM_MESSAGES) == list(offsets[:MAX_ROOM_MESSAGES])
            assert await gap_of(room) == Position(last + 1, "e")
            await peer.publish("r", "on", last + 2)
            assert await data_of(room, 1) == ["on"]


# Programs that are slow


@asynchronous
async def test_an_answer_with_more_than_there_is_room_for_is_taken_in_parts() -> None:
    async with meeting() as (script, connection, peer):
        room = await entered(connection, peer, at(0))
        peer.cut()
        peer = await script.welcomed()
        last = MAX_ROOM_MESSAGES + 3
        answer = at(0, recovered=True, publications=pubs(*range(1, last + 1)))
        await peer.answer("subscribe", answer)
        await peer.answer("unsubscribe", {})
        assert room.state == "paused"
        await peer.publish("r", "on its way", last + 1)
        assert await data_of(room, MAX_ROOM_MESSAGES) == list(range(1, MAX_ROOM_MESSAGES + 1))
        rest = pubs(*range(MAX_ROOM_MESSAGES + 1, last + 2))
        params = await peer.answer(
            "subscribe", at(MAX_ROOM_MESSAGES, recovered=True, publications=rest)
        )
        assert params["offset"] == MAX_ROOM_MESSAGES
        assert await data_of(room, 4) == [each["data"] for each in rest]


@asynchronous
async def test_who_has_caught_up_while_there_is_no_connection_asks_on_the_next() -> None:
    async with meeting() as (script, connection, peer):
        room = await entered(connection, peer, at(0))
        offsets = range(1, MAX_ROOM_MESSAGES + 2)
        await peer.say(*({"push": {"channel": "r", "pub": each}} for each in pubs(*offsets)))
        await peer.take("unsubscribe")
        peer.cut()
        peer = await script.peer()
        assert await data_of(room, MAX_ROOM_MESSAGES) == list(offsets[:-1])
        await peer.answer("connect", {"client": "c"})
        answer = at(MAX_ROOM_MESSAGES, recovered=True, publications=pubs(offsets[-1]))
        assert (await peer.answer("subscribe", answer))["offset"] == MAX_ROOM_MESSAGES
        assert await data_of(room, 1) == [offsets[-1]]


@asynchronous
async def test_a_room_that_is_paused_stays_so_when_the_server_gives_it() -> None:
    async with meeting() as (script, connection, peer):
        room = await entered(connection, peer, at(0))
        offsets = range(1, MAX_ROOM_MESSAGES + 2)
        await peer.say(*({"push": {"channel": "r", "pub": each}} for each in pubs(*offsets)))
        await peer.answer("unsubscribe", {})
        peer.cut()
        peer = await script.welcomed()
        await peer.push("r", subscribe=at(2000))
        await peer.answer("unsubscribe", {})
        assert room.state == "paused"
        assert await data_of(room, MAX_ROOM_MESSAGES) == list(offsets[:-1])
        answer = at(MAX_ROOM_MESSAGES, recovered=True, publications=pubs(offsets[-1]))
        assert (await peer.answer("subscribe", answer))["offset"] == MAX_ROOM_MESSAGES


@asynchronous
async def test_a_newest_message_that_counts_as_recovered_is_no_position_before_it_is_taken() -> (
    None
):
    async with meeting() as (_, connection, peer):
        room = await entered(connection, peer, at(5, recovered=True, publications=pubs(5)))
        assert room.position is None
        assert await data_of(room, 1) == [5]
        assert room.position == Position(5, "e")


@asynchronous
async def test_an_answer_that_comes_after_the_server_has_taken_the_client_out_is_undone() -> None:
    """The server has put it in and out again, and carries out its own command only then: now it is in."""
    async with meeting() as (_, connection, peer):
        room = connection.subscribe("r")
        entering = asyncio.create_task(room.__aenter__())
        number, _params = await peer.take("subscribe")
        await peer.say({"push": {"channel": "r", "subscribe": {}}})
        await peer.say({"push": {"channel": "r", "unsubscribe": {"code": 2000, "reason": "out"}}})
        await peer.say({"id": number, "subscribe": {}})
        assert await peer.answer("unsubscribe", {}) == {"channel": "r"}
        await asyncio.wait([entering])
        assert room.state == "unsubscribed"
