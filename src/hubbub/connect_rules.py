"""The rules of the Python client: what an ending means, how long to wait, what may wait meanwhile.

Pure: no socket, no event loop, no clock that cannot be replaced. `connect` obeys these rules, and
the JavaScript client has the same ones.
"""

from __future__ import annotations

import email.utils
import math
import random
import time
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import msgspec
from websockets.exceptions import ConnectionClosed, InvalidURI
from websockets.http11 import Response
from websockets.uri import parse_uri

from .errors import ABNORMAL, should_come_back
from .frame import Frame
from .model import Close

STABLE_AFTER_S = 5.0
"""A connection that stood for so long was a good one: the delays begin again from the least."""

MAX_RETRY_AFTER_S = 3600.0
"""The longest Retry-After that is believed."""

_FOR_GOOD = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_MAX_DOUBLINGS = 32
_LEAST_CEILING_S = 0.5
_MAX_REASON_CHARACTERS = 200


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

    def stood(self, seconds: float) -> None:
        """Tell that a connection was open for `seconds`; after a good one delays are short again."""
        if seconds >= STABLE_AFTER_S:
            self.attempts = 0


class OfflineQueue:
    """The messages that wait for a connection, bounded in number and bytes: the oldest go first."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        if max_messages < 0 or max_bytes < 0:
            raise ValueError(
                f"max_queue={max_messages}, max_queue_bytes={max_bytes}: must not be negative"
            )
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._frames: deque[Frame] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    def append(self, frame: Frame) -> None:
        """Add a message; `trim` says what there is no room for."""
        self._frames.append(frame)
        self._bytes += len(frame.payload)

    def take(self) -> Frame:
        """Remove and return the oldest message."""
        frame = self._frames.popleft()
        self._bytes -= len(frame.payload)
        return frame

    def trim(self) -> int:
        """Drop what is over the bounds and return how many messages that were.

        A message that is too large for an empty queue goes alone: it does not take others along.
        """
        before = len(self._frames)
        if self._frames and len(self._frames[-1].payload) > self._max_bytes:
            self._bytes -= len(self._frames.pop().payload)
        while len(self._frames) > self._max_messages or self._bytes > self._max_bytes:
            self.take()
        return before - len(self._frames)

    def clear(self) -> int:
        """Drop everything and return how many messages that were."""
        count = len(self._frames)
        self._frames.clear()
        self._bytes = 0
        return count


class Ending(NamedTuple):
    """How one attempt ended, and what that means for the next one."""

    close: Close
    comes_back: bool
    retry_after_s: float = 0.0


def websocket_url(url: str) -> str:
    """Return `url` with ws or wss for http or https; raise ValueError if it is no such address."""
    try:
        parts = urlsplit(url)
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
        address = urlunsplit(parts._replace(scheme=scheme, fragment=""))
        parse_uri(address)
    except (InvalidURI, ValueError):
        raise ValueError(
            f"{without_secrets(url)!r} is no WebSocket address; one looks like "
            "ws://localhost:8080/ws or wss://example.com/ws"
        ) from None
    return address


def without_secrets(url: str) -> str:
    """Return `url` without what may be a secret: the query and the user's name and password."""
    bare = url.partition("?")[0].partition("#")[0]
    scheme, separator, rest = bare.partition("://")
    return scheme + separator + rest.rpartition("@")[2]


def closed(error: ConnectionClosed) -> Ending:
    """Return what the end of an open connection means."""
    close = _first_close(error)
    return Ending(close, should_come_back(close.code))


def _first_close(error: ConnectionClosed) -> Close:
    """Return the close that began it; 1006 when neither side said anything."""
    received, sent = error.rcvd, error.sent
    by_server = received is not None and (sent is None or bool(error.rcvd_then_sent))
    first = received if by_server else sent
    if first is None:
        return Close(ABNORMAL, "the connection broke", by_server=True)
    return Close(first.code, first.reason, by_server)


def failed(why: str) -> Ending:
    """Return what it means that no answer came, or none that can be understood."""
    return Ending(Close(ABNORMAL, f"cannot connect: {why}"), comes_back=True)


def refused(response: Response) -> Ending:
    """Return what an HTTP answer instead of the upgrade means."""
    status = response.status_code
    close = Close(status, _reason_of(response), by_server=True)
    header = response.headers.get("Retry-After", "") if status in _BUSY else ""
    return Ending(close, status not in _FOR_GOOD, read_retry_after_s(header))


def _reason_of(response: Response) -> str:
    """Return the sentence of a refusal: "error" of the JSON body, else its text, else the phrase."""
    body = bytes(response.body or b"")
    try:
        error = msgspec.json.decode(body)["error"]
    except (ValueError, TypeError, KeyError):
        error = None
    if isinstance(error, str) and error:
        return error
    is_plain = response.headers.get("Content-Type", "").startswith("text/plain")
    text = body.decode("utf-8", "replace").strip() if is_plain else ""
    return text[:_MAX_REASON_CHARACTERS] or response.reason_phrase


def read_retry_after_s(value: str, now: Callable[[], float] = time.time) -> float:
    """Read a Retry-After header, seconds or a date (RFC 9110 section 10.2.3); 0 for nonsense."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now()
        except ValueError:
            return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S) if math.isfinite(seconds) else 0.0
