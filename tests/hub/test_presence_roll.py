"""The roll of a room: in which of its three parts a member is, and who waits for what."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from hubbub import ClientInfo
from hubbub.brokers.broker import PresenceTerms
from hubbub.hub.presence_roll import RENEW_S, Roll, finish
from hubbub.hub.session import ClientSession

pytestmark = pytest.mark.anyio

TERMS = PresenceTerms(lease_s=60.0, grace_s=5.0, told_up_to=10)
ANN = ClientInfo("a", "ann")


def roll() -> Roll:
    return Roll("red", TERMS, 100.0)


def session() -> ClientSession:
    return cast(ClientSession, cast(Any, object()))


def test_who_goes_before_the_broker_has_heard_of_it_was_never_there() -> None:
    red, one = roll(), session()
    red.add("1", one)
    assert red.entering == {"1": (one, None)}
    assert not red.remove("1")
    assert [red.entering, red.leaving, red.unaware] == [{}, {}, {}]


def test_who_is_back_before_its_leave_is_told_enters_with_what_is_known_of_it() -> None:
    red, one = roll(), session()
    red.members["1"] = ANN
    assert red.remove("1")
    assert red.leaving == {"1": ANN}
    red.add("1", one)
    assert red.entering == {"1": (one, ANN)}
    assert not red.leaving
    assert red.remove("1"), "the broker may still have it"
    assert red.leaving == {"1": ANN}


def test_a_member_of_whom_something_else_is_to_be_said_enters_again_and_goes_once() -> None:
    red, one = roll(), session()
    red.members["1"] = ANN
    for _ in range(2):
        red.add("1", one)
        assert (red.entering, red.members) == ({"1": (one, ANN)}, {})
    assert not red.unaware, "it knows what it was told when it came"
    assert red.remove("1")
    assert [red.entering, red.members, red.leaving] == [{}, {}, {"1": ANN}]


def test_of_those_that_were_not_told_the_ones_who_came_back_enter() -> None:
    red, one = roll(), session()
    red.leaving["3"] = ClientInfo("c")
    red.add("2", one)
    red.put_back({"1": ANN, "2": ClientInfo("b")})
    assert list(red.leaving) == ["1", "3"]
    assert red.entering == {"2": (one, ClientInfo("b"))}


def test_a_refused_member_of_whom_something_else_is_to_be_said_is_a_new_one() -> None:
    red = roll()
    red.members["1"], red.refused["1"] = ANN, None
    red.add("1", session())
    assert list(red.entering) == ["1"]
    assert not red.refused


def test_who_goes_is_not_refused_and_not_unaware_any_more() -> None:
    red = roll()
    red.add("1", session())
    red.entering.clear()
    red.members["1"], red.refused["1"] = ANN, None
    red.remove("1")
    assert [red.refused, red.unaware, red.members] == [{}, {}, {}]


def test_it_is_due_when_somebody_changes_and_when_its_time_has_come() -> None:
    red = roll()
    assert not red.is_due(100.0)
    assert red.is_due(100.0 + RENEW_S)
    red.add("1", session())
    assert red.is_due(100.0)


def test_it_is_over_without_people_and_with_nobody_who_may_have_to_be_struck_out() -> None:
    red, kept, full = roll(), roll(), roll()
    kept.grace_until = 105.0
    full.add("1", session())
    assert [red.is_over, kept.is_over, full.is_over] == [True, False, False]


async def test_all_who_wait_for_a_batch_go_on_together() -> None:
    red = roll()
    waiting = [asyncio.ensure_future(red.until_told()) for _ in range(2)]
    await asyncio.sleep(0)
    told = red.told
    assert told is not None
    red.let_go()
    assert red.told is None
    await asyncio.gather(*waiting)
    finish(told)  # once more is no error
    finish(None)
