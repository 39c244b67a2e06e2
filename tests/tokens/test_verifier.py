"""Verifier: which tokens are believed, which are not, and that nothing secret is ever shown."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from hubbub import (
    Client,
    Handshake,
    Hub,
    Identity,
    MissingExtra,
    Refused,
    SettingsError,
    TokenError,
    TokenExpired,
    TokenInvalid,
    TokenKeysUnavailable,
    TokenVerifier,
)
from hubbub.tokens import ConnectionToken, SubscriptionToken
from hubbub.tokens.verifier import MAX_TOKEN_BYTES
from issuing import (
    SECRET,
    Issuer,
    answer,
    encoded,
    family,
    forge,
    issuing,
    jwk,
    key_set,
    pem,
    private_key,
    private_pem,
    sign,
    sign_text,
)
from pages import assert_echoes, refusal

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000.0
RSA_PEM, ECDSA_PEM = pem(private_key("RS256")), pem(private_key("ES256"))
SECRET_ALGORITHMS = ["HS256", "HS384", "HS512"]
RSA_ALGORITHMS = ["RS256", "RS384", "RS512"]
ECDSA_ALGORITHMS = ["ES256", "ES384", "ES512"]
ANN = {"sub": "ann"}


def now() -> float:
    return NOW


def verifier(**options: Any) -> TokenVerifier:
    """Return a verifier whose clock stands still; without a key among the options, of the secret."""
    if not {"hmac_secret", "rsa_public_key", "ecdsa_public_key", "jwks_url"} & set(options):
        options["hmac_secret"] = SECRET
    return TokenVerifier(clock=now, **options)


def verifier_for(algorithm: str, name: str = "", **options: Any) -> TokenVerifier:
    """Return a verifier that has the key for an algorithm, and no other."""
    if algorithm in SECRET_ALGORITHMS:
        return verifier(hmac_secret=SECRET if not name else "x" * 64, **options)
    setting = "rsa_public_key" if algorithm in RSA_ALGORITHMS else "ecdsa_public_key"
    return verifier(**{setting: pem(private_key(family(algorithm), name))}, **options)


async def user_of(found: TokenVerifier, token: str) -> str | None:
    return (await found.connection(token)).user


async def assert_invalid(found: TokenVerifier, token: Any, why: str) -> None:
    """See that a token is refused, for this reason, and that the error has nothing of it."""
    with pytest.raises(TokenInvalid) as caught:
        await found.connection(token)
    assert why in caught.value.why
    assert_silent(caught.value, str(token))


def assert_silent(error: BaseException, *secrets: str) -> None:
    """See that an error, with all that it is the consequence of, shows none of these."""
    assert error.__context__ is None
    text = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    for secret in (SECRET, *secrets):
        assert len(secret) < 8 or secret not in text
        assert all(len(part) < 8 or part not in text for part in secret.split("."))


# Algorithms and keys


@pytest.mark.parametrize("algorithm", SECRET_ALGORITHMS + RSA_ALGORITHMS + ECDSA_ALGORITHMS)
async def test_a_token_is_believed_if_our_key_has_signed_it(algorithm: str) -> None:
    token = sign(ANN, algorithm)
    assert await user_of(verifier_for(algorithm), token) == "ann"
    assert await user_of(verifier_for(algorithm, algorithms=[algorithm]), token) == "ann"
    await assert_invalid(verifier_for(algorithm, "other"), token, "signature does not fit")
    header, payload, signature = token.split(".")
    forged = f"{header}.{encoded(json.dumps({'sub': 'root'}).encode())}.{signature}"
    await assert_invalid(verifier_for(algorithm), forged, "signature does not fit")
    await assert_invalid(verifier_for(algorithm), f"{header}.{payload}.", "signature does not fit")


@pytest.mark.parametrize("algorithm", SECRET_ALGORITHMS + RSA_ALGORITHMS + ECDSA_ALGORITHMS)
async def test_no_algorithm_of_another_kind_of_key_is_accepted(algorithm: str) -> None:
    token = sign(ANN, algorithm)
    for other in ("HS256", "RS256", "ES256", "ES384", "ES512"):
        if family(other)[:2] != family(algorithm)[:2] or (other[0] == "E" and other != algorithm):
            await assert_invalid(verifier_for(other), token, "algorithm is not accepted")


async def test_an_algorithm_that_is_not_allowed_is_not_accepted_with_the_right_key() -> None:
    found = verifier(algorithms=["HS512"])
    assert await user_of(found, sign(ANN, "HS512")) == "ann"
    await assert_invalid(found, sign(ANN, "HS256"), "algorithm is not accepted")
    short = "s" * 32
    found = verifier(hmac_secret=short)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyJWT warns of the short secret
        token = sign(ANN, "HS512", short)
    await assert_invalid(found, token, "algorithm is not accepted")


@pytest.mark.parametrize("algorithm", ["PS256", "ES256K", "EdDSA"])
async def test_algorithms_beyond_those_of_the_settings_are_not_accepted(algorithm: str) -> None:
    found = verifier(hmac_secret=SECRET, rsa_public_key=RSA_PEM, ecdsa_public_key=ECDSA_PEM)
    await assert_invalid(found, sign(ANN, algorithm), "algorithm is not accepted")


@pytest.mark.parametrize("options", [{"rsa_public_key": RSA_PEM}, {}, {"both": True}])
@pytest.mark.parametrize("text", [RSA_PEM, RSA_PEM.strip(), RSA_PEM.replace("\n", "")])
async def test_the_text_of_a_public_key_is_no_secret(options: dict[str, Any], text: str) -> None:
    """Everybody has it, and could sign with it (RFC 8725 section 3.1)."""
    if "both" in options:
        options = {"rsa_public_key": RSA_PEM, "hmac_secret": SECRET}
    token = forge({"alg": "HS256", "typ": "JWT"}, b'{"sub":"root"}', text.encode(), "sha256")
    with pytest.raises(TokenInvalid):
        await verifier(**options).connection(token)


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "nOnE", "", None, 0, [], ["HS256"], {}]
)
async def test_an_unsigned_token_proves_nothing(algorithm: Any) -> None:
    for digest in ("", "sha256"):
        token = forge({"alg": algorithm}, b'{"sub":"root"}', SECRET.encode(), digest)
        await assert_invalid(verifier(), token, "algorithm is not accepted")
    token = forge({"typ": "JWT"}, b'{"sub":"root"}')
    await assert_invalid(verifier(), token, "algorithm is not accepted")


async def test_one_secret_takes_over_from_another() -> None:
    new = "n" * 64
    found = verifier(hmac_secret=[new, SECRET])
    for key in (new, SECRET):
        assert await user_of(found, sign(ANN, "HS256", key)) == "ann"
        late = sign({**ANN, "aud": "chat"}, "HS256", key)
        await assert_invalid(found, late, "it is for an audience")
    await assert_invalid(found, sign(ANN, "HS256", "o" * 64), "signature does not fit")


async def test_one_public_key_takes_over_from_another() -> None:
    keys = [private_key("ES256", name) for name in ("old", "new")]
    found = verifier(ecdsa_public_key=[pem(key) for key in keys])
    for key in keys:
        assert await user_of(found, sign(ANN, "ES256", key)) == "ann"


async def test_keys_of_several_kinds_at_once() -> None:
    found = verifier(hmac_secret=SECRET, rsa_public_key=RSA_PEM, ecdsa_public_key=ECDSA_PEM)
    for algorithm in (*SECRET_ALGORITHMS, *RSA_ALGORITHMS, "ES256"):
        assert await user_of(found, sign(ANN, algorithm)) == "ann"


async def test_the_token_of_the_protocol_s_test_vector_is_read() -> None:
    """Its secret is too short for us: the same header and claims, under ours."""
    token = sign({"sub": "u1", "info": {"name": "Ann"}})
    vector = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJ1MSIsImluZm8iOnsibmFtZSI6IkFubiJ9fQ"
    assert token.rpartition(".")[0] == vector
    assert await verifier().connection(token) == ConnectionToken("u1", info={"name": "Ann"})


# What is no token


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "nonsense",
        "a.b.c",
        "\ud800.b.c",
        "é.é.é",
        sign(ANN) + ".x",
        sign(ANN) + "\n",
        " " + sign(ANN),
        "Bearer " + sign(ANN),
        sign(ANN)[1:],
        None,
        7,
        sign(ANN).encode(),
        forge([], b"{}"),
        forge(None, b"{}"),
        forge({"alg": "HS256", "kid": 7}, b"{}", SECRET.encode(), "sha256"),
        "x" * (MAX_TOKEN_BYTES + 1),
        f"{encoded(b'[' * 40_000)}.e30.",
    ],
    ids=lambda token: ascii(token)[:24],
)
async def test_what_is_no_token(token: Any) -> None:
    await assert_invalid(verifier(), token, "no JSON Web Token")


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "null",
        "[]",
        '"ann"',
        "7",
        "{",
        '{"sub":"ann"',
        "[" * 40_000,
        '{"exp":' + "9" * 5000 + "}",
    ],
)
async def test_a_payload_that_is_no_object_is_no_token(payload: str) -> None:
    await assert_invalid(verifier(), sign_text(payload), "no JSON Web Token")


async def test_a_token_that_is_as_long_as_may_be() -> None:
    room = MAX_TOKEN_BYTES * 3 // 4 - 200
    token = sign({**ANN, "info": "x" * room})
    assert MAX_TOKEN_BYTES - 400 < len(token) <= MAX_TOKEN_BYTES
    assert await user_of(verifier(), token) == "ann"
    longer = sign({**ANN, "info": "x" * (room + 400)})
    await assert_invalid(verifier(), longer, "no JSON Web Token")


@pytest.mark.parametrize("extension", [["exp"], ["b64"], ["http://x.example/ext"], [], "x"])
async def test_extensions_that_must_be_known_are_not_known(extension: Any) -> None:
    header = {"alg": "HS256", "crit": extension, "b64": True, "exp": 1}
    token = forge(header, b'{"sub":"ann"}', SECRET.encode(), "sha256")
    with pytest.raises(TokenInvalid):
        await verifier().connection(token)


async def test_a_payload_that_is_somewhere_else_is_no_payload() -> None:
    header = {"alg": "HS256", "b64": False, "crit": ["b64"]}
    for payload in (b"", b'{"sub":"ann"}'):
        with pytest.raises(TokenInvalid):
            await verifier().connection(forge(header, payload, SECRET.encode(), "sha256"))


SIGNED = sign({"sub": "ann", "info": {"name": "Ann"}, "exp": NOW + 60})


@given(st.text() | st.tuples(st.text(), st.text(), st.text()).map(".".join))
def test_no_text_at_all_raises_anything_else(text: str) -> None:
    with pytest.raises(TokenInvalid):
        asyncio.run(verifier().connection(text))


@given(st.integers(0, len(SIGNED) - 1), st.characters())
def test_no_character_of_a_token_can_be_another_one(place: int, char: str) -> None:
    token = SIGNED[:place] + char + SIGNED[place + 1 :]
    if token != SIGNED:
        with pytest.raises(TokenInvalid):
            asyncio.run(verifier().connection(token))


@given(
    st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "b64", "x"]), st.none() | st.text()
    )
)
def test_no_header_at_all_raises_anything_else(header: dict[str, Any]) -> None:
    token = forge({"alg": "HS256", **header}, b'{"sub":"ann"}', SECRET.encode(), "sha256")
    try:
        assert asyncio.run(verifier().connection(token)).user == "ann"
    except TokenInvalid:
        assert header.get("alg", "HS256") != "HS256" or set(header) & {"crit", "kid", "b64"}


# Claims


async def test_audience_and_issuer_must_be_ours_if_we_have_any() -> None:
    for audience in ("chat", ["chat"], ["shop", "chat"]):
        found = verifier(audience=audience, issuer="login")
        for good in ("chat", ["chat"], ["other", "chat"]):
            assert await user_of(found, sign({**ANN, "aud": good, "iss": "login"})) == "ann"
        for bad in ("Chat", "cha", ["other"], "chat "):
            token = sign({**ANN, "aud": bad, "iss": "login"})
            await assert_invalid(found, token, "another audience")
        odd: Any
        for odd in ({"chat": 1}, 7, ["chat", 7]):
            with pytest.raises(TokenInvalid):
                await found.connection(sign({**ANN, "aud": odd, "iss": "login"}))
        await assert_invalid(found, sign({**ANN, "iss": "login"}), "claim 'aud' is missing")
        await assert_invalid(found, sign({**ANN, "aud": "chat"}), "claim 'iss' is missing")
        await assert_invalid(found, sign({**ANN, "aud": "chat", "iss": "x"}), "another issuer")


async def test_an_issuer_is_one_of_several_whole_names() -> None:
    found = verifier(issuer=["https://a.example", "https://b.example"])
    assert await user_of(found, sign({**ANN, "iss": "https://b.example"})) == "ann"
    for bad in ("https://c.example", "https://a", "a", ""):
        await assert_invalid(found, sign({**ANN, "iss": bad}), "another issuer")
    odd: Any
    for odd in (7, ["https://a.example"], None, {}):
        with pytest.raises(TokenInvalid):
            await found.connection(sign_text(json.dumps({**ANN, "iss": odd})))
    single = verifier(issuer="https://a.example")
    await assert_invalid(single, sign({**ANN, "iss": "a.example"}), "another issuer")


async def test_a_token_for_an_audience_needs_a_verifier_that_has_one() -> None:
    """RFC 7519 section 4.1.3: who is not named by `aud` must refuse the token."""
    await assert_invalid(verifier(), sign({**ANN, "aud": "chat"}), "its verifier has none")
    assert await user_of(verifier(), sign({**ANN, "iss": "anybody"})) == "ann"


async def test_the_signature_comes_first_then_who_it_is_for_then_its_time() -> None:
    found = verifier(audience="chat")
    old = {**ANN, "exp": NOW - 1, "aud": "chat"}
    with pytest.raises(TokenExpired, match="The token has expired") as caught:
        await found.connection(sign(old))
    assert_silent(caught.value, sign(old))
    await assert_invalid(found, sign({**old, "aud": "shop"}), "another audience")
    await assert_invalid(found, sign(old, "HS256", "x" * 64), "signature does not fit")
    await assert_invalid(found, sign({**old, "channel": "c"}), "for a subscription")


async def test_times_are_those_of_the_clock_with_the_leeway() -> None:
    for leeway_s, ends in ((0.0, NOW + 1), (30.0, NOW + 31)):
        found = verifier(leeway_s=leeway_s)
        assert (await found.connection(sign({"exp": int(NOW) + 1}))).expires_at == ends
        with pytest.raises(TokenExpired):
            await found.connection(sign({"exp": int(NOW - leeway_s)}))
        with pytest.raises(TokenExpired, match="not valid yet"):
            await found.connection(sign({"nbf": int(NOW + leeway_s) + 1}))
        assert (await found.connection(sign({"nbf": int(NOW + leeway_s)}))).user is None


@pytest.mark.parametrize(
    "payload", ['{"exp":NaN}', '{"exp":Infinity}', '{"exp":1e999}', '{"exp":-1e999}']
)
async def test_numbers_that_are_none_end_no_token(payload: str) -> None:
    await assert_invalid(verifier(), sign_text(payload), "not JSON")


@pytest.mark.parametrize(
    "payload",
    ['{"exp":"1900000000"}', '{"exp":1900000000000}', '{"exp":' + "9" * 400 + "}", '{"exp":true}'],
)
async def test_a_time_of_a_wrong_type_is_no_time_to_come(payload: str) -> None:
    await assert_invalid(
        verifier(), sign_text(payload), "claim 'exp' must be a Unix time in seconds"
    )


async def test_the_clock_is_the_machine_s_unless_said_otherwise() -> None:
    found = TokenVerifier(hmac_secret=SECRET)
    assert (await found.connection(sign({"exp": 4_000_000_000}))).expires_at == 4e9
    with pytest.raises(TokenExpired):
        await found.connection(sign({"exp": 1_600_000_000}))


async def test_another_claim_may_have_the_user() -> None:
    found = verifier(user_claim="email")
    assert await user_of(found, sign({"sub": "7", "email": "ann@a.example"})) == "ann@a.example"
    await assert_invalid(found, sign({"sub": "ann", "email": 7}), "claim 'email' must be a string")


# Subscriptions


async def test_a_subscription_token_is_for_one_user_and_one_room() -> None:
    found = verifier()
    token = sign({**ANN, "channel": "chat", "exp": int(NOW) + 60, "info": 1, "b64data": "ZA=="})
    expected = SubscriptionToken("ann", "chat", NOW + 60, info=1, data=b"d")
    assert await found.subscription(token, user="ann", room="chat") == expected
    wrong = [("bob", "chat", "user"), (None, "chat", "user"), ("", "chat", "user")]
    wrong += [("ann", "game", "room"), ("ann", "", "room")]
    for user, room, what in wrong:
        with pytest.raises(TokenInvalid, match=f"it is for another {what}"):
            await found.subscription(token, user=user, room=room)


async def test_a_subscription_token_of_nobody_is_for_the_anonymous() -> None:
    for claims in ({}, {"sub": ""}):
        token = sign({**claims, "channel": "chat"})
        for user in (None, ""):
            found = await verifier().subscription(token, user=user, room="chat")
            assert (found.user, found.room) == (None, "chat")
        with pytest.raises(TokenInvalid, match="another user"):
            await verifier().subscription(token, user="ann", room="chat")


async def test_a_subscription_token_may_be_for_one_client_alone() -> None:
    token = sign({**ANN, "channel": "chat", "client": "c1"})
    found = await verifier().subscription(token, user="ann", room="chat", client_id="c1")
    assert found.room == "chat"
    for client_id in ("c2", None, ""):
        with pytest.raises(TokenInvalid, match="another client"):
            await verifier().subscription(token, user="ann", room="chat", client_id=client_id)


async def test_a_subscription_token_has_its_time_and_its_signature() -> None:
    old = {**ANN, "channel": "chat", "exp": int(NOW)}
    with pytest.raises(TokenExpired):
        await verifier().subscription(sign(old), user="ann", room="chat")
    for token in (sign(old, "HS256", "x" * 64), sign(ANN)):
        with pytest.raises(TokenInvalid):
            await verifier().subscription(token, user="ann", room="chat")


# Keys that are fetched


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as found:
        yield found


@pytest.mark.parametrize("algorithm", [*RSA_ALGORITHMS, *ECDSA_ALGORITHMS, "EdDSA"])
async def test_a_token_names_a_key_that_its_issuer_publishes(
    issuer: Issuer, algorithm: str
) -> None:
    key, other = private_key(family(algorithm)), private_key(family(algorithm), "other")
    issuer.publish(jwk(other, "k2"), jwk(key, "k1"))
    found = verifier(jwks_url=issuer.url)
    assert await user_of(found, sign(ANN, algorithm, key, "k1")) == "ann"
    await assert_invalid(found, sign(ANN, algorithm, key, "k2"), "signature does not fit")
    await assert_invalid(found, sign(ANN, algorithm, key), "does not name its key")
    assert issuer.requests == 1


async def test_rotation_needs_no_restart(issuer: Issuer) -> None:
    old, new = private_key("ES256", "old"), private_key("ES256", "new")
    issuer.publish(jwk(old, "2025"))
    found = verifier(jwks_url=issuer.url, jwks_cooldown_s=0)
    assert await user_of(found, sign(ANN, "ES256", old, "2025")) == "ann"
    issuer.publish(jwk(new, "2026"), jwk(old, "2025"))
    assert await user_of(found, sign(ANN, "ES256", new, "2026")) == "ann"
    assert await user_of(found, sign(ANN, "ES256", old, "2025")) == "ann"
    issuer.publish(jwk(new, "2026"))
    await assert_invalid(found, sign(ANN, "ES256", new, "2027"), "has no such key")
    await assert_invalid(found, sign(ANN, "ES256", old, "2025"), "has no such key")


async def test_a_storm_of_forged_names_of_keys_asks_the_issuer_once(issuer: Issuer) -> None:
    key = private_key("ES256")
    issuer.publish(jwk(key, "k1"))
    found = verifier(jwks_url=issuer.url)
    good = sign(ANN, "ES256", key, "k1")
    assert await user_of(found, good) == "ann"
    forged = [sign(ANN, "ES256", key, f"forged-{number}") for number in range(100)]
    for error in await asyncio.gather(*map(found.connection, forged), return_exceptions=True):
        assert isinstance(error, TokenError)
    assert await user_of(found, good) == "ann"
    assert issuer.requests == 1


async def test_what_is_published_is_no_secret(issuer: Issuer) -> None:
    """Neither the text of a public key, nor of its entry, nor a secret that stands among the keys."""
    key = private_key("RS256")
    secret = {"kty": "oct", "k": encoded(SECRET.encode()), "kid": "s1", "alg": "HS256"}
    issuer.publish(jwk(key, "k1"), secret)
    found = verifier(jwks_url=issuer.url)
    for kid, text in (("k1", RSA_PEM), ("k1", json.dumps(jwk(key, "k1"))), ("s1", SECRET)):
        header = {"alg": "HS256", "kid": kid}
        token = forge(header, b'{"sub":"root"}', text.encode(), "sha256")
        await assert_invalid(found, token, "algorithm is not accepted")
    assert issuer.requests == 0


async def test_a_secret_beside_an_issuer_checks_its_own_algorithms_alone(issuer: Issuer) -> None:
    key = private_key("ES256")
    issuer.publish(jwk(key, "k1"))
    found = verifier(jwks_url=issuer.url, hmac_secret=SECRET)
    for kid in (None, "k1"):
        assert await user_of(found, sign(ANN, "HS256", kid=kid)) == "ann"
    assert issuer.requests == 0
    assert await user_of(found, sign(ANN, "ES256", key, "k1")) == "ann"


async def test_a_public_key_beside_an_issuer_checks_what_names_no_key(issuer: Issuer) -> None:
    theirs, ours = private_key("RS256", "theirs"), private_key("RS256")
    issuer.publish(jwk(theirs, "k1"))
    found = verifier(jwks_url=issuer.url, rsa_public_key=RSA_PEM)
    assert await user_of(found, sign(ANN, "RS256", ours)) == "ann"
    assert await user_of(found, sign(ANN, "RS256", theirs, "k1")) == "ann"
    await assert_invalid(found, sign(ANN, "RS256", ours, "k1"), "signature does not fit")


async def test_only_the_algorithms_that_are_allowed(issuer: Issuer) -> None:
    key = private_key("RS256")
    issuer.publish(jwk(key, "k1"))
    found = verifier(jwks_url=issuer.url, algorithms=["RS512"])
    assert await user_of(found, sign(ANN, "RS512", key, "k1")) == "ann"
    await assert_invalid(found, sign(ANN, "RS256", key, "k1"), "algorithm is not accepted")
    issuer.publish(jwk(key, "k1", alg="RS256"))
    found = verifier(jwks_url=issuer.url)
    await assert_invalid(found, sign(ANN, "RS512", key, "k1"), "has no such key")


@pytest.mark.parametrize(
    "trouble",
    [
        lambda issuer: issuer.hang(),
        lambda issuer: issuer.trickle(),
        lambda issuer: issuer.flood(megabytes=100),
        lambda issuer: setattr(issuer, "answer", answer(b"", 500)),
        lambda issuer: setattr(issuer, "answer", answer(b"<html>sorry</html>")),
        lambda issuer: setattr(issuer, "answer", answer(key_set())),
    ],
    ids=["hangs", "trickles", "floods", "500", "garbage", "no key"],
)
async def test_an_issuer_in_trouble_says_nothing_about_a_token(
    issuer: Issuer, trouble: Any
) -> None:
    key = private_key("ES256")
    token = sign(ANN, "ES256", key, "k1")
    trouble(issuer)
    found = verifier(jwks_url=issuer.url, jwks_timeout_s=0.2, jwks_cooldown_s=0)
    with pytest.raises(TokenKeysUnavailable) as caught:
        await found.connection(token)
    assert_silent(caught.value, token)
    issuer.publish(jwk(key, "k1"))
    for _ in range(50):  # a busy machine may have no answer within the timeout either
        with contextlib.suppress(TokenKeysUnavailable):
            assert await user_of(found, token) == "ann", "it was good all the time"
            return
    pytest.fail("the keys cannot be fetched any more")


# Who asks for a connection


def handshake(token: str | None = None, **options: Any) -> Handshake:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return Handshake("/ws", headers, **options)


async def refused(found: TokenVerifier, asked: Handshake) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        await found.authenticate(asked)
    assert_silent(caught.value, asked.token or "")
    return caught.value.status, caught.value.code


async def test_a_handshake_becomes_an_identity() -> None:
    claims = {
        **ANN,
        "exp": int(NOW) + 60,
        "info": {"name": "Ann"},
        "meta": {"role": "admin", "info": 7},
    }
    meta = {"role": "admin", "info": {"name": "Ann"}}
    expected = Identity("ann", meta, expires_at=NOW + 60, info={"name": "Ann"})
    token = sign(claims)
    assert await verifier().authenticate(handshake(token)) == expected
    for other in (
        Handshake("/ws", {}, f"token={token}"),
        handshake("nonsense", connect_token=token),
    ):
        assert await verifier().authenticate(other) == expected
    assert await verifier().authenticate(handshake(sign({}))) == Identity(meta={"info": None})


async def test_a_handshake_is_refused_with_a_word_that_says_why() -> None:
    found = verifier()
    for asked in (
        handshake(),
        Handshake("/ws", {}, "token="),
        handshake(sign(ANN), connect_token=""),
    ):
        assert await refused(found, asked) == (401, "token_missing")
    for claims in ({"exp": int(NOW)}, {"nbf": int(NOW) + 1}, {"expire_at": int(NOW)}):
        assert await refused(found, handshake(sign(claims))) == (401, "token_expired")
    for token in ("x", sign({"sub": 7}), sign({"channel": "c"}), sign(ANN, "HS256", "x" * 64)):
        assert await refused(found, handshake(token)) == (401, "token_invalid")
    gone = verifier(jwks_url="http://127.0.0.1:9/", jwks_timeout_s=0.5)
    asked = handshake(sign(ANN, "ES256", kid="k1"))
    assert await refused(gone, asked) == (503, "token_keys_unavailable")


def test_a_hub_takes_it_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    hub, app = Hub(), FastAPI()
    app.include_router(hub.router("/ws"))
    found = TokenVerifier(hmac_secret=SECRET)
    hub.authenticate(found.authenticate)
    metas: list[Any] = []

    @hub.on_connect
    def came(client: Client) -> None:
        metas.append((client.user, dict(client.meta)))

    hub.on_message(lambda client, text: client.send(text))
    good = sign({**ANN, "info": 7, "exp": 4_000_000_000})
    bad, old = sign(ANN, "HS256", "x" * 64), sign({"exp": 1_600_000_000})
    with TestClient(app) as client:
        with client.websocket_connect("/ws", headers={"Authorization": f"Bearer {good}"}) as socket:
            assert_echoes(socket)
        assert refusal(client, "/ws") == (
            401,
            {"error": "A token is needed", "code": "token_missing"},
        )
        status, body = refusal(client, f"/ws?token={bad}")
        why = "The token is not valid: its signature does not fit"
        assert (status, body) == (401, {"error": why, "code": "token_invalid"})
        status, body = refusal(client, f"/ws?token={old}")
        assert (status, body["code"]) == (401, "token_expired")
    assert metas == [("ann", {"info": 7})]
    assert "was refused: 401 token_invalid" in caplog.text
    ours = "".join(record.getMessage() for record in caplog.records if record.name == "hubbub")
    for secret in (SECRET, good, bad, old, *(token.split(".")[2] for token in (good, bad, old))):
        assert secret not in ours


# What cannot work, and what is shown


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {},
            "a TokenVerifier needs a key; give hmac_secret, rsa_public_key, ecdsa_public_key or jwks_url",
        ),
        ({"hmac_secret": "short"}, "at least 32 bytes for HS256"),
        ({"hmac_secret": ""}, "has 0"),
        ({"hmac_secret": RSA_PEM}, "hmac_secret (keyword): must be random bytes"),
        ({"hmac_secret": []}, "hmac_secret (keyword): must be a str or bytes"),
        ({"rsa_public_key": ECDSA_PEM}, "must be an RSA public key"),
        ({"ecdsa_public_key": RSA_PEM}, "must be an ECDSA public key"),
        ({"rsa_public_key": private_pem(private_key("RS256"))}, "is a private key"),
        (
            {"jwks_url": "http://login.example.com/keys"},
            "jwks_url (keyword): must begin with https://",
        ),
        ({"jwks_url": ""}, "jwks_url (keyword): must be a URL"),
        ({"hmac_secret": SECRET, "algorithms": ["none"]}, "must be a list of some of these: ES256"),
        ({"hmac_secret": SECRET, "algorithms": "HS256"}, "must be a list"),
        ({"hmac_secret": SECRET, "algorithms": []}, "must be a list"),
        ({"hmac_secret": SECRET, "algorithms": ["HS256", "RS256"]}, "there is no key for RS256"),
        (
            {"hmac_secret": "s" * 40, "algorithms": ["HS256", "HS512"]},
            "at least 64 bytes for HS512",
        ),
        ({"rsa_public_key": RSA_PEM, "algorithms": ["ES256"]}, "is for RS256, RS384, RS512"),
        (
            {"hmac_secret": SECRET, "jwks_url": "https://a.example/", "algorithms": ["HS256"]},
            "must name one that the keys of jwks_url are for",
        ),
        ({"hmac_secret": SECRET, "audience": ""}, "audience (keyword): must be a str"),
        ({"hmac_secret": SECRET, "audience": []}, "audience (keyword): must be a str"),
        ({"hmac_secret": SECRET, "issuer": [7]}, "issuer (keyword): must be a str"),
        ({"hmac_secret": SECRET, "issuer": 7}, "issuer (keyword): must be a str"),
        ({"hmac_secret": SECRET, "user_claim": ""}, "user_claim (keyword): must be the name"),
        ({"hmac_secret": SECRET, "user_claim": None}, "user_claim (keyword): must be the name"),
        ({"hmac_secret": SECRET, "leeway_s": -1}, "leeway_s (keyword): must be seconds, 0 or more"),
        ({"hmac_secret": SECRET, "leeway_s": float("nan")}, "leeway_s (keyword): must be seconds"),
        ({"hmac_secret": SECRET, "leeway_s": "5"}, "leeway_s (keyword): must be seconds"),
        ({"hmac_secret": SECRET, "leeway_s": True}, "leeway_s (keyword): must be seconds"),
        (
            {"hmac_secret": SECRET, "jwks_ttl_s": 0},
            "jwks_ttl_s (keyword): must be seconds, more than 0",
        ),
        ({"hmac_secret": SECRET, "jwks_timeout_s": 0}, "jwks_timeout_s (keyword): must be seconds"),
        ({"hmac_secret": SECRET, "jwks_grace_s": -1}, "jwks_grace_s (keyword): must be seconds"),
        (
            {"hmac_secret": SECRET, "jwks_cooldown_s": 301},
            "must not be more than jwks_ttl_s, which is 300",
        ),
    ],
)
def test_what_cannot_work_is_an_error_that_says_what_to_write(
    options: dict[str, Any], says: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        TokenVerifier(**options)
    assert says in str(caught.value)
    assert caught.value.value is None
    assert_silent(caught.value, private_pem(private_key("RS256")))


def test_without_pyjwt_there_is_no_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(MissingExtra, match=r"hubbub\[tokens\]"):
        TokenVerifier(hmac_secret=SECRET)


def test_it_shows_its_algorithms_and_no_key() -> None:
    found = TokenVerifier(
        hmac_secret=SECRET, ecdsa_public_key=ECDSA_PEM, jwks_url="https://a.example/keys?key=s3cr3t"
    )
    assert repr(found) == (
        "TokenVerifier(ES256, ES384, ES512, EdDSA, HS256, HS384, HS512, RS256, RS384, RS512; "
        "jwks_url='https://a.example/keys')"
    )
    shown = repr(vars(TokenVerifier(hmac_secret=SECRET, rsa_public_key=RSA_PEM)))
    assert SECRET not in shown
    assert RSA_PEM.splitlines()[1] not in shown
