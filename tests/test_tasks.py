"""Tasks: none outlives the hub, and none holds up its end."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from hubbub import tasks as tasks_module
from hubbub.tasks import Tasks
from hubbub.ticker import Ticker

pytestmark = pytest.mark.anyio


async def until_ended(tasks: Tasks) -> None:
    while len(tasks):
        await asyncio.sleep(0)


async def test_a_task_runs_under_its_name_and_is_forgotten_at_its_end() -> None:
    tasks = Tasks()
    gate = asyncio.Event()
    seen: list[str] = []

    async def work() -> None:
        await gate.wait()
        task = asyncio.current_task()
        assert task is not None
        seen.append(task.get_name())

    task = tasks.spawn(work(), "work 1")
    assert len(tasks) == 1
    gate.set()
    await task
    await until_ended(tasks)
    assert seen == ["work 1"]


async def test_a_task_without_a_wait_leaves_nothing_behind() -> None:
    tasks = Tasks()

    async def work() -> None: ...

    await tasks.spawn(work(), "work")
    await until_ended(tasks)


async def test_the_end_waits_for_who_is_nearly_done_and_cancels_the_rest() -> None:
    tasks = Tasks()
    gate, events = asyncio.Event(), list[str]()

    async def quick() -> None:
        await gate.wait()
        events.append("quick")

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cancelled")

    tasks.spawn(quick(), "quick")
    tasks.spawn(endless(), "endless")
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(gate.set)
    await tasks.end(0.05)
    assert events == ["quick", "cancelled"]
    await until_ended(tasks)


async def test_fault_03_what_begins_during_the_end_ends_within_it_too() -> None:
    tasks = Tasks()
    events: list[str] = []

    async def link(number: int) -> None:
        try:
            await asyncio.sleep(0.02)
        finally:
            events.append(f"end {number}")
        if number < 3:
            tasks.spawn(link(number + 1), f"link {number + 1}")

    tasks.spawn(link(1), "link 1")
    await tasks.end(10.0)
    assert events == ["end 1", "end 2", "end 3"]
    assert len(tasks) == 0


async def test_the_end_stops_the_tickers() -> None:
    tasks = Tasks()
    ticks: list[int] = []
    tasks.repeat(Ticker(lambda: ticks.append(1), 0.001, lambda: True))
    while not ticks:
        await asyncio.sleep(0.001)
    await tasks.end(0.0)
    count = len(ticks)
    await asyncio.sleep(0.01)
    assert len(ticks) == count
    await tasks.end(0.0)


async def test_who_ends_the_tasks_is_not_waited_for() -> None:
    tasks = Tasks()

    async def ends() -> None:
        await asyncio.sleep(0)
        await tasks.end(10.0)

    start = time.monotonic()
    await tasks.spawn(ends(), "ends")
    assert time.monotonic() - start < 5


async def test_who_swallows_a_cancellation_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tasks_module, "_CANCEL_ROUND_S", 0.02)
    tasks = Tasks()
    gate = asyncio.Event()
    swallowed: list[int] = []

    async def deaf() -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                swallowed.append(1)

    async def deaf_tick() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed.append(2)

    task = tasks.spawn(deaf(), "deaf")
    tasks.repeat(Ticker(deaf_tick, 0.001, lambda: True))
    await asyncio.sleep(0.02)
    await asyncio.wait_for(tasks.end(0.01), 5)
    assert sorted(swallowed) == [1, 1, 2], "the second time ends the ticker"
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.ERROR]
    assert caplog.text.count("deaf") == 2
    gate.set()
    await task
