"""The gate: what a request must be before a page gets to see it.

A request that may change something does not come from a foreign page, and its body is bounded, in
bytes and in time, while it is read. What must not live here: what a body means (the controllers).
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import Refused
from ..hub.auth import is_same_origin

MAX_BODY_BYTES = 16 * 1024
BODY_TIMEOUT_S = 10.0
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_OWN_SITES = {"same-origin", "none"}
"""Values of Sec-Fetch-Site: from a page of ours, or typed by a person."""


class Gate:
    """ASGI middleware for requests of other methods than GET, HEAD and OPTIONS.

    It refuses with a JSON body: 403 to a foreign page, 413 for a body over `max_body_bytes`, 408
    for one that is not there within `body_timeout_s`.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_body_bytes: int = MAX_BODY_BYTES,
        body_timeout_s: float = BODY_TIMEOUT_S,
    ) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through with its body read, or refuse it."""
        if scope["type"] != "http" or scope["method"] in _SAFE_METHODS:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            check_sender(headers)
            body = await self._read(headers, receive)
        except Refused as refusal:
            # The server throws away what still comes of the body. To cut the connection instead would
            # keep the answer from clients that read it only after they have sent everything.
            answer = JSONResponse(refusal.body(), refusal.status, refusal.headers)
            await answer(scope, receive, send)
        else:
            await self.app(scope, _replayed(body, receive), send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > self.max_body_bytes:
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(self.body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(400, "incomplete", "The request ended before its body did")
                    body += message.get("body", b"")
                    if len(body) > self.max_body_bytes:
                        raise self._too_large()
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            text = f"The body was not there within {self.body_timeout_s:g} seconds"
            raise Refused(408, "body_timeout", text, headers={"Connection": "close"}) from None

    def _too_large(self) -> Refused:
        return Refused(413, "body_too_large", f"A body has {self.max_body_bytes} bytes at most")


def check_sender(headers: Headers) -> None:
    """Raise `Refused(403)` for a request that the page of another origin made.

    Browsers say in Sec-Fetch-Site where a request comes from, and no page can change that. Where it
    is missing (plain http, older browsers), `Origin` must be ours. Who sends neither is a program.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        is_ours = site in _OWN_SITES
    else:
        is_ours = origin is None or is_same_origin(origin.lower(), headers.get("host"))
    if not is_ours:
        raise Refused(403, "origin_refused", "Pages of another origin may not do this")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body in one piece, then what else the server says."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_body() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_body
