"""Scenarios: the server ends under load, by SIGTERM and by SIGKILL, and all clients reconnect.

What must not live here: how a server is run (`scenario.py`). `run.py` and the tests run them.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import hubbub
from hubbub.connection.retry import Backoff

from .raw_client import Denied, connect
from .scenario import Outcome, Scale, ServerProcess, in_waves

ROOT = Path(__file__).resolve().parent.parent
BUCKETS = 8
"""Into how many equal parts the time of all reconnects is cut, to find the busiest."""
MOST = 0.95
"""The part of the clients whose reconnects are cut so: the last few, which had waited longest, would
stretch the time until any reconnect looks like a spike at its beginning."""
SPIKES = (6.0, 3.0)
"""How much busier than the mean the busiest part may be after SIGTERM; of few clients, more of them
come together by chance. (All in one part would be 8.)"""
RECONNECT_S = 180.0


@dataclass
class ReconnectLog:
    """What the clients have seen: when they were connected, and how they were closed."""

    opened: dict[str, list[float]] = field(default_factory=dict)
    codes: Counter[int] = field(default_factory=Counter)

    def note_open(self, name: str, at: float) -> None:
        """Note that a client is connected."""
        self.opened.setdefault(name, []).append(at)

    def since(self, moment: float) -> list[float]:
        """Return when each client was first connected after `moment`."""
        later = ([at for at in times if at > moment] for times in self.opened.values())
        return sorted(min(times) for times in later if times)


async def bare_client(name: str, port: int, log: ReconnectLog) -> None:
    """Be a bare socket that reconnects by the rules of `hubbub.connect`."""
    backoff = Backoff()
    while True:
        retry_after_s = 0.0
        try:
            client = await connect(port, "/ws?room=load")
        except Denied as denied:
            retry_after_s = 5.0 * (denied.status == 503)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass
        else:
            log.note_open(name, time.time())
            try:
                log.codes[await client.close_code()] += 1
            finally:
                await client.close()
        await asyncio.sleep(backoff.next_delay(retry_after_s))


async def python_client(name: str, port: int, log: ReconnectLog) -> None:
    """Be a client of `hubbub.connect`, which reconnects by itself."""
    connection = hubbub.connect(f"ws://127.0.0.1:{port}/ws?room=load", proxy=None)

    def changed(state: str) -> None:
        if state == "open":
            log.note_open(name, time.time())
        elif state == "waiting" and connection.last_close is not None:
            code = connection.last_close.code
            if code != 1006 or name not in log.opened:
                log.codes[code] += 1

    connection.on_state = changed
    async with connection:
        async for _ in connection:
            pass


@asynccontextmanager
async def javascript_clients(port: int, count: int, log: ReconnectLog) -> AsyncIterator[None]:
    """Run clients of hubbub.js in Node."""
    node, socket_module = shutil.which("node"), ROOT / "node_modules" / "ws" / "wrapper.mjs"
    if node is None or not socket_module.exists():
        raise RuntimeError("hubbub.js needs Node.js and the package ws: run  make browser")
    script = ROOT / "src" / "hubbub" / "static" / "hubbub.js"
    module = Path(__file__).with_name("reconnect.mjs")
    url = f"ws://127.0.0.1:{port}/ws?room=load"
    process = await asyncio.create_subprocess_exec(
        *(node, str(module), str(script), str(socket_module), url, str(count)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    reader = asyncio.create_task(_read_events(process, log))
    try:
        yield
    finally:
        process.kill()
        await process.wait()
        await asyncio.gather(reader, return_exceptions=True)


async def _read_events(process: asyncio.subprocess.Process, log: ReconnectLog) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        event = json.loads(line)
        if "open" in event:
            log.note_open(f"js {event['open']}", event["at"])
        elif event["code"] != 1006:
            log.codes[event["code"]] += 1


@asynccontextmanager
async def reconnecting_clients(port: int, scale: Scale, log: ReconnectLog) -> AsyncIterator[int]:
    """Keep clients of all three kinds, which reconnect; give how many."""
    bare, python, javascript = scale.pick((60, 20, 10), (4400, 400, 200))
    total = bare + python + javascript
    tasks: list[asyncio.Task[None]] = []
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(javascript_clients(port, javascript, log))

        async def start(number: int) -> None:
            kind = bare_client if number < bare else python_client
            name = f"{kind.__name__} {number}"
            tasks.append(asyncio.create_task(kind(name, port, log)))
            async with asyncio.timeout(RECONNECT_S):
                while name not in log.opened:
                    await asyncio.sleep(0.01)

        try:
            await in_waves(bare + python, 100, start)
            await _until(lambda: len(log.opened) == total, "all to be connected")
            yield total
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _until(condition: object, what: str) -> None:
    assert callable(condition)
    deadline = time.monotonic() + RECONNECT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {RECONNECT_S:g} s in vain for {what}")
        await asyncio.sleep(0.05)


async def sigterm(scale: Scale) -> Outcome:
    """The server is told to end; everybody is told 1012, and reconnects to the next one."""
    return await _end(scale, signal.SIGTERM, "SIGTERM under load")


async def sigkill(scale: Scale) -> Outcome:
    """The server is killed; everybody reconnects to the next one."""
    return await _end(scale, signal.SIGKILL, "SIGKILL under load")


async def _end(scale: Scale, sign: signal.Signals, title: str) -> Outcome:
    log = ReconnectLog()
    server = ServerProcess({"descriptors": 20_000, "uvicorn": {"timeout_graceful_shutdown": 15}})
    try:
        await server.start()
        async with reconnecting_clients(server.port, scale, log) as total:
            outcome = Outcome(title, "native", f"{total} clients of three kinds, one signal")
            load = asyncio.create_task(_load(server))
            await asyncio.sleep(1.0)
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
            began, moment = time.monotonic(), time.time()
            server.signal(sign)
            await server.wait()
            outcome.found["s until the process had ended"] = round(time.monotonic() - began, 2)
            await server.start()
            with suppress(TimeoutError):
                await _until(lambda: len(log.since(moment)) == total, "all to be back")
            ratio = _conclude(outcome, log, moment, total)
            if sign == signal.SIGTERM:
                told = log.codes[1012]
                outcome.expect(told == total, f"{told} of {total} were told 1012")
                is_smooth = ratio <= scale.pick(*SPIKES)
                outcome.expect(
                    is_smooth, f"the reconnects have a spike of {ratio:.1f} times the mean"
                )
            return outcome
    finally:
        server.end()


async def _load(server: ServerProcess) -> None:
    while True:
        await server.ask("/bulk?room=load&count=5&bytes=200")
        await asyncio.sleep(0.02)


def _conclude(outcome: Outcome, log: ReconnectLog, moment: float, total: int) -> float:
    """Note who reconnected and when; return how much busier than the mean the busiest part was."""
    back = log.since(moment)
    outcome.expected, outcome.arrived = total, len(back)
    away = Counter(name.split()[0] for name, times in log.opened.items() if max(times) <= moment)
    outcome.expect(not away, f"clients did not reconnect: {dict(away)}")
    outcome.found["close codes"] = {str(code): n for code, n in sorted(log.codes.items())}
    for share, whom in ((1.0, "all"), (MOST, f"{MOST:.0%}")):
        ratio, span_s = busiest(back[: round(len(back) * share)]) if back else (0.0, 0.0)
        outcome.found[f"s until {whom} were back"] = round(span_s, 1)
        outcome.found[f"busiest eighth of it over the mean ({whom})"] = round(ratio, 2)
    return ratio


def busiest(moments: list[float]) -> tuple[float, float]:
    """Return how busy the busiest part was, as a multiple of the mean, and the span in seconds."""
    first, span_s = moments[0], max(moments[-1] - moments[0], 1e-9)
    parts = Counter(min(BUCKETS - 1, int((at - first) / span_s * BUCKETS)) for at in moments)
    return max(parts.values()) * BUCKETS / len(moments), span_s
