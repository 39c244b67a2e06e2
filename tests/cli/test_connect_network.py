"""`hubbub connect`: TLS, proxies and headers."""

from __future__ import annotations

import contextlib
import socket as sockets
import ssl
import threading

import pytest
from websockets.headers import build_authorization_basic
from websockets.sync.server import ServerConnection

from cli.connecting import PATIENTLY, echo, echo_times, secure_server, server
from commands import PATIENCE_S, run
from refusing import ThreadServer, read_head

# TLS and proxies.


def secure(certificate: tuple[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def test_fault_25_a_certificate_of_ones_own(certificate: tuple[str, str]) -> None:
    with secure_server(secure(certificate)) as url:
        url = url.replace("ws://", "wss://")
        arguments = ("connect", url, *PATIENTLY)
        assert run(*arguments, "--ca", certificate[0], stdin="x\n") == (0, "x\n", "")
        assert run(*arguments, "--insecure", stdin="x\n") == (0, "x\n", "")
        code, out, err = run("connect", url, stdin="x\n")
    assert (code, out) == (1, "")
    assert "CERTIFICATE_VERIFY_FAILED" in err
    assert "--ca FILE says whom to trust" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["ws://localhost", "--insecure"], "only wss:// has a certificate"),
        (["wss://localhost", "--ca", "/nowhere.pem"], "does not exist"),
        (["wss://localhost", "--proxy", "ftp://x"], "scheme ftp isn't supported"),
        (["wss://localhost", "--proxy", "http://x", "--no-proxy"], "exclude one another"),
        (["ws://localhost", "--header", "A: b\nC: d"], "has characters that no header can have"),
        (["ws://localhost", "--linger", "nan"], "is not a number of seconds"),
    ],
)
def test_fault_25_options_that_cannot_be_meant(arguments: list[str], expected: str) -> None:
    code, out, err = run("connect", *arguments)
    assert (code, out) == (2, "")
    assert expected in err


class Proxy(ThreadServer):
    """An HTTP proxy that knows CONNECT, and takes every name for 127.0.0.1."""

    def __init__(self, status: str = "200 OK") -> None:
        super().__init__()
        self.heads: list[str] = []
        self._status = status

    def serve(self, client: sockets.socket) -> None:
        head = read_head(client)
        self.heads.append(head)
        client.sendall(f"HTTP/1.1 {self._status}\r\n\r\n".encode())
        if not self._status.startswith("200"):
            return
        port = int(head.split()[1].rpartition(":")[2])
        with sockets.create_connection(("127.0.0.1", port)) as server_side:
            back = threading.Thread(target=_pass_on, args=(server_side, client))
            back.start()
            _pass_on(client, server_side)
            back.join(PATIENCE_S)


def _pass_on(source: sockets.socket, target: sockets.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(sockets.SHUT_WR)


def test_fault_25_through_a_proxy() -> None:
    with server(echo_times(1)) as url, Proxy() as proxy:
        with_password = proxy.url.replace("://", "://me:secret@")
        assert run("connect", url, "--proxy", with_password, *PATIENTLY, stdin="x\n") == (
            0,
            "x\n",
            "",
        )
    (head,) = proxy.heads
    assert head.startswith(f"CONNECT {url.split('/')[2]} HTTP/1.1\r\n")
    assert f"Proxy-Authorization: {build_authorization_basic('me', 'secret')}\r\n" in head


def test_fault_25_through_a_proxy_with_tls(certificate: tuple[str, str]) -> None:
    with secure_server(secure(certificate)) as url, Proxy() as proxy:
        url = url.replace("ws://127.0.0.1", "wss://localhost")
        arguments = ("connect", url, "--proxy", proxy.url, "--ca", certificate[0], *PATIENTLY)
        assert run(*arguments, stdin="x\n") == (0, "x\n", "")
    assert len(proxy.heads) == 1


def test_a_proxy_that_the_environment_names() -> None:
    with server(echo_times(1)) as url, Proxy() as proxy:
        url = url.replace("127.0.0.1", "hub.test")
        environment = {"http_proxy": proxy.url}
        code, out, err = run("connect", url, *PATIENTLY, stdin="x\n", env=environment)
        assert (code, out, err) == (0, "x\n", "")
    assert len(proxy.heads) == 1


def test_fault_25_a_proxy_that_refuses() -> None:
    with server(echo) as url, Proxy("407 No") as proxy:
        with_password = proxy.url.replace("://", "://me:secret@")
        code, out, err = run("connect", url, "--proxy", with_password, stdin="x\n")
    assert (code, out) == (1, "")
    assert "407" in err
    assert "secret" not in err
    assert err.count("\n") == 1


def test_fault_25_a_header_may_come_twice() -> None:
    seen: list[str] = []

    def look(socket: ServerConnection) -> None:
        assert socket.request is not None
        seen.append(socket.request.headers["X-Room"])

    with server(look) as url:
        assert run("connect", url, "--header", "X-Room: a", "--header", "X-Room: b")[0] == 0
    assert seen == ["a, b"]
