"""How fast one person may speak: so many times in a while."""

from __future__ import annotations

from collections import deque


class Pace:
    """Allows `times` in any `within_s` seconds."""

    def __init__(self, times: int, within_s: float) -> None:
        self.within_s: float = within_s
        self._stamps: deque[float] = deque(maxlen=times)

    def allows(self, now: float) -> bool:
        """Tell whether once more is allowed now, in seconds of a clock that never goes back.

        It counts if it is.
        """
        stamps = self._stamps
        if len(stamps) == stamps.maxlen and now - stamps[0] < self.within_s:
            return False
        stamps.append(now)
        return True
