"""Raised: what an exception of user code asks for, as a refused handshake and as a close code.

What must not live here: logging, counting, sockets. `endpoint` asks it for handshakes, `dispatcher` for
handlers. Frameworks' exceptions are known by what they carry, or by their name: none is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple, TypeGuard

from .errors import (
    INTERNAL_ERROR,
    MESSAGE_TOO_BIG,
    POLICY_VIOLATION,
    TOKEN_EXPIRED,
    TRY_AGAIN_LATER,
    UNSUPPORTED_DATA,
    BrokerError,
    CommandError,
    Disconnected,
    Refused,
    TokenError,
    TokenExpired,
    is_sendable,
)

STATUS_OF_CODE: dict[int, int] = {
    1001: 503,
    1002: 400,
    1003: 415,
    1007: 400,
    1009: 413,
    1011: 500,
    1012: 503,
    1013: 503,
    1014: 502,
    3000: 401,
    3005: 401,
    3008: 408,
    3013: 429,
}
"""The HTTP status of a handshake that is refused with a close code. All other codes are a 403, which
ASGI has for a close before the accept, except those of `OWN_STATUSES`."""

OWN_STATUSES = range(4400, 4600)
"""Codes of applications that are an HTTP status and 4000: 4401 is a 401, 4503 a 503."""

CODE_OF_STATUS: dict[int, int] = {
    408: TRY_AGAIN_LATER,
    413: MESSAGE_TOO_BIG,
    415: UNSUPPORTED_DATA,
    425: TRY_AGAIN_LATER,
    429: TRY_AGAIN_LATER,
    502: TRY_AGAIN_LATER,
    503: TRY_AGAIN_LATER,
    504: TRY_AGAIN_LATER,
}
"""The close code for an HTTP error that a handler raises. All others from 400 to 499 are a 1008
(policy violation), all others from 500 to 599 a 1011 (internal error)."""

_STATUS_OF_NAME = {
    "django.core.exceptions.PermissionDenied": 403,
    "django.core.exceptions.BadRequest": 400,
    "django.core.exceptions.SuspiciousOperation": 400,
    "django.http.response.Http404": 404,
}
"""Exceptions that carry nothing."""


class _HttpError(NamedTuple):
    status: int
    detail: object = None
    headers: Mapping[str, str] | None = None


class _Close(NamedTuple):
    code: int
    reason: str


def refusal_of(error: BaseException) -> Refused | None:
    """Return the refusal that `error`, raised during a handshake, asks for.

    None for an error that asks for nothing: the code that raised it has failed. `Refused` is
    itself; an HTTP error keeps its status, its detail and its headers; a close code becomes a
    status by `status_of_code`; a `CommandError` is a 403 with its code and message, a temporary
    one a 503, and so is a `BrokerError`. A `TokenError` says itself what it is: a 401, or a 503.
    """
    if isinstance(error, Refused):
        return error
    if isinstance(error, TokenError):
        return error.refusal()
    try:
        return _new_refusal(error)
    except (TypeError, ValueError):  # it carries what no answer can
        return None


def answer_of(error: BaseException) -> CommandError | None:
    """Return what a client is answered when a handler has raised `error`; None: it is not answered.

    What the broker could not do is no fault of the handler's, and may be done later.
    """
    if isinstance(error, BrokerError):
        return CommandError("unavailable", "try again later", temporary=True)
    return error if isinstance(error, CommandError) else None


def _new_refusal(error: BaseException) -> Refused | None:
    answer = answer_of(error)
    if answer is not None:
        return Refused(503 if answer.temporary else 403, answer.code, answer.message)
    http = _http_error_of(error)
    if http is not None:
        is_text = isinstance(http.detail, str)
        message = str(http.detail) if is_text else None
        details = None if is_text or http.detail is None else {"detail": http.detail}
        return Refused(http.status, message=message, headers=http.headers, details=details)
    close = _websocket_error_of(error)
    return None if close is None else Refused(status_of_code(close.code), message=close.reason)


def close_of(error: BaseException) -> tuple[int, str] | None:
    """Return the close code and the reason that `error`, raised by a handler, asks for.

    None for an error that asks for no close: what is answered (`answer_of`), and everything
    that is simply a failure. The code may be sent (RFC 6455 section 7.4); the reason may be too
    long for a close frame, see `errors.fit_reason`. A `Disconnected` or a WebSocket error with a code
    that may not be sent is a failure too. `TokenExpired` asks the client to come back with a new one.
    """
    if answer_of(error) is not None:
        return None
    if isinstance(error, TokenExpired):
        return TOKEN_EXPIRED, str(error)
    if isinstance(error, TokenError):
        error = error.refusal()
    if isinstance(error, Refused):
        return code_of_status(error.status), error.message
    http = _http_error_of(error)
    if http is not None:
        is_text = isinstance(http.detail, str) and http.detail
        return code_of_status(http.status), str(http.detail if is_text else _phrase(http.status))
    return _websocket_error_of(error)


def status_of_code(code: int) -> int:
    """Return the HTTP status for a handshake that is refused with a close code."""
    if code in OWN_STATUSES:
        return code - 4000
    return STATUS_OF_CODE.get(code, 403)


def code_of_status(status: int) -> int:
    """Return the close code for an HTTP status of 400 to 599."""
    return CODE_OF_STATUS.get(status, POLICY_VIOLATION if status < 500 else INTERNAL_ERROR)


def _http_error_of(error: BaseException) -> _HttpError | None:
    """Read an HTTP error of Starlette, FastAPI, Litestar, Django REST, Werkzeug or Django.

    The errors of HTTP *clients* carry a status too, that of somebody else's answer. They have no
    `detail`, or not both of `code` and `description`.
    """
    for status_name, detail_name in (("status_code", "detail"), ("code", "description")):
        detail = _carried(error, detail_name)
        status = None if detail is None else _carried(error, status_name)
        if _is_int(status) and 400 <= status <= 599:
            headers = _carried(error, "headers")
            return _HttpError(
                int(status), detail, headers if isinstance(headers, Mapping) else None
            )
    named = _named_status(error)
    return None if named is None else _HttpError(named)


def _named_status(error: BaseException) -> int | None:
    for kind in type(error).__mro__:
        status = _STATUS_OF_NAME.get(f"{kind.__module__}.{kind.__qualname__}")
        if status is not None:
            return status
    return None


def _websocket_error_of(error: BaseException) -> _Close | None:
    """Read a WebSocket error of Hubbub, Starlette, FastAPI or Litestar.

    What a WebSocket *client* raises (`ConnectionClosed` of websockets) carries a close frame, and
    not a code of its own.
    """
    own = vars(error)
    code, reason = own.get("code"), own.get("reason", own.get("detail"))
    if isinstance(error, Disconnected):
        reason = str(reason or "")
    if not (_is_int(code) and isinstance(reason, str) and is_sendable(code)):
        return None
    return _Close(int(code), reason)


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _carried(error: BaseException, name: str) -> object:
    """Return an attribute; None for one that is absent, or cannot be read."""
    try:
        return getattr(error, name, None)
    except Exception:
        return None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
