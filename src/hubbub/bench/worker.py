"""One generator process of `hubbub bench`: its clients, its talkers, its clock.

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

from .accounting import Audience, Books, Ledger, Stamp, due_times, mark_of, write_message
from .client import LoadSocket
from .connecting import Dialing
from .ipc import (
    LINE_BYTES,
    Answer,
    Arm,
    Armed,
    Command,
    Connect,
    Connected,
    Event,
    Heard,
    Leave,
    Left,
    Plan,
    Probe,
    Progress,
    Settle,
    Settled,
    Speak,
    Spoken,
    line_of,
    read_command,
)
from .pacer import Pacer

TICK_US = 10_000
"""How often the generator looks at its own lateness, and whether a talker waits in vain."""
MAX_AT_ONCE = 256
"""How many messages are sent at one wake-up, so that reading is not starved."""
REPORT_EVERY_S = 0.25
QUIET_S = 0.2
"""How long after the last message something that comes twice may still come."""
LEAVE_TIMEOUT_S = 3.0
_POLL_S = 0.02

Report = Callable[[Event], None]


class Generator:
    """The clients of one process. `obey` does a command and returns its answer."""

    def __init__(self, report: Report) -> None:
        self.plan: Plan
        self.books: Books
        self.sockets: dict[int, LoadSocket] = {}
        self.ledgers: list[Ledger] = []
        self.disconnected: Counter[int] = Counter()
        self._report = report
        self._run = 0
        self._epoch_ns = 0
        self._sent: dict[int, int] = {}
        self._said_at_us: dict[int, int] = {}
        self._cpu = CpuMeter()

    def now_us(self) -> int:
        """Return the microseconds since the run began, on the clock that all its processes have."""
        return (time.monotonic_ns() - self._epoch_ns) // 1000

    def ended(self, socket: LoadSocket, code: int) -> None:
        """A client was disconnected."""
        self.disconnected[code] += 1

    def progress(self) -> Progress:
        """Return how far this process is."""
        living = sum(ledger.is_open for ledger in self.ledgers)
        tally = self.books.tally
        return Progress(living, tally, self._cpu.share(), dict(self.disconnected))

    @singledispatchmethod
    async def obey(self, command: Command) -> Answer:
        """Do what a command says."""
        raise TypeError(f"no command: {command!r}")

    # Connecting

    @obey.register
    async def _(self, command: Connect) -> Connected:
        self.plan, self._run, self._epoch_ns = command.plan, command.run, command.epoch_ns
        self._open_books(0, Audience("everybody", self.plan.rooms))
        dialing = Dialing(command.plan, command.index, self)
        began = time.monotonic()
        await dialing.run()
        refused, failed = dict(dialing.refused), dict(dialing.failed)
        return Connected(sorted(self.sockets), refused, failed, time.monotonic() - began)

    def opened(self, socket: LoadSocket) -> None:
        """A client is connected."""
        self.sockets[socket.ledger.client] = socket
        self.ledgers.append(socket.ledger)

    def _open_books(self, phase: int, audience: Audience) -> None:
        mark = mark_of(self._run, phase)
        self.books = Books(mark, self.plan.size, audience, self.now_us)
        self._sent = {}
        for ledger in self.ledgers:
            ledger.clear()
            ledger.on_own = None

    @obey.register
    async def _(self, command: Arm) -> Armed:
        self._open_books(command.phase, command.audience)
        return Armed()

    @obey.register
    async def _(self, command: Probe) -> Heard:
        if command.number is not None:
            self._say(command.talker, self.now_us())
        return Heard([ledger.client for ledger in self.ledgers if ledger.got])

    # Talking

    def _say(self, talker: int, due_us: int) -> None:
        """Let a talker say its next message. One that was disconnected says nothing."""
        socket = self.sockets[talker]
        if not socket.ledger.is_open:
            return
        if not socket.can_say():
            self.books.tally.held_back += 1
            return
        number = self._sent.get(talker, 0)
        self._sent[talker] = number + 1
        self._said_at_us[talker] = self.now_us()
        self.books.tally.sent += 1
        stamp = Stamp(talker, number, due_us)
        socket.say(write_message(self.books.mark, stamp, self.plan.size))

    @obey.register
    async def _(self, command: Speak) -> Spoken:
        talkers = command.talkers
        places = [place for place, talker in enumerate(talkers) if talker in self.sockets]
        cpu_s = time.process_time()
        wake = self._open_loop if self.plan.rate is not None else self._closed_loop
        await Pacer(wake(command, places), self.now_us).run(command.start_us)
        for talker in command.talkers:
            if talker in self.sockets:
                self.sockets[talker].ledger.on_own = None
        wall_s = (self.now_us() - command.start_us) / 1_000_000
        used_s = time.process_time() - cpu_s
        return Spoken(dict(self._sent), self.books.tally, wall_s, used_s)

    def _open_loop(self, command: Speak, places: list[int]) -> Callable[[int], int | None]:
        """Send each message when it is due, whatever has come back."""
        rate = self.plan.rate
        assert rate is not None
        talkers = command.talkers
        due = due_times(places, len(talkers), rate, command.start_us)
        following = next(due, None)
        late = self.books.tally.lateness.add

        def wake(asked_us: int) -> int | None:
            nonlocal following
            now_us = self.now_us()
            late(now_us - asked_us)
            for _ in range(MAX_AT_ONCE):
                if following is None or following[0] > now_us or following[0] >= command.end_us:
                    break
                self._say(talkers[following[1]], following[0])
                following = next(due)
            if now_us >= command.end_us:
                return None
            tick_us = min(now_us + TICK_US, command.end_us)
            return tick_us if following is None else min(tick_us, following[0])

        return wake

    def _closed_loop(self, command: Speak, places: list[int]) -> Callable[[int], int | None]:
        """Send a talker's next message when its last has come back, or is given up."""
        talkers = [command.talkers[place] for place in places]
        patience_us = round(self.plan.patience_s * 1_000_000)

        def answered(talker: int) -> Callable[[int], None]:
            def on_own(number: int) -> None:
                now_us = self.now_us()
                if number + 1 == self._sent.get(talker) and now_us < command.end_us:
                    self._say(talker, now_us)

            return on_own

        for talker in talkers:
            self.sockets[talker].ledger.on_own = answered(talker)
            self._said_at_us[talker] = -patience_us

        def wake(due_us: int) -> int | None:
            now_us = self.now_us()
            self.books.tally.lateness.add(now_us - due_us)
            if now_us >= command.end_us:
                return None
            for talker in talkers:
                if now_us - self._said_at_us[talker] >= patience_us:
                    self.books.tally.waited_in_vain += talker in self._sent
                    self._say(talker, now_us)
            return min(now_us + TICK_US, command.end_us)

        return wake

    # The end of a phase

    @obey.register
    async def _(self, command: Settle) -> Settled:
        books = self.books
        deadline = time.monotonic() + command.patience_s
        before = books.outstanding(self.ledgers, command.sent)
        while before and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_S)
            now = books.outstanding(self.ledgers, command.sent)
            if now != before:
                before, deadline = now, time.monotonic() + command.patience_s
        await asyncio.sleep(QUIET_S)
        books.settle(self.ledgers, command.sent)
        return Settled(books.tally, dict(self.disconnected))

    @obey.register
    async def _(self, command: Leave) -> Left:
        await self.leave()
        return Left()

    async def leave(self) -> None:
        """Close all connections with 1000; what does not answer in time is cut."""
        for socket in self.sockets.values():
            socket.leave()
        deadline = time.monotonic() + LEAVE_TIMEOUT_S
        while any(ledger.is_open for ledger in self.ledgers) and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_S)
        for socket in self.sockets.values():
            socket.abort()

    # What is reported meanwhile

    async def keep_reporting(self) -> None:
        """Report the progress until cancelled."""
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            if hasattr(self, "books"):
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
    """Obey command after command until the input ends, which ends what is being done, too."""
    generator = Generator(report)
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    async def read() -> None:
        while line := await reader.readline():
            lines.put_nowait(line)

    async def work() -> None:
        while True:
            report(await generator.obey(read_command(await lines.get())))

    jobs = [asyncio.create_task(job) for job in (read(), work(), generator.keep_reporting())]
    try:
        done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
    await generator.leave()
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
    """Run a generator process on stdin and stdout, on uvloop where it is installed."""
    make_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop

        make_loop = uvloop.new_event_loop
    with contextlib.suppress(BrokenPipeError), asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(_main())


if __name__ == "__main__":
    main()
