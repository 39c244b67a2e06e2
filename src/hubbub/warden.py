"""Warden: what becomes of clients that are slow, dead or in the wrong: counted, told, closed.

What must not live here: how they are found (`watch`, the transports), what a full outbox drops
(`outbox`). Clients, transports and the watch report here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from .client import Client
from .errors import NO_PONG, SLOW_CONSUMER, TOKEN_EXPIRED, TRY_AGAIN_LATER, fit_reason
from .frame import Batch
from .limits import printable
from .outbox import Outbox, Overflow
from .quietlog import QuietLog
from .settings import Settings
from .stats import Stats


class Court(Protocol):
    """What the warden asks of the registry."""

    def disconnect_client(self, client: Client, code: int, reason: str) -> None: ...
    def lost(self, client: Client, code: int, reason: str, *, by_server: bool = False) -> None: ...
    def schedule(self, function: Callable[[], None]) -> None: ...
    def tell_missed(self, client: Client, count: int) -> None: ...
    def stalled(self, client: Client) -> None: ...
    def ask_for_token(self, client: Client, left_s: float) -> None: ...


class Warden:
    """Event loop only."""

    def __init__(self, court: Court, settings: Settings, stats: Stats, log: QuietLog) -> None:
        self._court = court
        self._settings = settings
        self._stats = stats
        self._log = log

    # What clients report

    def new_outbox(self, client: Client) -> Outbox:
        """Make the outbox for a client that needs one, and have its socket watched."""
        self._court.stalled(client)
        return Outbox(self._settings.outbox_max_entries, self._settings.outbox_max_bytes)

    def wrote(self, batch: Batch) -> None:
        """Count what a transport took."""
        self._stats.messages_out += len(batch)
        self._stats.bytes_out += len(batch.wire)

    def overflowed(self, client: Client, overflow: Overflow) -> None:
        """Close a client whose outbox is full, after the running fan-out."""
        self._stats.dropped += overflow.lost
        client.dropped += overflow.lost
        self._court.schedule(lambda: self._cut_slow(client, "its outbox is full"))

    def dropped(self, client: Client, count: int) -> None:
        """Count what an outbox dropped, and say so now and then."""
        self._stats.dropped += count
        self._tell(logging.WARNING, "dropped", client, "is slow; its outbox drops messages")

    def caught_up(self, client: Client, count: int) -> None:
        """Tell the application that a client is writable again and missed `count` messages."""
        self._court.schedule(lambda: self._court.tell_missed(client, count))

    # What transports report

    def broke_protocol(self, client: Client, code: int, reason: str) -> None:
        """Take out a client whose bytes break RFC 6455 or a limit, and tell it why if need be."""
        self._stats.protocol_errors += 1
        self._tell(logging.INFO, "protocol", client, f"closed with {code}: {printable(reason)}")
        client.transport.close(code, fit_reason(reason))
        self._court.lost(client, code, reason, by_server=True)

    # What the watch reports

    def found_dead(self, client: Client) -> None:
        """Close a client that showed no sign of life."""
        self._stats.dead += 1
        self._tell(logging.INFO, "dead", client, "showed no sign of life; closed")
        self._court.disconnect_client(client, NO_PONG, "no pong")

    def found_held(self, client: Client, limit_s: float) -> None:
        """Close a client whose handler has not ended for too long while its inbox is full."""
        self._stats.stuck_handlers += 1
        text = (
            f"has messages waiting for a handler that did not end for {limit_s:g} seconds; closed"
        )
        self._tell(logging.WARNING, "held", client, text)
        self._court.disconnect_client(client, TRY_AGAIN_LATER, "the handler takes too long")

    def found_stuck(self, client: Client, limit_s: float) -> None:
        """Close a client whose socket took nothing while bytes waited for it."""
        self._cut_slow(client, f"took nothing for {limit_s:g} seconds")

    def found_expiring(self, client: Client, left_s: float) -> None:
        """Have a client asked for a new token."""
        self._court.ask_for_token(client, left_s)

    def found_expired(self, client: Client) -> None:
        """Close a client whose token has ended."""
        self._stats.expired += 1
        self._tell(logging.INFO, "expired", client, "has a token that expired; closed")
        self._court.disconnect_client(client, TOKEN_EXPIRED, "token expired")

    def found_lag(self, blocked_s: float) -> None:
        """Count and tell that something has blocked the event loop, for about so long."""
        self._stats.loop_stalls += 1
        text = "the event loop was blocked for about %.1f seconds; "
        text += "a handler that does not await, or a machine too busy, holds up every client"
        self._log.log(logging.WARNING, "lag", text, blocked_s)

    def _cut_slow(self, client: Client, why: str) -> None:
        if client.close_info is not None:
            return
        self._stats.slow_disconnects += 1
        if client.outbox is not None:
            lost = client.outbox.clear()
            client.dropped += lost
            self._stats.dropped += lost
        self._tell(logging.WARNING, "slow", client, f"is too slow: {why}; closed")
        self._court.disconnect_client(client, SLOW_CONSUMER, "slow consumer")

    def _tell(self, level: int, kind: str, client: Client, text: str) -> None:
        self._log.log(level, kind, "client %s %s", client.id, text)
