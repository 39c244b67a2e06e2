"""The channels of the page at /channels: which there are, and messages that are numbered in each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .clock import iso_now
from .market import Market

TALKS = ("general", "random")
"""Here people speak. What is said in `general` is published to the room `talk:general`."""
TICKER = "ticker"
"""Here the server alone publishes."""
TALK_PREFIX = "talk:"
TYPING_PREFIX = "typing:"
"""Who is typing in `general` is published to `typing:general`, which keeps nothing."""
ROOMS = {
    TICKER,
    *(TALK_PREFIX + name for name in TALKS),
    *(TYPING_PREFIX + name for name in TALKS),
}
LINGER_S = 60.0
"""So long the ticker goes on when nobody is there any more: who comes back has missed something."""


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody said, and when (ISO 8601). The messages of each channel are numbered from 1."""

    number: int
    name: str
    text: str
    time: str = field(default_factory=iso_now)


class Channels:
    """Numbers messages, and knows when the ticker rests."""

    def __init__(self, market: Market | None = None) -> None:
        self._market = market or Market()
        self._numbers: Counter[str] = Counter()
        self._left_at: float | None = None

    def say(self, channel: str, name: str, text: str) -> Message:
        """Return the next message of a channel."""
        self._numbers[channel] += 1
        return Message(self._numbers[channel], name, text)

    def left(self, now: float) -> None:
        """Note that somebody has left."""
        self._left_at = now

    def tick(self, count: int, now: float) -> Message | None:
        """Return the ticker's next message; None while it rests, since nobody of `count` is there."""
        has_gone = self._left_at is None or now - self._left_at > LINGER_S
        if not count and has_gone:
            return None
        prices = " · ".join(f"{name} {price:.2f}" for name, price in self._market.step().items())
        return self.say(TICKER, TICKER, prices)
