"""Verifier: from the text of a token to what it says, or an error that says why not.

What must not live here: what claims mean (`claims`), what a key is (`keys`), where keys are fetched
(`key_set`). Signatures are PyJWT's business. Applications call it, and dialects with tokens.
"""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import Refused, TokenError, TokenInvalid
from ..limits import MAX_HEAD_BYTES
from ..model import Handshake, Identity
from .claims import ConnectionToken, SubscriptionToken, read_connection, read_subscription
from .fetch import Source, fault_of_url
from .key_set import Freshness, KeySet
from .keys import (
    ALGORITHMS,
    PUBLIC_ALGORITHMS,
    SECRET_ALGORITHMS,
    Key,
    check_installed,
    public_keys,
    secret_keys,
    wrong,
)

MAX_TOKEN_BYTES = MAX_HEAD_BYTES
"""How long a token may be: no longer than what a request's head can carry."""

_MALFORMED = "it is no JSON Web Token"
_FORGED = "its signature does not fit"
_WHY = {
    "InvalidSignatureError": _FORGED,
    "InvalidAudienceError": "it is for another audience",
    "InvalidIssuerError": "it is of another issuer",
}
"""What PyJWT found, in words that quote nothing of the token."""

# The times are checked in `claims`, where they have their order, their types and a clock.
_OPTIONS: Any = {f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "sub", "jti")}


class TokenVerifier:
    """Checks JSON Web Tokens, and says what they say: `hub.authenticate(verifier.authenticate)`.

    Keys, of which at least one is needed (a list of them where one takes over from another):
    `hmac_secret` for HS256, HS384 and HS512 (at least 32, 48 and 64 bytes; RFC 7518 section 3.2),
    `rsa_public_key` (PEM) for RS256, RS384 and RS512, `ecdsa_public_key` (PEM) for ES256, ES384 or ES512
    after its curve, `jwks_url` for the keys that an issuer publishes: a token that names its key
    (`kid`) and has no HS algorithm is checked with these. Only the algorithms of the keys given are
    accepted, and of these only `algorithms` (None: all).

    `audience` and `issuer`: what the claims `aud` and `iss` must be, one or several (None: a token with
    `aud` is refused, RFC 7519 section 4.1.3, and `iss` is not looked at). `user_claim`: which claim is
    the user's name. `leeway_s`: how many seconds the clocks of issuer and hub may differ. `clock` gives
    the Unix time in seconds.

    Of keys that are fetched: `jwks_ttl_s` is how long they count, `jwks_grace_s` how much longer while
    they cannot be fetched (0: not at all), `jwks_cooldown_s` how long after a fetch there is no other,
    `jwks_timeout_s` how long one may take, `ssl_context` whom to trust (None: the system's authorities).

    Raises `SettingsError` for what cannot work, `MissingExtra` without PyJWT. Event loop only, one loop
    at a time.
    """

    def __init__(
        self,
        *,
        hmac_secret: str | bytes | Sequence[str | bytes] | None = None,
        rsa_public_key: str | bytes | Sequence[str | bytes] | None = None,
        ecdsa_public_key: str | bytes | Sequence[str | bytes] | None = None,
        jwks_url: str | None = None,
        algorithms: Sequence[str] | None = None,
        audience: str | Sequence[str] | None = None,
        issuer: str | Sequence[str] | None = None,
        user_claim: str = "sub",
        leeway_s: float = 0.0,
        jwks_ttl_s: float = 300.0,
        jwks_grace_s: float = 3600.0,
        jwks_cooldown_s: float = 10.0,
        jwks_timeout_s: float = 5.0,
        ssl_context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        public = (rsa_public_key, ecdsa_public_key, jwks_url)
        check_installed(needs_cryptography=any(each is not None for each in public))
        wanted = _algorithms(algorithms)
        self._keys: list[Key] = []
        if hmac_secret is not None:
            self._keys += secret_keys("hmac_secret", hmac_secret, wanted)
        if rsa_public_key is not None:
            self._keys += public_keys("rsa_public_key", rsa_public_key, "RSA", wanted)
        if ecdsa_public_key is not None:
            self._keys += public_keys("ecdsa_public_key", ecdsa_public_key, "ECDSA", wanted)
        self._key_set: KeySet | None = None
        self._jwks_url = ""
        freshness = _freshness(jwks_ttl_s, jwks_grace_s, jwks_cooldown_s)
        timeout_s = _seconds("jwks_timeout_s", jwks_timeout_s, may_be_zero=False)
        if jwks_url is not None:
            source = _source(jwks_url, timeout_s, ssl_context)
            self._key_set, self._jwks_url = KeySet(source, freshness), source.shown
        self._algorithms = _accepted(self._keys, self._key_set is not None, wanted)
        self._audience = _names("audience", audience)
        self._issuer = _names("issuer", issuer)
        if not (isinstance(user_claim, str) and user_claim):
            raise wrong("user_claim", 'must be the name of a claim, as in "sub"')
        self._user_claim = user_claim
        self._leeway_s = _seconds("leeway_s", leeway_s)
        self._clock = clock

    def __repr__(self) -> str:
        parts = [", ".join(sorted(self._algorithms))]
        if self._jwks_url:
            parts.append(f"jwks_url={self._jwks_url!r}")
        return f"TokenVerifier({'; '.join(parts)})"

    async def authenticate(self, handshake: Handshake) -> Identity:
        """Say who asks for a connection, by `handshake.token`: for `hub.authenticate`.

        `client.meta` has the members of the claim `meta`, and `info`, which others are shown too (see
        `Identity.info`). The client is put into the rooms of the claims `channels` and `subs`, whose options are
        not looked at. Raises `Refused`: 401 `token_missing`, `token_expired` or `token_invalid`, 503
        `token_keys_unavailable`.
        """
        if not handshake.token:
            raise Refused(401, "token_missing", "A token is needed")
        try:
            token = await self.connection(handshake.token)
        except TokenError as error:
            refusal = error.refusal()
        else:
            return Identity(
                user=token.user,
                meta={**token.meta, "info": token.info},
                expires_at=token.expires_at,
                rooms=(*token.channels, *token.subs),
                info=token.info,
            )
        raise refusal

    async def connection(self, token: str) -> ConnectionToken:
        """Return what a connection token says.

        Raises `TokenInvalid`, `TokenExpired` for one that is good in all but its time, and
        `TokenKeysUnavailable` where its key cannot be had now.
        """
        claims = await self._claims(token)
        return read_connection(
            claims, user_claim=self._user_claim, now=self._clock(), leeway_s=self._leeway_s
        )

    async def subscription(
        self, token: str, *, user: str | None, room: str, client_id: str | None = None
    ) -> SubscriptionToken:
        """Return what a subscription token says to `user` (None: anonymous) about `room`.

        `client_id` is who asks, for tokens that are for one client alone. Raises as `connection`
        does; a token for somebody else, or for another room, is a `TokenInvalid`.
        """
        claims = await self._claims(token)
        found, only_client_id = read_subscription(
            claims, user_claim=self._user_claim, now=self._clock(), leeway_s=self._leeway_s
        )
        if found.user != (user or None):
            raise TokenInvalid("it is for another user", is_foreign=True)
        if found.room != room:
            raise TokenInvalid("it is for another room", is_foreign=True)
        if only_client_id is not None and only_client_id != client_id:
            raise TokenInvalid("it is for another client", is_foreign=True)
        return found

    async def _claims(self, token: str) -> dict[str, Any]:
        """Return the claims of a token whose signature, audience and issuer are right."""
        algorithm, kid = self._header(token)
        if self._key_set is not None and kid is not None and algorithm not in SECRET_ALGORITHMS:
            keys = await self._key_set.find(kid, algorithm)
            missing = "its issuer has no such key"
        else:
            keys = [key for key in self._keys if algorithm in key.algorithms]
            missing = "it does not name its key (kid)"
        why = missing
        for key in keys:
            claims, why = self._decoded(token, key)
            if claims is not None:
                return claims
            if why != _FORGED:
                break
        raise TokenInvalid(why)

    def _header(self, token: str) -> tuple[str, str | None]:
        """Return the algorithm and the name of the key that a token claims, of which nothing is proved."""
        import jwt

        if not isinstance(token, str) or len(token) > MAX_TOKEN_BYTES:
            raise TokenInvalid(_MALFORMED)
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            header = {}
        if not header:
            raise TokenInvalid(_MALFORMED)
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise TokenInvalid("its algorithm is not accepted here")
        if "crit" in header:  # RFC 7515 section 4.1.11
            raise TokenInvalid("it wants an extension that is not known here")
        return algorithm, kid

    def _decoded(self, token: str, key: Key) -> tuple[dict[str, Any] | None, str]:
        """Return the claims of a token that `key` has signed; else None, and why not."""
        import jwt

        try:
            claims = jwt.decode(
                token,
                key.material,
                algorithms=sorted(key.algorithms & self._algorithms),
                options=_OPTIONS,
                audience=self._audience,
                issuer=self._issuer,
            )
        except jwt.MissingRequiredClaimError as error:
            return None, f"its claim {error.claim!r} is missing"
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            name = type(error).__name__
            if name == "InvalidAudienceError" and self._audience is None:
                return None, "it is for an audience, and its verifier has none"
            return None, _WHY.get(name, _MALFORMED)
        return claims, ""


def _algorithms(names: Sequence[str] | None) -> frozenset[str] | None:
    if names is None:
        return None
    if isinstance(names, str) or not names or not ALGORITHMS.issuperset(names):
        known = ", ".join(sorted(ALGORITHMS))
        raise wrong("algorithms", f"must be a list of some of these: {known}")
    return frozenset(names)


def _accepted(keys: list[Key], has_set: bool, wanted: frozenset[str] | None) -> frozenset[str]:
    """Return the algorithms that the keys are good for; raise if there is none, or not for all wanted."""
    accepted = frozenset(PUBLIC_ALGORITHMS if has_set else ())
    accepted = accepted.union(*(key.algorithms for key in keys))
    if not accepted:
        raise wrong(
            "hmac_secret",
            "a TokenVerifier needs a key; give hmac_secret, rsa_public_key, ecdsa_public_key or jwks_url",
        )
    if wanted is None:
        return accepted
    if lacking := sorted(wanted - accepted):
        raise wrong("algorithms", f"there is no key for {', '.join(lacking)}")
    if has_set and not wanted & PUBLIC_ALGORITHMS:
        raise wrong("algorithms", "must name one that the keys of jwks_url are for, as RS256")
    return wanted


def _source(url: str, timeout_s: float, ssl_context: ssl.SSLContext | None) -> Source:
    if fault := fault_of_url(url):
        raise wrong("jwks_url", fault)
    return Source(url, timeout_s, ssl_context)


def _freshness(ttl_s: float, grace_s: float, cooldown_s: float) -> Freshness:
    found = Freshness(
        _seconds("jwks_ttl_s", ttl_s, may_be_zero=False),
        _seconds("jwks_grace_s", grace_s),
        _seconds("jwks_cooldown_s", cooldown_s),
    )
    if found.cooldown_s > found.ttl_s:
        raise wrong("jwks_cooldown_s", f"must not be more than jwks_ttl_s, which is {ttl_s:g}")
    return found


def _names(name: str, given: str | Sequence[str] | None) -> list[str] | None:
    if given is None:
        return None
    names: list[object] = [given] if isinstance(given, str) else []
    if not names and isinstance(given, Sequence | frozenset | set):
        names = list(given)
    found = [each for each in names if isinstance(each, str) and each]
    if not found or len(found) < len(names):
        raise wrong(name, "must be a str that is not empty, or a list of these")
    return found


def _seconds(name: str, value: float, *, may_be_zero: bool = True) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and math.isfinite(value) and (value > 0 or (value == 0 and may_be_zero)):
        return value
    raise wrong(name, f"must be seconds, {'0 or more' if may_be_zero else 'more than 0'}")
