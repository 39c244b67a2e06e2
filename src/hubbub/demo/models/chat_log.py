"""The last lines of a conversation, for those who come later."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from .clock import iso_now

Kind = Literal["said", "joined", "left"]
MAX_LINES = 50


@dataclass(frozen=True, slots=True)
class Line:
    """One line: who said, joined or left, and when (ISO 8601). The lines of a log are numbered from 1."""

    number: int
    type: Kind
    name: str
    text: str = ""
    time: str = field(default_factory=iso_now)
    log: str = ""


class ChatLog:
    """Remembers the last `MAX_LINES` lines. `log` tells it from those of other processes."""

    def __init__(self, log: str = "") -> None:
        self._log = log
        self._lines: deque[Line] = deque(maxlen=MAX_LINES)
        self._numbers = count(1)

    def add(self, kind: Kind, name: str, text: str = "") -> Line:
        """Remember a line and return it."""
        line = Line(next(self._numbers), kind, name, text, log=self._log)
        self._lines.append(line)
        return line

    def lines(self) -> list[Line]:
        """Return the lines, oldest first."""
        return list(self._lines)
