"""Liveness: who has gone silent, whose socket takes nothing, whose token ends; one timer for all. And
what blocks the event loop, with a timer of its own.

What must not live here: what is done about it (`registry.end`, by the table in `disconnects`).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from typing import TYPE_CHECKING

from .deadlines import DeadlineQueue
from .disconnects import EXPIRED, HANDLER_TIMEOUT, PING_TIMEOUT, SLOW_CONSUMER
from .session import ClientSession
from .timing_wheel import TimingWheel

if TYPE_CHECKING:
    from .core import Core

_LONG_PAUSE_S = 0.5
_SLACK_S = 0.002
"""A look is made this much after its time: a timer that fires a little early is not too early."""

STALL_S = 0.25
"""From this lateness of the event loop on, something has blocked it."""

PULSE_S = 0.1
"""How often the monitor sees whether something blocks the event loop. What blocks it may have begun so
much before the timer was due: this is how exactly its length is known."""

TURN_TOKENS = 50
"""How many tokens that end are looked at in one turn of the event loop: those of a crowd that came
together end together."""

RECENT_CHECKS = 3
"""How many looks `LivenessMonitor.recent_lag_s` covers. In a loop that is always late a single look may be
punctual by chance."""


class LivenessMonitor:
    """Advances the timing wheel and checks the sockets that take nothing. Event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core
        settings = self._settings = core.settings
        clock = self._clock = core.now
        self._began = self._checked_at = clock()
        self._wheel: TimingWheel[ClientSession] = TimingWheel(
            settings.ping_interval_s, settings.pong_timeout_s, self._began
        )
        self._deadlines: DeadlineQueue[ClientSession] = DeadlineQueue(
            warn_before=settings.on_expiry == "ask"
        )
        self._blocked: dict[ClientSession, tuple[float, int]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._pulse: asyncio.TimerHandle | None = None
        self.lag_s: float = 0.0
        """How late the event loop was at the last look, in seconds."""
        self._lags: deque[float] = deque(maxlen=RECENT_CHECKS)
        tick_s, looks = self._wheel.tick_s, 1
        if settings.write_timeout_s is not None:
            looks = max(1, math.ceil(tick_s / (settings.write_timeout_s / 4)))
        self.period_s: float = tick_s / looks
        """From one look to the next, in seconds: a tick of the wheel, or an even part of it."""

    def start(self) -> None:
        """Look again and again, until `stop`."""
        self._pulse_later()
        self._check_later()

    def _check_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._next_check_s(), self._check_and_go_on)

    def _pulse_later(self) -> None:
        self._pulse = asyncio.get_running_loop().call_later(PULSE_S, self._pulse_and_go_on)

    def _pulse_and_go_on(self) -> None:
        """See how late the pulse is; say when something has blocked the loop."""
        assert self._pulse is not None
        lag_s = asyncio.get_running_loop().time() - self._pulse.when()
        self._pulse_later()
        self._core.stats.loop_lag.note(max(0.0, lag_s))
        if lag_s >= STALL_S:
            self._on_loop_lag(lag_s + PULSE_S / 2)

    def _next_check_s(self) -> float:
        """Keep the beat of the wheel: looks that drift against it find the silent a tick late."""
        slack_s = min(_SLACK_S, self.period_s / 10)
        wait_s = self.period_s - (self._clock() - self._began - slack_s) % self.period_s
        return wait_s if wait_s > 1.001 * slack_s else wait_s + self.period_s

    def stop(self) -> None:
        """Look no more. Stopping twice is no error."""
        for timer in (self._timer, self._pulse):
            if timer is not None:
                timer.cancel()
        self._timer = self._pulse = None

    def add(self, session: ClientSession) -> None:
        """Watch a session that has connected."""
        self._wheel.add(session, self._clock())

    def remove(self, session: ClientSession) -> None:
        """Forget a session that has gone."""
        self._wheel.remove(session)
        self._deadlines.remove(session)
        self._blocked.pop(session, None)

    def expire_in(self, session: ClientSession, left_s: float | None) -> None:
        """Watch the end of a session's token, `left_s` seconds from now; None: it has no end."""
        if left_s is None:
            self._deadlines.remove(session)
        else:
            now = self._clock()
            self._deadlines.set(session, now + left_s, now)

    def write_blocked(self, session: ClientSession) -> None:
        """Watch a socket that is not writable until it is, and its outbox is empty again."""
        if session not in self._blocked:
            self._blocked[session] = (self._clock(), session.transport.write_progress())

    @property
    def slow_count(self) -> int:
        """How many clients have an outbox that is not empty."""
        return sum(session.outbox is not None for session in self._blocked)

    @property
    def outbox_bytes(self) -> int:
        """How many bytes wait in the outboxes of all clients."""
        outboxes = [session.outbox for session in self._blocked]
        return sum(outbox.nbytes for outbox in outboxes if outbox is not None)

    @property
    def recent_lag_s(self) -> float:
        """How late the event loop was at the worst of the last `RECENT_CHECKS`, in seconds."""
        return max(self._lags, default=0.0)

    def note_lag(self, lag_s: float) -> None:
        """Note how late the event loop was at a look."""
        self.lag_s = lag_s
        self._lags.append(lag_s)

    def check(self) -> None:
        """Look at everybody who is due now."""
        self._check_life()
        self._deadlines.advance(self._clock(), self._on_expiring, self._on_expired)

    def _check_life(self) -> None:
        now = self._clock()
        # As in the wheel: a look that comes far too late says nothing about the peers.
        pause_s = now - self._checked_at - self.period_s
        self._checked_at = now
        self._check_blocked(now, pause_s if pause_s > _LONG_PAUSE_S else 0.0)
        self._wheel.advance(now, self._ping, self._on_silent)

    def _check_and_go_on(self) -> None:
        assert self._timer is not None
        lag_s = max(0.0, asyncio.get_running_loop().time() - self._timer.when())
        self._check_later()
        self.note_lag(lag_s)
        self._check_life()
        self._check_tokens()

    def _check_tokens(self) -> None:
        """Look at some whose tokens end, and leave the others their turn before the next."""
        if self._timer is not None and self._deadlines.advance(
            self._clock(), self._on_expiring, self._on_expired, TURN_TOKENS
        ):
            asyncio.get_running_loop().call_soon(self._check_tokens)

    def _ping(self, session: ClientSession) -> None:
        if not session.transport.ping() and not session.is_held:
            # This transport has no ping; whether the peer lives is its server's business.
            session.last_seen = self._clock()

    def _on_silent(self, session: ClientSession) -> None:
        end = self._core.registry.end
        if session.is_held:
            # Its socket is not read, so its silence says nothing about it, but for as long as this
            # no handler of it has ended either.
            end(session, HANDLER_TIMEOUT, self._settings.pong_timeout_s)
        else:
            end(session, PING_TIMEOUT)

    def _check_blocked(self, now: float, pause_s: float) -> None:
        limit_s = self._settings.write_timeout_s
        for session, (since, progress) in list(self._blocked.items()):
            current = session.transport.write_progress()
            if session not in self._blocked:
                continue  # what was done about another session has ended this one
            if session.outbox is None and session.transport.writable:
                del self._blocked[session]
            elif current != progress:
                # Who takes bytes is alive, though its socket had no place for a ping.
                session.last_seen = now
                self._blocked[session] = (now, current)
            elif pause_s:
                self._blocked[session] = (min(since + pause_s, now), progress)
            elif limit_s is not None and now - since >= limit_s:
                self._on_write_timeout(session, limit_s)

    # What is found

    def _on_write_timeout(self, session: ClientSession, limit_s: float) -> None:
        why = f"took nothing for {limit_s:g} seconds"
        self._core.registry.end(session, SLOW_CONSUMER, why)

    def _on_expiring(self, session: ClientSession, left_s: float) -> None:
        self._core.dispatcher.request_refresh(session, left_s)

    def _on_expired(self, session: ClientSession) -> None:
        self._core.registry.end(session, EXPIRED)

    def _on_loop_lag(self, blocked_s: float) -> None:
        """Count and tell that something has blocked the event loop, for about so long."""
        core = self._core
        core.stats.loop_stalls += 1
        text = "the event loop was blocked for about %.1f seconds; "
        text += "a handler that does not await, or a machine too busy, holds up every client"
        core.log.log(logging.WARNING, "lag", text, blocked_s)
