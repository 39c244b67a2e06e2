"""An issuer of tokens for the tests: its keys, what it signs, and a server that publishes its keys."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

SECRET = "the-secret-of-these-tests-has-sixty-four-bytes-0123456789-abcdef"

CURVES: dict[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(),
    "ES384": ec.SECP384R1(),
    "ES512": ec.SECP521R1(),
    "ES256K": ec.SECP256K1(),
}


def private_key(algorithm: str, name: str = "") -> Any:
    """Return a private key for an algorithm, the same one for each `name`. An RSA key may be "short"."""
    return _private_key(algorithm, name)


@functools.cache
def _private_key(algorithm: str, name: str) -> Any:
    if algorithm in CURVES:
        return ec.generate_private_key(CURVES[algorithm])
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 1024 if name == "short" else 2048)


def pem(key: Any) -> str:
    """Return the public half of a private key, as it is handed out."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(key.public_key().public_bytes(serialization.Encoding.PEM, form).decode())


def private_pem(key: Any) -> str:
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return str(key.private_bytes(serialization.Encoding.PEM, form, plain).decode())


def family(algorithm: str) -> str:
    """Return which algorithm's key is used for another: one RSA key does for all of RSA's."""
    return "RS256" if algorithm.startswith(("RS", "PS")) else algorithm


def sign(
    claims: Mapping[str, Any], algorithm: str = "HS256", key: Any = None, kid: str | None = None
) -> str:
    """Return a token that is signed with a key of ours (None: the secret, or the first of its kind)."""
    if key is None:
        key = SECRET if algorithm.startswith("HS") else private_key(family(algorithm))
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(dict(claims), key, algorithm, headers=headers)


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def forge(header: object, payload: bytes, secret: bytes = b"", digest: str = "") -> str:
    """Return a token that no library would make: any header, any payload, any text as the secret."""
    text = f"{encoded(json.dumps(header).encode())}.{encoded(payload)}"
    if not digest:
        return f"{text}."
    signature = hmac.new(secret, text.encode(), getattr(hashlib, digest)).digest()
    return f"{text}.{encoded(signature)}"


def sign_text(payload: str) -> str:
    """Return a token of a payload that no JSON library would write."""
    return forge({"alg": "HS256", "typ": "JWT"}, payload.encode(), SECRET.encode(), "sha256")


def jwk(key: Any, kid: str | None = "k1", **members: Any) -> dict[str, Any]:
    """Return the public half of a key as an entry of a key set."""
    kind = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "EdDSA"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        kind = "ES256"
    entry: dict[str, Any] = json.loads(jwt.get_algorithm_by_name(kind).to_jwk(key.public_key()))
    entry.pop("key_ops", None)
    named = {} if kid is None else {"kid": kid}
    return {**entry, **named, **members}


def key_set(*entries: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": entries}).encode()


Answer = Callable[[BaseHTTPRequestHandler], None]


def answer(document: bytes, status: int = 200, **headers: str) -> Answer:
    """Return an answer of a server: a document, and that is all."""

    def send(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(document)))
        request.end_headers()
        request.wfile.write(document)

    return send


class Issuer:
    """A server of keys on 127.0.0.1. `answer` may be changed while it runs; `requests` are counted."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answer: Answer = answer(b"{}")
        self.requests = 0
        self.came = threading.Event()
        """Set when a request has come."""
        self.may_go = threading.Event()
        """What hangs goes on once it is set, at the end of the test at the latest."""
        self.headers: dict[str, str] = {}

    def publish(self, *entries: Mapping[str, Any]) -> None:
        self.answer = answer(key_set(*entries))

    def publish_when_told(self, *entries: Mapping[str, Any]) -> None:
        def send(request: BaseHTTPRequestHandler) -> None:
            self.may_go.wait()
            answer(key_set(*entries))(request)

        self.answer = send

    def hang(self) -> None:
        """Answer nothing at all."""

        def send(_: BaseHTTPRequestHandler) -> None:
            self.may_go.wait()

        self.answer = send

    def trickle(self) -> None:
        """Begin an answer, and send another byte of its head all the time."""

        def send(request: BaseHTTPRequestHandler) -> None:
            request.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
            while not self.may_go.wait(0.01):
                request.wfile.write(b"x")

        self.answer = send

    def flood(self, megabytes: int) -> list[int]:
        """Send that much; return a list that gets how much was taken, once the peer has enough."""
        taken: list[int] = []

        def send(request: BaseHTTPRequestHandler) -> None:
            request.send_response(200)
            request.end_headers()
            block, sent = b"[" * 2**16, 0
            with suppress(OSError):
                while sent < megabytes * 2**20:
                    request.wfile.write(block)
                    sent += len(block)
            taken.append(sent)
            self.may_go.set()

        self.answer = send
        return taken


@contextmanager
def issuing(context: ssl.SSLContext | None = None) -> Iterator[Issuer]:
    """Serve keys on 127.0.0.1, with TLS if there is a `context`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.requests += 1
            issuer.headers = {name.lower(): value for name, value in self.headers.items()}
            issuer.came.set()
            with suppress(OSError):
                issuer.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass  # a handshake of TLS that the client has ended

    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "http" if context is None else "https"
    issuer = Issuer(f"{scheme}://127.0.0.1:{server.server_address[1]}/keys")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield issuer
    finally:
        issuer.may_go.set()
        server.shutdown()
        server.server_close()
        thread.join()
