"""Addresses: what a URL says of a server, and that errors never hold what it says."""

from __future__ import annotations

from typing import Any

import pytest

from hubbub import SettingsError
from hubbub.brokers.valkey_address import read_address

PLAIN = {"db": 0, "host": "localhost", "port": 6379}


@pytest.mark.parametrize(
    ("url", "shown", "options"),
    [
        ("valkey://localhost", "valkey://localhost", PLAIN),
        ("redis://localhost/", "redis://localhost/", PLAIN),
        ("valkey://[::1]:6380/2", "valkey://[::1]:6380/2", {"db": 2, "host": "::1", "port": 6380}),
        ("valkey://localhost?db=3", "valkey://localhost", PLAIN | {"db": 3}),
        (
            "valkey://us%40er:p%2Fw@localhost",
            "valkey://localhost",
            PLAIN | {"username": "us@er", "password": "p/w"},
        ),
        ("valkey://:pw@localhost", "valkey://localhost", PLAIN | {"password": "pw"}),
        (
            "unix:///run/valkey.sock?db=1",
            "unix:///run/valkey.sock",
            {"db": 1, "path": "/run/valkey.sock"},
        ),
        (
            "unix://me:pw@/run/v.sock",
            "unix:///run/v.sock",
            {"db": 0, "path": "/run/v.sock", "username": "me", "password": "pw"},
        ),
    ],
)
def test_what_a_url_says(url: str, shown: str, options: dict[str, Any]) -> None:
    address = read_address(url)
    assert (address.shown, dict(address.options)) == (shown, options)
    assert (address.is_tls, address.is_unix) == (False, url.startswith("unix"))
    assert address.prefix == "hubbub"
    assert "pw" not in repr(address)


def test_several_servers_have_all_else_in_common() -> None:
    address = read_address("valkeys://us:p,w@one:1,[::1],two/2?prefix=shop")
    assert address.shown == "valkeys://one:1,[::1],two/2"
    assert address.hosts == (("one", 1), ("::1", 6379), ("two", 6379))
    each = address.of_each()
    assert [one.shown for one in each] == [
        "valkeys://one:1",
        "valkeys://[::1]:6379",
        "valkeys://two:6379",
    ]
    assert [one.name for one in each] == ["one:1/2", "[::1]:6379/2", "two:6379/2"]
    for one in each:
        assert (one.options["username"], one.options["password"]) == ("us", "p,w")
        assert (one.prefix, one.is_tls, len(one.hosts)) == ("shop", True, 1)
    alone = read_address("unix:///run/valkey.sock?db=1")
    assert (alone.of_each(), alone.name) == ([alone], "/run/valkey.sock/1")


def test_sentinels_have_a_login_of_their_own() -> None:
    url = "valkeys+sentinel://us:pw@one:1,two/my%20one/3?ca=/ca.pem&sentinel_username=s&sentinel_password=t"
    address = read_address(url)
    assert (address.primary, address.options["db"], address.is_tls) == ("my one", 3, True)
    assert (address.options["username"], address.options["password"]) == ("us", "pw")
    assert address.of_each() == [address]
    one, two = address.of_sentinels()
    assert (one.hosts, two.hosts) == ((("one", 1),), (("two", 26379),))
    login = (two.options["username"], two.options["password"], two.options["db"], two.primary)
    assert login == ("s", "t", 0, "")
    assert (two.is_tls, two.options["ssl_ca_certs"]) == (True, "/ca.pem")
    assert "password" not in read_address("redis+sentinel://:pw@one/m").of_sentinels()[0].options
    assert "pw" not in f"{address!r} {address.shown} {two!r}"


def test_a_cluster_is_one_whatever_nodes_are_named() -> None:
    address = read_address("valkeys+cluster://:pw@one,two:7000?ca=/ca.pem")
    assert (address.is_cluster, address.is_tls, address.of_each()) == (True, True, [address])
    assert [each.shown for each in address.of_hosts()] == [
        "valkeys+cluster://one:6379",
        "valkeys+cluster://two:7000",
    ]
    assert not read_address("valkey://one,two").is_cluster


@pytest.mark.parametrize("scheme", ["valkeys", "rediss"])
def test_a_certificate_is_verified_unless_the_url_says_no(scheme: str) -> None:
    address = read_address(f"{scheme}://host?ca=/ca.pem&cert=/c.pem&key=/k.pem&prefix=shop")
    assert (address.is_tls, address.is_verified, address.prefix) == (True, True, "shop")
    assert dict(address.options) == PLAIN | {
        "host": "host",
        "ssl_ca_certs": "/ca.pem",
        "ssl_certfile": "/c.pem",
        "ssl_keyfile": "/k.pem",
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
    }
    unverified = read_address(f"{scheme}://host?verify=no")
    assert not unverified.is_verified
    assert unverified.options["ssl_cert_reqs"] == "none"


def test_a_password_may_have_an_at_sign_that_is_not_encoded() -> None:
    assert read_address("valkey://u:p@s@one").options["password"] == "p@s"


@pytest.mark.parametrize(
    ("rest", "what"),
    [
        ("valkey://u:secret@host:x", "host or port"),
        ("valkey://u:secret@host:99999", "host or port"),
        ("valkey://u:secret@", "a host is missing"),
        ("valkey://u:secret@host/zero", "no number"),
        ("valkey://u:secret@host?db=²", "no number"),
        ("valkey://u:secret@host?password=secret", "something else than prefix, db"),
        ("valkey://u:secret@host?ca=/ca.pem", "only valkeys:// and rediss://"),
        ("valkey://u:secret@host?prefix=a%20secret", "a prefix of 1 to 64"),
        ("valkey://u:secret@host?prefix=", "a prefix of 1 to 64"),
        ("valkey://u:secret@host?prefix=shop:r", "a prefix of 1 to 64"),
        ("valkey://u:secret@one,u:secret@two", "a login stands once"),
        ("valkey://u:secret@one,one:6379", "named twice"),
        ("valkey+cluster://u:secret@one/1", "no databases"),
        ("valkey+sentinel://u:secret@one", "the primary's name is missing"),
        ("valkey://u:secret@one?sentinel_password=secret", "has Sentinels"),
        ("valkey://u:secret@one,,two", "a host is missing"),
        ("unix://u:secret@", "a path is missing"),
        ("unix://u:secret@run/valkey.sock", "a path is missing, as in unix:///run/valkey.sock"),
        ("valkeys://u:secret@host?verify=false", "verify is yes or no"),
        ("valkey://u:[secret@host", "host or port"),
    ],
)
def test_a_url_that_cannot_be_is_told_without_it(rest: str, what: str) -> None:
    with pytest.raises(SettingsError, match=what) as caught:
        read_address(rest, "environment, HUBBUB_BROKER")
    assert "secret" not in f"{caught.value} {caught.value.value} {caught.value.__cause__}"
    assert "(environment, HUBBUB_BROKER)" in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
