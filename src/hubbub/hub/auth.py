"""Auth: the origin check, and what an authenticate handler may answer.

What must not live here: the handler itself, HTTP responses. Called by the endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import Refused
from ..limits import is_client_id, printable
from ..model import Handshake, Identity
from ..origins import (
    ANY,
    OPAQUE,
    SAME_ORIGIN,
    WEB_SCHEMES,
    Origin,
    read_host,
    read_origin,
    read_pattern,
)


def check_origin(origins: Sequence[str], handshake: Handshake) -> None:
    """Raise `Refused(403)` naming the origin if a page of that origin may not connect.

    A request without an Origin header is no browser and passes: the header protects users whose
    browser is made to connect by a foreign page (RFC 6455 section 10.2), nothing else.
    """
    text = handshake.origin
    if text is None or ANY in origins or _is_allowed(origins, text, handshake.host):
        return
    shown = printable(text)
    raise Refused(
        403,
        "origin_refused",
        f"The origin {shown} may not connect; add it to the setting 'origins'",
        details={"origin": shown},
    )


def _is_allowed(origins: Sequence[str], text: str, host: str | None) -> bool:
    if text == OPAQUE:
        return OPAQUE in origins
    origin = read_origin(text)
    if origin is None:
        return False
    patterns = map(read_pattern, origins)
    return any(isinstance(pattern, Origin) and pattern.covers(origin) for pattern in patterns) or (
        SAME_ORIGIN in origins and _is_at(origin, host)
    )


def is_same_origin(origin: str, host: str | None) -> bool:
    """Tell whether the header `origin` names the same host and port as the Host header.

    The scheme is not compared: behind a proxy that ends TLS the server sees http and the page
    says https. A port that is the default of the origin's scheme may be absent on either side.
    """
    theirs = read_origin(origin)
    return theirs is not None and _is_at(theirs, host)


def _is_at(origin: Origin, host: str | None) -> bool:
    if host is None or origin.scheme not in WEB_SCHEMES:
        return False
    return read_host(host, origin.scheme) == origin


def to_identity(answer: object) -> Identity:
    """Read what an authenticate handler returned: an Identity, a user's name, or None."""
    if answer is None:
        return Identity()
    if isinstance(answer, Identity):
        return answer
    if isinstance(answer, str):
        return Identity(user=answer)
    raise TypeError(
        f"an authenticate handler returns an Identity, a user's name (a str; of another key, write "
        f"str(key)) or None, not {type(answer).__name__}; an anonymous client is Identity()"
    )


def check_expiry(identity: Identity, now: float) -> None:
    """Raise `Refused(401)` for an identity that has ended before `now` (Unix time in seconds)."""
    if identity.expires_at is not None and identity.expires_at <= now:
        raise Refused(401, "token_expired", "The token has expired")


def requested_client_id(handshake: Handshake, identity: Identity, from_query: bool) -> str | None:
    """Return the id that the client should have, None for a generated one.

    Raises `Refused(400)` for an id that is not well-formed.
    """
    wish = identity.client_id
    if wish is None and from_query:
        wish = handshake.query.get("id")
    if wish is None:
        return None
    if not is_client_id(wish):
        raise Refused(400, "bad_id", "An id is 1 to 64 letters, digits and -_.:@+")
    return wish
