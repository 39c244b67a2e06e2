"""How one attempt or connection ended, as a value: the close, and whether another attempt follows.

Pure: no socket, no event loop. What must not live here: how a refusal of a handshake is read
(`refusals`), what a failure means (`failures`), and how long to wait (`retry`).
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from websockets.exceptions import ConnectionClosed

from ..errors import ABNORMAL, NORMAL, Disconnected, retry_after_of, should_come_back
from ..model import Close


class Retry(enum.Enum):
    """Whether another attempt follows."""

    ALWAYS = "comes back"
    LIMITED = "comes back a few times"
    NEVER = "stays away"


class Outcome(NamedTuple):
    """How one attempt or connection ended, and whether another attempt follows.

    `error` is the exception that showed it, if one did.
    """

    close: Close
    retry: Retry
    retry_after_s: float = 0.0
    error: Exception | None = None

    @property
    def is_normal(self) -> bool:
        """Whether the conversation was just over, which is no error."""
        return self.close.code == NORMAL and not isinstance(self.error, Disconnected)

    def as_error(self) -> Disconnected:
        """Return what the program gets; the exception behind it is its cause."""
        if isinstance(self.error, Disconnected):
            return self.error
        disconnected = Disconnected(self.close.code, self.close.reason)
        disconnected.__cause__ = self.error
        return disconnected


class AttemptEnded(Exception):
    """An attempt or a connection is over, and what that means is known already."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.close.reason)
        self.outcome: Outcome = outcome


def outcome_of_close(error: ConnectionClosed) -> Outcome:
    """Return what the end of an open connection means."""
    close = _first_close(error)
    retry = Retry.ALWAYS if should_come_back(close.code) else Retry.NEVER
    return Outcome(close, retry, retry_after_of(close.reason) if close.by_server else 0.0, error)


def _first_close(error: ConnectionClosed) -> Close:
    """Return the close that began it; 1006 when neither side said anything."""
    received, sent = error.rcvd, error.sent
    by_server = received is not None and (sent is None or bool(error.rcvd_then_sent))
    first = received if by_server else sent
    if first is None:
        return Close(ABNORMAL, "the connection broke", by_server=True)
    return Close(first.code, first.reason, by_server)
