"""Where a redirect of a handshake may lead, and which headers go along.

Pure: it reads an answer and asks for nothing. What must not live here: how many redirects are
followed, and following them (`handshake`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit, urlunsplit

from websockets.exceptions import InvalidStatus
from websockets.http11 import Response
from websockets.uri import WebSocketURI, parse_uri

from .addresses import websocket_url, without_secrets
from .refusals import first_header

_REDIRECTS = (300, 301, 302, 303, 307, 308)


class Target(NamedTuple):
    """What one request goes to, and the headers that the program adds to it."""

    url: str
    headers: Mapping[str, str]


class BadRedirect(InvalidStatus):
    """A redirect that is not followed; `why` says why."""

    def __init__(self, response: Response, why: str) -> None:
        super().__init__(response)
        self.why = why


def redirected(target: Target, response: Response) -> Target | None:
    """Return where `response` leads; None if it is no redirect. Raises `BadRedirect`.

    An https: Location means wss:. TLS is never left. The program's headers may hold secrets, and
    only a program knows which: they go to the same origin, and from ws: to wss: of the same host
    on the usual ports, and nowhere else.
    """
    location = first_header(response, "Location")
    if response.status_code not in _REDIRECTS or not location:
        return None
    try:
        url = websocket_url(urljoin(target.url, location))
    except ValueError:
        why = f"redirected to {without_secrets(location)!r}, which is no WebSocket address"
        raise BadRedirect(response, why) from None
    old, new = parse_uri(target.url), parse_uri(url)
    if old.secure and not new.secure:
        raise BadRedirect(response, f"redirected from TLS to {without_secrets(url)!r}")
    if not _has_same_owner(old, new):
        return Target(url, {})
    if new.username is None and old.username is not None:
        parts = urlsplit(url)
        user = urlsplit(target.url).netloc.rpartition("@")[0]
        url = urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc}"))
    return Target(url, target.headers)


def _has_same_owner(old: WebSocketURI, new: WebSocketURI) -> bool:
    is_same = (old.secure, old.port) == (new.secure, new.port)
    is_upgrade = not old.secure and new.secure and (old.port, new.port) == (80, 443)
    return old.host == new.host and (is_same or is_upgrade)
