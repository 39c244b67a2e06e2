"""One worker process of `hubbub bench`: its clients, its publishers, its clock.

What must not live here: the command line, and what the numbers mean. `run` starts it (`python -m
hubbub.bench.worker`), sends it commands on stdin and reads events from its stdout; when stdin ends,
it leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import singledispatchmethod

from .accounting import (
    DeliveryTracker,
    Marker,
    Receiver,
    Recipients,
    due_times,
    prefix_of,
    write_message,
)
from .client import LoadSocket
from .connecting import Connector
from .ipc import (
    LINE_BYTES,
    Answer,
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
    read_command,
)
from .pacer import Pacer

TICK_US = 10_000
"""How often a worker looks at its own lateness, and whether a publisher has waited too long."""
MAX_AT_ONCE = 256
"""How many messages are sent at one wake-up, so that reading is not starved."""
REPORT_EVERY_S = 0.25
QUIET_S = 0.2
"""How long after the last message something that comes twice may still come."""
LEAVE_TIMEOUT_S = 3.0
_POLL_S = 0.02

Report = Callable[[Event], None]


class Worker:
    """The clients of one process. `handle` does a command and returns its answer."""

    def __init__(self, report: Report) -> None:
        self.plan: Plan
        self.tracker: DeliveryTracker
        self.sockets: dict[int, LoadSocket] = {}
        self.receivers: list[Receiver] = []
        self.disconnected: Counter[int] = Counter()
        self._report = report
        self._run = 0
        self._epoch_ns = 0
        self._sent: dict[int, int] = {}
        self._sent_at_us: dict[int, int] = {}
        self._cpu = CpuMeter()

    def now_us(self) -> int:
        """Return the microseconds since the run began, on the clock that all its processes have."""
        return (time.monotonic_ns() - self._epoch_ns) // 1000

    def ended(self, socket: LoadSocket, code: int) -> None:
        """A client was disconnected."""
        self.disconnected[code] += 1

    def progress(self) -> Progress:
        """Return how far this process is."""
        living = sum(receiver.is_open for receiver in self.receivers)
        counters = self.tracker.counters
        return Progress(living, counters, self._cpu.share(), dict(self.disconnected))

    @singledispatchmethod
    async def handle(self, command: Command) -> Answer:
        """Do what a command says."""
        raise TypeError(f"no command: {command!r}")

    # Connecting

    @handle.register
    async def _(self, command: Connect) -> Connected:
        self.plan, self._run, self._epoch_ns = command.plan, command.run, command.epoch_ns
        self._begin(0)
        connector = Connector(command.plan, command.index, self)
        began = time.monotonic()
        await connector.run()
        refused, failed = dict(connector.refused), dict(connector.failed)
        return Connected(sorted(self.sockets), refused, failed, time.monotonic() - began)

    def opened(self, socket: LoadSocket) -> None:
        """A client is connected."""
        self.sockets[socket.receiver.client] = socket
        self.receivers.append(socket.receiver)

    def _begin(self, phase: int) -> None:
        prefix = prefix_of(self._run, phase)
        recipients = Recipients(self.plan.expect, self.plan.rooms)
        self.tracker = DeliveryTracker(prefix, self.plan.size, recipients, self.now_us)
        self._sent = {}
        for receiver in self.receivers:
            receiver.clear()
            receiver.on_own = None

    @handle.register
    async def _(self, command: Arm) -> Armed:
        self._begin(command.phase)
        return Armed()

    # Publishing

    def _publish(self, publisher: int, due_us: int) -> None:
        """Let a publisher send its next message. One that was disconnected sends nothing."""
        socket = self.sockets[publisher]
        if not socket.receiver.is_open:
            return
        if not socket.can_send():
            self.tracker.counters.held_back += 1
            return
        number = self._sent.get(publisher, 0)
        self._sent[publisher] = number + 1
        self._sent_at_us[publisher] = self.now_us()
        self.tracker.counters.sent += 1
        marker = Marker(publisher, number, due_us)
        socket.send(write_message(self.tracker.prefix, marker, self.plan.size))

    @handle.register
    async def _(self, command: Run) -> RunDone:
        publishers = command.publishers
        places = [place for place, publisher in enumerate(publishers) if publisher in self.sockets]
        cpu_s = time.process_time()
        wake = self._open_loop if self.plan.rate is not None else self._closed_loop
        await Pacer(wake(command, places), self.now_us).run(command.start_us)
        for publisher in command.publishers:
            if publisher in self.sockets:
                self.sockets[publisher].receiver.on_own = None
        wall_s = (self.now_us() - command.start_us) / 1_000_000
        used_s = time.process_time() - cpu_s
        return RunDone(dict(self._sent), self.tracker.counters, wall_s, used_s)

    def _open_loop(self, command: Run, places: list[int]) -> Callable[[int], int | None]:
        """Send each message when it is due, whatever has come back."""
        rate = self.plan.rate
        assert rate is not None
        publishers = command.publishers
        due = due_times(places, len(publishers), rate, command.start_us)
        following = next(due, None)
        late = self.tracker.counters.lateness.add

        def wake(asked_us: int) -> int | None:
            nonlocal following
            now_us = self.now_us()
            late(now_us - asked_us)
            for _ in range(MAX_AT_ONCE):
                if following is None or following[0] > now_us or following[0] >= command.end_us:
                    break
                self._publish(publishers[following[1]], following[0])
                following = next(due)
            if now_us >= command.end_us:
                return None
            tick_us = min(now_us + TICK_US, command.end_us)
            return tick_us if following is None else min(tick_us, following[0])

        return wake

    def _closed_loop(self, command: Run, places: list[int]) -> Callable[[int], int | None]:
        """Send a publisher's next message when its last has come back, or is given up."""
        publishers = [command.publishers[place] for place in places]
        patience_us = round(self.plan.patience_s * 1_000_000)

        def answered(publisher: int) -> Callable[[int], None]:
            def on_own(number: int) -> None:
                now_us = self.now_us()
                if number + 1 == self._sent.get(publisher) and now_us < command.end_us:
                    self._publish(publisher, now_us)

            return on_own

        for publisher in publishers:
            self.sockets[publisher].receiver.on_own = answered(publisher)
            self._sent_at_us[publisher] = -patience_us

        has_begun = False

        def wake(due_us: int) -> int | None:
            nonlocal has_begun
            now_us = self.now_us()
            self.tracker.counters.lateness.add(now_us - due_us)
            if now_us >= command.end_us and has_begun:
                return None
            has_begun = True  # each sends once, even where the machine was away for the whole phase
            for publisher in publishers:
                if now_us - self._sent_at_us[publisher] >= patience_us:
                    self.tracker.counters.timeouts += publisher in self._sent
                    self._publish(publisher, now_us)
            return min(now_us + TICK_US, command.end_us)

        return wake

    # The end of a phase

    @handle.register
    async def _(self, command: Settle) -> Settled:
        tracker = self.tracker
        deadline = time.monotonic() + command.patience_s
        before = tracker.outstanding(self.receivers, command.sent)
        while before and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_S)
            now = tracker.outstanding(self.receivers, command.sent)
            if now != before:
                before, deadline = now, time.monotonic() + command.patience_s
        await asyncio.sleep(QUIET_S)
        tracker.settle(self.receivers, command.sent)
        return Settled(tracker.counters, dict(self.disconnected))

    @handle.register
    async def _(self, command: Leave) -> Left:
        await self.leave()
        return Left()

    async def leave(self) -> None:
        """Close all connections with 1000; what does not answer in time is cut."""
        for socket in self.sockets.values():
            socket.leave()
        deadline = time.monotonic() + LEAVE_TIMEOUT_S
        while any(receiver.is_open for receiver in self.receivers) and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_S)
        for socket in self.sockets.values():
            socket.abort()

    # What is reported meanwhile

    async def keep_reporting(self) -> None:
        """Report the progress until cancelled."""
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            if hasattr(self, "tracker"):
                self._report(self.progress())


class CpuMeter:
    """The share of a core that this process has used since it was last asked."""

    def __init__(self) -> None:
        self._cpu_s, self._wall_s = time.process_time(), time.monotonic()

    def share(self) -> float:
        """Return the share since the last call."""
        cpu_s, wall_s = time.process_time(), time.monotonic()
        share = (cpu_s - self._cpu_s) / max(wall_s - self._wall_s, 1e-6)
        self._cpu_s, self._wall_s = cpu_s, wall_s
        return share


# The process.


async def serve_commands(reader: asyncio.StreamReader, report: Report) -> None:
    """Handle command after command until the input ends, which ends what is being done, too."""
    worker = Worker(report)
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    async def read() -> None:
        while line := await reader.readline():
            lines.put_nowait(line)

    async def work() -> None:
        while True:
            report(await worker.handle(read_command(await lines.get())))

    jobs = [asyncio.create_task(job) for job in (read(), work(), worker.keep_reporting())]
    try:
        done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
    await worker.leave()
    for job in done:
        job.result()


async def _main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    out = sys.stdout.fileno()

    def report(event: Event) -> None:
        rest = line_of(event)
        while rest:
            rest = rest[os.write(out, rest) :]

    await serve_commands(reader, report)


def main() -> None:
    """Run a worker process on stdin and stdout, on uvloop where it is installed."""
    make_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop

        make_loop = uvloop.new_event_loop
    with contextlib.suppress(BrokenPipeError), asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(_main())


if __name__ == "__main__":
    main()
