"""Keys: what tokens are checked with, and which algorithms each is good for.

What must not live here: tokens, and where a set of keys comes from. Pure. `verifier` and `key_set` call it.

A key is good for the algorithms of its own kind and no other. Otherwise anybody could sign with the text of
a public key as if it were a secret (RFC 8725 section 3.1).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import MissingExtra, SettingsError

LEAST_SECRET_BYTES: dict[str, int] = {"HS256": 32, "HS384": 48, "HS512": 64}
"""How long a secret must be: as long as what its hash gives (RFC 7518 section 3.2)."""
LEAST_RSA_BITS = 2048
"""How long an RSA key must be (RFC 7518 section 3.3)."""

SECRET_ALGORITHMS = frozenset(LEAST_SECRET_BYTES)
RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512"})
ALGORITHM_OF_CURVE: dict[str, str] = {
    "secp256r1": "ES256",
    "secp384r1": "ES384",
    "secp521r1": "ES512",
}
"""Each curve has one algorithm (RFC 7518 section 3.4)."""
ECDSA_ALGORITHMS = frozenset(ALGORITHM_OF_CURVE.values())
EDDSA_ALGORITHMS = frozenset({"EdDSA"})
PUBLIC_ALGORITHMS = RSA_ALGORITHMS | ECDSA_ALGORITHMS | EDDSA_ALGORITHMS
"""What the keys of a set may be good for: no secret is ever taken from one."""
ALGORITHMS = SECRET_ALGORITHMS | PUBLIC_ALGORITHMS

_KINDS = {
    "RSA": (RSA_ALGORITHMS, ["RS256"]),
    "ECDSA": (ECDSA_ALGORITHMS, [*sorted(ECDSA_ALGORITHMS), "ES256K"]),
}
"""For each kind of key its algorithms, and those by which PyJWT reads it: each curve has its own, one that
is refused too."""
_PUBLIC_KEY_TYPES = ("RSA", "EC", "OKP")

Text = str | bytes
Texts = Text | Sequence[Text]
"""One key, or several while one takes over from another."""


@dataclass(frozen=True, slots=True)
class Key:
    """What signatures are checked with: `material` as PyJWT has it, and for which algorithms.

    `kid` is its name in a set of keys; None for a key of the application's own.
    """

    algorithms: frozenset[str]
    material: Any = field(repr=False)
    kid: str | None = None


def check_installed(*, needs_cryptography: bool) -> None:
    """Raise `MissingExtra` without PyJWT, or without the package that it checks public keys with."""
    try:
        import jwt
    except ModuleNotFoundError as error:
        raise MissingExtra("pyjwt", "tokens") from error
    if needs_cryptography:
        try:
            jwt.get_algorithm_by_name("RS256")
        except RuntimeError as error:  # it is not implemented then
            raise MissingExtra("cryptography", "tokens") from error


def secret_keys(name: str, secrets: Texts, wanted: frozenset[str] | None) -> list[Key]:
    """Return keys of shared secrets, for the `wanted` algorithms (None: all that each is long enough for).

    Raises `SettingsError`, which names the setting `name`, for a secret that is too short, or that
    is a key of another kind.
    """
    return [_secret_key(name, secret, wanted) for secret in _each(name, secrets)]


def _secret_key(name: str, secret: Text, wanted: frozenset[str] | None) -> Key:
    material = _secret(name, secret)
    lengths = LEAST_SECRET_BYTES.items()
    if wanted is None:
        algorithms = frozenset(each for each, least in lengths if len(material) >= least)
        least, most_demanding = LEAST_SECRET_BYTES["HS256"], "HS256"
    else:
        algorithms = _in_both(name, SECRET_ALGORITHMS, wanted)
        least, most_demanding = max((least, each) for each, least in lengths if each in algorithms)
    if len(material) < least:
        make = f"python -c 'import secrets; print(secrets.token_urlsafe({least}))'"
        raise wrong(
            name,
            f"must have at least {least} bytes for {most_demanding} (RFC 7518 section 3.2), and has "
            f"{len(material)}; make one with  {make}",
        )
    return Key(algorithms, material)


def _secret(name: str, secret: Text) -> bytes:
    """Return a secret's bytes; raise for a text that is some other kind of key."""
    import jwt

    if not secret:
        return b""
    try:
        material: bytes = jwt.get_algorithm_by_name("HS256").prepare_key(secret)
        return material
    except (jwt.InvalidKeyError, ValueError):
        pass  # what it says may quote the secret
    raise wrong(
        name, "must be random bytes that only you and the issuer know, not a key in PEM or JWK"
    )


def public_keys(name: str, texts: Texts, kind: str, wanted: frozenset[str] | None) -> list[Key]:
    """Return keys of PEM texts, for the `wanted` algorithms (None: all of each key's own).

    Raises `SettingsError`, which names the setting `name`, for a text that is no public key of this
    `kind` ("RSA" or "ECDSA"), for a private key, and for one that is too short.
    """
    return [_public_key(name, text, kind, wanted) for text in _each(name, texts)]


def _public_key(name: str, text: Text, kind: str, wanted: frozenset[str] | None) -> Key:
    family, readers = _KINDS[kind]
    material = next(filter(None, (_read_pem(text, reader) for reader in readers)), None)
    if material is not None and (fault := fault_of(material)):
        raise wrong(name, fault)
    if material is None or not (own := algorithms_of(material)) <= family:
        begin = "-----BEGIN PUBLIC KEY-----"
        raise wrong(name, f"must be an {kind} public key in PEM, which begins with {begin}")
    return Key(_in_both(name, own, wanted or own), material)


def _read_pem(text: Text, algorithm: str) -> Any:
    """Return a key in PEM as PyJWT reads it for an algorithm; None if it is no key for that."""
    import jwt

    try:
        return jwt.get_algorithm_by_name(algorithm).prepare_key(text)
    except Exception:  # a text may be wrong in ways that cryptography has its own errors for
        return None


def _in_both(name: str, own: frozenset[str], wanted: frozenset[str]) -> frozenset[str]:
    if not own & wanted:
        ours, theirs = ", ".join(sorted(own)), ", ".join(sorted(wanted))
        raise wrong(name, f"is for {ours}, and algorithms allows only {theirs}")
    return own & wanted


def fault_of(material: Any) -> str:
    """Say why a key must not check tokens, though it is one; nothing if it may."""
    if hasattr(material, "private_bytes"):
        return "is a private key; give the public key that belongs to it, and keep this one away"
    if hasattr(material, "curve"):
        if material.curve.name in ALGORITHM_OF_CURVE:
            return ""
        return "must be on one of the curves P-256, P-384 and P-521"
    bits = getattr(material, "key_size", LEAST_RSA_BITS)
    if bits < LEAST_RSA_BITS:
        return f"must have at least {LEAST_RSA_BITS} bits (RFC 7518 section 3.3), and has {bits}"
    return ""


def algorithms_of(material: Any) -> frozenset[str]:
    """Return the algorithms of a public key in which there is no fault."""
    if hasattr(material, "curve"):
        return frozenset({ALGORITHM_OF_CURVE[material.curve.name]})
    return RSA_ALGORITHMS if hasattr(material, "key_size") else EDDSA_ALGORITHMS


def read_key_set(document: bytes) -> tuple[Key, ...]:
    """Return the keys of a JSON Web Key Set (RFC 7517) that may check tokens.

    The others are left out: secrets, private keys, keys for encryption, keys without a name, and what
    this PyJWT does not know. Raises `ValueError` for what is no such set, and for one without a key.
    """
    try:
        content = json.loads(document)
    except (ValueError, RecursionError):
        content = None
    entries = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ValueError("the answer is no JSON Web Key Set")
    keys = tuple(key for entry in entries if (key := _key_of(entry)))
    if not keys:
        raise ValueError("the set has no key that tokens can be checked with")
    return keys


def _key_of(entry: Any) -> Key | None:
    import jwt

    if not (
        isinstance(entry, dict)
        and entry.get("kty") in _PUBLIC_KEY_TYPES
        and entry.get("use", "sig") == "sig"
        and isinstance(kid := entry.get("kid"), str)
    ):
        return None
    try:
        if "verify" not in entry.get("key_ops", ["verify"]):
            return None
        material = jwt.PyJWK(entry).key
        if fault_of(material):
            return None
        own = algorithms_of(material)
        algorithms = own & {entry["alg"]} if "alg" in entry else own
    except Exception:  # one entry that is odd must not take the others with it
        return None
    return Key(algorithms, material, kid) if algorithms else None


def wrong(name: str, expected: str) -> SettingsError:
    """Return the error for a setting of a verifier, without its value, which may be a secret."""
    return SettingsError(name, None, expected, shows_value=False)


def _each(name: str, texts: Texts) -> list[Text]:
    found: list[Any] = [texts] if isinstance(texts, str | bytes) else []
    if not found and isinstance(texts, Sequence):
        found = list(texts)
    if not found or not all(isinstance(each, str | bytes) for each in found):
        raise wrong(name, "must be a str or bytes, or a list of these")
    return found
