"""One worker process, led over its pipes, against real servers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

from commands import PATIENCE_S, clean_environment
from hubbub import Client, Close, Hub
from hubbub.bench import client as client_module
from hubbub.bench.ipc import (
    Arm,
    Armed,
    Command,
    Connect,
    Connected,
    Event,
    Leave,
    Left,
    Plan,
    Progress,
    Run,
    RunDone,
    Settle,
    Settled,
    line_of,
    read_event,
)
from hubbub.bench.worker import serve_commands
from serving import nothing, serve, until

pytestmark = pytest.mark.anyio

E = TypeVar("E")


class Leader:
    """Leads one process that runs in the test's own event loop."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.events: list[Event] = []
        self.reader = asyncio.StreamReader()
        self.task = asyncio.create_task(serve_commands(self.reader, self._note))

    def _note(self, event: Event) -> None:
        self.events.append(read_event(line_of(event)))  # as it is now, not as it becomes

    async def ask(self, kind: type[E], command: Command) -> E:
        """Give a command; return the answer."""
        seen = len(self.events)
        self.reader.feed_data(line_of(command))

        def answers() -> list[E]:
            return [event for event in self.events[seen:] if isinstance(event, kind)]

        await until(lambda: bool(answers()) or self.task.done(), str(command))
        if self.task.done():
            self.task.result()
        return answers()[0]

    async def begin(self) -> Connected:
        """Connect the clients and begin a phase."""
        connected = await self.ask(Connected, Connect(self.plan, 0, 7, 0))
        await self.ask(Armed, Arm(2))
        return connected

    async def publish(self, *publishers: int, seconds: float = 0.2) -> RunDone:
        """Let the publishers send from now on."""
        start_us = asyncio.get_running_loop().time() * 1_000_000
        end_us = start_us + seconds * 1_000_000
        return await self.ask(RunDone, Run(publishers, round(start_us), round(end_us)))

    async def settle(self, done: RunDone) -> Settled:
        """Wait for what is under way."""
        return await self.ask(Settled, Settle(done.sent, self.plan.patience_s))

    async def end(self) -> None:
        """Close the pipe; the process ends."""
        self.reader.feed_eof()
        await asyncio.wait_for(self.task, PATIENCE_S)


def make_hub() -> tuple[Hub, list[int]]:
    """Return a hub that passes everything on, and the codes with which clients leave it."""
    hub = Hub()
    codes: list[int] = []

    @hub.on_disconnect
    def left(client: Client, close: Close) -> None:
        codes.append(close.code)

    return hub, codes


@asynccontextmanager
async def leading(hub: Hub, clients: int, **plan: object) -> AsyncIterator[Leader]:
    async with serve(hub.mount(nothing)) as served:
        whole = {"url": served.ws(), "clients": clients, "patience_s": 5.0, **plan}
        leader = Leader(Plan(**whole))  # type: ignore[arg-type]
        try:
            yield leader
        finally:
            if not leader.task.done():
                await leader.end()


async def test_a_whole_run_in_an_open_loop() -> None:
    hub, codes = make_hub()
    async with leading(hub, 3, rate=200.0, size=64) as leader:
        connected = await leader.begin()
        assert connected.clients == [0, 1, 2]
        assert (connected.refused, connected.failed) == ({}, {})
        done = await leader.publish(0, 1)
        assert done.sent == {0: 20, 1: 20}
        settled = await leader.settle(done)
        counters = settled.counters
        assert (counters.sent, counters.delivered, counters.lost) == (40, 120, 0)
        assert (counters.duplicated, counters.reordered, counters.stray, counters.others) == (
            0,
            0,
            0,
            0,
        )
        assert sum(counters.latency.buckets.values()) == 120
        assert counters.bytes_in == 120 * 66
        assert counters.lateness.max_us >= 0
        assert settled.disconnected == {}
        await leader.ask(Left, Leave())
        await until(lambda: codes == [1000] * 3)


async def test_in_a_closed_loop_the_next_leaves_when_the_last_is_back() -> None:
    hub, _ = make_hub()
    async with leading(hub, 2) as leader:
        await leader.begin()
        done = await leader.publish(1, seconds=0.3)
        counters = (await leader.settle(done)).counters
        assert done.sent == {1: counters.sent}
        assert counters.sent > 1
        assert (counters.delivered, counters.lost) == (2 * counters.sent, 0)
        assert counters.timeouts == 0


async def test_in_a_closed_loop_each_sends_once_however_late_its_process_wakes() -> None:
    hub, _ = make_hub()
    async with leading(hub, 2) as leader:
        await leader.begin()
        done = await leader.publish(0, 1, seconds=-1.0)
        counters = (await leader.settle(done)).counters
        assert done.sent == {0: 1, 1: 1}
        assert (counters.delivered, counters.lost) == (4, 0)


async def test_a_publisher_does_not_wait_for_ever() -> None:
    hub, _ = make_hub()

    @hub.on_message
    def swallow(client: Client, text: str) -> None:
        """Answer nothing."""

    async with leading(hub, 2, patience_s=0.05) as leader:
        await leader.begin()
        done = await leader.publish(0, seconds=0.3)
        counters = (await leader.settle(done)).counters
        assert counters.sent == counters.timeouts + 1
        assert counters.timeouts >= 1
        assert (counters.delivered, counters.lost) == (0, 2 * counters.sent)


async def test_what_a_server_does_not_read_is_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_UNSENT_BYTES", -1)
    hub, _ = make_hub()
    async with leading(hub, 1, rate=100.0) as leader:
        await leader.begin()
        done = await leader.publish(0, seconds=0.1)
        assert (done.sent, done.counters.held_back) == ({}, 10)


async def test_who_is_disconnected_sends_nothing_and_is_counted() -> None:
    hub, _ = make_hub()
    async with leading(hub, 3, rate=100.0) as leader:
        await leader.begin()
        next(iter(hub)).close(4001, "go")
        await until(lambda: len(hub) == 2)
        done = await leader.publish(0, 1, 2, seconds=0.3)
        settled = await leader.settle(done)
        assert settled.disconnected == {4001: 1}
        assert len(done.sent) == 2
        assert settled.counters.sent == 20
        assert (settled.counters.lost, settled.counters.cut_off) == (0, 20)
        assert settled.counters.delivered == 40


async def test_it_says_how_far_it_is() -> None:
    hub, _ = make_hub()
    async with leading(hub, 2, rate=50.0) as leader:
        await leader.begin()
        await leader.publish(0, seconds=0.8)
        progress = [event for event in leader.events if isinstance(event, Progress)]
        assert progress[-1].clients == 2
        assert 0 < progress[-1].counters.delivered <= 80
        assert progress[-1].cpu_share >= 0


async def test_the_end_of_its_input_ends_what_it_is_doing() -> None:
    hub, codes = make_hub()
    async with leading(hub, 2, rate=10.0) as leader:
        await leader.begin()
        start_us = round(asyncio.get_running_loop().time() * 1_000_000)
        leader.reader.feed_data(line_of(Run((0,), start_us, start_us + 3_600_000_000)))
        await until(lambda: hub.stats()["messages_in"] > 0)
        await leader.end()
        await until(lambda: codes == [1000, 1000])


async def test_a_line_that_is_no_command_is_an_error() -> None:
    leader = Leader(Plan(url="ws://127.0.0.1/ws"))
    leader.reader.feed_data(b"nonsense\n")
    await until(leader.task.done)
    with pytest.raises(ValueError, match="malformed"):
        leader.task.result()


def test_the_process_ends_with_its_input() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hubbub.bench.worker"],
        input=line_of(Leave()),
        capture_output=True,
        env=clean_environment(),
        timeout=PATIENCE_S,
        check=True,
    )
    answers = [read_event(line) for line in done.stdout.splitlines()]
    assert answers == [Left()]
    assert done.stderr == b""
