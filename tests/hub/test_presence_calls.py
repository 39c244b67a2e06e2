"""The handlers of joins and leaves: their order, their failures, and how many wait."""

from __future__ import annotations

import asyncio

import pytest

from hubbub import ClientInfo
from hubbub.hub import presence_calls as calls_module
from hubbub.testing import advance_time, settle
from presence_rooms import member, with_presence

pytestmark = pytest.mark.anyio


async def test_handlers_of_a_room_run_in_order_and_a_failure_ends_with_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = await with_presence()
    rows: list[str] = []
    gate = asyncio.Event()

    @hub.on_join
    async def came(room: str, info: ClientInfo) -> None:
        await gate.wait()
        rows.append(f"{info.user} came")
        raise RuntimeError("on purpose")

    @hub.on_leave
    async def went(room: str, info: ClientInfo) -> None:
        rows.append(f"{info.user} went")
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    (await member(hub, "now", "ann")).close()
    await settle(hub)
    await member(hub, "now", "bob")
    assert rows == []
    gate.set()
    await settle(hub)
    assert rows == ["ann came", "ann went", "bob came"]
    assert "the handler came (test_presence_calls.py:" in caplog.text
    assert hub.stats()["handler_errors"] == 3
    await hub.stop()


async def test_calls_that_wait_for_slow_handlers_are_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(calls_module, "MOST_CALLS", 5)
    hub = await with_presence()
    gate = asyncio.Event()
    rows: list[str | None] = []

    @hub.on_join
    async def came(room: str, info: ClientInfo) -> None:
        await gate.wait()
        rows.append(info.user)

    for number in range(10):
        await member(hub, "now", str(number))
    assert "handlers of joins and leaves are too slow in now" in caplog.text
    gate.set()
    await settle(hub)
    assert rows == ["0", "1", "2", "3", "4", "5"]
    await hub.stop()


async def test_handlers_are_called_for_all_who_leave_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(calls_module, "MOST_CALLS", 5)
    monkeypatch.setattr(calls_module, "CALLS_A_TURN", 4)
    hub = await with_presence()
    turn = 0
    turns: list[int] = []
    hub.on_leave(lambda room, info: turns.append(turn))
    peers = [await member(hub, "red", f"u{number}") for number in range(12)]
    for peer in peers:
        peer.close()
    await settle(hub)
    assert turns == []
    advance_time(hub, 12)
    while len(turns) < 12 and turn < 1000:
        turn += 1
        await asyncio.sleep(0)
    assert len(turns) == 12
    assert max(turns.count(each) for each in turns) == 4, "and not all in one turn"
    assert "too slow" not in caplog.text
    await hub.stop()
