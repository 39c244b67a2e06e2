"""Watch: who has gone silent, whose socket takes nothing, whose token ends; one timer for all. And
what blocks the event loop, with a timer of its own.

What must not live here: what is done about it (callables are handed in). The registry starts it,
and tells it who comes, goes and stalls.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

from .client import Client
from .expiry import Expiry
from .heartbeat import Heartbeat
from .settings import Settings

_LONG_PAUSE_S = 0.5
_SLACK_S = 0.002
"""A look is made this much after its time: a timer that fires a little early is not too early."""

STALL_S = 0.25
"""From this lateness of the event loop on, something has blocked it."""

PULSE_S = 0.1
"""How often the watch sees whether something blocks the event loop. What blocks it may have begun so
much before the timer was due: this is how exactly its length is known."""

TURN_TOKENS = 50
"""How many tokens that end are looked at in one turn of the event loop: those of a crowd that came
together end together."""

RECENT_LOOKS = 3
"""How many looks `Watch.recent_lag_s` covers. In a loop that is always late a single look may be
punctual by chance."""


class Judge(Protocol):
    """What becomes of a client that the watch has found."""

    def found_dead(self, client: Client) -> None: ...
    def found_held(self, client: Client, limit_s: float) -> None: ...
    def found_stuck(self, client: Client, limit_s: float) -> None: ...
    def found_lag(self, blocked_s: float) -> None: ...
    def found_expired(self, client: Client) -> None: ...
    def found_expiring(self, client: Client, left_s: float) -> None: ...


class Watch:
    """Turns the heartbeat wheel and looks at stalled sockets. Event loop only.

    `clock` counts seconds and never goes back.
    """

    def __init__(self, settings: Settings, judge: Judge, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._judge = judge
        self._clock = clock
        self._began = self._looked_at = clock()
        self._wheel: Heartbeat[Client] = Heartbeat(
            settings.ping_interval_s, settings.pong_timeout_s, self._began
        )
        self._expiry: Expiry[Client] = Expiry(asks=settings.on_expiry == "ask")
        self._stalled: dict[Client, tuple[float, int]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._pulse: asyncio.TimerHandle | None = None
        self.lag_s: float = 0.0
        """How late the event loop was at the last look, in seconds."""
        self._lags: deque[float] = deque(maxlen=RECENT_LOOKS)
        tick_s, looks = self._wheel.tick_s, 1
        if settings.write_timeout_s is not None:
            looks = max(1, math.ceil(tick_s / (settings.write_timeout_s / 4)))
        self.period_s: float = tick_s / looks
        """From one look to the next, in seconds: a tick of the wheel, or an even part of it."""

    def start(self) -> None:
        """Look again and again, until `stop`."""
        self._feel_later()
        self._look_later()

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._next_look_s(), self._look_and_go_on)

    def _feel_later(self) -> None:
        self._pulse = asyncio.get_running_loop().call_later(PULSE_S, self._feel_and_go_on)

    def _feel_and_go_on(self) -> None:
        """See how late the pulse is; tell the judge when something has blocked the loop."""
        assert self._pulse is not None
        lag_s = asyncio.get_running_loop().time() - self._pulse.when()
        self._feel_later()
        if lag_s >= STALL_S:
            self._judge.found_lag(lag_s + PULSE_S / 2)

    def _next_look_s(self) -> float:
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

    def add(self, client: Client) -> None:
        """Watch a client that has connected."""
        self._wheel.add(client, self._clock())

    def remove(self, client: Client) -> None:
        """Forget a client that has gone."""
        self._wheel.remove(client)
        self._expiry.remove(client)
        self._stalled.pop(client, None)

    def expire_in(self, client: Client, left_s: float | None) -> None:
        """Watch the end of a client's token, `left_s` seconds from now; None: it has no end."""
        if left_s is None:
            self._expiry.remove(client)
        else:
            now = self._clock()
            self._expiry.set(client, now + left_s, now)

    def stalled(self, client: Client) -> None:
        """Watch a socket that is not writable until it is, and its outbox is empty again."""
        if client not in self._stalled:
            self._stalled[client] = (self._clock(), client.transport.progress())

    @property
    def slow_count(self) -> int:
        """How many clients have an outbox that is not empty."""
        return sum(client.outbox is not None for client in self._stalled)

    @property
    def recent_lag_s(self) -> float:
        """How late the event loop was at the worst of the last `RECENT_LOOKS`, in seconds."""
        return max(self._lags, default=0.0)

    def was_late(self, lag_s: float) -> None:
        """Note how late the event loop was at a look."""
        self.lag_s = lag_s
        self._lags.append(lag_s)

    def look(self) -> None:
        """Look at everybody who is due now."""
        self._look_for_life()
        self._expiry.turn(self._clock(), self._judge.found_expiring, self._judge.found_expired)

    def _look_for_life(self) -> None:
        now = self._clock()
        # As in the wheel: a look that comes far too late says nothing about the peers.
        pause_s = now - self._looked_at - self.period_s
        self._looked_at = now
        self._look_at_stalled(now, pause_s if pause_s > _LONG_PAUSE_S else 0.0)
        self._wheel.turn(now, self._ping, self._overdue)

    def _look_and_go_on(self) -> None:
        assert self._timer is not None
        lag_s = max(0.0, asyncio.get_running_loop().time() - self._timer.when())
        self._look_later()
        self.was_late(lag_s)
        self._look_for_life()
        self._look_at_tokens()

    def _look_at_tokens(self) -> None:
        """Look at some whose tokens end, and leave the others their turn before the next."""
        judge = self._judge
        if self._timer is not None and self._expiry.turn(
            self._clock(), judge.found_expiring, judge.found_expired, TURN_TOKENS
        ):
            asyncio.get_running_loop().call_soon(self._look_at_tokens)

    def _ping(self, client: Client) -> None:
        if not client.transport.ping() and not client.is_held:
            # This transport has no ping; whether the peer lives is its server's business.
            client.seen = self._clock()

    def _overdue(self, client: Client) -> None:
        if client.is_held:
            # Its socket is not read, so its silence says nothing about it, but for as long as this
            # no handler of it has ended either.
            self._judge.found_held(client, self._settings.pong_timeout_s)
        else:
            self._judge.found_dead(client)

    def _look_at_stalled(self, now: float, pause_s: float) -> None:
        limit_s = self._settings.write_timeout_s
        for client, (since, progress) in list(self._stalled.items()):
            current = client.transport.progress()
            if client not in self._stalled:
                continue  # what was done about another client has ended this one
            if client.outbox is None and client.transport.writable:
                del self._stalled[client]
            elif current != progress:
                # Who takes bytes is alive, though its socket had no place for a ping.
                client.seen = now
                self._stalled[client] = (now, current)
            elif pause_s:
                self._stalled[client] = (min(since + pause_s, now), progress)
            elif limit_s is not None and now - since >= limit_s:
                self._judge.found_stuck(client, limit_s)
