"""A clock for load generators: it calls at the microsecond, not at the event loop's millisecond.

What must not live here: what is sent (`worker`, which asks for the times).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable

LEAST_STEP_US = 500
"""Messages that are due within so short a time of one another are sent at one wake-up."""


class Pacer:
    """Calls `wake` in the event loop at the microseconds it asked for.

    A thread that sleeps, since the timers of the event loop are a millisecond coarse and that would
    be in every latency. `wake` gets the time that it was asked for and returns the next one, or
    None for the end.
    """

    def __init__(self, wake: Callable[[int], int | None], now_us: Callable[[], int]) -> None:
        self._wake = wake
        self._now_us = now_us
        self._loop = asyncio.get_running_loop()
        self._next: int | None = None
        self._error: Exception | None = None
        self._set = threading.Event()
        self._done = asyncio.Event()

    async def run(self, start_us: int) -> None:
        """Return when `wake` has returned None. An error of `wake` is raised."""
        self._next = start_us
        thread = threading.Thread(target=self._sleep_on, name="hubbub.pacer", daemon=True)
        thread.start()
        try:
            await self._done.wait()
        finally:
            self._next = None
            self._set.set()
        if self._error is not None:
            raise self._error

    def _sleep_on(self) -> None:
        least = 0
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            while (due := self._next) is not None:
                wait_us = max(due, least) - self._now_us()
                if wait_us > 0:
                    time.sleep(wait_us / 1_000_000)
                least = self._now_us() + LEAST_STEP_US
                self._set.clear()
                self._loop.call_soon_threadsafe(self._call, due)
                self._set.wait()

    def _call(self, due: int) -> None:
        following = None
        try:
            following = self._wake(due) if self._next is not None else None
        except Exception as error:
            self._error = error
        self._next = following
        self._set.set()
        if following is None:
            self._done.set()
