"""Notifications: what happened, how grave it is, and when."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal, get_args

from .clock import iso_now

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
    """`type` says how grave it is, `time` is ISO 8601."""

    type: Kind
    message: str
    time: str = field(default_factory=iso_now)


class NotificationBoard:
    """Remembers the last `MAX_KEPT` notifications. Any thread may post."""

    def __init__(self) -> None:
        self._kept: deque[Notification] = deque(maxlen=MAX_KEPT)

    def post(self, kind: object, message: object) -> Notification:
        """Remember and return a notification. Raises `ValueError` with a sentence for people."""
        if kind not in KINDS:
            raise ValueError(f"type must be one of {', '.join(KINDS)}")
        text = message.strip() if isinstance(message, str) else ""
        if not 1 <= len(text) <= MAX_MESSAGE_CHARACTERS:
            raise ValueError(f"message must have 1 to {MAX_MESSAGE_CHARACTERS} characters")
        notification = Notification(kind, text)
        self._kept.append(notification)
        return notification

    def recent(self) -> list[Notification]:
        """Return what is remembered, oldest first."""
        return list(self._kept)
