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
    """One line: who said, joined or left, and when (ISO 8601). Lines are numbered from 1."""

    number: int
    type: Kind
    name: str
    text: str = ""
    time: str = field(default_factory=iso_now)


class ChatLog:
    """Remembers the last `MAX_LINES` lines."""

    def __init__(self) -> None:
        self._lines: deque[Line] = deque(maxlen=MAX_LINES)
        self._numbers = count(1)

    def add(self, kind: Kind, name: str, text: str = "") -> Line:
        """Remember a line and return it."""
        line = Line(next(self._numbers), kind, name, text)
        self._lines.append(line)
        return line

    def lines(self) -> list[Line]:
        """Return the lines, oldest first."""
        return list(self._lines)
