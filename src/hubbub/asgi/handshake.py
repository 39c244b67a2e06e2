"""Handshake: what an ASGI scope says of who asks for a socket.

What must not live here: whether it may come in (`endpoint`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import Refused
from ..limits import check_head
from ..model import Handshake

_ORIGIN = re.compile(r"https?://[^/?#]+")


def read_handshake(scope: Mapping[str, Any]) -> Handshake:
    """Return the handshake in an ASGI scope. Repeated headers are joined with a comma.

    Raises `Refused(431)` for a head over `MAX_HEAD_BYTES` or `MAX_HEADERS`.
    """
    query: bytes = scope.get("query_string", b"")
    check_head(len(scope.get("raw_path") or scope["path"]) + len(query), scope["headers"])
    headers: dict[str, str] = {}
    repeated: dict[str, list[str]] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in headers:
            repeated.setdefault(name, [headers[name]]).append(value)
        else:
            headers[name] = value
    for name, found in repeated.items():
        headers[name] = ("; " if name == "cookie" else ", ").join(found)
    if scope.get("type") == "http":
        _name_the_page(headers)
    return Handshake(
        path=scope["path"],
        headers=headers,
        query_string=query.decode("latin-1"),
        subprotocols=tuple(scope.get("subprotocols", ())),
        address=address_of(scope),
        scheme=scope.get("scheme", "ws"),
        scope=scope,
    )


def read_if_small(scope: Mapping[str, Any]) -> Handshake | None:
    """Return the handshake in an ASGI scope; None for a head that is too large."""
    try:
        return read_handshake(scope)
    except Refused:
        return None


def _name_the_page(headers: dict[str, str]) -> None:
    """Give a GET of a page the Origin header that the page's handshake has.

    A browser sends it with every handshake, and with a GET to other origins only. Behind a proxy
    that rewrites Host the two would be answered differently. hubbub.js has the page's origin sent as
    the Referer. What a person follows is no page's question.
    """
    page = _ORIGIN.match(headers.get("referer", ""))
    if page and headers.get("sec-fetch-mode") != "navigate":
        headers.setdefault("origin", page[0])


def address_of(scope: Mapping[str, Any]) -> str | None:
    """Return the address of the peer, None when the server does not say."""
    peer = scope.get("client")
    return None if not peer else str(peer[0])
