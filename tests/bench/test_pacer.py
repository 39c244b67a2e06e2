"""The clock of load generators."""

from __future__ import annotations

import threading
import time

import pytest

from hubbub.bench.pacer import Pacer

pytestmark = pytest.mark.anyio


def now_us() -> int:
    return time.monotonic_ns() // 1000


async def test_it_calls_at_the_times_it_is_asked_for_and_never_before() -> None:
    start = now_us() + 5000
    wanted = [start + step for step in (0, 100, 3000, 3000, 20_000)]
    left = iter([*wanted[1:], None])
    calls: list[tuple[int, int]] = []

    def wake(due: int) -> int | None:
        calls.append((due, now_us()))
        assert threading.current_thread() is threading.main_thread()
        return next(left)

    await Pacer(wake, now_us).run(start)
    assert [due for due, _ in calls] == wanted
    assert all(came >= due for due, came in calls)


async def test_an_error_ends_it_and_is_raised() -> None:
    def wake(due: int) -> int | None:
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        await Pacer(wake, now_us).run(now_us())


async def test_its_thread_ends_with_it() -> None:
    await Pacer(lambda due: None, now_us).run(now_us())
    for thread in threading.enumerate():
        if thread.name == "hubbub.pacer":
            thread.join(10)
            assert not thread.is_alive()
