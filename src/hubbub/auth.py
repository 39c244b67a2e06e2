"""Auth: the origin check, and what an authenticate handler may answer.

What must not live here: the handler itself, HTTP responses. Called by the endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from .errors import Refused
from .limits import is_client_id, printable
from .model import Handshake, Identity
from .settings import SAME_ORIGIN

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def check_origin(origins: Sequence[str], handshake: Handshake) -> None:
    """Raise `Refused(403)` naming the origin if a page of that origin may not connect.

    A request without an Origin header is no browser and passes: the header protects users whose
    browser is made to connect by a foreign page (RFC 6455 section 10.2), nothing else.
    """
    origin = handshake.origin
    if origin is None or "*" in origins:
        return
    lowered = origin.lower().rstrip("/")
    for allowed in origins:
        if allowed == SAME_ORIGIN:
            if is_same_origin(lowered, handshake.host):
                return
        elif lowered == allowed or _matches_wildcard(lowered, allowed):
            return
    shown = printable(origin)
    raise Refused(
        403,
        "origin_refused",
        f"The origin {shown} may not connect; add it to the setting 'origins'",
        details={"origin": shown},
    )


def is_same_origin(origin: str, host: str | None) -> bool:
    """Tell whether `origin` names the same host and port as the Host header.

    The scheme is not compared: behind a proxy that ends TLS the server sees http and the page
    says https. A port that is the default of the origin's scheme may be absent on either side.
    """
    if host is None:
        return False
    try:
        ours, theirs = urlsplit(f"//{host.lower()}"), urlsplit(origin)
        default = _DEFAULT_PORTS.get(theirs.scheme)
        if default is None or theirs.hostname is None:
            return False
        same_port = (ours.port or default) == (theirs.port or default)
        return ours.hostname == theirs.hostname and same_port
    except ValueError:
        return False


def _matches_wildcard(origin: str, allowed: str) -> bool:
    scheme, separator, host = allowed.partition("://*.")
    if not separator or not origin.startswith(f"{scheme}://"):
        return False
    subdomain = origin.removeprefix(f"{scheme}://")
    return subdomain.endswith(f".{host}") and len(subdomain) > len(host) + 1


def to_identity(answer: object) -> Identity:
    """Read what an authenticate handler returned: an Identity, a user's name, or None."""
    if answer is None:
        return Identity()
    if isinstance(answer, Identity):
        return answer
    if isinstance(answer, str):
        return Identity(user=answer)
    raise TypeError(
        f"an authenticate handler returns an Identity, a user name or None, not {type(answer).__name__}"
    )


def check_expiry(identity: Identity, now: float) -> None:
    """Raise `Refused(401)` for an identity that has ended before `now` (Unix time in seconds)."""
    if identity.expires_at is not None and identity.expires_at <= now:
        raise Refused(401, "token_expired", "The token has expired")


def wished_id(handshake: Handshake, identity: Identity, from_query: bool) -> str | None:
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
