"""The rules of the Python client: what an ending means, how long to wait, what may wait meanwhile.

Pure: no socket, no event loop, no clock that cannot be replaced. `connect` obeys these rules, and
the JavaScript client has the same ones. Whatever an attempt or a connection can end with, an
answer of a server, a close frame or an exception of somebody else's, becomes an `Ending` here, and
nowhere else: `ending_of`, by the table `CAUSES`.
"""

from __future__ import annotations

import email.utils
import enum
import math
import random
import re
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import msgspec
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidProxy,
    InvalidProxyMessage,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)
from websockets.http11 import Response
from websockets.uri import WebSocketURI, parse_uri

from ..errors import ABNORMAL, NORMAL, PROTOCOL_ERROR, TLS_FAILURE, Disconnected, should_come_back
from ..frame import Frame
from ..limits import printable
from ..model import Close

STABLE_AFTER_S = 5.0
"""A connection that stood for so long was a good one: the delays begin again from the least."""

MAX_RETRY_AFTER_S = 3600.0
"""The longest Retry-After that is believed."""

MAX_STATUS_LINE_BYTES = 256
"""How much of an answer is kept for `read_status`."""

MAX_REDIRECTS = 10
"""How many redirects one attempt follows."""

GIVES_UP_AFTER = 5
"""How many attempts in a row may end as if something were set up wrongly, before the first
connection. With half a second to begin with that takes about ten seconds."""

GIVES_UP_AFTER_WAS_OPEN = 100
"""The same once there was a connection: what worked before may work again, for a quarter of an
hour with the default delays."""

_TEMPORARY = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.MISDIRECTED_REQUEST,
    HTTPStatus.LOCKED,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
)
_WRONG_PLACE = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.UPGRADE_REQUIRED)
_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_REDIRECTS = (300, 301, 302, 303, 307, 308)
_MAX_DOUBLINGS = 32
_LEAST_CEILING_S = 0.5
_MAX_REASON_CHARACTERS = 200
_URL_CHARACTERS = "%/:?#[]@!$&'()*+,;=~"
_NO_HOST = re.compile(r'[\x00-\x20\x7f\\"<>^`{|}]')
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: ([\t -~\x80-\xff]*))?\r?\n")
_CERTIFICATE_TIMES = (9, 10)
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


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

    @property
    def first(self) -> Frame:
        """The oldest message."""
        return self._frames[0]

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


class Follows(enum.Enum):
    """What follows an ending."""

    ANOTHER = "comes back"
    A_FEW = "comes back a few times"
    NONE = "stays away"


class Ending(NamedTuple):
    """How one attempt or connection ended, and what follows.

    `error` is the exception that showed it, if one did.
    """

    close: Close
    follows: Follows
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


class Patience:
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

    def goes_on(self, ending: Ending) -> bool:
        """Tell whether another attempt follows this ending. Call it once for each."""
        self._in_a_row = self._in_a_row + 1 if ending.follows is Follows.A_FEW else 0
        most = GIVES_UP_AFTER_WAS_OPEN if self.was_open else GIVES_UP_AFTER
        return ending.follows is not Follows.NONE and self._in_a_row < most


# Addresses.


class Target(NamedTuple):
    """What one request goes to, and the headers that the program adds to it."""

    url: str
    headers: Mapping[str, str]


def websocket_url(url: str) -> str:
    """Return `url` as it is asked for: ws or wss for http or https, in ASCII, no fragment.

    Raises ValueError if no such address can be reached.
    """
    try:
        parts = urlsplit(url)
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
        user, at, host = parts.netloc.rpartition("@")
        if parts.port == 0 or _NO_HOST.search(host):
            raise ValueError
        # Also for ASCII: a label that is empty or too long is found here, and not by a resolver.
        host = host.encode("idna").decode()
        path, query = (quote(part, safe=_URL_CHARACTERS) for part in (parts.path, parts.query))
        user = quote(user, safe=_URL_CHARACTERS)
        address = urlunsplit((scheme, user + at + host, path, query, ""))
        if ":" in (parse_uri(address).username or ""):  # Basic authentication has no form of it
            raise ValueError
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


class BadRedirect(InvalidStatus):
    """A redirect that is not followed; `why` says why."""

    def __init__(self, response: Response, why: str) -> None:
        super().__init__(response)
        self.why = why


def redirected(target: Target, response: Response) -> Target | None:
    """Return where `response` leads; None if it is no redirect. Raises `BadRedirect`.

    An https: Location means wss:. TLS is never left. The program's headers may hold secrets, and
    only a program knows which: they go to the same origin, and from ws: to wss: of the same host
    on the usual ports, and nowhere else.
    """
    location = _header(response, "Location")
    if response.status_code not in _REDIRECTS or not location:
        return None
    try:
        url = websocket_url(urljoin(target.url, location))
    except ValueError:
        why = f"redirected to {without_secrets(location)!r}, which is no WebSocket address"
        raise BadRedirect(response, why) from None
    old, new = parse_uri(target.url), parse_uri(url)
    if old.secure and not new.secure:
        raise BadRedirect(response, f"redirected from TLS to {without_secrets(url)!r}")
    if not _has_same_owner(old, new):
        return Target(url, {})
    if new.username is None and old.username is not None:
        parts = urlsplit(url)
        user = urlsplit(target.url).netloc.rpartition("@")[0]
        url = urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc}"))
    return Target(url, target.headers)


def _has_same_owner(old: WebSocketURI, new: WebSocketURI) -> bool:
    is_same = (old.secure, old.port) == (new.secure, new.port)
    is_upgrade = not old.secure and new.secure and (old.port, new.port) == (80, 443)
    return old.host == new.host and (is_same or is_upgrade)


# Answers of a server, and the ends of connections.


def closed(error: ConnectionClosed) -> Ending:
    """Return what the end of an open connection means."""
    close = _first_close(error)
    follows = Follows.ANOTHER if should_come_back(close.code) else Follows.NONE
    return Ending(close, follows, error=error)


def _first_close(error: ConnectionClosed) -> Close:
    """Return the close that began it; 1006 when neither side said anything."""
    received, sent = error.rcvd, error.sent
    by_server = received is not None and (sent is None or bool(error.rcvd_then_sent))
    first = received if by_server else sent
    if first is None:
        return Close(ABNORMAL, "the connection broke", by_server=True)
    return Close(first.code, first.reason, by_server)


def after_refusal(status: int) -> Follows:
    """Return what follows an HTTP answer instead of the upgrade.

    A fault of the server, and what is temporary by its meaning, passes. What tells of a wrong
    place (a page, a redirect, 404) is mended by a deployment or never. The rest of 4xx says that
    the same request will get the same answer.
    """
    if status >= 500 or status in _TEMPORARY:
        return Follows.ANOTHER
    if status < 400 or status in _WRONG_PLACE:
        return Follows.A_FEW
    return Follows.NONE


def refused(response: Response, why: str = "") -> Ending:
    """Return what an HTTP answer instead of the upgrade means; `why` replaces its own reason."""
    status = response.status_code
    close = Close(status, why or _reason_of(response), by_server=True)
    header = _header(response, "Retry-After") if status in _BUSY else ""
    return Ending(close, after_refusal(status), read_retry_after_s(header))


def may_be_http(first_bytes: bytes) -> bool:
    """Tell whether an answer that begins so is HTTP/1.x: no bytes at all may become it."""
    return b"HTTP/1.".startswith(first_bytes[:7])


def read_status(first_bytes: bytes) -> tuple[int, str]:
    """Return status and phrase of an answer that `websockets` does not take for one: HTTP/1.0, a
    body that is too long, or never whole. (0, "") if there is none.
    """
    found = _STATUS_LINE.match(first_bytes)
    return (int(found[1]), (found[2] or b"").decode("iso-8859-1").strip()) if found else (0, "")


def _reason_of(response: Response) -> str:
    """Return the sentence of a refusal: "error" of the JSON body, else its text, else the phrase."""
    body = bytes(response.body or b"")
    try:
        text = msgspec.json.decode(body)["error"]
    except (ValueError, TypeError, KeyError, RecursionError):
        text = None
    if not isinstance(text, str) or not text:
        is_plain = _header(response, "Content-Type").startswith("text/plain")
        text = body.decode("utf-8", "replace").strip() if is_plain else ""
    return text[:_MAX_REASON_CHARACTERS] or _phrase_of(response)


def _phrase_of(response: Response) -> str:
    try:
        return response.reason_phrase or HTTPStatus(response.status_code).phrase
    except ValueError:  # a number without a name
        return f"HTTP {response.status_code}"


def _header(response: Response, name: str) -> str:
    """Return the first header of that name; "" without one."""
    return next(iter(response.headers.get_all(name)), "")


def read_retry_after_s(value: str, now: Callable[[], float] = time.time) -> float:
    """Read a Retry-After header, seconds or a date (RFC 9110 section 10.2.3); 0 for nonsense."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return _bounded(float(value))
    try:
        date = email.utils.parsedate_to_datetime(value)
        # A date without a zone is in GMT, as all of HTTP's are.
        return _bounded((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now())
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


# Failures.


class FunctionFailed(Exception):
    """A function of the program's, for the address or the headers, raised something."""


class FunctionWrong(Exception):
    """A function of the program's returned what can be no address, or no headers."""


class Cause(NamedTuple):
    """One kind of failure: how it is told, the close code it counts as, what follows.

    `text` begins the reason, "" leaves it to the exception; `meaning` is for the documentation.
    """

    name: str
    shows: Callable[[Exception], bool]
    code: int
    follows: Follows
    text: str
    meaning: str


def _is(*kinds: type[Exception]) -> Callable[[Exception], bool]:
    return lambda error: isinstance(error, kinds)


def _ended_early(error: Exception) -> bool:
    kinds = (InvalidMessage, InvalidProxyMessage)
    return isinstance(error, kinds) and isinstance(error.__cause__, EOFError)


def _is_out_of_date(error: Exception) -> bool:
    is_certificate = isinstance(error, ssl.SSLCertVerificationError)
    return is_certificate and getattr(error, "verify_code", 0) in _CERTIFICATE_TIMES


def _is_passing_tls(error: Exception) -> bool:
    """Tell whether TLS ended in a way that passes: cut off, or the server's own fault."""
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)):
        return True
    return isinstance(error, ssl.SSLError) and "INTERNAL_ERROR" in str(
        getattr(error, "reason", "")  # an error that OpenSSL did not raise has none
    )


ANOTHER, A_FEW, NONE = Follows

CAUSES: tuple[Cause, ...] = (
    Cause(
        "function failed",
        _is(FunctionFailed),
        ABNORMAL,
        ANOTHER,
        "",
        "The function for `url` or `headers` raised an exception (not `Disconnected`).",
    ),
    Cause(
        "function wrong",
        _is(FunctionWrong),
        ABNORMAL,
        NONE,
        "",
        "The function for `url` or `headers` returned what is no address, or no headers.",
    ),
    Cause(
        "ended early",
        _ended_early,
        ABNORMAL,
        ANOTHER,
        "the connection ended before the answer",
        "The connection ended before the answer of the server or the proxy was complete.",
    ),
    Cause(
        "proxy wrong",
        _is(InvalidProxy, ImportError),
        ABNORMAL,
        NONE,
        "the proxy cannot be used",
        "The address of the system's proxy is wrong, or it is a SOCKS proxy and `python-socks` is "
        "not installed.",
    ),
    Cause(
        "proxy not HTTP",
        _is(InvalidProxyMessage),
        ABNORMAL,
        A_FEW,
        "the proxy's answer is not HTTP",
        "The answer of the proxy is not HTTP.",
    ),
    Cause(
        "proxy failed",
        _is(ProxyError),
        ABNORMAL,
        ANOTHER,
        "the proxy failed",
        "A SOCKS proxy reaches no server.",
    ),
    Cause(
        "not HTTP",
        _is(InvalidMessage),
        PROTOCOL_ERROR,
        A_FEW,
        "the answer is not HTTP",
        "The answer is not HTTP: the port of another service, or `ws:` where TLS is spoken.",
    ),
    Cause(
        "no handshake",
        _is(InvalidHandshake),
        PROTOCOL_ERROR,
        A_FEW,
        "the answer is no WebSocket handshake",
        "The answer says 101 and is no WebSocket handshake: a wrong `Sec-WebSocket-Accept`, a "
        "subprotocol or an extension that was not offered.",
    ),
    Cause(
        "certificate out of date",
        _is_out_of_date,
        TLS_FAILURE,
        ANOTHER,
        "",
        "The server's certificate has expired or is not valid yet: it is renewed, or this "
        "machine's clock is set.",
    ),
    Cause(
        "certificate wrong",
        _is(ssl.SSLCertVerificationError),
        TLS_FAILURE,
        A_FEW,
        "",
        "The server's certificate is for another name, or nobody trusted signed it.",
    ),
    Cause(
        "TLS cut off",
        _is_passing_tls,
        TLS_FAILURE,
        ANOTHER,
        "",
        "The TLS handshake was cut off, or the server had an internal error in it.",
    ),
    Cause(
        "TLS failed",
        _is(ssl.SSLError),
        TLS_FAILURE,
        A_FEW,
        "",
        "The TLS handshake failed: no TLS on that port, no version or cipher in common, a client "
        "certificate wanted.",
    ),
    Cause(
        "no network",
        _is(OSError),
        ABNORMAL,
        ANOTHER,
        "",
        "Nobody listens, the name is not found, the network is gone, the connection was reset, no "
        "answer came within `open_timeout_s`; the same on the way to a proxy.",
    ),
    Cause(
        "unknown",
        _is(Exception),
        ABNORMAL,
        A_FEW,
        "",
        "Anything else; it is the `__cause__` of the `Disconnected`.",
    ),
)
"""What an attempt may fail with, other than an answer of the server: the first that fits counts."""


def ending_of(error: Exception) -> Ending:
    """Return what it means that an attempt or a connection ended with `error`, whatever it is."""
    if isinstance(error, Disconnected):  # what a function of the program's may say
        return Ending(Close(error.code, error.reason), Follows.NONE, error=error)
    if isinstance(error, ConnectionClosed):
        return closed(error)
    if isinstance(error, InvalidStatus):
        return refused(error.response, getattr(error, "why", ""))._replace(error=error)
    if isinstance(error, InvalidProxyStatus):
        why = f"the proxy answered {error.response.status_code} {_phrase_of(error.response)}"
        return refused(error.response, why)._replace(error=error)
    cause = next(cause for cause in CAUSES if cause.shows(error))
    reason = ": ".join(filter(None, ("cannot connect", cause.text, _text_of(error))))
    return Ending(Close(cause.code, reason), cause.follows, error=error)


def _text_of(error: Exception) -> str:
    """Return what an exception says, on one line and without secrets."""
    if isinstance(error, InvalidProxy):
        return f"{without_secrets(error.proxy)!r}: {error.msg}"
    if isinstance(error, (InvalidMessage, InvalidProxyMessage)):
        return printable(str(error.__cause__ or ""))
    known = (OSError, InvalidHandshake, ImportError, FunctionFailed, FunctionWrong)
    text = str(error)
    kind = type(error).__name__
    return printable(text if text and isinstance(error, known) else f"{kind}: {text}".rstrip(": "))
