"""A server that refuses, closes and breaks as its paths say, for the rows of refusals.json.

/page                      a page of this origin; hubbub.js lies beside it
/refuse/401                every request gets this status, and "because 401" as its error
/once/401                  the first handshake is accepted and cut, everything later as /refuse/401
/close/1012                each handshake is accepted, and closed with this code and "because 1012";
                           with 1005 by a close frame without a code, with 1006 and 1015 by a cut
/deaf                      each handshake is accepted, nothing is read, and the wire is cut soon
/fail/no_answer            silence; /fail/not_http: not HTTP; /fail/wire_cut: as /close/1006
/fail/ends_early           the request is read, and the connection closed
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self

from places import SOURCE, TESTS

ROWS = json.loads((TESTS / "refusals.json").read_text("utf-8"))

_STATIC = SOURCE / "static"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CUT = (1006, 1015)
_MAX_HEAD_BYTES = 65536


class ThreadServer:
    """One port of 127.0.0.1, one thread for each connection, which `serve` does what it likes with."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        """The address, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):  # where closing alone is enough to end `accept`
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(10)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._keep, args=(peer,), daemon=True).start()

    def _keep(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            peer.settimeout(10)
            self.serve(peer)

    def serve(self, peer: socket.socket) -> None:
        """Serve one connection, which is closed afterwards. An `OSError` ends it."""
        raise AssertionError("every kind of server serves in its own way")


class RefusingServer(ThreadServer):
    """Does as its paths say.

    `handshakes` counts the handshakes of each path (without its query), `gets` the other requests.
    """

    def __init__(self) -> None:
        super().__init__()
        self.handshakes: Counter[str] = Counter()
        self.gets: Counter[str] = Counter()

    def serve(self, peer: socket.socket) -> None:
        head = read_head(peer)
        if head:
            self._answer(peer, head)

    def _answer(self, peer: socket.socket, head: str) -> None:
        path = head.split(" ")[1].partition("?")[0]
        key = key_of(head)
        counts = self.gets if key is None else self.handshakes
        counts[path] += 1
        _, what, *rest = path.split("/")
        argument = rest[0] if rest else ""
        if what == "refuse" or (what == "once" and (key is None or self.handshakes[path] > 1)):
            _refuse(peer, int(argument))
        elif what == "once" and key is not None:
            _accept_and_close(peer, key, 1006)
        elif what == "close" and key is not None:
            _accept_and_close(peer, key, int(argument))
        elif argument == "wire_cut" and key is not None:
            _accept_and_close(peer, key, 1006)
        elif what == "deaf" and key is not None:
            _accept_and_read_nothing(peer, key)
        elif argument == "no_answer":
            _read_to_end(peer)
        elif argument == "ends_early":
            return
        elif argument == "not_http":
            peer.sendall(b"220 mail.example ready\r\n\r\n")
        elif path == "/hubbub.js":
            _respond(peer, 200, "text/javascript", (_STATIC / "hubbub.js").read_bytes())
        else:
            _respond(peer, 200, "text/html", b"<!doctype html><title>page</title>")


def read_head(peer: socket.socket) -> str:
    """Return the head of a request; "" if the peer ends before it is whole."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _MAX_HEAD_BYTES:
        chunk = peer.recv(_MAX_HEAD_BYTES)
        if not chunk:
            return ""
        head += chunk
    return head.decode("latin-1")


def key_of(head: str) -> str | None:
    """Return the key of a WebSocket handshake; None if the request is none."""
    found = re.search(r"\r\nsec-websocket-key: *(\S+)", head, re.I)
    return found and found[1]


def _read_to_end(peer: socket.socket) -> None:
    while peer.recv(_MAX_HEAD_BYTES):
        pass


def _refuse(peer: socket.socket, status: int) -> None:
    more = "Location: /elsewhere\r\n" if 300 <= status < 400 else ""
    if status in (429, 503):
        more = "Retry-After: 0\r\n"
    body = json.dumps({"error": f"because {status}"}).encode()
    _respond(peer, status, "application/json", b"" if status == 204 else body, more)


def _respond(peer: socket.socket, status: int, kind: str, body: bytes, more: str = "") -> None:
    head = (
        f"HTTP/1.1 {status} Because\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        f"Connection: close\r\n{more}\r\n"
    )
    peer.sendall(head.encode() + body)


def _accept_and_read_nothing(peer: socket.socket, key: str) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    accept_handshake(peer, key)
    time.sleep(0.5)
    # With this the kernel sends RST instead of FIN.
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _accept_and_close(peer: socket.socket, key: str, code: int) -> None:
    accept_handshake(peer, key)
    if code in _CUT:
        return
    payload = b"" if code == 1005 else struct.pack("!H", code) + f"because {code}".encode()
    peer.sendall(bytes([0x88, len(payload)]) + payload)
    peer.recv(_MAX_HEAD_BYTES)  # the answer; then it is the server that ends the connection


def accept_handshake(peer: socket.socket, key: str) -> None:
    """Answer a handshake with 101."""
    accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()
    head = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    peer.sendall(head.encode())


def attempts_of(row: dict[str, object], limit: int) -> int:
    """Return how many attempts a client makes at a row, out of `limit` that a test looks at."""
    if not row["comes_back"]:
        return 1
    return min(limit, int(ROWS["gives_up_after"]["never_open"])) if row.get("gives_up") else limit
