"""Where a redirect may lead, and what goes along."""

from __future__ import annotations

import pytest

from connection.peers import response
from hubbub.connection.failures import outcome_of
from hubbub.connection.redirects import BadRedirect, Target, redirected


@pytest.mark.parametrize(
    ("url", "location", "expected", "keeps"),
    [
        ("ws://h/ws", "/x?y#z", "ws://h/x?y", True),
        ("ws://h/a/ws", "x", "ws://h/a/x", True),
        ("ws://h/ws", "http://h:80/x", "ws://h:80/x", True),
        ("ws://h/ws", "https://h/ws", "wss://h/ws", True),
        ("ws://H/ws", "//h/x", "ws://h/x", True),
        ("ws://u:p@h/ws", "http://h/x", "ws://u:p@h/x", True),
        ("ws://h:8080/ws", "https://h/ws", "wss://h/ws", False),
        ("ws://h/ws", "https://h:8443/ws", "wss://h:8443/ws", False),
        ("wss://h/ws", "https://www.h/ws", "wss://www.h/ws", False),
        ("ws://u:p@h/ws", "http://other/x", "ws://other/x", False),
        ("ws://h/ws", "http://h:81/x", "ws://h:81/x", False),
    ],
)
def test_where_it_leads(url: str, location: str, expected: str, keeps: bool) -> None:
    headers = {"X-Token": "abc"}
    target = redirected(Target(url, headers), response(302, Location=location))
    assert target == (expected, headers if keeps else {})


@pytest.mark.parametrize("location", ["http://h/", "ws://h/", "ftp://h/", "https://"])
def test_where_it_must_not_lead(location: str) -> None:
    with pytest.raises(BadRedirect) as caught:
        redirected(Target("wss://h/", {}), response(302, Location=location))
    assert outcome_of(caught.value).close.code == 302


def test_what_is_no_redirect() -> None:
    target = Target("ws://h/", {})
    assert redirected(target, response(302)) is None
    assert redirected(target, response(304, Location="/x")) is None
    assert redirected(target, response(503, Location="/x")) is None
