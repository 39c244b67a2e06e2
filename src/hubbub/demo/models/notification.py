"""Notifications: what happened, how grave it is, and when."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import Literal, get_args

from .clock import iso_now
from .text import one_line

Kind = Literal["info", "success", "warning", "error"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MAX_KEPT = 20
MAX_MESSAGE_CHARACTERS = 200

SAMPLES: dict[Kind, str] = {
    "info": "The nightly report is ready to read.",
    "success": "The backup finished: 14 GB in 3 minutes.",
    "warning": "The disk of db-2 is 85 % full.",
    "error": "The payment provider does not answer.",
}


@dataclass(frozen=True, slots=True)
class Notification:
    """`type` says how grave it is, `time` is ISO 8601. The notifications of a board (`log`) are numbered from 1."""

    number: int
    type: Kind
    message: str
    time: str = field(default_factory=iso_now)
    log: str = ""


class NotificationBoard:
    """Remembers the last `MAX_KEPT` notifications. Any thread may post. `log` tells it from those of other processes."""

    def __init__(self, log: str = "") -> None:
        self._log = log
        self._kept: deque[Notification] = deque(maxlen=MAX_KEPT)
        self._numbers = count(1)

    def post(self, kind: object, message: object) -> Notification:
        """Remember and return a notification. Raises `ValueError` with a sentence for people."""
        if kind not in KINDS:
            raise ValueError(f"type must be one of {', '.join(KINDS)}")
        text = one_line(message, MAX_MESSAGE_CHARACTERS + 1) if isinstance(message, str) else ""
        if not 1 <= len(text) <= MAX_MESSAGE_CHARACTERS:
            raise ValueError(f"message must have 1 to {MAX_MESSAGE_CHARACTERS} characters")
        notification = Notification(next(self._numbers), kind, text, log=self._log)
        self._kept.append(notification)
        return notification

    def recent(self) -> list[Notification]:
        """Return what is remembered, oldest first."""
        return list(self._kept)
