"""Fetch: one HTTP request for a document, off the event loop, with an end to its time and size.

What must not live here: what is in the document, and when it is fetched. `key_set` calls it.

The request runs in a daemon thread of its own, not in the loop's executor: the end of a loop waits for what its
executor still does, and a server that hangs must not hold up a shutdown.
"""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

MAX_DOCUMENT_BYTES = 256 * 1024
"""How large a document may be. A set of keys has some thousand bytes."""
_HEADERS = {"Accept": "application/jwk-set+json, application/json", "User-Agent": "hubbub"}

T = TypeVar("T")


class Source(NamedTuple):
    """Where a document is: its URL, how many seconds it may take, whom TLS trusts (None: the system)."""

    url: str
    timeout_s: float
    ssl_context: ssl.SSLContext | None = None

    @property
    def shown(self) -> str:
        """The URL without its query, in which a secret may be."""
        return self.url.partition("?")[0]


def fault_of_url(url: object) -> str:
    """Say why a document must not be fetched from `url`; nothing if it may.

    Plain HTTP is for this machine alone: whoever can change keys on their way can sign tokens.
    """
    if not isinstance(url, str) or not (url.isascii() and url.isprintable()) or " " in url:
        return "must be a URL, as in https://login.example.com/.well-known/jwks.json"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        return "must be a URL that begins with https:// and names a host"
    if parts.username is not None or parts.fragment:
        return "must be a URL without a user, a password and a fragment"
    if parts.scheme == "http" and not _is_loopback(host):
        return "must begin with https://; http:// is for this machine alone (127.0.0.1, localhost)"
    return ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def fetch(source: Source, read: Callable[[bytes], T]) -> T:
    """Return what `read` makes of the document; it runs in the thread too.

    Redirects are not followed. Raises `OSError` or `http.client.HTTPException` for a request that
    fails, `TimeoutError` after `source.timeout_s`, `ValueError` for a document that is too large, and what
    `read` raises.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()
    request = _Request(source)

    def work() -> None:
        try:
            settle = partial(_settle, answer, read(request.run()), None)
        except BaseException as error:  # whatever it is, somebody waits for it
            settle = partial(_settle, answer, None, error)
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle)

    threading.Thread(target=work, name="hubbub-fetch", daemon=True).start()
    try:
        async with asyncio.timeout(source.timeout_s) as timeout:
            return await answer
    except TimeoutError:
        if not timeout.expired():
            raise
        raise TimeoutError(f"there was no answer within {source.timeout_s:g} seconds") from None
    finally:
        request.abort()


def _settle(answer: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if answer.done():  # nobody waits any more
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like any other that is not 200."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _Request:
    """One request; `run` waits for its end, and `abort` ends it from another thread."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._socket: socket.socket | None = None
        self._is_over = False

    def run(self) -> bytes:
        """Return the document."""
        source = self._source
        request = urllib.request.Request(source.url, headers=_HEADERS)
        try:
            with self._opener().open(request, timeout=source.timeout_s) as response:
                status = response.status
                document: bytes = response.read(MAX_DOCUMENT_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                status, document = error.code, b""
        if status != 200:
            raise OSError(f"the answer has the status {status}")
        if len(document) > MAX_DOCUMENT_BYTES:
            raise ValueError(f"the answer has more than {MAX_DOCUMENT_BYTES} bytes")
        return document

    def abort(self) -> None:
        """End the request if it still goes on: what its thread waits for fails at once."""
        self._is_over = True
        if self._socket is not None:
            with suppress(OSError):
                # Not SSLSocket's own, which changes what the other thread works with.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _opener(self) -> urllib.request.OpenerDirector:
        # The proxies of the environment are for the way out, not for this machine.
        proxies: dict[str, str] | None = {} if urlsplit(self._source.url).scheme == "http" else None
        return urllib.request.build_opener(
            urllib.request.ProxyHandler(proxies), _NoRedirects(), *self._handlers()
        )

    def _handlers(self) -> tuple[urllib.request.BaseHandler, ...]:
        """Return handlers that tell this request which socket they use."""
        keep, context = self._keep, self._source.ssl_context

        class Plain(http.client.HTTPConnection):
            def connect(self) -> None:
                super().connect()
                keep(self.sock)

        class Secure(http.client.HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                keep(self.sock)

        class PlainHandler(urllib.request.HTTPHandler):
            def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(Plain, req)

        class SecureHandler(urllib.request.HTTPSHandler):
            def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(Secure, req, context=context)

        return PlainHandler(), SecureHandler()

    def _keep(self, used: socket.socket) -> None:
        self._socket = used
        if self._is_over:
            self.abort()
