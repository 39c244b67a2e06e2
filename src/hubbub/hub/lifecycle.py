"""Lifecycle: the event loop that a hub belongs to, its start and its end, and the door for threads.

What must not live here: the tables (`registry`), what is published (`publishing`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from enum import Enum
from threading import get_ident as _thread_id
from typing import TYPE_CHECKING, Any

from ..errors import HubbubError, HubNotRunning, with_retry_after
from ..model import Close
from .disconnects import SERVER_STOPPING
from .rules import SHARE_S
from .runtime import Runtime, Server, find_server
from .tasks import PeriodicTask, TaskSet

if TYPE_CHECKING:
    from .core import Core
    from .session import ClientSession

_PACE_S = 0.002
"""Pause between two close frames of a shutdown, so that not everybody comes back in one moment."""
_WAVE = 10
"""How many are closed without a pause between them, where no time is set for all."""
WAVE_S = 0.1
"""How often it is some clients' turn, where a time is set."""
_SOCKETS_SHARE = 0.8
"""Which part of `shutdown_timeout_s` the sockets may take; the rest is left for the handlers."""
_LEAST_BROKER_S = 1.0
"""How long the broker may take to stop, at least, when the handlers have taken all the time."""


class State(Enum):
    """Where a hub is in its life. `loop` is set in the three in the middle, and only there."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


def pace(count: int, drain_s: float, shutdown_timeout_s: float) -> tuple[int, float]:
    """Return in how many waves `count` clients are closed, and the pause after each, in seconds.

    Together they take `drain_s`, however many clients there are; with 0 it is 2 ms for each client, and
    half of `shutdown_timeout_s` at most for all.
    """
    if drain_s:
        waves = max(1, round(drain_s / WAVE_S))
        return waves, drain_s / waves
    return math.ceil(count / _WAVE), _WAVE * min(_PACE_S, shutdown_timeout_s / 2 / max(1, count))


class Lifecycle:
    """The life of one hub. Other threads may call `post`, and read `is_elsewhere`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.state: State = State.NEW
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread_id: int = 0
        """Of the loop's thread; 0, which no thread has, where there is no loop."""
        self.tasks: TaskSet = TaskSet()
        self.failure: str = ""
        """Why the hub could not start when that was last tried, if it is known: a sentence."""
        self.runtime: Runtime | None = None
        """What the hub runs on; None while it does not run."""
        self.started_at: float = time.monotonic()
        self._made_in: Context = copy_context()
        self._periodic: list[PeriodicTask] = []
        self._start: asyncio.Future[None] | None = None
        self._shutdown: asyncio.Task[None] | None = None
        self._deadline = 0.0
        self._is_hurried = False
        self._drained_at = 0.0
        """When the last clients are closed, by the loop's clock, where a time is set for it."""
        self.sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
        """How the shutdown waits between two waves of closes; tests have a clock of their own."""

    @property
    def is_running(self) -> bool:
        """Whether the hub is bound to an event loop that runs."""
        return self.loop is not None and self.loop.is_running()

    @property
    def is_draining(self) -> bool:
        """Whether the hub shuts down, and takes nobody any more."""
        return self.state is State.DRAINING

    @property
    def is_up(self) -> bool:
        """Whether the hub has started, and has not stopped."""
        return self.state is State.RUNNING or self.state is State.DRAINING

    def is_ready(self) -> bool:
        """Tell whether the hub has started in the event loop that calls this."""
        return self.is_up and self.loop is asyncio.get_running_loop()

    async def start(self, server: Server | None = None) -> None:
        """See `Hub.start`. `server` is what called it, where that has been looked up already."""
        loop = asyncio.get_running_loop()
        if self.loop is not loop:
            if self.is_running:
                raise HubNotRunning(
                    "this hub runs in another event loop; a hub belongs to one loop "
                    "(with Starlette's TestClient, use it as a context manager)"
                )
            self._bind(loop)
        if self._start is None:
            self._start = loop.create_future()
            await self._start_parts(self._start, server)
        elif not self._start.done():
            await asyncio.shield(self._start)

    async def start_for_request(self) -> None:
        """Start the hub because somebody asks for it whose request it is not to run in.

        What it does from then on, and calls, has the context (`contextvars`) that the hub was made in.
        """
        if self.is_ready():
            return
        start = self.start(find_server())  # whose frames are not among the task's callers
        await asyncio.create_task(start, name="hubbub start", context=self._made_in.copy())

    async def _start_parts(self, started: asyncio.Future[None], server: Server | None) -> None:
        core = self._core
        assert self.loop is not None
        relays = core.serves_clients and core.handlers.relays
        runtime = Runtime(core.settings, core.broker, self.loop, server, relays=relays)
        try:
            core.rules.check()
            await runtime.require_alone()
            await core.broker.start(core.new_node())
            await self._share_rules()
            if self._start is not started:
                await self._undo_late_start()
        except BaseException as error:
            runtime.end()
            if self._start is started:
                self._unbind(State.NEW)
            self.failure = str(error) if isinstance(error, HubbubError) else ""
            is_plain = isinstance(error, Exception)
            started.set_exception(error if is_plain else HubNotRunning("the start was cancelled"))
            started.exception()
            raise
        for task in self._periodic:
            self.tasks.repeat(task)
        core.liveness.start()
        core.interest.start()
        if core.rules.are_shared:  # another hub on this broker may have had others, and have gone
            self.tasks.repeat(PeriodicTask(core.rules.share_again, SHARE_S, lambda: True))
        if self.state is State.STARTING:  # else the server has begun its shutdown meanwhile
            self.state = State.RUNNING
        started.set_result(None)
        self.runtime = runtime
        self.runtime.begin()

    async def _share_rules(self) -> None:
        """Share them, if need be later: a broker that takes nothing now has clients all the same."""
        rules = self._core.rules
        try:
            rules.check()  # what a broker lacks may show when it has started
            await (rules.share() if rules.follows else rules.share_again())
        except BaseException:
            await self._core.broker.stop()
            raise

    async def _undo_late_start(self) -> None:
        """The hub was stopped while its broker started: have none of it, and raise."""
        if self.loop is None:  # else it has been started again, and the broker is its
            await self._stop_broker()
        raise HubNotRunning("the hub was stopped while it started")

    async def _stop_broker(self) -> None:
        """Stop the broker; one that does not end within what is left of the time is left behind."""
        left_s = max(_LEAST_BROKER_S, self._deadline - asyncio.get_running_loop().time())
        timeout = asyncio.timeout(left_s)
        try:
            async with timeout:
                await self._core.broker.stop()
        except TimeoutError:
            if not timeout.expired():
                raise
            self._core.log.log(logging.ERROR, "broker", "the broker did not stop in time")

    async def stop(self) -> None:
        """See `Hub.stop`."""
        if self.loop is None:
            return
        core, shutdown = self._core, self.shut_down()
        # It may have drained long ago: what is left to end has its time all the same.
        if shutdown.done():
            rest_s = core.settings.shutdown_timeout_s * (1 - _SOCKETS_SHARE)
            self._deadline = max(self._deadline, self.loop.time() + rest_s)
        try:
            await asyncio.shield(shutdown)  # who gives up waiting does not keep others
            await self.tasks.end(self._deadline - asyncio.get_running_loop().time())
            if self._shutdown is not shutdown:
                return  # another call has done the rest, and the next run may have begun
            core.liveness.stop()
            core.interest.stop()
            await core.presence.stop()
            try:
                await self._stop_broker()
            finally:
                if self._shutdown is shutdown:
                    self._unbind(State.STOPPED)
        finally:
            if self.loop is None or self._shutdown is shutdown:
                self._end_runtime()

    def shut_down(self) -> asyncio.Task[None]:
        """Begin to close every client, once; return the task that does it.

        From now on handshakes are refused with 503, and other workers count this one no more. The
        native transport calls this when the server begins its shutdown, long before the lifespan
        ends.
        """
        if self.runtime is not None:
            self.runtime.end()
        if self._shutdown is None:
            self.state = State.DRAINING
            loop = asyncio.get_running_loop()
            self._deadline = loop.time() + self._core.settings.shutdown_timeout_s
            self._is_hurried = False
            self._drained_at = loop.time() + self._core.settings.drain_s
            self._shutdown = loop.create_task(self._close_everybody(), name="hubbub shutdown")
        return self._shutdown

    def come_back_in_s(self) -> float:
        """Return after how long it is worth coming back, in seconds; 0 where nothing is known of that."""
        come_back_s = self._core.settings.come_back_s
        if not come_back_s or self.loop is None:
            return 0.0
        return max(0.0, self._drained_at - self.loop.time()) + come_back_s

    def end_session(self, session: ClientSession) -> None:
        """Close a client since the hub shuts down, and tell it when to come back, if that is set."""
        code, reason = SERVER_STOPPING.code, SERVER_STOPPING.reason
        wait_s = self.come_back_in_s()
        if wait_s:
            reason = with_retry_after(reason, wait_s)
        self._core.registry.end_as(session, SERVER_STOPPING, Close(code, reason))

    async def _close_everybody(self) -> None:
        loop = asyncio.get_running_loop()
        registry, settings = self._core.registry, self._core.settings
        deadline = loop.time() + settings.shutdown_timeout_s * _SOCKETS_SHARE
        sessions = list(registry.everybody())
        count = len(sessions)
        waves, pause_s = pace(count, settings.drain_s, settings.shutdown_timeout_s)
        for wave in range(waves):
            for session in sessions[count * wave // waves : count * (wave + 1) // waves]:
                self.end_session(session)
            if not self._is_hurried and (settings.drain_s or wave < waves - 1):
                await self.sleep(pause_s)
        while registry.transports and loop.time() < deadline:
            await asyncio.sleep(0.01)
        for transport in list(registry.transports):
            transport.abort()

    def hurry(self) -> None:
        """Make no more pauses in a shutdown that goes on."""
        self._is_hurried = True

    async def drain(self) -> None:
        """See `Hub.drain`."""
        self.require_loop()
        await asyncio.shield(self.shut_down())

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take a loop for one's own, and forget what a dead loop left behind."""
        self._end_runtime()
        self.loop = loop
        self.thread_id = _thread_id()
        self.state = State.STARTING
        self.failure = ""
        self._start = self._shutdown = None
        self.tasks = TaskSet()
        self.started_at = time.monotonic()
        _bound.add(self)
        self._core.reset()

    def _unbind(self, state: State) -> None:
        """Belong to no loop. The clients are gone, or another process's (after a fork)."""
        self.loop = None
        self.thread_id = 0
        self.state = state
        self._start = self._shutdown = None
        _bound.discard(self)

    def _end_runtime(self) -> None:
        if self.runtime is not None:
            self.runtime.end()
            self.runtime = None

    # Work on the hub's loop

    def spawn(
        self, coroutine: Coroutine[Any, Any, None], name: str, *, is_last: bool = False
    ) -> asyncio.Task[None]:
        """Run `coroutine` as a task that the hub keeps, and ends at its own end."""
        return self.tasks.spawn(coroutine, name, is_last=is_last)

    def add_periodic(
        self, function: Callable[[], Any], period_s: float, is_conditional: bool
    ) -> None:
        """Call `function` every `period_s` seconds; conditional ones only while a client is there."""
        sessions = self._core.registry.sessions
        wanted = (lambda: bool(sessions)) if is_conditional else (lambda: True)
        task = PeriodicTask(function, period_s, wanted)
        self._periodic.append(task)
        if self._start is not None and self._start.done():
            self.tasks.repeat(task)

    def schedule(self, function: Callable[[], None], delay_s: float = 0.0) -> None:
        """Call `function` in the loop's next turn, or after `delay_s` seconds."""
        assert self.loop is not None
        try:
            if delay_s:
                self.loop.call_later(delay_s, function)
            else:
                self.loop.call_soon(function)
        except RuntimeError as error:
            if self.loop.is_closed():
                raise self.not_running() from error
            raise

    # Threads

    def is_elsewhere(self) -> bool:
        """Tell whether the hub runs, and not in the calling thread."""
        return self.loop is not None and _thread_id() != self.thread_id

    def post(self, function: Callable[..., Any], *arguments: Any) -> bool:
        """Call `function` on the hub's thread: the one door for other threads. False: there is none."""
        loop = self.loop
        if loop is None:
            return False
        try:
            loop.call_soon_threadsafe(lambda: function(*arguments))
        except RuntimeError:  # the loop was closed, in that moment or without a stop of the hub
            return False
        return True

    def require_loop(self) -> None:
        """Raise where the hub has no event loop, or one that will never turn again."""
        if self.loop is None or self.loop.is_closed():
            raise self.not_running()

    def require_not_started(self, what: str) -> None:
        """Raise where it is too late for something that belongs before the start."""
        if self.state not in (State.NEW, State.STOPPED):
            raise RuntimeError(f"call hub.{what}() before the hub starts, where the hub is made")

    def not_running(self) -> HubNotRunning:
        """Return the error that says why nobody can be reached here, and what to do."""
        if self.state is not State.NEW:
            return HubNotRunning(
                "this hub has stopped: nobody is connected, and nobody would get this; end what "
                "publishes before the hub's stop()"
            )
        return HubNotRunning(
            "this hub runs in no event loop of this process: nobody would get this. Publish in the "
            "process that serves the hub (a worker of a task queue or a shell calls a route of it); "
            "code that runs while the application starts writes  await hub.start()  first"
        )

    def note_fork(self) -> None:
        """Run nowhere in a forked process: the loop, the clients and the sockets are the parent's."""
        self._unbind(State.NEW)


_bound: weakref.WeakSet[Lifecycle] = weakref.WeakSet()
"""The hubs that belong to an event loop of this process."""


def _after_fork() -> None:
    for lifecycle in list(_bound):
        lifecycle.note_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
