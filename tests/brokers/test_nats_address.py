"""Addresses: what a URL says of NATS servers, and that errors never hold what it says."""

from __future__ import annotations

from typing import Any

import pytest

from hubbub import SettingsError
from hubbub.brokers.nats_address import login_of, read_address


@pytest.mark.parametrize(
    ("url", "servers", "login"),
    [
        ("nats://localhost", ("nats://localhost:4222",), {}),
        ("nats://one:1,two", ("nats://one:1", "nats://two:4222"), {}),
        ("nats://[::1]:5,b", ("nats://[::1]:5", "nats://b:4222"), {}),
        ("nats://word@one", ("nats://one:4222",), {"token": "word"}),
        ("nats://u%40:p%2Fw@a,b", ("nats://a:4222", "nats://b:4222"), {"user": "u@", "password": "p/w"}),
        ("tls://u:p@one", ("tls://one:4222",), {"user": "u", "password": "p"}),
    ],
)  # fmt: skip
def test_what_a_url_says(url: str, servers: tuple[str, ...], login: dict[str, Any]) -> None:
    address = read_address(url)
    assert (address.servers, login_of(address)) == (servers, login)
    assert address.shown.partition("://")[2] == ",".join(each[each.index("//") + 2 :] for each in servers)  # fmt: skip
    assert (address.prefix, address.replicas, address.max_bytes) == ("hubbub", 1, None)
    assert (address.is_tls, address.is_verified) == (url.startswith("tls"), True)
    assert not any(secret in repr(address) for secret in ("word", "p/w", "u@"))


def test_what_its_query_says() -> None:
    url = (
        "tls://h?ca=/ca&cert=/c&key=/k&creds=/u.creds&verify=no&prefix=shop&replicas=3&max_bytes=9"
    )
    address = read_address(url)
    files = {"ca": "/ca", "cert": "/c", "key": "/k", "creds": "/u.creds"}
    assert dict(address.files) == files
    assert (address.prefix, address.replicas, address.max_bytes) == ("shop", 3, 9)
    assert not address.is_verified


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("nats://:secret@", "a host or port cannot be read"),
        ("nats://secret@a,", "a host or port cannot be read"),
        ("nats://secret@a:b", "a host or port cannot be read"),
        ("nats://secret@a:99999", "a host or port cannot be read"),
        ("nats://secret@[a", "it cannot be read"),
        ("nats://secret@a/1", "it has a path"),
        ("nats://secret@a?verify=no", "only tls:// has certificates"),
        ("tls://secret@a?verify=false", "verify is yes or no"),
        ("nats://secret@a?replicas=2", "replicas are 1, 3 or 5"),
        ("nats://secret@a?max_bytes=1k", "max_bytes is no number"),
        ("nats://secret@a?token=secret", "something else than prefix"),
        ("nats://secret@a?prefix=a*b", "a prefix of 1 to 64"),
        ("nats://u:secret@a:1,u:secret@b:2", "a login stands once"),
    ],
)
def test_what_cannot_be_is_told_without_the_url(url: str, what: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_address(url, "--broker")
    assert what in str(caught.value)
    assert "secret" not in str(caught.value)
