"""The load of `hubbub bench`: starts the worker processes, gives them commands, collects the result.

What must not live here: options and drawing (the command, which calls it), sockets and publishers
(`worker`). This process takes no part in the load, so drawing costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

import msgspec

from ..connection.addresses import without_secrets
from ..errors import HubbubError
from .accounting import Counters
from .ipc import (
    LINE_BYTES,
    Answer,
    Arm,
    Armed,
    Command,
    Connect,
    Connected,
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
from .result import Measured, Result, make_result

START_IN_US = 50_000
SPARE_FILES = 32
"""Files that a worker process opens beside its sockets."""

_START = "import sys; sys.path[:] = {path!r}; from hubbub.bench.worker import main; main()"
# Not  -m hubbub.bench.worker: that would look for all modules in the current folder first.

Stage = Literal["connecting", "warming up", "measuring", "waiting for the last", "done"]
_A = TypeVar("_A", bound=Answer)


class BenchFailed(HubbubError):
    """A load could not be put on the server, or not as it was asked for; the text says why."""


class Snapshot(NamedTuple):
    """How far the load is, for whoever draws it."""

    stage: Stage
    share: float
    """Of this stage, 0 to 1."""
    seconds: float
    """Since this stage began."""
    clients: int
    counters: Counters
    cpu_shares: list[float]
    disconnected: dict[int, int]


class WorkerPool:
    """The worker processes. `ask` gives each a command and returns their answers, in order."""

    def __init__(self, count: int, on_progress: Callable[[], None]) -> None:
        self.progress: list[Progress | None] = [None] * count
        self._on_progress = on_progress
        self._processes: list[asyncio.subprocess.Process] = []

    async def start(self) -> None:
        """Start the processes, in sessions of their own: Ctrl-C is for this process."""
        for _ in self.progress:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-c", _START.format(path=sys.path)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LINE_BYTES,
                start_new_session=True,
            )
            self._processes.append(process)

    async def ask(self, kind: type[_A], commands: Sequence[Command]) -> list[_A]:
        """Send one command to each process; return the answers."""
        asks = [
            asyncio.create_task(self._ask_one(index, kind, each))
            for index, each in enumerate(commands)
        ]
        try:
            return list(await asyncio.gather(*asks))
        finally:
            for ask in asks:
                ask.cancel()
            await asyncio.gather(*asks, return_exceptions=True)

    async def ask_all(self, kind: type[_A], command: Command) -> list[_A]:
        """Send the same command to all; return the answers."""
        return await self.ask(kind, [command] * len(self._processes))

    async def _ask_one(self, index: int, kind: type[_A], command: Command) -> _A:
        process = self._processes[index]
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(ConnectionError):  # it has died: its output ends, too
            process.stdin.write(line_of(command))
            await process.stdin.drain()
        while line := await process.stdout.readline():
            event = read_event(line)
            if isinstance(event, kind):
                return event
            if isinstance(event, Progress):
                self.progress[index] = event
                self._on_progress()
        raise BenchFailed("a worker process ended before its work was done")

    async def end(self) -> None:
        """End the processes: the end of its input tells each, and what does not end then is killed."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            try:
                await asyncio.wait_for(process.communicate(), 5.0)
            except TimeoutError:
                process.kill()
                await process.communicate()


class Bench:
    """One run of a load. `run` may be cancelled; `result` returns what there is so far."""

    def __init__(self, plan: Plan, watch: Callable[[Snapshot], None]) -> None:
        self.plan = plan
        self._watch = watch
        self._pool = WorkerPool(plan.processes, self._progressed)
        self._stage: Stage = "connecting"
        self._stage_began = time.monotonic()
        self._stage_s = 0.0
        self._epoch_ns = time.monotonic_ns()
        self._connected: list[Connected] = []
        self._connect_s: float | None = None
        self._publishers: tuple[int, ...] = ()
        self._done: list[RunDone] = []
        self._settled: list[Settled] = []
        self._measure_began: float | None = None
        self._progressed_at = 0.0

    async def run(self) -> None:
        """Connect, warm up, measure, wait for the last message, disconnect."""
        try:
            await self._pool.start()
            await self._connect()
            self._publishers = self._choose_publishers()
            if self.plan.warm_s > 0:
                await self._run_phase(1, "warming up", self.plan.warm_s)
                self._done, self._settled = [], []
            self._measure_began = time.monotonic()
            await self._run_phase(2, "measuring", self.plan.seconds)
            self._enter("done")
            await self._leave()
        finally:
            await self._pool.end()

    def _enter(self, stage: Stage, expected_s: float = 0.0) -> None:
        self._stage, self._stage_s, self._stage_began = stage, expected_s, time.monotonic()
        self._show()

    def _progressed(self) -> None:
        self._progressed_at = time.monotonic()
        self._show()

    def _show(self) -> None:
        seconds = time.monotonic() - self._stage_began
        known = [each for each in self._pool.progress if each is not None]
        clients = sum(each.clients for each in known)
        share = 1.0
        if self._stage == "connecting":
            share = clients / self.plan.clients
        elif self._stage_s:
            share = min(seconds / self._stage_s, 1.0)
        shares = [each.cpu_share for each in known]
        counters, cut = self._counters(), self._disconnected()
        self._watch(Snapshot(self._stage, share, seconds, clients, counters, shares, cut))

    async def _connect(self) -> None:
        run = random.getrandbits(16)
        self._enter("connecting")
        commands = [
            Connect(self.plan, index, run, self._epoch_ns) for index in range(self.plan.processes)
        ]
        self._connected = await self._pool.ask(Connected, commands)
        self._connect_s = max(each.seconds for each in self._connected)
        if not self._clients():
            raise BenchFailed(f"{without_secrets(self.plan.url)} {self._why_nobody()}")

    def _clients(self) -> list[int]:
        return sorted(client for each in self._connected for client in each.clients)

    def _why_nobody(self) -> str:
        refused, failed = self._refused(), self._failed()
        if refused:
            status = max(refused, key=lambda each: refused[each])
            return f"refused all connections, with status {status}"
        why = max(failed, key=lambda each: failed[each], default="no reason")
        return f"cannot be connected to: {why}"

    def _choose_publishers(self) -> tuple[int, ...]:
        # Clients next to one another are in different rooms, so every room gets publishers.
        count, clients = self.plan.publishers, self._clients()
        if count is None:
            count = len(clients) if self.plan.expect == "self" else self.plan.rooms
        return tuple(clients[:count])

    # The phases

    async def _run_phase(self, phase: int, stage: Stage, seconds: float) -> None:
        self._pool.progress = [
            None if each is None else msgspec.structs.replace(each, counters=Counters())
            for each in self._pool.progress
        ]
        await self._pool.ask_all(Armed, Arm(phase))
        self._enter(stage, seconds)
        start_us = (time.monotonic_ns() - self._epoch_ns) // 1000 + START_IN_US
        end_us = start_us + round(seconds * 1_000_000)
        self._done = await self._pool.ask_all(RunDone, Run(self._publishers, start_us, end_us))
        self._enter("waiting for the last", self.plan.patience_s)
        sent = {publisher: count for each in self._done for publisher, count in each.sent.items()}
        settle = Settle(sent, self.plan.patience_s)
        self._settled = await self._pool.ask_all(Settled, settle)
        if not self._counters().delivered:
            raise BenchFailed(self._why_nothing_came())

    def _why_nothing_came(self) -> str:
        counters, gone = self._counters(), self._disconnected()
        why = f"nobody received what was sent within {self.plan.patience_s:g} s; "
        if gone:
            codes = ", ".join(f"{count:,} with code {code}" for code, count in gone.items())
            return f"{why}clients were disconnected: {codes}"
        if counters.stray:
            return f"{why}it came to clients that --expect {self.plan.expect} leaves out"
        return f"{why}--expect says who should"

    async def _leave(self) -> None:
        await self._pool.ask_all(Left, Leave())

    # The result

    def _counters(self) -> Counters:
        """Add up what the processes have counted: at the end, or as far as they have reported."""
        total = Counters()
        parts = [each.counters for each in self._settled] or [
            each.counters for each in self._pool.progress if each is not None
        ]
        for part in parts:
            total.merge(part)
        return total

    def _disconnected(self) -> dict[int, int]:
        total: Counter[int] = Counter()
        known = [each for each in self._pool.progress if each is not None]
        for counts in [each.disconnected for each in self._settled or known]:
            total.update(counts)
        return dict(sorted(total.items()))

    def _refused(self) -> dict[int, int]:
        total: Counter[int] = Counter()
        for each in self._connected:
            total.update(each.refused)
        return dict(sorted(total.items()))

    def _failed(self) -> dict[str, int]:
        total: Counter[str] = Counter()
        for each in self._connected:
            total.update(each.failed)
        return dict(total)

    def result(self) -> Result | None:
        """Return what came of it, or what there is so far; None before anybody was connected."""
        if not self._connected or not self._clients():
            return None
        window = Counters()
        for each in self._done:
            window.merge(each.counters)
        seconds = 0.0
        if self._measure_began is not None and self._stage != "warming up":
            seconds = max((each.wall_s for each in self._done), default=0.0)
            seconds = seconds or max(self._progressed_at - self._measure_began, 0.0)
        measured = Measured(
            plan=self.plan,
            connected=self._clients(),
            refused=self._refused(),
            failed=self._failed(),
            disconnected=self._disconnected(),
            connect_s=self._connect_s,
            publishers=self._publishers,
            counters=self._counters() if self._measure_began is not None else Counters(),
            window=window if self._done else None,
            seconds=seconds,
            processes=[(each.cpu_s / each.wall_s, each.counters.lateness) for each in self._done],
            is_whole=self._stage == "done",
        )
        return make_result(measured)


def allow_files(plan: Plan) -> None:
    """Raise the soft limit of open files as far as needed; raise `BenchFailed` if that is not enough.

    Every client is an open file of its worker process, and the processes inherit the limit.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = -(-plan.clients // plan.processes) + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        processes = -(-plan.clients // max(hard - SPARE_FILES, 1))
        raise BenchFailed(
            f"{plan.clients} clients in {plan.processes} processes need {needed} open files each, "
            f"and this user may open {hard}: raise the hard limit (ulimit -Hn), or use "
            f"--processes {processes}"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
