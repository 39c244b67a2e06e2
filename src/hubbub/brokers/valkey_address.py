"""Where a Valkey or Redis server is, and how to log in there: what its URL says.

What must not live here: connections (`valkey_connections`), which schemes there are (`schemes`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from ..errors import SettingsError
from ..limits import shown_url

DEFAULT_PREFIX = "hubbub"
DEFAULT_PORT = 6379
TLS_SCHEMES = frozenset({"valkeys", "rediss"})
_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_TLS = {"ca": "ssl_ca_certs", "cert": "ssl_certfile", "key": "ssl_keyfile"}
_QUERY = ("prefix", "db", *_TLS, "verify")


class Address(NamedTuple):
    """`shown` is the address without credentials, `options` what a connection is made with.

    `is_tls` and `is_unix` say of which kind it is; `is_verified` whether a server's certificate must be good.
    """

    shown: str
    prefix: str
    options: Mapping[str, Any]
    is_tls: bool = False
    is_unix: bool = False
    is_verified: bool = True

    def __repr__(self) -> str:
        return f"Address({self.shown!r}, prefix={self.prefix!r})"


def read_address(url: str, source: str = "keyword") -> Address:
    """Read a URL such as `valkey://user:password@host:6379/0?prefix=shop`.

    Schemes are `valkey` and `redis`, with TLS `valkeys` and `rediss`, and `unix`. Of a query there may be
    `prefix`, `db`, and for TLS the files `ca`, `cert` and `key`, and `verify=no`. Raises `SettingsError`, which
    never holds the URL: it may have a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _wrong("its host or port cannot be read", source) from None
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in query:
        if name not in _QUERY:
            known = ", ".join(_QUERY)
            raise _wrong(f"its query has something else than {known}", source)
    is_unix, is_tls = parts.scheme == "unix", parts.scheme in TLS_SCHEMES
    options: dict[str, Any] = {"db": _database(parts, query, source, is_unix=is_unix)}
    if is_unix:
        if not parts.path:
            raise _wrong("a path is missing, as in unix:///run/valkey.sock", source)
        options["path"] = unquote(parts.path)
    else:
        if not parts.hostname:
            raise _wrong("a host is missing, as in valkey://localhost:6379", source)
        options |= {"host": unquote(parts.hostname), "port": port or DEFAULT_PORT}
    if parts.username:
        options["username"] = unquote(parts.username)
    if parts.password:
        options["password"] = unquote(parts.password)
    is_verified = query.get("verify", "yes") != "no"
    if is_tls:
        options |= {_TLS[name]: text for name, text in query.items() if name in _TLS}
        options |= {"ssl_check_hostname": is_verified}
        options |= {"ssl_cert_reqs": "required" if is_verified else "none"}
    elif {*_TLS, "verify"} & query.keys():
        raise _wrong("only valkeys:// and rediss:// have certificates", source)
    prefix = checked_prefix(query.get("prefix", DEFAULT_PREFIX), source)
    return Address(shown_url(url), prefix, options, is_tls, is_unix, is_verified)


def checked_prefix(prefix: str, source: str = "keyword") -> str:
    """Return `prefix` if keys and channels may begin with it; raise `SettingsError` otherwise."""
    if not _PREFIX.fullmatch(prefix):
        raise _wrong("a prefix has 1 to 64 letters, digits and -_.: alone", source)
    return prefix


def _database(parts: SplitResult, query: Mapping[str, str], source: str, *, is_unix: bool) -> int:
    text = query.get("db", "" if is_unix else parts.path.strip("/")) or "0"
    if not (text.isascii() and text.isdecimal()):
        raise _wrong("the number of its database is no number, as in valkey://localhost/1", source)
    return int(text)


def _wrong(what: str, source: str) -> SettingsError:
    expected = (
        "must be the URL of a server, as in valkey://:password@localhost:6379/0?prefix=shop, with "
        f"what is special in a password percent-encoded; of this one {what}"
    )
    return SettingsError("broker", None, expected, source=source, shows_value=False)
