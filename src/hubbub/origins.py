"""Origins: one reading of what a setting names and of what an Origin header says.

What must not live here: who may connect (`auth`). `settings` and `auth` call it; it imports nothing
of ours. An origin is a scheme, a host and a port (RFC 6454); a pattern is one whose host may begin
with `*.` and whose port may be `*`.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from ipaddress import IPv4Address, IPv6Address
from typing import Literal, NamedTuple

ANY = "*"
SAME_ORIGIN = "same-origin"
OPAQUE = "null"
"""What a browser sends for a page that has no origin: a sandboxed frame, in some a local file."""

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
WEB_SCHEMES = frozenset(_DEFAULT_PORTS)
_ANY_SUBDOMAIN = "*."
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_PORT = re.compile(r"[0-9]{1,5}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DOTS = str.maketrans("\u3002\uff0e\uff61", "...")
"""What browsers take for the dot of a name (UTS 46)."""
_JOINERS = "\u200c\u200d"
_MOST_HOST_LENGTH = 253
_MOST_PORT = 65535


class Origin(NamedTuple):
    """An origin or a pattern, as browsers write it.

    `host` is in lower case and ASCII, an IPv6 address in brackets and in its short form; empty for
    `file://`. `port` is None where it is the scheme's own, and "*" in a pattern for any.
    """

    scheme: str
    host: str
    port: int | Literal["*"] | None = None

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}"

    def covers(self, other: Origin) -> bool:
        """Tell whether the origin `other` fits this pattern."""
        if self.scheme != other.scheme or self.port not in (ANY, other.port):
            return False
        if not self.host.startswith(_ANY_SUBDOMAIN):
            return self.host == other.host
        ending = self.host[1:]
        return other.host.endswith(ending) and len(other.host) > len(ending)


def read_origin(text: str) -> Origin | None:
    """Read an Origin header; None for `null`, and for what is no origin."""
    try:
        origin = _read(text)
    except ValueError:
        return None
    is_pattern = origin.host.startswith(_ANY_SUBDOMAIN) or origin.port == ANY
    return None if is_pattern else origin


@functools.lru_cache(maxsize=256)
def read_pattern(text: str) -> str | Origin:
    """Read an entry of the setting `origins`: an origin, a pattern, or one of the three words.

    Raises `ValueError` that says what to write instead of an entry which no header can match.
    """
    text = text.strip()
    lowered = text.lower()
    if lowered in (ANY, SAME_ORIGIN, OPAQUE):
        return lowered
    origin = _read(text)
    if origin.scheme in ("ws", "wss"):
        page = origin._replace(scheme="https" if origin.scheme == "wss" else "http")
        raise ValueError(f"is a socket's address, and an origin is a page's: write {page}")
    return origin


def read_host(text: str, scheme: str) -> Origin | None:
    """Read a Host header as the origin of a page of that scheme; None for what is no host."""
    return read_origin(f"{scheme}://{text}") if text else None


def _read(text: str) -> Origin:
    scheme, separator, rest = text.strip().partition("://")
    scheme = scheme.lower()
    if not separator:
        raise ValueError(f"has no scheme: write {_guess(text)}")
    if not _SCHEME.fullmatch(scheme):
        raise ValueError("has no scheme such as http or https")
    rest = rest.rstrip("/") if scheme != "file" else rest
    if scheme == "file":
        if rest not in ("", "/"):
            raise ValueError("names a file, and all files are one origin: write file://")
        return Origin("file", "")
    return _read_place(scheme, rest)


def _guess(text: str) -> str:
    """Put a scheme before what looks like a host."""
    text = text.strip().lstrip(":/")
    host = re.split(r"[/?#]", text, maxsplit=1)[0]
    is_here = host.startswith(("localhost", "127.", "[::1]"))
    guess = f"{'http' if is_here else 'https'}://{host}"
    try:
        return str(_read(guess)) if host != ANY else f"'{ANY}' for any"
    except ValueError:
        return "https://example.com"


def _read_place(scheme: str, rest: str) -> Origin:
    if "," in rest or "://" in rest:
        raise ValueError("is several origins: write a list of them (in a variable: with commas)")
    if "@" in rest:
        raise ValueError("must not hold a user's name")
    place = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if place != rest:
        raise ValueError(f"must not have a path or a query: write {scheme}://{place}")
    name, port_text = _split_port(place)
    port = _read_port(port_text)
    host = _read_host(name)
    return Origin(scheme, host, None if port == _DEFAULT_PORTS.get(scheme) else port)


def _split_port(place: str) -> tuple[str, str | None]:
    if place.startswith("["):
        name, bracket, rest = place.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("has an IPv6 address that does not end with ]")
        return name + bracket, rest[1:] if rest else None
    if place.count(":") > 1:
        raise ValueError("has an IPv6 address without brackets: write it like http://[::1]:8000")
    name, colon, port = place.partition(":")
    return name, port if colon else None


def _read_port(text: str | None) -> int | Literal["*"] | None:
    if not text:  # "https://example.com:" is its own origin without the colon
        return None
    if text == "*":
        return "*"
    if not _PORT.fullmatch(text) or not 0 < int(text) <= _MOST_PORT:
        raise ValueError(f"has no port from 1 to {_MOST_PORT}, nor * for any")
    return int(text)


def _read_host(name: str) -> str:
    if name.startswith("["):
        return f"[{_read_ipv6(name[1:-1])}]"
    star = _ANY_SUBDOMAIN if name.startswith(_ANY_SUBDOMAIN) else ""
    host = _to_ascii(name.removeprefix(star))
    if host == ANY:
        raise ValueError(f"must not have {ANY} for a host: write '{ANY}' alone for any origin")
    labels = host.removesuffix(".").split(".")
    if len(host) > _MOST_HOST_LENGTH or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(
            "has no host that a browser could know; a * stands only for all subdomains"
        )
    if _NUMBER.fullmatch(labels[-1]):
        _check_ipv4(host, star)
    return star + host


def _read_ipv6(text: str) -> str:
    try:
        address = IPv6Address(text)
    except ValueError:
        raise ValueError(f"has no IPv6 address in [{text}]") from None
    if address.scope_id:
        raise ValueError("has an IPv6 address with a zone, which no browser takes")
    mapped = address.ipv4_mapped
    if mapped is not None:  # browsers write these in one way, and Pythons in two
        high, low = divmod(int(mapped), 0x10000)
        return f"::ffff:{high:x}:{low:x}"
    return address.compressed


def _check_ipv4(host: str, star: str) -> None:
    """Browsers take a host that ends with a number for an IPv4 address, and write it with dots."""
    try:
        IPv4Address(host)
    except ValueError:
        raise ValueError("has an IPv4 address that is not four numbers with dots") from None
    if star:
        raise ValueError("has an address, and an address has no subdomains")


def _to_ascii(name: str) -> str:
    """Return a name as browsers send it: mapped, and with punycode (UTS 46, not transitional).

    The mapping is that of NFKC and of small letters, which is the standard's own for all but a few
    characters.
    """
    if name.isascii():
        return name.lower()
    small = "".join(char.lower() for char in unicodedata.normalize("NFKC", name))
    mapped = unicodedata.normalize("NFKC", small).translate(_DOTS)
    return ".".join(map(_label_to_ascii, mapped.split(".")))


def _label_to_ascii(label: str) -> str:
    if label.isascii():
        return label
    for char in label:
        if unicodedata.category(char)[0] in "CZ" and char not in _JOINERS:
            raise ValueError("has a character that no host can have")
    return "xn--" + label.encode("punycode").decode("ascii")
