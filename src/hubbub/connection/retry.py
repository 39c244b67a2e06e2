"""When a client program comes back: how long it waits, and how often it tries what may never work.

Pure: no event loop, and a random number that can be replaced. The JavaScript client has the same
rules. What must not live here: what an end means (`outcome` and the modules that make one).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from .outcome import Outcome, Retry

STABLE_AFTER_S = 5.0
"""A connection that was open for so long was a good one: the delays begin again from the least."""

GIVES_UP_AFTER = 5
"""How many attempts in a row may end as if something were set up wrongly, before the first
connection. With half a second to begin with that takes about ten seconds."""

GIVES_UP_AFTER_WAS_OPEN = 100
"""The same once there was a connection: what worked before may work again, for a quarter of an
hour with the default delays."""

_MAX_DOUBLINGS = 32
_LEAST_CEILING_S = 0.5


class Backoff:
    """How long to wait before the next attempt: full jitter, or a fixed delay.

    The n-th delay in a row is uniform between `min_delay_s` and a ceiling that begins at twice
    `min_delay_s` and doubles up to `max_delay_s`, so that a thousand clients of a server that
    restarts do not come back in one instant. With `fixed_delay_s` every delay is that long.
    `rand` returns a number from 0 up to 1; it is there for tests.
    """

    def __init__(
        self,
        min_delay_s: float = 0.5,
        max_delay_s: float = 20.0,
        fixed_delay_s: float | None = None,
        rand: Callable[[], float] = random.random,
    ) -> None:
        if not 0 <= min_delay_s <= max_delay_s < math.inf:
            raise ValueError(
                f"min_delay_s={min_delay_s:g}, max_delay_s={max_delay_s:g}: must be seconds, the "
                "first not negative and not above the second"
            )
        if fixed_delay_s is not None and not 0 <= fixed_delay_s < math.inf:
            raise ValueError(f"fixed_delay_s={fixed_delay_s:g}: must be seconds, not negative")
        self.attempts: int = 0
        self._min_delay_s = min_delay_s
        self._max_delay_s = max_delay_s
        self._fixed_delay_s = fixed_delay_s
        self._rand = rand

    def next_delay(self, retry_after_s: float = 0.0) -> float:
        """Return the seconds to wait now, and count the attempt.

        What a server asked for with Retry-After comes first and the delay on top of it, so that
        those who were all told the same number do not come at the same moment.
        """
        self.attempts += 1
        if self._fixed_delay_s is not None:
            return retry_after_s + self._fixed_delay_s
        first = self._min_delay_s or _LEAST_CEILING_S
        doublings = min(self.attempts, _MAX_DOUBLINGS)
        ceiling = min(self._max_delay_s, math.ldexp(first, doublings))
        jitter = self._rand() * (ceiling - self._min_delay_s)
        return retry_after_s + self._min_delay_s + jitter

    def record_uptime(self, seconds: float) -> None:
        """Tell that a connection was open for `seconds`; after a good one delays are short again."""
        if seconds >= STABLE_AFTER_S:
            self.attempts = 0


class RetryLimit:
    """How often a client tries again where somebody has to mend something first.

    A wrong path, a page where the socket should be, a certificate of somebody else: each may be a
    proxy in the middle of a deployment, and each may be a mistake that no waiting repairs.
    """

    def __init__(self) -> None:
        self.was_open: bool = False
        self._in_a_row = 0

    def opened(self) -> None:
        """Tell that there is a connection."""
        self.was_open = True
        self._in_a_row = 0

    def allows(self, outcome: Outcome) -> bool:
        """Tell whether another attempt follows this outcome. Call it once for each."""
        self._in_a_row = self._in_a_row + 1 if outcome.retry is Retry.LIMITED else 0
        most = GIVES_UP_AFTER_WAS_OPEN if self.was_open else GIVES_UP_AFTER
        return outcome.retry is not Retry.NEVER and self._in_a_row < most
