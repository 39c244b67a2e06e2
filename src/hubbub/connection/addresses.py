"""The addresses that a client program may ask for, and how they are shown: without secrets.

Pure: it reads text and looks nothing up. What must not live here: where a redirect may lead
(`redirects`). The commands that take an address use it too.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit, urlunsplit

from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

_URL_CHARACTERS = "%/:?#[]@!$&'()*+,;=~"
_NO_HOST = re.compile(r'[\x00-\x20\x7f\\"<>^`{|}]')


def websocket_url(url: str) -> str:
    """Return `url` as it is asked for: ws or wss for http or https, in ASCII, no fragment.

    Raises ValueError if no such address can be reached.
    """
    try:
        parts = urlsplit(url)
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
        user, at, host = parts.netloc.rpartition("@")
        if parts.port == 0 or _NO_HOST.search(host):
            raise ValueError
        # Also for ASCII: a label that is empty or too long is found here, and not by a resolver.
        host = host.encode("idna").decode()
        path, query = (quote(part, safe=_URL_CHARACTERS) for part in (parts.path, parts.query))
        user = quote(user, safe=_URL_CHARACTERS)
        address = urlunsplit((scheme, user + at + host, path, query, ""))
        if ":" in (parse_uri(address).username or ""):  # Basic authentication has no form of it
            raise ValueError
    except (InvalidURI, ValueError):
        raise ValueError(
            f"{without_secrets(url)!r} is no WebSocket address; one looks like "
            "ws://localhost:8080/ws or wss://example.com/ws"
        ) from None
    return address


def without_secrets(url: str) -> str:
    """Return `url` without what may be a secret: the query and the user's name and password."""
    bare = url.partition("?")[0].partition("#")[0]
    scheme, separator, rest = bare.partition("://")
    return scheme + separator + rest.rpartition("@")[2]
