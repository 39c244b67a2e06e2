"""The addresses that a client may ask for, and how they are shown."""

from __future__ import annotations

import pytest

from hubbub.connection.addresses import websocket_url, without_secrets


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://localhost:8080/ws?a=b", "ws://localhost:8080/ws?a=b"),
        ("wss://example.com", "wss://example.com"),
        ("http://localhost/ws#part", "ws://localhost/ws"),
        ("https://example.com/ws", "wss://example.com/ws"),
        (
            "ws://b\xfccher.example:80/\xe4%20b c",
            "ws://xn--bcher-kva.example:80/%C3%A4%20b%20c",
        ),
        ("ws://[::1]:8080/a?q=\xfc", "ws://[::1]:8080/a?q=%C3%BC"),
        ("ws://ann:p%20s@host/", "ws://ann:p%20s@host/"),
    ],
)
def test_http_means_ws(url: str, expected: str) -> None:
    assert websocket_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8080/ws",
        "ftp://x/",
        "ws://",
        "ws://[::1",
        "ws://a..b/",
        f"ws://{'a' * 64}.example/",
        "ws://ho st/",
        "ws://h:0/",
        "ws://h:99999/",
        "ws://h:x/",
        "ws://ann@h/",
        "ws://a%3Ab:c@h/",
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match="is no WebSocket address"):
        websocket_url(url)


def test_an_error_shows_no_secret() -> None:
    with pytest.raises(ValueError, match="ftp://host/ws") as caught:
        websocket_url("ftp://ann:pass@host/ws?token=secret")
    assert "secret" not in str(caught.value)
    assert "pass" not in str(caught.value)
    assert without_secrets("ws://u:p@host/ws?token=s#t") == "ws://host/ws"
