"""What an exception of user code asks for: one table for handshakes, one for handlers."""

from __future__ import annotations

import urllib.error
from email.message import Message
from http import HTTPStatus
from typing import Any

import pytest
from litestar import exceptions as litestar
from starlette.exceptions import HTTPException, WebSocketException
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from hubbub import (
    BrokerUnavailable,
    CommandError,
    Disconnected,
    Refused,
    TokenExpired,
    TokenInvalid,
    TokenKeysUnavailable,
)
from hubbub.errors import is_sendable
from hubbub.raised import (
    CODE_OF_STATUS,
    OWN_STATUSES,
    STATUS_OF_CODE,
    answer_of,
    close_of,
    code_of_status,
    refusal_of,
    status_of_code,
)


def named(name: str) -> Exception:
    """Return an error of a class that is named as a framework's is."""
    module, _, kind = name.rpartition(".")
    error: Exception = type(kind, (Exception,), {"__module__": module})()
    return error


class WerkzeugForbidden(Exception):
    """As Quart's `abort(403)` raises it."""

    code = 403
    description = "Not you"


class PaymentRequired(Exception):
    """As Django REST Framework's errors are made."""

    status_code = 402
    default_detail = "Pay"

    def __init__(self) -> None:
        self.detail = self.default_detail


class OddError(Exception):
    @property
    def detail(self) -> str:
        raise LookupError("an attribute that cannot be read")


def http_client_error() -> Exception:
    return urllib.error.HTTPError("http://elsewhere.example/", 403, "Forbidden", Message(), None)


class ApiStatusError(Exception):
    """What the client of somebody's API raises."""

    status_code = 401
    message = "the key of this server is wrong"


NOT_YET = "The token is not valid yet"
NO_KEYS = "The keys that tokens are checked with cannot be fetched now"
ASKING = [
    # what is raised, the refusal, the close
    (WebSocketException(1008), (403, "Forbidden"), (1008, "")),
    (WebSocketException(1008, "not here"), (403, "not here"), (1008, "not here")),
    (WebSocketException(1013, "full"), (503, "full"), (1013, "full")),
    (WebSocketException(4401, "log in"), (401, "log in"), (4401, "log in")),
    (WebSocketException(4001), (403, "Forbidden"), (4001, "")),
    (WebSocketException(3000), (401, "Unauthorized"), (3000, "")),
    (litestar.WebSocketException(detail="go", code=4500), (500, "go"), (4500, "go")),
    (Disconnected(), (403, "Forbidden"), (3503, "")),
    (Disconnected(4001, "bye"), (403, "bye"), (4001, "bye")),
    (Refused(409, "taken", "Taken"), (409, "Taken"), (1008, "Taken")),
    (TokenExpired(), (401, "The token has expired"), (3005, "The token has expired")),
    (TokenExpired("nbf"), (401, NOT_YET), (3005, NOT_YET)),
    (TokenInvalid("no"), (401, "The token is not valid: no"), (1008, "The token is not valid: no")),
    (TokenKeysUnavailable(), (503, NO_KEYS), (1013, NO_KEYS)),
    (HTTPException(403), (403, "Forbidden"), (1008, "Forbidden")),
    (HTTPException(HTTPStatus.NOT_FOUND, "no room"), (404, "no room"), (1008, "no room")),
    (HTTPException(429, "slowly"), (429, "slowly"), (1013, "slowly")),
    (HTTPException(500, "broken"), (500, "broken"), (1011, "broken")),
    (HTTPException(503), (503, "Service Unavailable"), (1013, "Service Unavailable")),
    (HTTPException(413, "long"), (413, "long"), (1009, "long")),
    (litestar.PermissionDeniedException("no"), (403, "no"), (1008, "no")),
    (litestar.NotAuthorizedException(), (401, "Unauthorized"), (1008, "Unauthorized")),
    (WerkzeugForbidden(), (403, "Not you"), (1008, "Not you")),
    (PaymentRequired(), (402, "Pay"), (1008, "Pay")),
    (named("django.core.exceptions.PermissionDenied"), (403, "Forbidden"), (1008, "Forbidden")),
    (named("django.http.response.Http404"), (404, "Not Found"), (1008, "Not Found")),
]


@pytest.mark.parametrize(
    ("error", "refusal", "close"), ASKING, ids=[f"{row[0]!r}"[:40] for row in ASKING]
)
def test_fault_19_what_an_error_asks_for_is_read_from_it(
    error: Exception, refusal: tuple[int, str], close: tuple[int, str]
) -> None:
    refused = refusal_of(error)
    assert refused is not None
    assert (refused.status, refused.message) == refusal
    assert close_of(error) == close


FAILURES = [
    ValueError("no"),
    KeyError("user"),
    HTTPException(302),
    HTTPException(200),
    WebSocketException(999),
    WebSocketException(1005),
    WebSocketException(True),
    Disconnected(999),
    Disconnected(401),
    OddError(),
    http_client_error(),
    ApiStatusError(),
    ConnectionClosedError(Close(1008, "elsewhere"), None),
]


def test_what_the_broker_could_not_do_may_be_done_later() -> None:
    error = BrokerUnavailable("the server does not answer")
    refused, answer = refusal_of(error), answer_of(error)
    assert refused is not None
    assert answer is not None
    assert (refused.status, refused.code, refused.message) == (503, answer.code, answer.message)
    assert (answer.code, answer.temporary, close_of(error)) == ("unavailable", True, None)


@pytest.mark.parametrize("error", FAILURES, ids=[f"{error!r}"[:40] for error in FAILURES])
def test_a_failure_asks_for_nothing(error: Exception) -> None:
    assert refusal_of(error) is None
    assert close_of(error) is None


def test_a_command_error_refuses_a_handshake_and_closes_nobody() -> None:
    refused = refusal_of(CommandError("forbidden", "Not that room"))
    assert refused is not None
    assert refused.status == 403
    assert refused.body() == {"error": "Not that room", "code": "forbidden"}
    later = refusal_of(CommandError("busy", "Later", temporary=True))
    assert later is not None
    assert later.status == 503
    assert close_of(CommandError("forbidden", "Not that room")) is None


def test_an_http_error_keeps_its_headers_and_a_detail_that_is_no_text() -> None:
    detail = {"why": "no token"}
    error: Any = HTTPException(401, detail, {"WWW-Authenticate": "Bearer"})  # type: ignore[arg-type]
    refused = refusal_of(error)
    assert refused is not None
    assert refused.headers == {"WWW-Authenticate": "Bearer"}
    assert refused.body() == {"error": "Unauthorized", "code": "unauthorized", "detail": detail}
    assert close_of(error) == (1008, "Unauthorized")


@pytest.mark.parametrize(
    "error",
    [
        HTTPException(401, "no", {"X-Line": "a\r\nSet-Cookie: b"}),
        HTTPException(401, "no", {"X-Number": 5}),  # type: ignore[dict-item]
        HTTPException(401, {"why": object()}),  # type: ignore[arg-type]
    ],
    ids=["line end", "number", "detail"],
)
def test_an_error_that_carries_what_no_answer_can_is_a_failure(error: Exception) -> None:
    assert refusal_of(error) is None


def test_the_tables_give_what_can_be_sent() -> None:
    assert all(400 <= status <= 599 for status in STATUS_OF_CODE.values())
    assert all(is_sendable(code) for code in CODE_OF_STATUS.values())
    assert all(is_sendable(code_of_status(status)) for status in range(400, 600))
    assert [status_of_code(code) for code in OWN_STATUSES] == list(range(400, 600))
    assert {status_of_code(code) for code in (1000, 1008, 3503, 4000, 4999)} == {403}
