"""Where NATS servers are, and how to log in there: what a URL says.

What must not live here: connections (`nats_connection`), which schemes there are (`schemes`).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from ..errors import SettingsError
from ..limits import printable
from .valkey_address import DEFAULT_PREFIX, ONE_LOGIN, checked_prefix, has_many_logins

DEFAULT_PORT = 4222
_FILES = ("ca", "cert", "key", "creds")
_QUERY = ("prefix", "replicas", "max_bytes", *_FILES, "verify")
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:,]+)(?::(?P<port>[0-9]{1,5}))?")


class NatsAddress(NamedTuple):
    """`shown` is the address without credentials; `servers` are those of one cluster, without them too.

    `files` are those of TLS and of credentials, by what they are: ca, cert, key, creds. `replicas` is how many
    servers have what is kept, `max_bytes` how much that may be (None: what the servers' account may have).
    """

    shown: str
    servers: tuple[str, ...]
    prefix: str
    replicas: int = 1
    max_bytes: int | None = None
    user: str | None = None
    password: str | None = None
    files: tuple[tuple[str, str], ...] = ()
    is_tls: bool = False
    is_verified: bool = True

    def __repr__(self) -> str:
        return f"NatsAddress({self.shown!r}, prefix={self.prefix!r})"


def read_address(url: str, source: str = "keyword") -> NatsAddress:
    """Read a URL such as `nats://user:password@one:4222,two:4222?prefix=shop`; `tls://` has TLS.

    A user without a password is a token. Of a query there may be `prefix`, `replicas` (1, 3 or 5), `max_bytes`,
    `creds` (a file), and for TLS the files `ca`, `cert` and `key`, and `verify=no`. Raises `SettingsError`,
    which never holds the URL.
    """
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
    except ValueError:
        raise _wrong("it cannot be read", source) from None
    for name in query:
        if name not in _QUERY:
            raise _wrong(f"its query has something else than {', '.join(_QUERY)}", source)
    if query.get("verify", "yes") not in ("yes", "no"):
        raise _wrong("verify is yes or no", source)
    if has_many_logins(parts):
        raise _wrong(ONE_LOGIN, source)
    login, _, hosts = parts.netloc.rpartition("@")
    user, has_password, password = login.partition(":")
    is_tls = parts.scheme == "tls"
    if not is_tls and {"ca", "cert", "key", "verify"} & query.keys():
        raise _wrong("only tls:// has certificates", source)
    if parts.path.strip("/"):
        raise _wrong("it has a path, and servers have none", source)
    servers = tuple(_server(parts.scheme, host, source) for host in hosts.split(","))
    replicas = query.get("replicas", "1")
    if replicas not in ("1", "3", "5"):
        raise _wrong("replicas are 1, 3 or 5", source)
    max_bytes = query.get("max_bytes", "")
    if max_bytes and not (max_bytes.isascii() and max_bytes.isdecimal() and int(max_bytes)):
        raise _wrong("max_bytes is no number of bytes", source)
    return NatsAddress(
        _shown(parts.scheme, servers),
        servers,
        checked_prefix(query.get("prefix", DEFAULT_PREFIX), source),
        int(replicas),
        int(max_bytes) if max_bytes else None,
        unquote(user) if login else None,
        unquote(password) if has_password else None,
        tuple((name, query[name]) for name in _FILES if name in query),
        is_tls,
        query.get("verify", "yes") != "no",
    )


def _shown(scheme: str, servers: tuple[str, ...]) -> str:
    places = ",".join(server.partition("://")[2] for server in servers)
    return printable(f"{scheme}://{places}")


def login_of(address: NatsAddress) -> dict[str, Any]:
    """Return what the client library is given of who logs in."""
    if address.user is None:
        return {}
    if address.password is None:
        return {"token": address.user}
    return {"user": address.user, "password": address.password}


def _server(scheme: str, text: str, source: str) -> str:
    found = _HOST.fullmatch(text)
    if found is None or int(found["port"] or DEFAULT_PORT) > 65535:
        raise _wrong("a host or port cannot be read, or is missing", source)
    return f"{scheme}://{unquote(found['host'])}:{found['port'] or DEFAULT_PORT}"


def _wrong(what: str, source: str) -> SettingsError:
    expected = (
        "must be the URL of servers, as in nats://user:password@one:4222,two:4222?prefix=shop, with "
        f"what is special in a password percent-encoded; of this one {what}"
    )
    return SettingsError("broker", None, expected, source=source, shows_value=False)
