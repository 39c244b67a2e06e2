"""What the options of `hubbub connect` mean for the handshake, and which it refuses."""

from __future__ import annotations

import importlib.util
import ssl
from pathlib import Path

import click
import pytest

from hubbub.cli.handshake import Seconds, choose_proxy, read_headers, tls_context

FAR = "ws://hub.example/ws"
PROXIES = ("http_proxy", "https_proxy", "ws_proxy", "wss_proxy", "socks_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_a_header_may_come_more_than_once() -> None:
    lines = ("X-Room: red", "Cookie: a=b", "x-room:blue", "cookie: c=d:e", "Accept-Language:")
    assert read_headers(lines, "t") == {
        "X-Room": "red, blue",
        "Cookie": "a=b; c=d:e",
        "Accept-Language": "",
        "Authorization": "Bearer t",
    }


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nonsense", "is not  Name: value"),
        (": value", "is not  Name: value"),
        ("A B: c", "has characters that no header can have"),
        ("A: b\r\nInjected: c", "has characters that no header can have"),
        ("A: €", "has characters that no header can have"),
        ("Host: other", "Host is written by the handshake itself"),
        ("Sec-WebSocket-Protocol: x", "is written by the handshake itself"),
    ],
)
def test_headers_that_no_handshake_can_carry(line: str, expected: str) -> None:
    with pytest.raises(click.BadParameter, match=expected):
        read_headers((line,))


def test_what_is_said_twice_is_refused() -> None:
    with pytest.raises(click.UsageError, match="--token and --header Authorization"):
        read_headers(("authorization: Basic x",), "t")
    with pytest.raises(click.UsageError, match="--origin and --header Origin"):
        read_headers(("Origin: https://a.example",), None, "https://b.example")
    with pytest.raises(click.UsageError, match="the address has a name and a password"):
        read_headers((), "t", None, "ws://me:secret@hub.example")
    assert read_headers(("Connection-Id: 5",), None, None, "ws://me:secret@hub.example")
    with pytest.raises(click.BadParameter, match="no header can have"):
        read_headers((), "a\nb")


def test_which_proxy_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_proxy(FAR, "localhost:3128", False) == "http://localhost:3128"
    assert choose_proxy("ws://127.0.0.1/", "http://p.example", False) == "http://p.example"
    assert choose_proxy(FAR, None, False) is True
    monkeypatch.setenv("https_proxy", "http://p.example:3128")
    assert choose_proxy(FAR, None, False) is True
    assert choose_proxy(FAR, None, True) is None
    for near in ("ws://localhost/ws", "ws://127.0.0.2:80/", "wss://[::1]/"):
        assert choose_proxy(near, None, False) is None


@pytest.mark.parametrize(
    ("proxy", "expected"),
    [
        ("ftp://p.example", "scheme ftp isn't supported"),
        ("http://me:secret@p.example/path", "path is meaningless"),
        ("", "hostname isn't provided"),
        ("http://p.example:port", "cannot be one"),
    ],
)
def test_a_proxy_that_cannot_be_one(
    proxy: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(click.BadParameter, match=expected) as error:
        choose_proxy(FAR, proxy, False)
    assert "secret" not in str(error.value)
    if proxy:
        monkeypatch.setenv("ws_proxy", proxy)
        with pytest.raises(click.ClickException, match=f"environment names.*{expected}"):
            choose_proxy(FAR, None, False)


def test_a_socks_proxy_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(click.BadParameter, match="pip install python-socks"):
        choose_proxy(FAR, "socks5h://p.example", False)


def test_both_proxy_options_contradict() -> None:
    with pytest.raises(click.UsageError, match="--proxy and --no-proxy"):
        choose_proxy(FAR, "http://p.example", True)


def test_the_usual_tls_is_left_alone() -> None:
    assert tls_context("wss://hub.example/", False, None) is None
    assert tls_context(FAR, False, None) is None


def test_insecure_trusts_anybody() -> None:
    context = tls_context("wss://hub.example/", True, None)
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)


def test_options_of_tls_that_mean_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("no certificate")
    with pytest.raises(click.UsageError, match="--insecure and --ca"):
        tls_context("wss://hub.example/", True, str(path))
    with pytest.raises(click.BadParameter, match="only wss:// has a certificate"):
        tls_context(FAR, True, None)
    with pytest.raises(click.BadParameter, match="only wss:// has a certificate"):
        tls_context(FAR, False, str(path))
    with pytest.raises(click.BadParameter, match="no certificates in it"):
        tls_context("wss://hub.example/", False, str(path))


def test_seconds() -> None:
    assert Seconds(0).convert("inf", None, None) == float("inf")
    for wrong in ("nan", "-1", "soon"):
        with pytest.raises(click.BadParameter):
            Seconds(0).convert(wrong, None, None)
