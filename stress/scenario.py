"""A scenario: a real server, control clients that check every delivery, and what came out.

What must not live here: what is done to the server; that is the business of the scenarios'
modules. `run.py` and the tests run scenarios; `soak.py` uses the server alone.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

ROOT = Path(__file__).resolve().parent.parent
START_S = 30.0
PATIENCE_S = 30.0
"""How long a condition may take to come true before a scenario has failed."""
ENDING_S = 5.0
"""How long what is just ending may take, before it counts as left behind."""
LONG_PATIENCE_S = 90.0
"""How long a server may take to have worked off what a scenario has left in the kernel's buffers."""
KEPT_KIB = 20 * 1024
"""How much more memory a server may hold after a scenario than before it. The allocator keeps some of
what many sockets needed; what grows with their number would be more than this."""

T = TypeVar("T")


@dataclass(frozen=True)
class Scale:
    """How much of everything: `short` for the tests and CI, `full` for the report that is kept."""

    name: Literal["short", "full"]

    def pick(self, short: T, full: T) -> T:
        """Return the one or the other."""
        return short if self.name == "short" else full


SHORT, FULL = Scale("short"), Scale("full")


@dataclass
class Outcome:
    """What one scenario has measured. Memory in KiB, times in milliseconds."""

    title: str
    transport: str
    tried: str
    expected: int = 0
    arrived: int = 0
    rss_before_kib: int = 0
    rss_peak_kib: int = 0
    rss_after_kib: int = 0
    block_ms: float = 0.0
    block_cpu_ms: float = 0.0
    moved: dict[str, int] = field(default_factory=dict)
    """Counters of `stats()` that the scenario was to move, and by how much they did."""
    log_lines: int = 0
    """Lines of the logger `hubbub`."""
    leaks: list[str] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)
    """Whatever else the scenario has to say."""
    faults: list[str] = field(default_factory=list)
    """What did not hold; empty when all did."""

    def expect(self, holds: bool, what: str) -> None:
        """Note `what` as a fault unless it holds."""
        if not holds:
            self.faults.append(what)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, as JSON can carry it."""
        return asdict(self)


class ServerProcess:
    """A server under test, in a process of its own."""

    def __init__(self, told: Mapping[str, Any], prefix: Sequence[str] = ()) -> None:
        self.told = dict(told)
        self._prefix = list(prefix)
        self._folder = tempfile.TemporaryDirectory(prefix="hubbub-stress-")
        self.log_path = Path(self._folder.name) / "log"
        self.port = 0
        self.host = str(self.told.get("host", "127.0.0.1"))
        self._http: http.client.HTTPConnection | None = None
        self._one_question = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""
        assert self._process is not None
        return self._process

    async def start(self) -> None:
        """Start, and wait until it listens. A second start takes the port of the first."""
        if self.port:
            self.told["port"] = self.port
        begin = self._spawn()
        deadline = time.monotonic() + START_S
        while not self._listens(begin):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {self.log_path.read_text()[-2000:]}")
            await asyncio.sleep(0.05)

    def _spawn(self) -> int:
        """Run the server; return where in the log it begins."""
        environ = {name: value for name, value in os.environ.items() if "HUBBUB_" not in name}
        with self.log_path.open("ab") as output:
            begin = output.tell()
            self._process = subprocess.Popen(
                [*self._prefix, sys.executable, "-m", "stress.server", json.dumps(self.told)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environ, "PYTHONUNBUFFERED": "1", **self._for_the_environment()},
            )
        return begin

    def _for_the_environment(self) -> dict[str, str]:
        """Return the settings that reach uvicorn's HTTP protocol by the environment alone."""
        timeout_s = self.told.get("settings", {}).get("handshake_timeout_s")
        return {} if timeout_s is None else {"HUBBUB_HANDSHAKE_TIMEOUT_S": str(timeout_s)}

    def _listens(self, begin: int) -> bool:
        """Tell whether it has said where it listens."""
        text = self.log_path.read_bytes()[begin:].decode(errors="replace")
        for line in text.splitlines(keepends=True):
            if line.startswith("PORT ") and line.endswith("\n"):
                self.port = int(line.split()[1])
                return True
        return False

    async def ask(self, path: str) -> dict[str, Any]:
        """GET a route of the server, over the one connection that is kept for this."""
        async with self._one_question:
            return await asyncio.to_thread(self._ask, path)

    def _ask(self, path: str) -> dict[str, Any]:
        if self._http is None:
            self._http = http.client.HTTPConnection(self.host, self.port, timeout=60)
        self._http.request("GET", path)
        answer: dict[str, Any] = json.loads(self._http.getresponse().read())
        return answer

    async def stats(self) -> dict[str, Any]:
        """Return the hub's `stats()`."""
        stats: dict[str, Any] = (await self.ask("/facts"))["stats"]
        return stats

    async def until(
        self,
        condition: Callable[[dict[str, Any]], bool],
        what: str,
        patience_s: float = PATIENCE_S,
    ) -> dict[str, Any]:
        """Wait for `condition` of the facts to be true; raise `TimeoutError` with them if it is not."""
        deadline = time.monotonic() + patience_s
        while not condition(facts := await self.ask("/facts")):
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {patience_s:g} s in vain for {what}: {facts}")
            await asyncio.sleep(0.05)
        return facts

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self.process.send_signal(number)

    async def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for the process to end; return its exit status."""
        code = await asyncio.to_thread(self.process.wait, timeout_s)
        self.forget()
        return code

    def forget(self) -> None:
        """Drop the connection that questions are asked over."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def forget_peak(self) -> None:
        """Measure the highest memory from now on."""
        with suppress(OSError):
            Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def peak_kib(self) -> int:
        """Return the highest memory since then."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
        return 0

    def log(self) -> list[str]:
        """Return all that the server has written so far."""
        return self.log_path.read_bytes().decode(errors="replace").splitlines()

    def end(self) -> None:
        """End the process and forget its files."""
        self.forget()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()


class ControlClient:
    """A well-behaved client in the control room. It checks that the server's numbers come without a gap."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.first: int | None = None
        self.last = 0
        self.arrived = 0
        self.disorder = 0
        self.closed: str | None = None
        self.longest_gap_s = 0.0
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        before = time.monotonic()
        try:
            async for text in self.socket:
                message = json.loads(text)
                if "hello" in message:
                    self.first = self.last = message["hello"]
                elif "n" in message:
                    now = time.monotonic()
                    self.longest_gap_s = max(self.longest_gap_s, now - before)
                    before = now
                    self.arrived += 1
                    self.disorder += message["n"] != self.last + 1
                    self.last = message["n"]
        except ConnectionClosed as error:
            self.closed = str(error)
        else:
            self.closed = f"{self.socket.close_code}"

    def expected(self, last: int) -> int:
        """Return how many messages should have come, if `last` is the number of the last."""
        return last - (self.first or 0)

    async def end(self) -> None:
        """Close."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self.socket.close()


class Harness:
    """A server with its control clients, and the outcome to be."""

    def __init__(
        self, server: ServerProcess, control_clients: list[ControlClient], outcome: Outcome
    ) -> None:
        self.server = server
        self.control_clients = control_clients
        self.outcome = outcome
        self.secrets: list[str] = []
        """What must not stand in any line of the log."""

    @property
    def port(self) -> int:
        """Where the server listens."""
        return self.server.port


async def connect_control_client(host: str, port: int, **options: Any) -> ControlClient:
    """Connect one control client."""
    socket = await connect(
        f"ws://{host}:{port}/ws?room=control",
        proxy=None,
        compression=None,
        ping_interval=None,
        open_timeout=PATIENCE_S,
        max_size=None,
        **options,
    )
    return ControlClient(socket)


@asynccontextmanager
async def scenario(
    title: str,
    tried: str,
    *,
    moves: Sequence[str] = (),
    control_count: int = 20,
    prefix: Sequence[str] = (),
    **told: Any,
) -> AsyncIterator[Harness]:
    """Run a server and its control clients around the body; then fill in the outcome.

    `moves` are the counters of `stats()` that the body must move ("refused.CODE" for one of the
    refusals). What does not hold is noted in the outcome's `faults`; nothing is raised for it.
    """
    server = ServerProcess(told, prefix)
    control_clients: list[ControlClient] = []
    try:
        await server.start()
        for _ in range(control_count):
            control_clients.append(await connect_control_client(server.host, server.port))
        transport = "portable" if told.get("portable") else "native"
        outcome = Outcome(title, transport, tried)
        harness = Harness(server, control_clients, outcome)
        await server.until(lambda facts: facts["number"] >= 10, "the first numbers")
        before = await server.ask("/facts?settle")
        await server.ask("/facts?reset")  # not with the other, which takes its time
        server.forget_peak()
        yield harness
        await _conclude(harness, before, moves)
    finally:
        await asyncio.gather(*(one.end() for one in control_clients), return_exceptions=True)
        server.end()


async def _conclude(harness: Harness, before: dict[str, Any], moves: Sequence[str]) -> None:
    server, outcome = harness.server, harness.outcome
    count = len(harness.control_clients)
    with suppress(TimeoutError):
        await server.until(
            lambda facts: (
                facts["stats"]["clients"] <= count and facts["descriptors"] <= before["descriptors"]
            ),
            "the others to be gone",
            LONG_PATIENCE_S,
        )
    outcome.rss_peak_kib = server.peak_kib()
    last = int((await server.ask("/silence?on=1"))["number"])
    await _until(lambda: all(one.last >= last or one.closed for one in harness.control_clients))
    after = await ask_when_ended(server, before)
    outcome.leaks = leaks(before, after)
    outcome.rss_before_kib, outcome.rss_after_kib = before["rss_kib"], after["rss_kib"]
    outcome.block_ms, outcome.block_cpu_ms = after["block_ms"], after["block_cpu_ms"]
    outcome.expected = sum(one.expected(last) for one in harness.control_clients)
    outcome.arrived = sum(one.arrived for one in harness.control_clients)
    outcome.moved = {
        name: _counter(after["stats"], name) - _counter(before["stats"], name) for name in moves
    }
    check(harness)


async def ask_when_ended(server: ServerProcess, before: dict[str, Any]) -> dict[str, Any]:
    """Ask a server for its facts; what is just ending, a connection or a timer, may do so first."""
    deadline = time.monotonic() + ENDING_S
    after = await server.ask("/facts?settle")
    while leaks(before, after) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        after = await server.ask("/facts?settle")
    return after


def leaks(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Say what there is more of than before, that should not be."""
    found = [
        f"{name}: {before[name]} before, {after[name]} after"
        for name in ("tasks", "descriptors")
        if after[name] > before[name]
    ]
    found += [
        f"{name}: {count} before, {after['census'][name]} after"
        for name, count in before["census"].items()
        if after["census"][name] > count
    ]
    found += [
        f"{name}: {before['stats'][name]} before, {after['stats'][name]} after"
        for name in ("clients", "rooms")
        if after["stats"][name] > before["stats"][name]
    ]
    return found


def check(harness: Harness) -> None:
    """Check what every scenario has to show; note what does not hold."""
    outcome, lines = harness.outcome, harness.server.log()
    closed = [one.closed for one in harness.control_clients if one.closed]
    outcome.expect(not closed, f"{len(closed)} control clients were closed: {closed[:3]}")
    outcome.expect(outcome.expected > 0, "nothing was published")
    outcome.expect(
        outcome.arrived == outcome.expected,
        f"{outcome.expected - outcome.arrived} deliveries to control clients are missing",
    )
    disorder = sum(one.disorder for one in harness.control_clients)
    outcome.expect(disorder == 0, f"{disorder} deliveries were lost or out of order")
    grown = outcome.rss_after_kib - outcome.rss_before_kib
    outcome.expect(grown <= KEPT_KIB, f"memory grew by {grown} KiB")
    outcome.expect(not outcome.leaks, f"left behind: {outcome.leaks}")
    for name, count in outcome.moved.items():
        outcome.expect(count > 0, f"stats() has not moved: {name}")
    ours = [line for line in lines if line.startswith("LOG hubbub ")]
    outcome.log_lines = len(ours)
    for secret in harness.secrets:
        outcome.expect(
            not any(secret in line for line in lines), f"the log shows a secret: {secret!r}"
        )
    noise = [line for line in lines if line.startswith("Traceback")]
    outcome.found.setdefault("tracebacks", len(noise))
    # Five at once and one a second of each kind; a scenario causes few kinds.
    limit = 60 + 3 * max(one.longest_gap_s for one in harness.control_clients)
    outcome.expect(len(ours) <= limit, f"the hub has written {len(ours)} lines")


def _counter(stats: dict[str, Any], name: str) -> int:
    group, _, code = name.partition(".")
    return int(stats[group].get(code, 0) if code else stats[group])


async def _until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + ENDING_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


async def in_waves(count: int, at_once: int, make: Callable[[int], Awaitable[None]]) -> None:
    """Run `make(0)` to `make(count - 1)`, at most `at_once` at a time."""
    gate = asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        async with gate:
            await make(number)

    await asyncio.gather(*(one(number) for number in range(count)))
