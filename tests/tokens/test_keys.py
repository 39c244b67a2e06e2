"""Keys: what may check tokens, what may not, and what is said of it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import MissingExtra, SettingsError
from hubbub.tokens.keys import (
    RSA_ALGORITHMS,
    Key,
    check_installed,
    public_keys,
    read_key_set,
    secret_keys,
)
from issuing import SECRET, jwk, key_set, pem, private_key, private_pem

RSA = private_key("RS256")
RSA_PEM = pem(RSA)


def test_without_pyjwt_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(MissingExtra, match=r"pyjwt .* pip install 'hubbub\[tokens\]'"):
        check_installed(needs_cryptography=False)


WITHOUT_CRYPTOGRAPHY = """
import sys
sys.modules["cryptography"] = None
from hubbub import MissingExtra, TokenVerifier
TokenVerifier(hmac_secret="s" * 32)
for options in ({"rsa_public_key": "-"}, {"ecdsa_public_key": "-"}, {"jwks_url": "https://a.example/"}):
    try:
        TokenVerifier(**options)
    except MissingExtra as error:
        print(error)
"""


def test_without_cryptography_public_keys_need_it_and_secrets_do_not() -> None:
    """In a Python of its own: what has been imported cannot be taken away from PyJWT."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CRYPTOGRAPHY], capture_output=True, text=True, check=False
    )
    expected = "cryptography is not installed: run  pip install 'hubbub[tokens]'\n"
    assert (done.stdout, done.stderr) == (expected * 3, "")


@pytest.mark.parametrize(
    ("size", "algorithms"),
    [
        (32, {"HS256"}),
        (47, {"HS256"}),
        (48, {"HS256", "HS384"}),
        (63, {"HS256", "HS384"}),
        (64, {"HS256", "HS384", "HS512"}),
    ],
)
def test_a_secret_is_good_for_what_it_is_long_enough_for(size: int, algorithms: set[str]) -> None:
    (key,) = secret_keys("hmac_secret", "é" + "s" * (size - 2), None)
    assert key.algorithms == algorithms, "the bytes count, not the characters"
    assert secret_keys("hmac_secret", b"s" * size, None)[0].algorithms == algorithms


@pytest.mark.parametrize(
    ("size", "wanted", "says"),
    [
        (0, None, "at least 32 bytes for HS256 (RFC 7518 section 3.2), and has 0"),
        (31, None, "at least 32 bytes for HS256"),
        (31, {"HS256"}, "at least 32 bytes for HS256"),
        (40, {"HS256", "HS384"}, "at least 48 bytes for HS384"),
        (63, {"HS512"}, "at least 64 bytes for HS512"),
    ],
)
def test_a_secret_that_is_too_short_is_an_error_that_says_what_to_write(
    size: int, wanted: set[str] | None, says: str
) -> None:
    secret = "0123456789" * 7
    with pytest.raises(SettingsError) as caught:
        secret_keys("hmac_secret", secret[:size], None if wanted is None else frozenset(wanted))
    assert says in str(caught.value)
    assert "secrets.token_urlsafe(" in str(caught.value)
    assert "0123456789" not in str(caught.value)
    assert caught.value.value is None


@pytest.mark.parametrize(
    "secret",
    [
        RSA_PEM,
        RSA_PEM.encode(),
        private_pem(RSA),
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQDJ3 somebody@somewhere.example",
        "a secret with half a pair \ud800, which has no bytes at all",
    ],
)
def test_what_is_no_secret_is_not_taken_for_one(secret: str | bytes) -> None:
    with pytest.raises(SettingsError, match="random bytes") as caught:
        secret_keys("hmac_secret", secret, None)
    assert caught.value.__context__ is None, "it may quote the secret"


@pytest.mark.parametrize("secrets", [[], None, 7, [SECRET, None], {"a": SECRET}])
def test_secrets_are_texts(secrets: Any) -> None:
    with pytest.raises(SettingsError, match="must be a str or bytes, or a list of these"):
        secret_keys("hmac_secret", secrets, None)


def test_several_secrets_are_several_keys() -> None:
    keys = secret_keys("hmac_secret", [SECRET, "n" * 32], None)
    assert [len(key.algorithms) for key in keys] == [3, 1]


@pytest.mark.parametrize(
    ("kind", "algorithm", "expected"),
    [
        ("RSA", "RS256", RSA_ALGORITHMS),
        ("ECDSA", "ES256", {"ES256"}),
        ("ECDSA", "ES384", {"ES384"}),
        ("ECDSA", "ES512", {"ES512"}),
    ],
)
def test_a_public_key_is_good_for_the_algorithms_of_its_kind(
    kind: str, algorithm: str, expected: set[str]
) -> None:
    text = pem(private_key(algorithm))
    for given_text in (text, text.encode()):
        assert public_keys("k", given_text, kind, None)[0].algorithms == expected
    assert public_keys("k", text, kind, frozenset({algorithm}))[0].algorithms == {algorithm}


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        ("RSA", pem(private_key("ES256")), "must be an RSA public key in PEM"),
        ("ECDSA", RSA_PEM, "must be an ECDSA public key in PEM"),
        ("RSA", pem(private_key("EdDSA")), "must be an RSA public key in PEM"),
        ("RSA", "nonsense", "which begins with -----BEGIN PUBLIC KEY-----"),
        ("ECDSA", "", "must be an ECDSA public key in PEM"),
        ("RSA", RSA_PEM[:-80], "must be an RSA public key in PEM"),
        ("RSA", private_pem(RSA), "is a private key; give the public key"),
        ("ECDSA", private_pem(private_key("ES256")), "is a private key"),
        ("RSA", pem(private_key("RS256", "short")), "at least 2048 bits"),
        ("ECDSA", pem(private_key("ES256K")), "one of the curves P-256, P-384 and P-521"),
    ],
)
def test_what_is_no_such_public_key_is_refused(kind: str, text: str, says: str) -> None:
    with pytest.raises(SettingsError, match="the_setting") as caught:
        public_keys("the_setting", text, kind, None)
    assert says in str(caught.value)
    for line in text.splitlines()[1:-1]:
        assert line not in str(caught.value)


def test_a_key_for_none_of_the_algorithms_is_an_error() -> None:
    with pytest.raises(
        SettingsError, match=r"is for ES384, and algorithms allows only ES256, HS256"
    ):
        public_keys("k", pem(private_key("ES384")), "ECDSA", frozenset({"ES256", "HS256"}))
    with pytest.raises(SettingsError, match=r"is for HS256, HS384, HS512, .* only RS256"):
        secret_keys("k", SECRET, frozenset({"RS256"}))


def test_a_key_shows_nothing_of_what_it_is_made_of() -> None:
    (key,) = secret_keys("k", SECRET, None)
    assert SECRET not in repr(key)
    assert "HS512" in repr(key)


@pytest.mark.parametrize(
    ("algorithm", "members", "expected"),
    [
        ("RS256", {}, RSA_ALGORITHMS),
        ("RS256", {"alg": "RS512", "use": "sig", "key_ops": ["verify"]}, {"RS512"}),
        ("ES256", {}, {"ES256"}),
        ("ES384", {"alg": "ES384"}, {"ES384"}),
        ("ES512", {"use": "sig"}, {"ES512"}),
        ("EdDSA", {}, {"EdDSA"}),
    ],
)
def test_a_key_of_a_set_is_good_for_the_algorithms_of_its_kind(
    algorithm: str, members: dict[str, Any], expected: set[str]
) -> None:
    (key,) = read_key_set(key_set(jwk(private_key(algorithm), "k1", **members)))
    assert key.kid == "k1"
    assert key.algorithms == expected


UNFIT: dict[str, object] = {
    "a secret": {"kty": "oct", "k": "c2VjcmV0" * 8, "alg": "HS256", "kid": "x"},
    "a secret that names no algorithm": {"kty": "oct", "k": "c2VjcmV0" * 8, "kid": "x"},
    "an RSA key said to be a secret": jwk(RSA, "x", alg="HS256"),
    "for another algorithm of RSA": jwk(RSA, "x", alg="PS256"),
    "for encryption": jwk(RSA, "x", use="enc"),
    "for signing only": jwk(RSA, "x", key_ops=["sign"]),
    "without a name": jwk(RSA, None),
    "with a number as its name": {**jwk(RSA, None), "kid": 7},
    "too short": jwk(private_key("RS256", "short"), "x"),
    "of another curve": jwk(private_key("ES256K"), "x"),
    "said to be of another curve": jwk(private_key("ES256"), "x", alg="ES384"),
    "private": {**json.loads(jwt.get_algorithm_by_name("RS256").to_jwk(RSA)), "kid": "x"},
    "of no kind": {"kid": "x"},
    "of an unknown kind": {"kid": "x", "kty": "quantum"},
    "broken": {"kid": "x", "kty": "RSA", "n": "!", "e": "AQAB"},
    "of the wrong types": {"kid": "x", "kty": "EC", "crv": [], "x": {}, "y": 1},
    "with odd uses": jwk(RSA, "x", key_ops=7),
    "with an odd algorithm": jwk(RSA, "x", alg=["RS256"]),
    "a number": 7,
    "nothing": None,
}


@pytest.mark.parametrize("entry", UNFIT.values(), ids=UNFIT)
def test_a_key_that_is_not_fit_is_left_out_and_takes_no_other_with_it(entry: Any) -> None:
    good = jwk(RSA, "good")
    for entries in ([entry, good], [good, entry]):
        assert [key.kid for key in read_key_set(key_set(*entries))] == ["good"]
    with pytest.raises(ValueError, match="the set has no key that tokens can be checked with"):
        read_key_set(key_set(entry))


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"nonsense",
        b"\xff\xfe\x00",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": null}',
        b"[" * 200_000,
        b'{"keys": [' + b"[" * 200_000,
    ],
    ids=lambda document: repr(document[:12]),
)
def test_what_is_no_key_set_is_one_kind_of_error(document: bytes) -> None:
    with pytest.raises(ValueError, match="the answer is no JSON Web Key Set"):
        read_key_set(document)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = ("kty", "kid", "use", "alg", "crv", "n", "e", "x", "y", "key_ops")


@given(st.dictionaries(st.sampled_from(MEMBERS), ANYTHING, max_size=8), st.booleans())
def test_no_entry_at_all_breaks_a_set(entry: dict[str, Any], is_complete: bool) -> None:
    whole = {**jwk(RSA, "odd"), **entry} if is_complete else entry
    keys = read_key_set(key_set(whole, jwk(RSA, "good")))
    assert keys[-1].kid == "good"
    assert all(isinstance(key, Key) and key.algorithms for key in keys)
