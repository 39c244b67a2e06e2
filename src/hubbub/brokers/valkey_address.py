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
_MOST_SERVERS = 100


class Address(NamedTuple):
    """`shown` is the address without credentials, `options` what a connection is made with.

    `is_tls` and `is_unix` say of which kind it is; `is_verified` whether a server's certificate must be good.
    `hosts` are the hosts and ports that it names; `options` has the first of them.
    """

    shown: str
    prefix: str
    options: Mapping[str, Any]
    is_tls: bool = False
    is_unix: bool = False
    is_verified: bool = True
    hosts: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        """Which server it is, and which database, without how one logs in there."""
        place = self.options.get("path") or ",".join(_place(*each) for each in self.hosts)
        return f"{place}/{self.options.get('db', 0)}"

    def of_each(self) -> list[Address]:
        """Return the address of each server that it names, as if it were the only one."""
        if len(self.hosts) < 2:
            return [self]
        scheme = self.shown.partition("://")[0]
        return [
            self._replace(
                shown=shown_url(f"{scheme}://{_place(host, port)}"),
                options={**self.options, "host": host, "port": port},
                hosts=((host, port),),
            )
            for host, port in self.hosts
        ]

    def __repr__(self) -> str:
        return f"Address({self.shown!r}, prefix={self.prefix!r})"


def read_address(url: str, source: str = "keyword") -> Address:
    """Read a URL such as `valkey://user:password@host:6379/0?prefix=shop`.

    Schemes are `valkey` and `redis`, with TLS `valkeys` and `rediss`, and `unix`. Several servers stand side by
    side, `valkey://user:password@one:6379,two:6379`, and have all else in common. Of a query there may be
    `prefix`, `db`, and for TLS the files `ca`, `cert` and `key`, and `verify=no`. Raises `SettingsError`, which
    never holds the URL: it may have a password.
    """
    try:
        parts = urlsplit(url)
        hosts = _hosts(parts)
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
        if not hosts or not all(host for host, _ in hosts):
            raise _wrong("a host is missing, as in valkey://localhost:6379", source)
        if len(set(hosts)) < len(hosts) or len(hosts) > _MOST_SERVERS:
            raise _wrong(f"a server is named twice, or there are over {_MOST_SERVERS}", source)
        options |= {"host": hosts[0][0], "port": hosts[0][1]}
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
    kind = (is_tls, is_unix, is_verified)
    return Address(shown_url(url), prefix, options, *kind, () if is_unix else hosts)


def _hosts(parts: SplitResult) -> tuple[tuple[str, int], ...]:
    """Return the hosts and ports of a URL. Raises `ValueError`."""
    place = parts.netloc.rpartition("@")[2]
    each = [urlsplit(f"//{host}") for host in place.split(",")] if place else []
    return tuple((unquote(one.hostname or ""), one.port or DEFAULT_PORT) for one in each)


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
