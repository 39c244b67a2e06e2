"""Delivery: which lines that were written into a socket have arrived.

What must not live here: sockets, clocks, and the pings themselves (`connect`).
"""

from __future__ import annotations

MAX_WINDOW_LINES = 1024
_QUICK_PONG_S = 1.0


class LineTracker:
    """What became of the lines: how many were written into a socket, and how many arrived.

    A line has arrived when two pings behind it were answered, the second of which went out after
    the first answer. One is not enough: a server may answer a ping in the moment in which it reads
    the lines, before anybody has taken them from it. That it reads on shows that somebody has.

    `window` is how many lines may be without an answer: it begins at one, doubles while answers are
    quick and halves when they are not, so that a server that takes a second for a line is not
    overrun, and a wire that breaks takes few lines with it.
    """

    def __init__(self) -> None:
        self.written: int = 0
        self.answered: int = 0
        self.given_up: int = 0
        self.window: int = 1
        self._certain = 0

    @property
    def can_write(self) -> bool:
        """Whether one more line may be written."""
        return self.written - self.answered < self.window

    @property
    def in_flight(self) -> int:
        """How many lines were written and have not arrived, as far as is known."""
        return self.written - self._certain

    @property
    def arrived(self) -> int:
        """How many lines have arrived."""
        return self._certain - self.given_up

    def note_pong(self, written: int, took_s: float) -> None:
        """A pong came after `took_s`, to a ping behind the first `written` lines."""
        self._certain, self.answered = self.answered, written
        if took_s < _QUICK_PONG_S:
            self.window = min(self.window * 2, MAX_WINDOW_LINES)
        else:
            self.window = max(self.window // 2, 1)

    def confirm_all(self) -> None:
        """All that was written has arrived."""
        self._certain = self.answered = self.written

    def give_up(self) -> int:
        """The connection ended; return how many lines were on their way."""
        lines = self.in_flight
        self.given_up += lines
        self.window = 1
        self.confirm_all()
        return lines
