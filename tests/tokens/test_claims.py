"""Claims: what each says, and what no claim may be."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.errors import TokenError, TokenExpired, TokenInvalid
from hubbub.tokens import ConnectionToken, Override, SubscriptionOptions, SubscriptionToken
from hubbub.tokens.claims import read_connection, read_subscription

NOW = 1_800_000_000.0


def connection(leeway_s: float = 0.0, **claims: Any) -> ConnectionToken:
    return read_connection(claims, user_claim="sub", now=NOW, leeway_s=leeway_s)


def subscription(leeway_s: float = 0.0, **claims: Any) -> SubscriptionToken:
    claims = {"sub": "ann", "channel": "chat", **claims}
    return read_subscription(claims, user_claim="sub", now=NOW, leeway_s=leeway_s)[0]


def test_a_token_without_claims_is_an_anonymous_connection_without_an_end() -> None:
    token = connection()
    assert token == ConnectionToken()
    assert (token.user, token.expires_at, token.info) == (None, None, None)
    assert (dict(token.meta), token.channels, dict(token.subs)) == ({}, (), {})


def test_all_claims_of_a_connection() -> None:
    token = connection(
        sub="ann",
        exp=NOW + 60,
        iat=NOW + 9,
        jti=[],
        info={"name": "Ann"},
        meta={"role": "admin"},
        channels=["news", "chat", "news"],
        subs={"game": {"info": 1, "data": [2], "override": {"presence": {"value": True}}}, "x": {}},
        another=7,
    )
    assert token == ConnectionToken(
        user="ann",
        expires_at=NOW + 60,
        info={"name": "Ann"},
        meta={"role": "admin"},
        channels=("news", "chat"),
        subs={
            "game": SubscriptionOptions(1, [2], Override(presence=True)),
            "x": SubscriptionOptions(),
        },
    )
    assert "admin" not in repr(token), "nobody but the server sees it"


def test_all_claims_of_a_subscription() -> None:
    names = Override._fields
    token = subscription(
        exp=NOW + 60,
        expire_at=NOW + 30,
        info="i",
        data="d",
        override={name: {"value": name != "presence"} for name in names} | {"another": 7},
    )
    assert token == SubscriptionToken(
        "ann", "chat", NOW + 30, "i", "d", Override(False, True, True, True, True)
    )


def test_an_empty_name_is_anonymous_and_another_claim_may_have_it() -> None:
    assert connection(sub="").user is None
    claims = {"sub": "7", "email": "ann@example.com"}
    found = read_connection(claims, user_claim="email", now=NOW, leeway_s=0)
    assert found.user == "ann@example.com"


@pytest.mark.parametrize(
    ("times", "expires_at"),
    [
        ({}, None),
        ({"exp": NOW + 60}, NOW + 60),
        ({"exp": NOW + 0.5}, NOW + 0.5),
        ({"exp": NOW + 60, "expire_at": NOW + 600}, NOW + 600),
        ({"exp": NOW + 60, "expire_at": NOW + 6}, NOW + 6),
        ({"exp": NOW + 60, "expire_at": 0}, None),
        ({"exp": NOW + 60, "expire_at": 0.0}, None),
        ({"expire_at": NOW + 600}, NOW + 600),
        ({"nbf": NOW}, None),
        ({"nbf": -5, "exp": 1e10}, 1e10),
    ],
)
def test_when_it_ends(times: dict[str, float], expires_at: float | None) -> None:
    assert connection(**times).expires_at == expires_at
    assert subscription(**times).expires_at == expires_at


@pytest.mark.parametrize(
    ("times", "claim"),
    [
        ({"exp": NOW}, "exp"),
        ({"exp": NOW - 1, "expire_at": NOW + 60}, "exp"),
        ({"exp": NOW - 1, "expire_at": 0}, "exp"),
        ({"exp": 0}, "exp"),
        ({"exp": -1}, "exp"),
        ({"nbf": NOW + 1}, "nbf"),
        ({"nbf": NOW + 1, "exp": NOW + 60}, "nbf"),
        ({"exp": NOW + 60, "expire_at": NOW}, "expire_at"),
        ({"expire_at": -1}, "expire_at"),
    ],
)
def test_a_time_that_is_over_or_has_not_come(times: dict[str, float], claim: str) -> None:
    for read in (connection, subscription):
        with pytest.raises(TokenExpired) as caught:
            read(**times)
        assert caught.value.claim == claim


def test_the_leeway_is_for_all_three_times_and_counts_until_the_end() -> None:
    for read in (connection, subscription):
        assert read(leeway_s=5, exp=NOW - 4).expires_at == NOW + 1
        assert read(leeway_s=5, expire_at=NOW - 4).expires_at == NOW + 1
        assert read(leeway_s=5, nbf=NOW + 5).expires_at is None
        for times in ({"exp": NOW - 5}, {"expire_at": NOW - 5}, {"nbf": NOW + 5.5}):
            with pytest.raises(TokenExpired):
                read(leeway_s=5, **times)
    with pytest.raises(TokenExpired, match="has expired"):
        connection(leeway_s=60, expire_at=-60)  # which is 0, with the leeway, and not never


@pytest.mark.parametrize("claim", ["exp", "nbf", "expire_at"])
@pytest.mark.parametrize(
    "value",
    ["1800000060", "", None, True, False, [1], {}, 1_800_000_060_000, 10**400, -(10**400), 1e300],
    ids=lambda value: repr(value)[:20],
)
def test_a_time_is_a_number_of_seconds(claim: str, value: Any) -> None:
    for read in (connection, subscription):
        with pytest.raises(TokenInvalid, match=f"'{claim}' must be a Unix time in seconds"):
            read(**{claim: value})


def test_a_time_that_only_the_leeway_moves_too_far_is_no_time() -> None:
    assert connection(exp=1e11 - 1).expires_at == 1e11 - 1
    with pytest.raises(TokenInvalid, match="'exp' must be"):
        connection(leeway_s=60, exp=1e11 - 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("nan")]}, "\ud800"])
@pytest.mark.parametrize("claim", ["exp", "info", "another"])
def test_what_other_languages_do_not_read_as_json_is_no_claim(claim: str, value: Any) -> None:
    for read in (connection, subscription):
        with pytest.raises(TokenInvalid, match="its claims are not JSON") as caught:
            read(**{claim: value})
        assert caught.value.__context__ is None, "it may quote the claim"


Wrong = list[tuple[str, Any]]

WRONG_FOR_BOTH: Wrong = [
    ("sub", 7),
    ("sub", None),
    ("sub", ["ann"]),
    ("b64info", "no base64!"),
    ("b64info", "YQ"),
    ("b64info", 7),
    ("b64info", "é"),
]
WRONG_FOR_CONNECTIONS: Wrong = [
    ("channels", "news"),
    ("channels", ["news", 7]),
    ("channels", [""]),
    ("channels", None),
    ("channels", {"news": {}}),
    ("subs", ["news"]),
    ("subs", {"news": None}),
    ("subs", {"news": []}),
    ("subs", {"": {}}),
    ("subs", {"news": {"override": []}}),
    ("subs", {"news": {"b64data": "!"}}),
    ("meta", ["admin"]),
    ("meta", "admin"),
    ("meta", None),
]
WRONG_FOR_SUBSCRIPTIONS: Wrong = [
    ("channel", 7),
    ("channel", ""),
    ("channel", None),
    ("channel", ["chat"]),
    ("client", 7),
    ("b64data", "!"),
    ("override", {"presence": True}),
    ("override", {"presence": {"value": 1}}),
    ("override", {"force_recovery": {}}),
    ("override", {"join_leave": None}),
    ("override", [1]),
]


@pytest.mark.parametrize(("claim", "value"), WRONG_FOR_BOTH + WRONG_FOR_CONNECTIONS)
def test_claims_of_a_connection_have_their_types(claim: str, value: Any) -> None:
    with pytest.raises(TokenInvalid, match=r"its claim '\w+' must be"):
        connection(**{claim: value})


@pytest.mark.parametrize(("claim", "value"), WRONG_FOR_BOTH + WRONG_FOR_SUBSCRIPTIONS)
def test_claims_of_a_subscription_have_their_types(claim: str, value: Any) -> None:
    with pytest.raises(TokenInvalid, match=r"its claim '\w+' (must be|is missing)"):
        subscription(**{claim: value})


@pytest.mark.parametrize("info", [None, 7, "x", [1, {"a": None}], False, 2**70])
def test_info_and_data_are_any_json(info: Any) -> None:
    assert connection(info=info).info == info
    assert subscription(data=info).data == info


def test_base64_gives_bytes_and_comes_before_the_plain_claim() -> None:
    assert connection(b64info="AP8=", info="x").info == b"\x00\xff"
    assert connection(b64info="", info="x").info == "x"
    assert subscription(b64data="AP8=").data == b"\x00\xff"
    subs = {"chat": {"b64info": "aQ==", "b64data": "ZA=="}}
    assert connection(subs=subs).subs["chat"] == SubscriptionOptions(b"i", b"d")


@pytest.mark.parametrize("channel", ["chat", "", None])
def test_a_subscription_token_is_no_connection_token(channel: Any) -> None:
    with pytest.raises(TokenInvalid, match="for a subscription"):
        connection(sub="ann", channel=channel, exp=NOW - 1)


def test_a_connection_token_is_no_subscription_token() -> None:
    with pytest.raises(TokenInvalid, match="'channel' is missing"):
        read_subscription({"sub": "ann"}, user_claim="sub", now=NOW, leeway_s=0)


def test_a_claim_of_a_wrong_type_is_worse_than_one_whose_time_is_over() -> None:
    with pytest.raises(TokenInvalid):
        connection(sub=7, exp=NOW - 1)
    with pytest.raises(TokenInvalid):
        subscription(client=7, exp=NOW - 1)


def test_a_subscription_token_may_be_for_one_client() -> None:
    for client, expected in (("c1", "c1"), ("", None)):
        claims = {"channel": "chat", "client": client}
        _, only = read_subscription(claims, user_claim="sub", now=NOW, leeway_s=0)
        assert only == expected


NAMES = [
    *("sub", "exp", "nbf", "iat", "expire_at", "info", "b64info", "data", "b64data", "meta"),
    *("channels", "subs", "channel", "override", "client"),
]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=6))
def test_whatever_is_claimed_there_is_an_answer(claims: dict[str, Any]) -> None:
    for read in (read_connection, read_subscription):
        with suppress(TokenError):
            read(claims, user_claim="sub", now=NOW, leeway_s=1.5)
