"""What an HTTP answer instead of the upgrade means, and what can be read in it.

Pure: no socket, and a clock that can be replaced. What must not live here: redirects that are
followed (`redirects`), and what is no answer at all (`failures`).
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable
from datetime import UTC
from http import HTTPStatus

import msgspec
from websockets.http11 import Response

from ..model import Close
from .outcome import Outcome, Retry

MAX_RETRY_AFTER_S = 3600.0
"""The longest Retry-After that is believed."""

MAX_STATUS_LINE_BYTES = 256
"""How much of an answer is kept for `read_status`."""

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
_MAX_REASON_CHARACTERS = 200
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: ([\t -~\x80-\xff]*))?\r?\n")


def _retry_for(status: int) -> Retry:
    """Return whether another attempt follows an HTTP answer instead of the upgrade.

    A fault of the server, and what is temporary by its meaning, passes. What tells of a wrong
    place (a page, a redirect, 404) is mended by a deployment or never. The rest of 4xx says that
    the same request will get the same answer.
    """
    if status >= 500 or status in _TEMPORARY:
        return Retry.ALWAYS
    if status < 400 or status in _WRONG_PLACE:
        return Retry.LIMITED
    return Retry.NEVER


def outcome_of_refusal(response: Response, why: str = "") -> Outcome:
    """Return what an HTTP answer instead of the upgrade means; `why` replaces its own reason."""
    status = response.status_code
    close = Close(status, why or _reason_of(response), by_server=True)
    header = first_header(response, "Retry-After") if status in _BUSY else ""
    return Outcome(close, _retry_for(status), read_retry_after_s(header))


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
        is_plain = first_header(response, "Content-Type").startswith("text/plain")
        text = body.decode("utf-8", "replace").strip() if is_plain else ""
    return text[:_MAX_REASON_CHARACTERS] or phrase_of(response)


def phrase_of(response: Response) -> str:
    """Return the phrase of the status line, or the usual one for its number."""
    try:
        return response.reason_phrase or HTTPStatus(response.status_code).phrase
    except ValueError:  # a number without a name
        return f"HTTP {response.status_code}"


def first_header(response: Response, name: str) -> str:
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
