"""Attempts: who waits for one goes on when it is over, and what was to come otherwise comes once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hubbub import CommandError
from hubbub.hub import room_waits
from hubbub.hub.attempt import Attempt, attempt_of, call_off, call_off_all, settled
from hubbub.hub.session import ClientSession

pytestmark = pytest.mark.anyio


def joining(*rooms: str) -> tuple[ClientSession, list[Attempt]]:
    """Return a session with an attempt for each of these rooms."""
    attempts = [Attempt() for _ in rooms]
    made: Any = SimpleNamespace(joining=dict(zip(rooms, attempts, strict=True)), memberships={})
    return cast(ClientSession, made), attempts


async def test_who_waits_goes_on_when_it_is_over_and_has_said_the_end_of_the_stay() -> None:
    session, [attempt] = joining("red")
    waiting = asyncio.ensure_future(settled(session, "red", 5.0))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert attempt.expires_at == 5.0
    attempt.end(session, "red")
    await waiting
    assert attempt_of(session, "red") is None
    await settled(session, "red", None)


async def test_one_that_takes_too_long_is_a_temporary_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room_waits, "BROKER_TIMEOUT_S", 0.01)
    session, _ = joining("red")
    with pytest.raises(CommandError) as caught:
        await settled(session, "red", None)
    assert (caught.value.code, caught.value.temporary) == ("joining", True)


@pytest.mark.parametrize("is_member", [False, True])
async def test_what_comes_otherwise_comes_once_and_not_for_a_member(is_member: bool) -> None:
    session, [attempt] = joining("red")
    came: list[int] = []
    attempt.otherwise = lambda: came.append(1)
    if is_member:
        cast(Any, session).memberships["red"] = object()
    attempt.end(session, "red")
    attempt.end(session, "red")
    assert len(came) == (not is_member)


async def test_one_that_is_called_off_is_over_and_nothing_comes_in_its_place() -> None:
    session, attempts = joining("red", "blue", "green")
    for attempt in attempts:
        attempt.otherwise = lambda: pytest.fail("it has left")
    call_off(session, "red")
    call_off(session, "red")
    assert not attempts[0].is_under_way(session, "red")
    call_off_all(session)
    assert session.joining is None
    for attempt in attempts:
        await attempt.over()
