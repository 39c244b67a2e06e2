"""The error tree, and the one table of close codes.

What must not live here: anything that acts on an error. Everybody imports this module; it imports
nothing of ours, but a name for type checkers.

    HubbubError
    ├── SettingsError        before start: a setting is unknown or impossible
    ├── Refused              the handshake says no: an HTTP status and a JSON body
    ├── ProtocolError        the peer's bytes are not the protocol; becomes a close
    ├── CommandError         answered; the connection lives
    ├── PositionLost         what came after a position is not kept any more
    ├── MessagesMissed       a client program has missed something of a room for good
    ├── Unsubscribed         a client program is out of a room for good
    ├── CommandFailed        a command of a client program was refused, or not answered
    ├── Disconnected         a handler raises it to close its client
    ├── MissingExtra         an optional dependency is not installed
    ├── HubNotRunning        a verb needs the hub's event loop and there is none
    ├── StreamUnheard        nobody listens to a stream any more
    ├── SocketTaken          the application uses a socket that the hub has taken
    ├── TokenError           a JSON Web Token proves nothing
    │   ├── TokenInvalid             and never will
    │   ├── TokenExpired             now; it did, or it will
    │   └── TokenKeysUnavailable     as long as the keys cannot be had
    └── BrokerError
        └── BrokerUnavailable
            └── PublishedInPart     of many publications not all were taken
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Mapping
from typing import NamedTuple

if typing.TYPE_CHECKING:
    from .model import Position, Receipt

MAX_REASON_BYTES = 123
"""A close frame holds 125 bytes, two of which are the code (RFC 6455 section 5.5)."""


class CloseCode(NamedTuple):
    """One row of the table: what a close code means, and whether a client should come back."""

    code: int
    name: str
    come_back: bool
    meaning: str


_rows: list[CloseCode] = []


def _row(code: int, name: str, come_back: bool, meaning: str) -> int:
    """Add a row to the table, and return its code: so each code is written once."""
    _rows.append(CloseCode(code, name, come_back, meaning))
    return code


NORMAL = _row(1000, "normal", False, "The conversation is over; either side may say so.")
_row(1001, "going away", True, "The page was left, or the server goes away.")
PROTOCOL_ERROR = _row(1002, "protocol error", False, "The bytes were not RFC 6455.")
UNSUPPORTED_DATA = _row(
    1003, "unsupported data", False, "Text was expected and binary came, or the reverse."
)
NO_STATUS = _row(1005, "no status", True, "The close frame carried no code. Never sent.")
ABNORMAL = _row(1006, "abnormal", True, "The connection ended without a close frame. Never sent.")
INVALID_DATA = _row(1007, "invalid data", False, "A text message was not UTF-8.")
POLICY_VIOLATION = _row(
    1008, "policy violation", False, "The message broke a rule of the application."
)
MESSAGE_TOO_BIG = _row(
    1009, "message too big", True, "A message was larger than max_message_bytes."
)
_row(1010, "extension missing", False, "The client needed an extension and did not get it.")
INTERNAL_ERROR = _row(1011, "internal error", True, "A handler of the application failed.")
SERVICE_RESTART = _row(1012, "service restart", True, "The server shuts down or restarts.")
TRY_AGAIN_LATER = _row(
    1013, "try again later", True, "The server is overloaded, or its broker is away."
)
_row(1014, "bad gateway", True, "A proxy got no good answer. Never sent by the hub.")
TLS_FAILURE = _row(1015, "TLS failure", True, "The TLS handshake failed. Never sent.")
SHUTDOWN = _row(3001, "shutdown", True, "As 1012, for clients of the Centrifuge protocol.")
SERVER_ERROR = _row(3004, "server error", True, "As 1011, for clients of the Centrifuge protocol.")
TOKEN_EXPIRED = _row(
    3005, "token expired", True, "The time of Identity.expires_at; get a new token."
)
SUBSCRIPTION_EXPIRED = _row(
    3006,
    "subscription expired",
    True,
    "The time in a room that the server had put the client into is over; of the Centrifuge protocol alone.",
)
SLOW_CONSUMER = _row(
    3008, "slow consumer", True, "The outbox was full, or the socket took nothing in time."
)
INSUFFICIENT_STATE = _row(
    3010,
    "insufficient state",
    True,
    "Something was missed of a room that the server put the client into; it comes back with its position.",
)
NO_PONG = _row(3012, "no pong", True, "No sign of life within pong_timeout_s.")
TOO_MANY_MESSAGES = _row(
    3013, "too many messages", True, "More messages than messages_per_second allows."
)
INVALID_TOKEN = _row(3500, "invalid token", False, "A token that proves nothing.")
BAD_REQUEST = _row(3501, "bad request", False, "A command that no client of the dialect sends.")
STALE = _row(3502, "stale", False, "No connect command within handshake_timeout_s.")
DISCONNECTED = _row(3503, "disconnected", False, "The application sent this client away.")
CHANNEL_LIMIT = _row(
    3505,
    "channel limit",
    False,
    "More rooms than max_rooms_per_client, by a token, an identity or a connect handler; of the Centrifuge protocol alone.",
)
PERMISSION_DENIED = _row(
    3507, "permission denied", False, "As 1008, for clients of the Centrifuge protocol."
)
NOT_AVAILABLE = _row(
    3508,
    "not available",
    False,
    "A message of a Centrifuge client, in a hub that has room rules and no handler of messages.",
)
REPLACED = _row(3511, "replaced", False, "A newer connection took over this client id.")

CLOSE_CODES: tuple[CloseCode, ...] = tuple(_rows)
"""Codes that the hub sends or a client may see. Applications may use 4000-4999."""

RECONNECT_RANGES: tuple[tuple[int, int, bool], ...] = (
    (3000, 3499, True),
    (3500, 3999, False),
    (4000, 4499, True),
    (4500, 4999, False),
)
"""First code, last code, whether a client should come back. The ranges are Centrifuge's."""

_STAY_AWAY = frozenset(row.code for row in CLOSE_CODES if not row.come_back and row.code < 3000)


_WORDS = {row.code: row.name.replace(" ", "_") for row in CLOSE_CODES}


def close_word(code: int) -> str:
    """Return the name of a close code as one word; "application" for 4000 to 4999, else "other"."""
    return _WORDS.get(code) or ("application" if 4000 <= code <= 4999 else "other")


def should_come_back(code: int) -> bool:
    """Tell whether a client that was closed with `code` should connect again.

    Codes under 3000 follow `CLOSE_CODES`; an unknown one there counts as an accident (come back).
    Codes from 3000 follow `RECONNECT_RANGES`.
    """
    for first, last, come_back in RECONNECT_RANGES:
        if first <= code <= last:
            return come_back
    return code not in _STAY_AWAY


def is_sendable(code: int) -> bool:
    """Tell whether an endpoint may put `code` into a close frame (RFC 6455 section 7.4)."""
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))


def check_close(code: object, reason: object) -> None:
    """Raise `TypeError` or `ValueError` for what cannot be the code and reason of a close."""
    if not isinstance(code, int):
        raise TypeError(
            f"a close code is a number, such as 1000 or 4001, not {type(code).__name__}; the reason "
            "is the argument after it"
        )
    if not isinstance(reason, str):
        raise TypeError(f"the reason of a close is a str, not {type(reason).__name__}")
    if not is_sendable(code):
        raise ValueError(f"{code} is not a close code that may be sent (RFC 6455 section 7.4)")


def fit_reason(reason: str) -> str:
    """Cut `reason` to what a close frame can hold, never inside a character.

    Half a surrogate pair, which UTF-8 cannot carry, becomes a question mark.
    """
    return reason.encode("utf-8", "replace")[:MAX_REASON_BYTES].decode("utf-8", "ignore")


def _as_utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


_RETRY_AFTER = re.compile(r"retry after (\d+(?:\.\d+)?) s$")


def with_retry_after(reason: str, seconds: float) -> str:
    """Return the reason of a close that says after how many seconds to come back, an hour at most."""
    return f"{reason}; retry after {min(max(seconds, 0.001), 3600):.3f} s"


def retry_after_of(reason: str) -> float:
    """Return what such a reason says, in seconds; 0 for any other. An hour at most."""
    found = _RETRY_AFTER.search(reason)
    return min(float(found[1]), 3600.0) if found else 0.0


class HubbubError(Exception):
    """The root of every error that Hubbub raises. It can be pickled: what a task of Celery or of a pool of processes
    raises has to be."""

    def __reduce__(self) -> tuple[typing.Any, ...]:
        """See `pickle`: an error is made again by what it holds, since its text was built from that."""
        return _made_again, (type(self), self.args, self.__dict__)


def _made_again(
    kind: type[HubbubError], args: tuple[object, ...], state: dict[str, object]
) -> HubbubError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class SettingsError(HubbubError, ValueError):
    """A setting is unknown or impossible. Raised before anything starts.

    `field` is the setting's name, `value` what was given, `expected` what would be right (with its
    unit), `source` where the value came from, `nearest` the closest right name for an unknown one.
    What was given for an unknown name may be a secret: `value` is None then, and the text is without
    it (`shows_value=False`).
    """

    def __init__(
        self,
        field: str,
        value: object,
        expected: str,
        *,
        source: str = "keyword",
        nearest: str | None = None,
        shows_value: bool = True,
    ) -> None:
        self.field = field
        self.value = value
        self.expected = expected
        self.source = source
        self.nearest = nearest
        hint = f"; did you mean {nearest}?" if nearest else ""
        given = f"{field} = {value!r}" if shows_value else field
        super().__init__(f"{given} ({source}): {expected}{hint}")


class Refused(HubbubError):
    """The handshake says no: `status` is an HTTP status, the body is JSON.

    `code` is a short word for programs (`"unauthorized"`), `message` a sentence for people,
    `headers` are added to the response, `details` to the JSON body. Raises `TypeError` or
    `ValueError` for what an answer cannot carry.
    """

    def __init__(
        self,
        status: int = 401,
        code: str | None = None,
        message: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        if not (isinstance(status, int) and 400 <= status <= 599):
            raise ValueError(f"status must be an HTTP error, 400 to 599, not {status!r}")
        for name, text in (("code", code), ("message", message)):
            if not isinstance(text, str | None):
                raise TypeError(
                    f"{name} must be a str or None, not {type(text).__name__}: {text!r}"
                )
        default_code, default_message = _REFUSALS.get(status, ("refused", "Refused"))
        self.status: int = int(status)
        self.code: str = code or default_code
        self.message: str = message or default_message
        self.headers: dict[str, str] = dict(headers or {})
        self.details: dict[str, object] = dict(details or {})
        for key, value in self.headers.items():
            _check_header(key, value)
        if self.details:
            json.dumps(self.details, allow_nan=False)
        super().__init__(f"{status} {self.code}: {self.message}")

    def body(self) -> dict[str, object]:
        """Return the JSON body: `error` (a sentence), `code` (a word), and the details."""
        return {"error": self.message, "code": self.code, **self.details}


def _check_header(name: object, value: object) -> None:
    """Raise for a header that no answer can carry (RFC 9110 section 5.5)."""
    if not (isinstance(name, str) and isinstance(value, str)):
        raise TypeError(f"a header is a str and a str, not {name!r}: {value!r}")
    if not (_FIELD_NAME.fullmatch(name) and _FIELD_VALUE.fullmatch(value)):
        raise ValueError(f"no header may be {name!r}: {value!r}")


_FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

_REFUSALS: dict[int, tuple[str, str]] = {
    400: ("bad_request", "Bad Request"),
    401: ("unauthorized", "Unauthorized"),
    403: ("forbidden", "Forbidden"),
    404: ("not_found", "Not Found"),
    405: ("method_not_allowed", "Method Not Allowed"),
    408: ("request_timeout", "Request Timeout"),
    409: ("conflict", "Conflict"),
    410: ("gone", "Gone"),
    413: ("content_too_large", "Content Too Large"),
    415: ("unsupported_media_type", "Unsupported Media Type"),
    426: ("upgrade_required", "Upgrade Required"),
    429: ("too_many_requests", "Too Many Requests"),
    431: ("head_too_large", "Request Header Fields Too Large"),
    500: ("internal_error", "Internal Server Error"),
    502: ("bad_gateway", "Bad Gateway"),
    503: ("unavailable", "Service Unavailable"),
}

REFUSED_BY_A_SETTING = frozenset(
    {
        "origin_refused",
        "handshake_timeout",
        "overloaded",
        "too_many_clients",
        "too_many_from_address",
        "too_many_rooms",
    }
)
"""Refusals for which a setting is the reason, which may be wrong; the log's level is WARNING."""


class ProtocolError(HubbubError):
    """The peer's bytes are not the protocol; becomes a close with `close_code`."""

    def __init__(self, close_code: int, reason: str) -> None:
        self.close_code = close_code
        self.reason = reason
        super().__init__(f"{close_code} {reason}")


class CommandError(HubbubError):
    """A message was understood and refused; it is answered and the connection lives.

    `code` is a short word, `message` a sentence, `temporary` says that the same message may
    succeed later. Half a surrogate pair, which UTF-8 cannot carry, is a question mark in the reply.
    Raises `TypeError` for a code or a message that is no `str`.
    """

    def __init__(self, code: str, message: str, *, temporary: bool = False) -> None:
        for name, text in (("code", code), ("message", message)):
            if not isinstance(text, str):
                kind = type(text).__name__
                raise TypeError(f"CommandError: {name} must be a str, not {kind}: {text!r}")
        self.code = code
        self.message = message
        self.temporary = temporary
        super().__init__(f"{code}: {message}")

    def reply(self) -> dict[str, object]:
        """Return the JSON reply of the plain dialect."""
        code, message = _as_utf8(self.code), _as_utf8(self.message)
        reply: dict[str, object] = {"type": "error", "code": code, "message": message}
        if self.temporary:
            reply["temporary"] = True
        return reply


class PositionLost(HubbubError, LookupError):
    """What was published after a position is not kept any more, or never was.

    `is_other_epoch` says that the room's history began anew since; else the oldest of it has gone.
    Nothing is given in its place: a part is never shown as if it were all.
    """

    def __init__(self, room: str, *, is_other_epoch: bool) -> None:
        self.room = room
        self.is_other_epoch = is_other_epoch
        why = "its history began anew" if is_other_epoch else "it is not kept any more"
        super().__init__(f"not all that was published to {room!r} since then is there: {why}")


class MessagesMissed(HubbubError):
    """A client program has missed messages of a room, and cannot get them any more.

    Raised by the iteration over a `Subscription`, once for each gap, in its place among the messages:
    what was shown has to be loaded anew, and then the iteration goes on, after `position`. That is
    None in a room that keeps no history, where nobody knows whether anything was missed, and where what
    follows is whole by itself (the newest of a state, the text so far of a stream).
    """

    def __init__(self, room: str, position: Position | None) -> None:
        self.room = room
        self.position = position
        super().__init__(f"messages of {room!r} were missed and cannot be had any more")


class Unsubscribed(HubbubError):
    """A client program is not in a room, or not any more, and does not ask for it again.

    `code` is 100 to 1999 when the server has refused it (103: it may not), from 2000 when the server
    has taken it out, or does not give it again. A `token` function of `subscribe` may raise it: it is not
    asked again then.
    """

    def __init__(self, room: str, code: int, reason: str = "") -> None:
        self.room = room
        self.code = code
        self.reason = reason
        super().__init__(f"not in {room!r}: {code} {reason}".rstrip())


class CommandFailed(HubbubError):
    """A command of a client program was refused, or nobody knows what became of it.

    `code` is the server's from 100 on, and `temporary` says whether the same may succeed later. Others
    are the client's own: 1, no answer in time; 2, the connection was lost before the answer; 4, too many
    commands wait for a connection. `is_uncertain` says that it may have been carried out all the same.
    """

    def __init__(
        self, code: int, message: str, *, temporary: bool = False, is_uncertain: bool = False
    ) -> None:
        self.code: int = code
        self.message: str = message
        self.temporary: bool = temporary
        self.is_uncertain = is_uncertain
        super().__init__(f"{code}: {message}")


class Disconnected(HubbubError):
    """A handler raises it to close its client with `code` and `reason`.

    `hubbub.connect` raises it when a connection ended for good: `code` is then the close code, or
    the HTTP status when the handshake was refused. Without either it is 1002 for an answer that is
    no WebSocket's, 1015 for TLS, 1006 for the rest; `__cause__` is the exception that showed it.
    """

    def __init__(self, code: int = DISCONNECTED, reason: str = "") -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"{code} {reason}".rstrip())


class MissingExtra(HubbubError, ImportError):
    """An optional dependency is not installed: `package` is missing, `extra` brings it."""

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        install = f"hubbub[{extra}]" if extra != package else package
        super().__init__(f"{package} is not installed: run  pip install '{install}'")


class HubNotRunning(HubbubError, RuntimeError):
    """A verb needs the hub's event loop, and the hub is not running in one."""


class StreamUnheard(HubbubError):
    """Nobody has listened to a stream in `room` for `unheard_s` seconds; see `Room.stream`."""

    def __init__(self, room: str, unheard_s: float) -> None:
        self.room = room
        self.unheard_s = unheard_s
        super().__init__(f"nobody has listened to the stream in {room!r} for {unheard_s:g} s")


class SocketTaken(HubbubError, RuntimeError):
    """The application, or its framework, uses a socket that the hub has taken; `what` it tried.

    Whoever tries gets this error, and nobody else notices: the client stays connected.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(
            f"{what}: the hub owns this socket; use the client instead (client.send, client.close, "
            "the handlers of the hub)"
        )


class TokenError(HubbubError):
    """A JSON Web Token proves nothing. No text of it quotes the token, its claims or a key."""

    def refusal(self) -> Refused:
        """Return the answer to a handshake that came with the token."""
        return Refused(401, "token_invalid", str(self))


class TokenInvalid(TokenError):
    """The token is none of ours, or says what no token may say; `why` is the end of a sentence.

    The same token will never be good. Centrifuge closes with 3500 then.
    """

    def __init__(self, why: str, *, is_foreign: bool = False) -> None:
        self.why = why
        self.is_foreign = is_foreign
        """Whether it is a good token of somebody else, or for something else."""
        super().__init__(f"The token is not valid: {why}")


class TokenExpired(TokenError):
    """The token is of ours, and its time is over, or has not come.

    `claim` says which time: "exp" or "expire_at" has passed, "nbf" has not come. A client should
    come back with a new token; Centrifuge answers with 109.
    """

    def __init__(self, claim: str = "exp") -> None:
        self.claim = claim
        super().__init__(
            "The token is not valid yet" if claim == "nbf" else "The token has expired"
        )

    def refusal(self) -> Refused:
        """Return the answer to a handshake that came with the token."""
        return Refused(401, "token_expired", str(self))


class TokenKeysUnavailable(TokenError):
    """Nobody can say whether the token is good: its key is not at hand, and cannot be fetched now.

    The same token may be good later. The log says what went wrong.
    """

    def __init__(self) -> None:
        super().__init__("The keys that tokens are checked with cannot be fetched now")

    def refusal(self) -> Refused:
        """Return the answer to a handshake that came with the token."""
        return Refused(503, "token_keys_unavailable", str(self))


class BrokerError(HubbubError):
    """A broker could not do what was asked."""


class BrokerUnavailable(BrokerError):
    """The broker cannot be reached now; the same call may succeed later."""


class PublishedInPart(BrokerUnavailable):
    """The broker has not taken all of many publications; `__cause__` says why the first of those was not.

    `receipts` are those of the messages from the first one on, as far as they were tried. None stands for one that
    was refused: it may have been published, or not. What comes after them was not tried.
    """

    def __init__(self, why: BrokerUnavailable, receipts: typing.Sequence[Receipt | None]) -> None:
        self.receipts: typing.Sequence[Receipt | None] = tuple(receipts)
        count = sum(each is not None for each in self.receipts)
        tried = len(self.receipts)
        super().__init__(f"{why} ({count} of {tried} that were tried are known to be published)")
