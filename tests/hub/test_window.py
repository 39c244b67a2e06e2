"""The window: bounded by number and bytes, in the order of the calls, and in nobody's way for long while the broker is away."""

from __future__ import annotations

import asyncio

import pytest

from hubbub.hub import window as window_module
from hubbub.hub.window import Window
from started_hub import until

pytestmark = pytest.mark.anyio


class Sending:
    """Messages that have a place in a window until a test says that they have arrived."""

    def __init__(self) -> None:
        self.is_up = True
        self.window = Window(lambda: self.is_up)
        self.entered: list[str] = []
        self.arrivals: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def send(self, *messages: tuple[str, int]) -> None:
        """Begin to send messages, by names and sizes, and wait until all have a place or wait for one."""
        for name, size in messages:
            self.arrivals[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._send(name, size))
        for _ in range(5):
            await asyncio.sleep(0)

    async def _send(self, name: str, size: int) -> None:
        await self.window.enter(size)
        self.entered.append(name)
        try:
            await self.arrivals[name].wait()
        finally:
            self.window.leave(size)

    async def arrive(self, *names: str) -> None:
        """Have messages arrive, and who waits come in."""
        for name in names:
            self.arrivals[name].set()
            await self.tasks[name]
        for _ in range(5 * len(self.tasks)):
            await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "MOST", 3)
    monkeypatch.setattr(window_module, "MOST_BYTES", 100)


async def test_what_does_not_fit_waits_and_nothing_overtakes_it() -> None:
    on = Sending()
    await on.send(("a", 60), ("b", 50), ("c", 1), ("d", 1), ("e", 0))
    assert on.entered == ["a"]
    await on.arrive("a")
    assert on.entered == ["a", "b", "c", "d"]
    await on.arrive("c")
    assert on.entered == ["a", "b", "c", "d", "e"]
    await on.arrive("b", "d", "e")


async def test_what_is_called_in_the_turn_in_which_others_are_let_in_goes_behind_them() -> None:
    on = Sending()
    await on.send(("a", 1), ("b", 1), ("c", 1), ("older", 1))
    for name in "abc":
        on.arrivals[name].set()
    # Its first step stands behind the three that leave now, and before the one that they let in.
    await on.send(("younger", 1), ("large", 1000), ("youngest", 1))
    assert on.entered == ["a", "b", "c", "older", "younger"]
    await on.arrive("older", "younger", "large")
    assert on.entered[5:] == ["large", "youngest"]
    await on.arrive("youngest")
    await on.send(("last", 100))
    assert on.entered[-1] == "last", "nothing is left behind"
    on.tasks["last"].cancel()


async def test_one_that_is_larger_than_all_goes_alone() -> None:
    on = Sending()
    await on.send(("a", 1), ("large", 1000), ("b", 1))
    assert on.entered == ["a"]
    await on.arrive("a")
    assert on.entered == ["a", "large"]
    await on.arrive("large")
    assert on.entered == ["a", "large", "b"]
    await on.arrive("b")


async def test_who_gives_up_waiting_or_fails_leaves_no_place_behind() -> None:
    on = Sending()
    await on.send(("a", 100), ("b", 100), ("c", 100), ("d", 100))
    for name in ("c", "b", "a"):
        on.tasks[name].cancel()
        await asyncio.gather(on.tasks[name], return_exceptions=True)
    await until(lambda: on.entered == ["a", "d"])
    await on.arrive("d")


async def test_one_that_is_let_in_and_gives_up_in_the_same_turn_leaves_no_place_behind() -> None:
    on = Sending()
    await on.window.enter(100)
    await on.send(("a", 100), ("b", 100))
    on.window.leave(100)
    on.tasks["a"].cancel()
    await until(lambda: on.entered == ["b"])
    await on.arrive("b")


async def test_those_for_whom_there_is_room_come_in_together() -> None:
    """What comes in one turn of the loop is one pipeline, and shares messages: apart it is three times as dear."""
    on = Sending()
    await on.send(*((name, 1) for name in "abcdef"))
    assert on.entered == ["a", "b", "c"]
    for name in "abc":
        on.arrivals[name].set()
    seen: list[int] = []
    while len(on.entered) < 6:
        await asyncio.sleep(0)
        seen.append(len(on.entered))
    assert set(seen) == {3, 6}
    await on.arrive("d", "e", "f")


async def test_while_the_broker_is_away_nobody_waits_here_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(window_module, "LOOK_S", 0.01)
    on = Sending()
    await on.send(("a", 100), ("b", 100), ("c", 100))
    assert on.entered == ["a"]
    on.is_up = False
    await until(lambda: on.entered == ["a", "b", "c"])
    await on.arrive("a", "b", "c")


async def test_while_something_is_answered_they_wait_though_one_server_of_several_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(window_module, "LOOK_S", 1000.0)
    on = Sending()
    on.is_up = False
    await on.send(("a", 50), ("b", 50), ("c", 100))
    await on.arrive("a")
    look(on.window)
    assert on.entered == ["a", "b"], "one has left since the last look"
    look(on.window)
    await until(lambda: on.entered == ["a", "b", "c"])
    await on.arrive("b", "c")


def look(window: Window) -> None:
    """Have the window look now, and not after a while."""
    timer = window._timer
    assert timer is not None
    timer.cancel()
    window._look()
