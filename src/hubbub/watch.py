"""Watch: who has gone silent, and whose socket takes nothing; one timer for all clients.

What must not live here: what is done about it (callables are handed in). The registry starts it,
and tells it who comes, goes and stalls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from .client import Client
from .heartbeat import Heartbeat
from .settings import Settings


class Judge(Protocol):
    """What becomes of a client that the watch has found."""

    def found_dead(self, client: Client) -> None: ...
    def found_stuck(self, client: Client, limit_s: float) -> None: ...


class Watch:
    """Turns the heartbeat wheel and looks at stalled sockets. Event loop only.

    `clock` counts seconds and never goes back.
    """

    def __init__(self, settings: Settings, judge: Judge, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._judge = judge
        self._clock = clock
        self._wheel: Heartbeat[Client] = Heartbeat(
            settings.ping_interval_s, settings.pong_timeout_s, clock()
        )
        self._stalled: dict[Client, tuple[float, int]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._period_s = self._wheel.tick_s
        if settings.write_timeout_s is not None:
            self._period_s = min(self._period_s, settings.write_timeout_s / 4)

    def start(self) -> None:
        """Look again and again, until `stop`."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._period_s, self._look_and_go_on)

    def stop(self) -> None:
        """Look no more. Stopping twice is no error."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def add(self, client: Client) -> None:
        """Watch a client that has connected."""
        self._wheel.add(client, self._clock())

    def remove(self, client: Client) -> None:
        """Forget a client that has gone."""
        self._wheel.remove(client)
        self._stalled.pop(client, None)

    def stalled(self, client: Client) -> None:
        """Watch a socket that is not writable until its outbox is empty again."""
        self._stalled[client] = (self._clock(), client.transport.progress())

    @property
    def slow_count(self) -> int:
        """How many clients have an outbox that is not empty."""
        return sum(client.outbox is not None for client in self._stalled)

    def look(self) -> None:
        """Look at everybody who is due now."""
        now = self._clock()
        self._wheel.turn(now, self._ping, self._overdue)
        self._look_at_stalled(now)

    def _look_and_go_on(self) -> None:
        self.start()
        self.look()

    def _ping(self, client: Client) -> None:
        if not client.transport.ping():
            # This transport has no ping; whether the peer lives is its server's business.
            client.seen = self._clock()

    def _overdue(self, client: Client) -> None:
        if client.busy:
            # Its reading is paused, so its silence says nothing about it.
            self._wheel.add(client, self._clock())
        else:
            self._judge.found_dead(client)

    def _look_at_stalled(self, now: float) -> None:
        limit_s = self._settings.write_timeout_s
        for client, (since, progress) in list(self._stalled.items()):
            current = client.transport.progress()
            if client.outbox is None:
                del self._stalled[client]
            elif current != progress:
                self._stalled[client] = (now, current)
            elif limit_s is not None and now - since >= limit_s:
                self._judge.found_stuck(client, limit_s)
