"""uvicorn's HTTP protocol, which gives up on a client that does not finish its request's head.

What must not live here: HTTP (uvicorn and httptools read and write it), WebSockets
(`uvicorn`). uvicorn makes one for each connection (`--http hubbub:HttpProtocol`, `hubbub serve`).
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..errors import Refused
from ..limits import MAX_HEAD_BYTES, head_too_large, printable
from ..logs import RateLimitedLogger
from ..settings import Settings
from ..stats import process_stats

_log = RateLimitedLogger(time.monotonic)


@functools.cache
def environment() -> Settings:
    """Return the settings of the environment: all that is known before a hub has the request."""
    return Settings.load()


def head_timeout_s() -> float:
    """Return how long a head may take, in seconds: `handshake_timeout_s` of the environment."""
    return environment().handshake_timeout_s


def answer_of(refusal: Refused, default_headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the whole HTTP response to a request that no application is to answer.

    Its body is JSON, as where a hub refuses; the connection ends with it.
    """
    body = json.dumps(refusal.body()).encode()
    ours = {
        **refusal.headers,
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    headers = [*default_headers, *((key.lower().encode(), ours[key].encode()) for key in ours)]
    start = f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}".encode()
    return b"\r\n".join((start, *(b"%b: %b" % header for header in headers), b"", body))


class UvicornHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with a bound for the head of a request, in seconds and in bytes.

    Give it to uvicorn: `uvicorn app:app --http hubbub:HttpProtocol`. uvicorn waits for ever for a
    client that connects and sends nothing, or a byte now and then. Here such a connection ends
    after `handshake_timeout_s`, as the environment has it (`HUBBUB_HANDSHAKE_TIMEOUT_S`; a keyword
    of a hub does not reach as far), and with a 431 after `limits.MAX_HEAD_BYTES`. What comes after the
    head, and a connection kept alive between two requests, are uvicorn's business.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._deadline: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._is_head_open = False
        self._is_socket = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket, and see whether a head is still awaited after them."""
        super().data_received(data)
        if self.transport.is_closing() and not self._is_socket:
            self._abort_later()
            return
        if self._is_socket or not self._is_awaiting_head():
            self._stop_waiting()
            return
        self._wait_for_head()
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(head_too_large())

    def on_message_begin(self) -> None:
        """Note that a head has begun (httptools calls this)."""
        self._is_head_open = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that a head is complete (httptools calls this)."""
        self._is_head_open = False
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to the WebSocket protocol."""
        self._is_socket = True
        self._stop_waiting()
        super().handle_websocket_upgrade()

    def _is_awaiting_head(self) -> bool:
        # Line ends before a request (RFC 9112 section 2.2) begin no message, but end uvicorn's
        # keep-alive timer.
        is_idle = self.cycle is None or self.cycle.response_complete
        return self._is_head_open or (is_idle and self.timeout_keep_alive_task is None)

    def _wait_for_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(head_timeout_s(), self._give_up)

    def _stop_waiting(self) -> None:
        self._head_bytes = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, refusal: Refused) -> None:
        process_stats.refused_handshakes += 1
        self.transport.write(answer_of(refusal, self.server_state.default_headers))
        self.transport.close()
        self._abort_later()

    def _abort_later(self) -> None:
        """See that a connection that is being closed is soon gone, whether or not its peer reads."""
        self._stop_waiting()
        self._deadline = self.loop.call_later(head_timeout_s(), self.transport.abort)

    def _give_up(self) -> None:
        self._deadline = None
        process_stats.slow_handshakes += 1
        who = printable(self.client[0]) if self.client else "an unknown address"
        text = "a connection from %s sent no whole request within %g seconds; closed"
        _log.log(logging.INFO, "head", text, who, head_timeout_s())
        self.transport.abort()
