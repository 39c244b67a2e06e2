"""Heads of requests for a WebSocket: which are read, which are left to the core, which are refused."""

from __future__ import annotations

import pytest

from hubbub import Refused
from hubbub.limits import MAX_HEAD_BYTES, MAX_HEADERS
from hubbub.transports.uvicorn_head import is_ordinary, read_head
from transports.heads import KEY, LINES, head, without


def test_an_ordinary_request_is_read_by_itself() -> None:
    request = read_head(head(*LINES))
    assert request.url == b"/ws?a=1"
    assert request.headers[0] == (b"host", b"localhost")
    assert len(request.headers) == len(LINES)
    assert is_ordinary(request)


@pytest.mark.parametrize(
    "lines",
    [
        without("Host"),
        without("Sec-WebSocket-Key"),
        without("Sec-WebSocket-Version"),
        [*LINES, f"Sec-WebSocket-Key: {KEY}"],
        [*LINES, "Host: elsewhere"],
        [*without("Sec-WebSocket-Version"), "Sec-WebSocket-Version: 8"],
        [*without("Sec-WebSocket-Key"), "Sec-WebSocket-Key: c2hvcnQ="],
        [*without("Sec-WebSocket-Key"), "Sec-WebSocket-Key: not base 64"],
        [*without("Upgrade"), "Upgrade: websocket, h2c"],
    ],
)
def test_anything_unusual_is_left_to_the_core(lines: list[str]) -> None:
    assert not is_ordinary(read_head(head(*lines)))


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (head(*LINES, start="POST /ws HTTP/1.1"), 405),
        (head(*LINES, start="GET /ws HTTP/1.0"), 400),
        (head(*LINES, start="GET /w\xe4 HTTP/1.1"), 400),
        (head(*LINES)[:-2], 400),
        (head(*LINES) + b"more", 400),
        (head(*LINES, "Content-Length: 5"), 400),
        (head(*LINES, "Transfer-Encoding: chunked"), 400),
        (head(*without("Upgrade")), 400),
        (head(*without("Connection")), 400),
        (head(*without("Connection"), "Connection: close"), 400),
        (b"\x16\x03\x01\x02\x00", 400),
        (head(*LINES, "X: " + "x" * MAX_HEAD_BYTES), 431),
        (head(*LINES, *["X: x"] * (MAX_HEADERS - len(LINES) + 1)), 431),
    ],
)
def test_what_is_no_request_for_a_socket_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(Refused) as caught:
        read_head(data)
    assert caught.value.status == status


def test_the_largest_head_is_read() -> None:
    filled = head(*LINES, "X: ")
    longest = head(*LINES, "X: " + "x" * (MAX_HEAD_BYTES - len(filled)))
    assert len(longest) == MAX_HEAD_BYTES
    assert is_ordinary(read_head(longest))
    most = head(*LINES, *["X: x"] * (MAX_HEADERS - len(LINES)))
    assert len(read_head(most).headers) == MAX_HEADERS
