"""Auth: origins, and what an authenticate handler may answer."""

from __future__ import annotations

import pytest

from hubbub import Handshake, Identity, Refused, Settings
from hubbub.hub.auth import (
    check_expiry,
    check_origin,
    is_same_origin,
    requested_client_id,
    to_identity,
)


def handshake(
    origin: str | None = None, host: str | None = "example.com", query: str = ""
) -> Handshake:
    headers = {"origin": origin, "host": host}
    return Handshake("/ws", {k: v for k, v in headers.items() if v is not None}, query)


def passes(origins: tuple[str, ...], shake: Handshake) -> bool:
    try:
        check_origin(Settings(origins=origins).origins, shake)
    except Refused:
        return False
    return True


def test_s15_a_request_without_an_origin_is_no_browser_and_passes() -> None:
    assert passes(("same-origin",), handshake(None))
    assert passes((), handshake(None))


@pytest.mark.parametrize(
    ("origin", "host", "is_same"),
    [
        ("http://example.com", "example.com", True),
        ("https://example.com", "example.com", True),
        ("https://EXAMPLE.com", "Example.COM", True),
        ("https://example.com:443", "example.com", True),
        ("http://example.com", "example.com:80", True),
        ("http://localhost:8080", "localhost:8080", True),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("http://example.com:8080", "example.com", False),
        ("https://example.com", "example.com:80", False),
        ("https://example.com.evil.org", "example.com", False),
        ("https://sub.example.com", "example.com", False),
        ("null", "example.com", False),
        ("file://", "example.com", False),
        ("https://", "example.com", False),
        ("http://example.com:port", "example.com", False),
        ("http://[::1", "[::1", False),
        ("https://example.com", None, False),
    ],
)
def test_s15_same_origin_is_the_same_host_and_port(
    origin: str, host: str | None, is_same: bool
) -> None:
    assert is_same_origin(origin.lower(), None if host is None else host) is is_same
    assert passes(("same-origin",), handshake(origin, host)) is is_same


@pytest.mark.parametrize(
    ("allowed", "origin", "is_allowed"),
    [
        ("*", "https://evil.org", True),
        ("https://app.org", "https://app.org", True),
        ("https://App.org/", "https://APP.org", True),
        ("https://app.org", "http://app.org", False),
        ("https://app.org", "https://app.org:8443", False),
        ("https://*.app.org", "https://a.app.org", True),
        ("https://*.app.org", "https://a.b.app.org", True),
        ("https://*.app.org", "https://app.org", False),
        ("https://*.app.org", "https://.app.org", False),
        ("https://*.app.org", "https://evilapp.org", False),
        ("https://*.app.org", "http://a.app.org", False),
        ("https://*.app.org", "https://a.app.org.evil.org", False),
        ("null", "null", True),
    ],
)
def test_s15_origins_that_are_listed(allowed: str, origin: str, is_allowed: bool) -> None:
    assert passes((allowed,), handshake(origin)) is is_allowed


def test_s15_any_of_several_origins_will_do() -> None:
    origins = ("same-origin", "https://*.app.org", "https://other.org")
    assert passes(origins, handshake("https://example.com"))
    assert passes(origins, handshake("https://other.org"))
    assert not passes(origins, handshake("https://third.org"))


def test_s15_the_refusal_names_the_origin_and_is_safe_to_show() -> None:
    with pytest.raises(Refused) as error:
        check_origin(("same-origin",), handshake("https://evil.org\r\n<b>"))
    assert error.value.status == 403
    assert error.value.code == "origin_refused"
    assert error.value.body()["origin"] == "https://evil.org\ufffd\ufffd<b>"


def test_what_an_authenticate_handler_may_answer() -> None:
    identity = Identity(user="ann", meta={"role": "admin"})
    assert to_identity(identity) is identity
    assert to_identity("ann") == Identity(user="ann")
    assert to_identity(None) == Identity()
    with pytest.raises(TypeError, match="not dict"):
        to_identity({"user": "ann"})


def test_the_requested_client_id() -> None:
    asks = handshake(query="id=tab-1")
    assert requested_client_id(asks, Identity(), from_query=False) is None
    assert requested_client_id(asks, Identity(), from_query=True) == "tab-1"
    assert requested_client_id(handshake(), Identity(), from_query=True) is None
    assert requested_client_id(asks, Identity(client_id="mine"), from_query=True) == "mine"
    for wish in ("", "a%20b", "%3Cb%3E", "x" * 65):
        with pytest.raises(Refused) as error:
            requested_client_id(handshake(query=f"id={wish}"), Identity(), from_query=True)
        assert (error.value.status, error.value.code) == (400, "bad_id")


@pytest.mark.parametrize(("expires_at", "is_over"), [(None, False), (100.5, False), (100, True)])
def test_what_is_over_comes_in_no_more(expires_at: float | None, is_over: bool) -> None:
    identity = Identity("ann", expires_at=expires_at)
    if not is_over:
        check_expiry(identity, 100.0)
        return
    with pytest.raises(Refused) as caught:
        check_expiry(identity, 100.0)
    assert (caught.value.status, caught.value.code) == (401, "token_expired")
