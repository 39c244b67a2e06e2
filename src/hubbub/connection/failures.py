"""What it means that an attempt or a connection ended with an exception, whoever raised it.

`outcome_of` takes whatever there can be: an answer of a server, a close, a failure of the network,
of TLS, of a proxy or of a function of the program's, and what nobody foresaw. Failures go by the
table `CAUSES`, which docs/coming-back.md is written from. Pure: no socket, no event loop. What must
not live here: the reading of answers (`refusals`).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import NamedTuple

from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidProxy,
    InvalidProxyMessage,
    InvalidProxyStatus,
    InvalidStatus,
    ProxyError,
)

from ..errors import ABNORMAL, PROTOCOL_ERROR, TLS_FAILURE, Disconnected
from ..limits import printable
from ..model import Close
from .addresses import without_secrets
from .outcome import AttemptEnded, Outcome, Retry, outcome_of_close
from .refusals import outcome_of_refusal, phrase_of

_CERTIFICATE_TIMES = (9, 10)
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


class FunctionFailed(Exception):
    """A function of the program's, for the address, the headers or a token, raised something."""


class FunctionWrong(Exception):
    """A function of the program's returned what can be no address, no headers, or no token."""


class Cause(NamedTuple):
    """One kind of failure: how it is told, the close code it counts as, whether a client retries.

    `text` begins the reason, "" leaves it to the exception; `meaning` is for the documentation.
    """

    name: str
    matches: Callable[[Exception], bool]
    code: int
    retry: Retry
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


CAUSES: tuple[Cause, ...] = (
    Cause(
        "function failed",
        _is(FunctionFailed),
        ABNORMAL,
        Retry.ALWAYS,
        "",
        "The function for `url`, `headers` or the connection's `token` raised an exception (not "
        "`Disconnected`). One that is asked for another token while the connection is open, or for a "
        "room's, is only asked again.",
    ),
    Cause(
        "function wrong",
        _is(FunctionWrong),
        ABNORMAL,
        Retry.NEVER,
        "",
        "The function for `url`, `headers` or a `token`, a room's too, returned what is no address, "
        "no headers, or no token.",
    ),
    Cause(
        "ended early",
        _ended_early,
        ABNORMAL,
        Retry.ALWAYS,
        "the connection ended before the answer",
        "The connection ended before the answer of the server or the proxy was complete.",
    ),
    Cause(
        "proxy wrong",
        _is(InvalidProxy, ImportError),
        ABNORMAL,
        Retry.NEVER,
        "the proxy cannot be used",
        "The address of the system's proxy is wrong, or it is a SOCKS proxy and `python-socks` is "
        "not installed.",
    ),
    Cause(
        "proxy not HTTP",
        _is(InvalidProxyMessage),
        ABNORMAL,
        Retry.LIMITED,
        "the proxy's answer is not HTTP",
        "The answer of the proxy is not HTTP.",
    ),
    Cause(
        "proxy failed",
        _is(ProxyError),
        ABNORMAL,
        Retry.ALWAYS,
        "the proxy failed",
        "A SOCKS proxy reaches no server.",
    ),
    Cause(
        "not HTTP",
        _is(InvalidMessage),
        PROTOCOL_ERROR,
        Retry.LIMITED,
        "the answer is not HTTP",
        "The answer is not HTTP: the port of another service, or `ws:` where TLS is spoken.",
    ),
    Cause(
        "no handshake",
        _is(InvalidHandshake),
        PROTOCOL_ERROR,
        Retry.LIMITED,
        "the answer is no WebSocket handshake",
        "The answer says 101 and is no WebSocket handshake: a wrong `Sec-WebSocket-Accept`, a "
        "subprotocol or an extension that was not offered.",
    ),
    Cause(
        "certificate out of date",
        _is_out_of_date,
        TLS_FAILURE,
        Retry.ALWAYS,
        "",
        "The server's certificate has expired or is not valid yet: it is renewed, or this "
        "machine's clock is set.",
    ),
    Cause(
        "certificate wrong",
        _is(ssl.SSLCertVerificationError),
        TLS_FAILURE,
        Retry.LIMITED,
        "",
        "The server's certificate is for another name, or nobody trusted signed it.",
    ),
    Cause(
        "TLS cut off",
        _is_passing_tls,
        TLS_FAILURE,
        Retry.ALWAYS,
        "",
        "The TLS handshake was cut off, or the server had an internal error in it.",
    ),
    Cause(
        "TLS failed",
        _is(ssl.SSLError),
        TLS_FAILURE,
        Retry.LIMITED,
        "",
        "The TLS handshake failed: no TLS on that port, no version or cipher in common, a client "
        "certificate wanted.",
    ),
    Cause(
        "no network",
        _is(OSError),
        ABNORMAL,
        Retry.ALWAYS,
        "",
        "Nobody listens, the name is not found, the network is gone, the connection was reset, no "
        "answer came within `open_timeout_s`; the same on the way to a proxy.",
    ),
    Cause(
        "unknown",
        _is(Exception),
        ABNORMAL,
        Retry.LIMITED,
        "",
        "Anything else; it is the `__cause__` of the `Disconnected`.",
    ),
)
"""What an attempt may fail with, other than an answer of the server: the first that fits counts."""


def outcome_of(error: Exception) -> Outcome:
    """Return what it means that an attempt or a connection ended with `error`, whatever it is."""
    if isinstance(error, AttemptEnded):
        return error.outcome
    if isinstance(error, Disconnected):  # what a function of the program's may say
        return Outcome(Close(error.code, error.reason), Retry.NEVER, error=error)
    if isinstance(error, ConnectionClosed):
        return outcome_of_close(error)
    if isinstance(error, InvalidStatus):
        return outcome_of_refusal(error.response, getattr(error, "why", ""))._replace(error=error)
    if isinstance(error, InvalidProxyStatus):
        why = f"the proxy answered {error.response.status_code} {phrase_of(error.response)}"
        return outcome_of_refusal(error.response, why)._replace(error=error)
    cause = next(cause for cause in CAUSES if cause.matches(error))
    reason = ": ".join(filter(None, ("cannot connect", cause.text, _text_of(error))))
    return Outcome(Close(cause.code, reason), cause.retry, error=error)


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
