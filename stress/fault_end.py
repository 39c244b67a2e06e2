"""Trials: the server's process ends under load, by SIGTERM and by SIGKILL, and all clients come back.

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
from hubbub.connect_rules import Backoff

from .raw_client import Denied, meet
from .scenario import Outcome, Scale, Victim, in_waves

ROOT = Path(__file__).resolve().parent.parent
BUCKETS = 8
"""Into how many equal parts the time of the return is cut, to find the busiest."""
MOST = 0.95
"""The part of the clients whose return is cut so: the last few, who had waited longest, would stretch
it until any return looks like a spike at its beginning."""
SPIKES = (6.0, 3.0)
"""How much busier than the mean the busiest part may be after SIGTERM; of few clients, more of them
come together by chance. (All in one part would be 8.)"""
COME_BACK_S = 180.0


@dataclass
class Book:
    """What the clients have seen: when they were let in, and how they were closed."""

    opened: dict[str, list[float]] = field(default_factory=dict)
    codes: Counter[int] = field(default_factory=Counter)

    def let_in(self, name: str, at: float) -> None:
        """Note that a client is in."""
        self.opened.setdefault(name, []).append(at)

    def since(self, moment: float) -> list[float]:
        """Return when each client was first let in after `moment`."""
        later = ([at for at in times if at > moment] for times in self.opened.values())
        return sorted(min(times) for times in later if times)


async def bare_client(name: str, port: int, book: Book) -> None:
    """Be a bare socket that comes back by the rules of `hubbub.connect`."""
    backoff = Backoff()
    while True:
        retry_after_s = 0.0
        try:
            stranger = await meet(port, "/ws?room=load")
        except Denied as denied:
            retry_after_s = 5.0 * (denied.status == 503)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass
        else:
            book.let_in(name, time.time())
            try:
                book.codes[await stranger.close_code()] += 1
            finally:
                await stranger.leave()
        await asyncio.sleep(backoff.next_delay(retry_after_s))


async def python_client(name: str, port: int, book: Book) -> None:
    """Be a client of `hubbub.connect`, which comes back by itself."""
    connection = hubbub.connect(f"ws://127.0.0.1:{port}/ws?room=load", proxy=None)

    def changed(state: str) -> None:
        if state == "open":
            book.let_in(name, time.time())
        elif state == "waiting" and connection.last_close is not None:
            code = connection.last_close.code
            if code != 1006 or name not in book.opened:
                book.codes[code] += 1

    connection.on_state = changed
    async with connection:
        async for _ in connection:
            pass


@asynccontextmanager
async def javascript_clients(port: int, count: int, book: Book) -> AsyncIterator[None]:
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
    reader = asyncio.create_task(_read_events(process, book))
    try:
        yield
    finally:
        process.kill()
        await process.wait()
        await asyncio.gather(reader, return_exceptions=True)


async def _read_events(process: asyncio.subprocess.Process, book: Book) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        event = json.loads(line)
        if "open" in event:
            book.let_in(f"js {event['open']}", event["at"])
        elif event["code"] != 1006:
            book.codes[event["code"]] += 1


@asynccontextmanager
async def crowd(port: int, scale: Scale, book: Book) -> AsyncIterator[int]:
    """Keep clients of all three kinds that come back; give how many."""
    bare, python, javascript = scale.pick((60, 20, 10), (4400, 400, 200))
    total = bare + python + javascript
    tasks: list[asyncio.Task[None]] = []
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(javascript_clients(port, javascript, book))

        async def start(number: int) -> None:
            kind = bare_client if number < bare else python_client
            name = f"{kind.__name__} {number}"
            tasks.append(asyncio.create_task(kind(name, port, book)))
            async with asyncio.timeout(COME_BACK_S):
                while name not in book.opened:
                    await asyncio.sleep(0.01)

        try:
            await in_waves(bare + python, 100, start)
            await _until(lambda: len(book.opened) == total, "all to be connected")
            yield total
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _until(condition: object, what: str) -> None:
    assert callable(condition)
    deadline = time.monotonic() + COME_BACK_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {COME_BACK_S:g} s in vain for {what}")
        await asyncio.sleep(0.05)


async def sigterm(scale: Scale) -> Outcome:
    """The server is told to end; everybody is told 1012, and comes back to the next server."""
    return await _end(scale, signal.SIGTERM, "SIGTERM under load")


async def sigkill(scale: Scale) -> Outcome:
    """The server is killed; everybody comes back to the next server."""
    return await _end(scale, signal.SIGKILL, "SIGKILL under load")


async def _end(scale: Scale, sign: signal.Signals, title: str) -> Outcome:
    book = Book()
    victim = Victim({"descriptors": 20_000, "uvicorn": {"timeout_graceful_shutdown": 15}})
    try:
        await victim.start()
        async with crowd(victim.port, scale, book) as total:
            outcome = Outcome(title, "native", f"{total} clients of three kinds, one signal")
            load = asyncio.create_task(_load(victim))
            await asyncio.sleep(1.0)
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
            began, moment = time.monotonic(), time.time()
            victim.signal(sign)
            await victim.wait()
            outcome.found["s until the process had ended"] = round(time.monotonic() - began, 2)
            await victim.start()
            with suppress(TimeoutError):
                await _until(lambda: len(book.since(moment)) == total, "all to be back")
            ratio = _conclude(outcome, book, moment, total)
            if sign == signal.SIGTERM:
                told = book.codes[1012]
                outcome.expect(told == total, f"{told} of {total} were told 1012")
                is_smooth = ratio <= scale.pick(*SPIKES)
                outcome.expect(is_smooth, f"the return has a spike of {ratio:.1f} times the mean")
            return outcome
    finally:
        victim.end()


async def _load(victim: Victim) -> None:
    while True:
        await victim.ask("/bulk?room=load&count=5&bytes=200")
        await asyncio.sleep(0.02)


def _conclude(outcome: Outcome, book: Book, moment: float, total: int) -> float:
    """Note who came back and when; return how much busier than the mean the busiest part was."""
    back = book.since(moment)
    outcome.expected, outcome.arrived = total, len(back)
    away = Counter(name.split()[0] for name, times in book.opened.items() if max(times) <= moment)
    outcome.expect(not away, f"clients did not come back: {dict(away)}")
    outcome.found["close codes"] = {str(code): n for code, n in sorted(book.codes.items())}
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
