"""Tasks: none outlives the hub, and none holds up its end."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hubbub.hub import tasks as tasks_module
from hubbub.hub.tasks import PeriodicTask, TaskSet

pytestmark = pytest.mark.anyio


async def until_ended(tasks: TaskSet) -> None:
    while len(tasks):
        await asyncio.sleep(0)


async def test_a_task_runs_under_its_name_and_is_forgotten_at_its_end() -> None:
    tasks = TaskSet()
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
    tasks = TaskSet()

    async def work() -> None: ...

    await tasks.spawn(work(), "work")
    await until_ended(tasks)


async def test_the_end_waits_for_who_is_nearly_done_and_cancels_the_rest() -> None:
    tasks = TaskSet()
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


async def test_the_end_waits_for_what_follows_a_task_too() -> None:
    tasks = TaskSet()
    done: list[int] = []

    async def work(number: int) -> None:
        await asyncio.sleep(0.01)
        done.append(number)

    def follow(before: asyncio.Task[None]) -> None:
        if len(done) < 3:
            tasks.spawn(work(len(done)), "next").add_done_callback(follow)

    tasks.spawn(work(0), "first").add_done_callback(follow)
    await tasks.end(10)
    assert done == [0, 1, 2]
    assert len(tasks) == 0


async def test_the_end_stops_periodic_tasks() -> None:
    tasks = TaskSet()
    ticks: list[int] = []
    tasks.repeat(PeriodicTask(lambda: ticks.append(1), 0.001, lambda: True))
    while not ticks:
        await asyncio.sleep(0.001)
    await tasks.end(0.0)
    count = len(ticks)
    await asyncio.sleep(0.01)
    assert len(ticks) == count
    await tasks.end(0.0)


async def test_who_ends_the_tasks_is_not_waited_for() -> None:
    tasks = TaskSet()

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
    tasks = TaskSet()
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
    tasks.repeat(PeriodicTask(deaf_tick, 0.001, lambda: True))
    await asyncio.sleep(0.02)
    await asyncio.wait_for(tasks.end(0.01), 5)
    assert sorted(swallowed) == [1, 1, 2], "the second time ends the task"
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.ERROR]
    assert caplog.text.count("deaf") == 2
    gate.set()
    await task


# Periodic tasks


class FastLoop(asyncio.SelectorEventLoop):
    """An event loop that does not wait for its timers: it moves its own clock to the next one."""

    def __init__(self) -> None:
        self._skipped_s = 0.0
        super().__init__()
        select = self._selector.select  # type: ignore[attr-defined]

        def skip(timeout: float | None = None) -> Any:
            if timeout:
                self._skipped_s += timeout
            return select(0)

        self._selector.select = skip  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._skipped_s


def run_for(
    seconds: float,
    function: Callable[[], Any],
    period_s: float,
    is_wanted: Callable[[], bool] = lambda: True,
) -> None:
    """Run a periodic task for so many seconds of the loop's clock."""

    async def main() -> None:
        task = asyncio.create_task(PeriodicTask(function, period_s, is_wanted).run())
        await asyncio.sleep(seconds)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    with asyncio.Runner(loop_factory=FastLoop) as runner:
        runner.run(main())


def now() -> float:
    return asyncio.get_running_loop().time()


def test_s10_it_ticks_once_a_period() -> None:
    ticks: list[float] = []
    run_for(16, lambda: ticks.append(now()), 5)
    assert ticks == pytest.approx([5, 10, 15], abs=0.01)


def test_s10_a_tick_that_waits_is_waited_for_and_none_overlap() -> None:
    spans: list[tuple[float, float]] = []

    async def slow() -> None:
        start = now()
        await asyncio.sleep(7 if len(spans) == 1 else 1)
        spans.append((start, now()))

    run_for(29, slow, 5)
    assert [start for start, _ in spans] == pytest.approx([5, 10, 17, 22, 27], abs=0.01)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


def test_s10_an_exception_is_logged_and_the_next_tick_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ticks: list[float] = []

    def broken() -> None:
        ticks.append(now())
        raise RuntimeError("out of luck")

    run_for(11, broken, 5)
    assert len(ticks) == 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "broken" in caplog.text
    assert "out of luck" in caplog.text


def test_s10_what_a_tick_awaits_may_be_cancelled_without_ending_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ticks: list[float] = []

    async def awaits_what_is_cancelled() -> None:
        ticks.append(now())
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    run_for(11, awaits_what_is_cancelled, 5)
    assert len(ticks) == 2
    assert "awaits_what_is_cancelled" in caplog.text


def test_a_tick_is_cancelled_with_its_task() -> None:
    ended: list[str] = []

    async def long() -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    run_for(11, long, 5)
    assert ended == ["cancelled"]


def test_s10_it_ticks_only_while_it_is_wanted() -> None:
    ticks: list[float] = []
    run_for(21, lambda: ticks.append(now()), 5, lambda: 8 < now() < 17)
    assert ticks == pytest.approx([10, 15], abs=0.01)


def test_an_awaitable_that_is_no_coroutine_is_awaited_too() -> None:
    done: list[float] = []

    def later() -> Awaitable[None]:
        async def wait() -> None:
            await asyncio.sleep(1)
            done.append(now())

        return asyncio.ensure_future(wait())

    run_for(6.5, later, 5)
    assert done == pytest.approx([6], abs=0.01)


@pytest.mark.parametrize("period_s", [0, -1, float("nan")])
def test_the_period_is_more_than_nothing(period_s: float) -> None:
    with pytest.raises(ValueError, match="seconds above zero"):
        PeriodicTask(lambda: None, period_s, lambda: True)


def test_a_ticker_is_called_without_arguments() -> None:
    def wants_one(argument: int) -> None: ...

    with pytest.raises(TypeError, match="wants_one"):
        PeriodicTask(wants_one, 1, lambda: True)  # type: ignore[arg-type]
