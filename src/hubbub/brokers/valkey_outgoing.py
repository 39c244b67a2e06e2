"""What is published and has no receipt yet: it waits, leaves in pipelines, and is tried again or refused.

What must not live here: what a publication is to the server (`valkey`), and how it comes back (`valkey_feed`).

What is published in one turn of the event loop leaves in one pipeline, and what comes while one is on its way in
the next. Those of one room in a pipeline that are of one kind are a *run*, and one message. A publication that was on
its way when the connection broke may have been taken. One that goes by a script is tried again, since the script knows a
second try; another is refused. So is one whose second try would find
a server in another state, which may not know of the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from asyncio import Future
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import BrokerUnavailable
from ..model import Position, Receipt
from .envelope import pack
from .reconnecting import AWAY
from .unanswered import RUN_BYTES, WAIT_S, Unanswered, Waiting, runs_of
from .valkey_connections import (
    TIMEOUT_S,
    Connections,
    ask,
    close_line,
    holds_on,
    is_missing_script,
    unavailable,
)
from .valkey_scripts import PUBLISH, sharded

PIPELINE_ENTRIES = 500
"""How many publications one pipeline has at most."""
RUN = b"r"
"""What stands before the first line end of a run."""
ANSWER_S = TIMEOUT_S
"""How long the server may take to answer a pipeline."""
PAUSE_S = 0.1
"""How long after a broken connection the next is made."""


class Plain(NamedTuple):
    """A publication that is neither kept nor has a key: it goes in a run, if there are others of its room."""

    channel: bytes
    envelope: bytes


class Script(NamedTuple):
    """A publication that goes by `PUBLISH`. `bounds` are the arguments before the fresh epoch; one with a key
    (`is_single`) is in no run."""

    keys: tuple[str, ...]
    bounds: tuple[Any, ...]
    envelope: bytes
    is_single: bool = False


class ValkeyWaiting(Waiting):
    """A publication without a receipt, and how it goes."""

    __slots__ = ("command", "is_on_its_way", "state")

    def __init__(self, number: int, room: str, command: Script | Plain) -> None:
        super().__init__(number, room, len(command.envelope))
        self.command: Script | Plain = command
        self.state: str = ""
        """In which state the server was when it was sent there first."""
        self.is_on_its_way: bool = False


class Outgoing(Unanswered[ValkeyWaiting]):
    """See the module. `is_up` says whether the server is there, `comes_by` by which connection what is
    published to a room comes here. Event loop only."""

    def __init__(
        self,
        connections: Connections,
        is_up: Callable[[], bool],
        comes_by: Callable[[str], object],
        *,
        is_sharded: bool = False,
    ) -> None:
        super().__init__()
        self._publish: str = "SPUBLISH" if is_sharded else "PUBLISH"
        self._text: str = sharded(PUBLISH) if is_sharded else PUBLISH
        self._connections = connections
        self._is_up, self._comes_by = is_up, comes_by
        self._queue: deque[ValkeyWaiting] = deque()
        self._has_work = asyncio.Event()
        self._line: Any = None
        self._hash = ""
        self._task: asyncio.Task[None] | None = None
        self._is_stale = False
        self._is_over = False

    async def start(self) -> None:
        """Connect. Raises what `unavailable` understands."""
        await self._open()
        self.start_later()

    def start_later(self) -> None:
        """Connect when there is something to send."""
        self._task = asyncio.get_running_loop().create_task(self._write(), name="valkey publish")

    async def stop(self) -> None:
        """Send nothing more; who waits is refused."""
        self._is_over = True
        if self._task is not None:
            self._task.cancel()
            self._has_work.set()
            await asyncio.wait([self._task])
        await self._drop()
        self._end()
        self._queue.clear()

    def put(self, number: int, room: str, command: Script | Plain) -> Future[Receipt]:
        """Have a publication sent. Raises as `_check_room_for`."""
        self._check_room_for(len(command.envelope))
        waiting = ValkeyWaiting(number, room, command)
        self.take(waiting)
        return waiting.future

    def take(self, waiting: ValkeyWaiting) -> None:
        """Have what waits already sent from here."""
        self._add(waiting)
        self._queue.append(waiting)
        self._has_work.set()

    def wake(self) -> None:
        """Go on: the server is there again."""
        self._has_work.set()

    def renew(self) -> None:
        """Have the next pipeline go by a new connection: that of the server is another."""
        self._is_stale = True

    # Sending

    async def _write(self) -> None:
        """Send what waits, a pipeline at a time, for as long as the broker runs."""
        while not self._is_over:
            await self._has_work.wait()
            self._has_work.clear()
            while self._queue and self._is_up() and not self._is_over:
                await self._write_some()

    async def _write_some(self) -> None:
        some = self._next()
        if not some:
            return
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._open_line()
                some = self._still_safe(some)
                for waiting in some:
                    waiting.unknown += 1
                answers = await self._ask(some) if some else []
        except Exception as error:
            await self._drop()
            self._interrupted(some, error)
            await asyncio.sleep(PAUSE_S)
            self._has_work.set()
            return
        self._note_lag(began)
        self._answered_all(some, answers)

    def _next(self) -> list[ValkeyWaiting]:
        """Take those that go into the next pipeline."""
        some: list[ValkeyWaiting] = []
        while self._queue and len(some) < PIPELINE_ENTRIES:
            waiting = self._queue.popleft()
            if waiting.number in self._unanswered:  # else it was refused while it waited
                waiting.is_on_its_way = True
                self._note_way(waiting, self._comes_by(waiting.room))
                some.append(waiting)
        return some

    async def _ask(self, some: list[ValkeyWaiting]) -> list[Any]:
        runs = runs_in(some)
        answers = await ask(self._line, [self._command(run) for run in runs])
        missing = [place for place, answer in enumerate(answers) if is_missing_script(answer)]
        if missing:
            missing = self._not_overtaken(runs, answers, missing)
            await ask(self._line, [("SCRIPT", "LOAD", self._text)])
            again = await ask(self._line, [self._command(runs[place]) for place in missing])
            for place, answer in zip(missing, again, strict=True):
                answers[place] = answer
        by_number = {
            waiting.number: answer
            for run, answer in zip(runs, answers, strict=True)
            for waiting, answer in zip(run, _parted(answer, len(run)), strict=True)
        }
        return [by_number[waiting.number] for waiting in some]

    def _not_overtaken(
        self, runs: list[list[ValkeyWaiting]], answers: list[Any], missing: list[int]
    ) -> list[int]:
        """Return those of `missing` behind which nothing of their room was taken, and refuse the others: a second
        try would put them behind that, or be taken for a repetition."""
        taken = {
            run[0].room: place
            for place, (run, answer) in enumerate(zip(runs, answers, strict=True))
            if not isinstance(answer, Exception)
        }
        left = []
        for place in missing:
            if taken.get(runs[place][0].room, -1) < place:
                left.append(place)
                continue
            why = "the server had forgotten its scripts, and has published more to the room by now"
            answers[place] = BrokerUnavailable(why)
            for waiting in runs[place]:
                self._answered(waiting, answers[place])  # now: what follows may be interrupted
        return left

    async def _open_line(self) -> None:
        if self._is_stale:
            self._is_stale = False
            await self._drop()
        if self._line is None:
            await self._open()

    def _still_safe(self, some: list[ValkeyWaiting]) -> list[ValkeyWaiting]:
        """Refuse what was on its way to a server in another state: what knew a second try may be lost."""
        state, safe = self._connections.state, []
        for waiting in some:
            if not waiting.may_be_there:
                waiting.state = state
            if waiting.number not in self._unanswered:  # it has come here meanwhile
                continue
            if holds_on(waiting.state, state):
                safe.append(waiting)
            else:
                why = "another server has taken over, or an older state"
                self._fail(waiting, BrokerUnavailable(why))
        return safe

    def _command(self, run: list[ValkeyWaiting]) -> tuple[Any, ...]:
        command = run[0].command
        envelopes = [each.command.envelope for each in run]
        if isinstance(command, Script):
            keys, fresh = command.keys, secrets.token_hex(6)
            rest = [each for waiting in run for each in (waiting.number, waiting.command.envelope)]
            head = ("EVALSHA", self._hash, len(keys), *keys, *command.bounds)
            return (*head, fresh, self._connections.state, *rest)
        if len(run) == 1:
            return (self._publish, command.channel, b"\n" + command.envelope)
        return (self._publish, command.channel, RUN + b"\n" + pack(envelopes))

    async def _open(self) -> None:
        """Connect, and have the server know the script."""
        line = await self._connections.open_line()
        try:
            (sha,) = await ask(line, [("SCRIPT", "LOAD", self._text)])
            if isinstance(sha, Exception):
                raise sha
        except BaseException:
            await close_line(line)
            raise
        self._line, self._hash = line, sha.decode()

    async def _drop(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            with contextlib.suppress(Exception):
                await close_line(line)

    # What becomes of them

    def _answered_all(self, some: list[ValkeyWaiting], answers: list[Any]) -> None:
        for waiting, answer in zip(some, answers, strict=True):
            self._answered(waiting, answer)

    def _answered(self, waiting: ValkeyWaiting, answer: Any) -> None:
        if isinstance(answer, Exception):
            waiting.unknown -= 1
            self._fail(waiting, unavailable(answer))
            return
        is_repeated, place = False, b""
        if isinstance(answer, list):
            is_repeated, place = bool(answer[0]), answer[1]
        receipt = Receipt(0, position_of(place), is_repeated=is_repeated)
        self._taken(waiting, receipt, self._comes_by(waiting.room))

    def _interrupted(self, some: list[ValkeyWaiting], error: BaseException) -> None:
        """Have those tried again for which that is safe; refuse the others."""
        again = []
        late = asyncio.get_running_loop().time() - WAIT_S
        for waiting in some:
            waiting.is_on_its_way = False
            if waiting.number not in self._unanswered:
                continue
            # The server knows the second try of what was sent lately. A process that stood still sends it no more.
            if isinstance(waiting.command, Script) and waiting.since > late:
                again.append(waiting)
            else:
                self._fail(waiting, unavailable(error))
        self._queue.extendleft(reversed(again))

    def _why_late(self, waiting: ValkeyWaiting) -> str | None:
        return None if waiting.is_on_its_way else AWAY


def runs_in(some: list[ValkeyWaiting]) -> list[list[ValkeyWaiting]]:
    """Part what goes into a pipeline into what goes in one message."""
    return runs_of(some, _go_together, RUN_BYTES, PIPELINE_ENTRIES)


def _go_together(first: ValkeyWaiting, second: ValkeyWaiting) -> bool:
    one, other = first.command, second.command
    if isinstance(one, Plain) or isinstance(other, Plain):
        return isinstance(one, Plain) and isinstance(other, Plain)
    return not (one.is_single or other.is_single) and one.bounds == other.bounds


def _parted(answer: Any, count: int) -> list[Any]:
    """Return what a command's answer is for each publication of its run."""
    if not isinstance(answer, list):
        return [answer] * count
    is_repeated, places = answer
    return [[is_repeated, place] for place in places]


def position_of(place: bytes) -> Position | None:
    """Return the position that a script has written."""
    if not place:
        return None
    offset, _, epoch = place.partition(b" ")
    return Position(int(offset), epoch.decode())
