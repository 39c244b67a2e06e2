"""Limits: how fast, how long, how named. Pure checks; the clock is an argument.

What must not live here: what happens to who breaks one. Called by `dispatcher` and `registry`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from urllib.parse import unquote_plus

from .errors import CommandError, Refused
from .model import USER_PREFIX, check_user_text

_SHOWN_HOST = r"(?:[\w.%-]+|\[[\w:.%]+\])(?::\d+)?"
_SHOWN_PLACE = re.compile(rf"(?:{_SHOWN_HOST}(?:,{_SHOWN_HOST})*|(?::\d+)?)(?:/[\w./%~+-]*)?")
"""Hosts, ports and a path: of a URL, what is no secret."""
MAX_ROOM_NAME_BYTES = 256
MAX_CLIENT_ID_LENGTH = 64
MAX_HEAD_BYTES = 64 * 1024
"""How long the head of a request to a hub may be: its first line and all its headers."""
MAX_HEADERS = 256
"""How many headers a request to a hub may have."""
BURST_S = 2.0
"""How many seconds' worth of messages a client may send at once under `messages_per_second`."""
TURN_INFLATED_BYTES = 2 * 2**20
"""How many bytes one turn of the event loop inflates, of all clients: a megabyte takes milliseconds."""
LEAST_FRAMES_PER_SECOND = 10.0
"""How many frames that are no messages (pings, tiny fragments) a client may send a second at least."""
TELL_EVERY_S = 1.0
"""How often a client is told that it sends too fast, when it is told and not closed."""

TOKEN_PARAMETERS = frozenset({"token", "access_token", "jwt", "key", "secret", "api_key"})
"""Query parameters whose values must not reach a log."""

_UNPRINTABLE = re.compile(rb"[^\x21-\x7e]")
_NEVER_IN_ROOM_NAMES = re.compile(
    r"[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_ID_MARKS = frozenset("-_.:@+")


class TokenBucket:
    """Allows `rate_per_second` on the average and `burst` at once (at least one)."""

    __slots__ = ("_level", "_stamp", "_told_at", "burst", "rate_per_second")

    def __init__(self, rate_per_second: float, burst: float, now: float) -> None:
        self.rate_per_second: float = rate_per_second
        self.burst: float = max(1.0, burst)
        self._level = self.burst
        self._stamp = now
        self._told_at = now - TELL_EVERY_S

    def take(self, now: float) -> bool:
        """Take one token; False when there is none."""
        level = self._level + (now - self._stamp) * self.rate_per_second
        self._level = min(level, self.burst)
        self._stamp = now
        if self._level < 1.0:
            return False
        self._level -= 1.0
        return True

    def may_tell(self, now: float) -> bool:
        """Tell whether who came too often may be told so now: once per `TELL_EVERY_S`.

        An answer to each message would let a small message cause a larger one at will.
        """
        if now - self._told_at < TELL_EVERY_S:
            return False
        self._told_at = now
        return True


class TurnBudget:
    """Allows all clients together so much work in one turn of the event loop.

    What is charged may go beyond it once. Who makes the first charge of a turn has `renew` called
    in the next one.
    """

    __slots__ = ("_left", "_most")

    def __init__(self, most: int) -> None:
        self._left = self._most = most

    @property
    def is_spent(self) -> bool:
        """Whether the turn has had its share."""
        return self._left <= 0

    def charge(self, amount: int) -> bool:
        """Take `amount`; return whether it is the first of this turn."""
        is_first = self._left == self._most
        self._left -= amount
        return is_first and amount > 0

    def renew(self) -> None:
        """Begin a turn."""
        self._left = self._most


def check_head(target_bytes: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Raise `Refused(431)` for a request's head over `MAX_HEAD_BYTES` or `MAX_HEADERS`.

    `target_bytes` is the length of its path and query. To be asked before anything is read from
    the headers, so that what a request costs is bounded.
    """
    if len(headers) > MAX_HEADERS:
        raise head_too_large()
    total = target_bytes + 4 * len(headers)
    for name, value in headers:
        total += len(name) + len(value)
    if total > MAX_HEAD_BYTES:
        raise head_too_large()


def head_too_large() -> Refused:
    """Return the refusal of a head that is too large (RFC 6585 section 5)."""
    limit = f"{MAX_HEADERS} headers and {MAX_HEAD_BYTES // 1024} KiB"
    return Refused(431, message=f"The request's head is larger than {limit}")


def check_room_name(name: object) -> str:
    """Return `name` if an application may use it for a room; raise `CommandError` otherwise.

    The rule: 1 to 256 bytes of UTF-8; it does not begin with "@" (those rooms belong to users); and
    it has none of the characters that break a line or turn the text around it: control characters
    (U+0000 to U+001F, U+007F to U+009F), the separators of lines and paragraphs (U+2028, U+2029),
    bidirectional embeddings, overrides and isolates (U+202A to U+202E, U+2066 to U+2069), and half
    surrogate pairs (U+D800 to U+DFFF). All else may stand in it: any space, joiners, emoji, and
    characters that this Python does not know yet. Two names are one if their characters are the
    same; nothing is normalised.
    """
    if not isinstance(name, str):
        raise CommandError("bad_room", f"a room's name is a string, not {type(name).__name__}")
    if not name:
        raise CommandError("bad_room", "a room's name must not be empty")
    if name.startswith(USER_PREFIX):
        raise CommandError("bad_room", f"a room's name must not begin with {USER_PREFIX!r}")
    # What is printable, by whatever tables, has none of them; asking that first is quicker.
    if not name.isprintable() and (found := _NEVER_IN_ROOM_NAMES.search(name)):
        raise CommandError("bad_room", f"a room's name must not hold U+{ord(found[0]):04X}")
    if len(name.encode()) > MAX_ROOM_NAME_BYTES:
        raise CommandError("bad_room", f"a room's name has at most {MAX_ROOM_NAME_BYTES} bytes")
    return name


def is_room_name(name: str) -> bool:
    """Tell whether an application may use `name` for a room; see `check_room_name`."""
    try:
        check_room_name(name)
    except CommandError:
        return False
    return True


def checked_user(user: object) -> str:
    """Return `user` if it may be a user's name; raise `TypeError` or `ValueError` otherwise."""
    if isinstance(user, str):
        check_user_text(user)
        return user
    raise TypeError(
        f"a user's name is a str, not {type(user).__name__}; of another key, write str(key)"
    )


def too_big(limit: int | None) -> str:
    """Return why a message is too big, for a close frame: the name of the limit, and how much it is."""
    return f"the message is larger than max_message_bytes, which is {limit}"


def explain(error: Exception, length: int = 200) -> str:
    """Say in one line of at most `length` characters what is wrong with a message.

    An error of pydantic is read: its text has many lines, an address, and the value itself, which
    may be a secret. The line names the field and the fault of the first, and how many follow.
    """
    return (
        printable(_explain_pydantic(error) or _text_of(error), length) or "the message was refused"
    )


def _text_of(error: Exception) -> str:
    try:
        return str(error).strip()
    except Exception:  # the text is of the application's own making
        return ""


def _explain_pydantic(error: Exception) -> str | None:
    read = getattr(error, "errors", None)
    if not callable(read):
        return None
    try:
        found = read(include_url=False, include_context=False, include_input=False)
        place = ".".join(str(part) for part in found[0]["loc"])
        text = f"{place}: {found[0]['msg']}" if place else str(found[0]["msg"])
    except Exception:  # it only looks like one
        return None
    return f"{text} (and {len(found) - 1} more)" if len(found) > 1 else text


def is_client_id(text: str) -> bool:
    """Tell whether `text` may be a client's id: 1 to 64 letters, digits and `-_.:@+`."""
    return 0 < len(text) <= MAX_CLIENT_ID_LENGTH and all(
        char.isalnum() or char in _ID_MARKS for char in text
    )


def printable(text: str, length: int = 200) -> str:
    """Make `text` safe for a log line: no control characters, no line ends, not too long."""
    cut = text[:length] + ("…" if len(text) > length else "")
    return "".join(
        char
        if char.isprintable() and unicodedata.category(char) != "Cf"
        else "\N{REPLACEMENT CHARACTER}"
        for char in cut
    )


def shown_url(url: str) -> str:
    """Return a URL without what may be secret in it: who logs in, with what, and its query."""
    scheme, _, rest = url.partition("://") if "://" in url else ("", "", url)
    before, *after = re.split(r"[?#]", rest, maxsplit=1)
    place = before.rpartition("@")[2]
    # An @ behind that: what is before may be a part of a password that has a ? or #.
    if "@" in "".join(after) or not _SHOWN_PLACE.fullmatch(place):
        place = "…"
    return printable(f"{scheme}://{place}" if scheme else place)


def escaped(text: str) -> str:
    """Make `text` one line of printable characters, and lose nothing: the others become escapes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def scrub_query(query_string: bytes) -> bytes:
    """Make a raw query string fit for a log: `***` for the values of `TOKEN_PARAMETERS`, no control
    characters, ASCII only (uvicorn fails at anything else).
    """
    if not query_string:
        return query_string
    query_string = _UNPRINTABLE.sub(lambda found: b"%%%02X" % found[0][0], query_string)
    parts = []
    for part in query_string.split(b"&"):
        name, separator, _ = part.partition(b"=")
        is_secret = separator and unquote_plus(name.decode("latin-1")).lower() in TOKEN_PARAMETERS
        parts.append(name + b"=***" if is_secret else part)
    return b"&".join(parts)
