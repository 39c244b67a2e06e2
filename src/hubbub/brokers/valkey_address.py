"""Where a Valkey or Redis server is, and how to log in there: what its URL says.

What must not live here: connections (`valkey_connections`), which schemes there are (`schemes`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from ..errors import SettingsError
from ..limits import shown_url

DEFAULT_PREFIX = "hubbub"
DEFAULT_PORT = 6379
SENTINEL_PORT = 26379
TLS_SCHEMES = frozenset({"valkeys", "rediss"})
_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TLS = {"ca": "ssl_ca_certs", "cert": "ssl_certfile", "key": "ssl_keyfile"}
_SENTINEL = {"sentinel_username": "username", "sentinel_password": "password"}
_LOGIN = ("username", "password")
_QUERY = ("prefix", "db", *_TLS, "verify", *_SENTINEL)
_NO_PRIMARY = "the primary's name is missing, as in valkey+sentinel://one:26379,two:26379/mymaster"
_MOST_SERVERS = 100
ONE_LOGIN = "a login stands once, before all servers; an @ in a password is written %40"


class Address(NamedTuple):
    """`shown` is the address without credentials, `options` what a connection is made with.

    `is_tls` and `is_unix` say of which kind it is; `is_verified` whether a server's certificate must be good.
    `hosts` are the hosts and ports that it names (of a cluster, some of its nodes); `options` has the first of
    them. `primary` is the name by which Sentinels at `hosts` know the server ("": there are none), and
    `sentinel_login` how one logs in to them.
    """

    shown: str
    prefix: str
    options: Mapping[str, Any]
    is_tls: bool = False
    is_unix: bool = False
    is_verified: bool = True
    hosts: tuple[tuple[str, int], ...] = ()
    is_cluster: bool = False
    primary: str = ""
    sentinel_login: Mapping[str, Any] = MappingProxyType({})

    @property
    def name(self) -> str:
        """Which server it is, and which database, without how one logs in there."""
        place = self.options.get("path") or ",".join(_place(*each) for each in self.hosts)
        return f"{place}/{self.options.get('db', 0)}"

    @property
    def files(self) -> list[str]:
        """The files of this machine that TLS reads."""
        return [self.options[name] for name in _TLS.values() if name in self.options]

    def of_each(self) -> list[Address]:
        """Return the address of each server that it names, as if it were the only one."""
        if len(self.hosts) < 2 or self.primary or self.is_cluster:
            return [self]
        return self.of_hosts()

    def of_sentinels(self) -> list[Address]:
        """Return the address of each Sentinel."""
        options = {name: text for name, text in self.options.items() if name not in _LOGIN}
        sentinel = {**options, **self.sentinel_login, "db": 0}
        return self._replace(options=sentinel, primary="").of_hosts()

    def of_hosts(self) -> list[Address]:
        """Return the address of each host that it names."""
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

    With Sentinels it is `valkey+sentinel://user:password@one:26379,two:26379/name-of-the-primary/0`, where user
    and password are those of the primary; `sentinel_username` and `sentinel_password` in the query are those of
    the Sentinels. A cluster is `valkey+cluster://one:6379,two:6379`, where not all nodes need be named. Schemes
    are `valkey` and `redis`, with TLS `valkeys` and `rediss`, and `unix`. Several servers stand side by side,
    `valkey://user:password@one:6379,two:6379`, and have all else in common. Of a query there may be `prefix`,
    `db`, and for TLS the files `ca`, `cert` and `key`, and `verify=no`. Raises `SettingsError`, which never
    holds the URL: it may have a password.
    """
    try:
        parts = urlsplit(url)
        hosts = _hosts(parts)
    except ValueError:
        raise _wrong("its host or port cannot be read", source) from None
    if has_many_logins(parts):
        raise _wrong(ONE_LOGIN, source)
    query = _query_of(parts, source)
    scheme, _, kind = parts.scheme.partition("+")
    is_unix, is_tls = scheme == "unix", scheme in TLS_SCHEMES
    primary, database = "", parts.path.strip("/")
    if kind == "sentinel":
        primary, _, database = database.partition("/")
        if not primary:
            raise _wrong(_NO_PRIMARY, source)
    elif {*_SENTINEL} & query.keys():
        raise _wrong("only valkey+sentinel:// has Sentinels to log in to", source)
    options: dict[str, Any] = {"db": _database(database, query, source, is_unix=is_unix)}
    if is_unix:
        if not parts.path or hosts:
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
    login = {_SENTINEL[name]: text for name, text in query.items() if name in _SENTINEL}
    shown, ways = shown_url(url), (is_tls, is_unix, is_verified)
    if kind == "cluster" and options["db"]:
        raise _wrong("a cluster has no databases", source)
    is_cluster = kind == "cluster"
    return Address(shown, prefix, options, *ways, hosts, is_cluster, unquote(primary), login)


def _hosts(parts: SplitResult) -> tuple[tuple[str, int], ...]:
    """Return the hosts and ports of a URL. Raises `ValueError`."""
    place = parts.netloc.rpartition("@")[2]
    default = SENTINEL_PORT if parts.scheme.endswith("+sentinel") else DEFAULT_PORT
    each = [urlsplit(f"//{host}") for host in place.split(",")] if place else []
    return tuple((unquote(one.hostname or ""), one.port or default) for one in each)


def _query_of(parts: SplitResult, source: str) -> dict[str, str]:
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not query.keys() <= {*_QUERY}:
        raise _wrong(f"its query has something else than {', '.join(_QUERY)}", source)
    if query.get("verify", "yes") not in ("yes", "no"):
        raise _wrong("verify is yes or no", source)
    return query


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def checked_prefix(prefix: str, source: str = "keyword") -> str:
    """Return `prefix` if keys and channels may begin with it; raise `SettingsError` otherwise."""
    if not _PREFIX.fullmatch(prefix):
        expected = "must have a prefix of 1 to 64 letters, digits and -_. alone, as in ?prefix=shop"
        raise SettingsError("broker", None, expected, source=source, shows_value=False)
    return prefix


def check_files(files: Iterable[str]) -> None:
    """Raise an `OSError` that names the first file which cannot be read. What reads them for TLS names none."""
    for file in files:
        with open(file, "rb"):
            pass


def longer_prefix(prefix: str, added: str, source: str) -> str:
    """Return a prefix with what a hub adds to it ("": nothing). Raises `SettingsError`."""
    return checked_prefix(f"{prefix}.{added}", source) if added else prefix


def has_many_logins(parts: SplitResult) -> bool:
    """Tell whether the servers of a URL have a login each: all but the last would be read as a password."""
    return "," in parts.netloc.rpartition("@")[0].partition("@")[2]


def _database(path: str, query: Mapping[str, str], source: str, *, is_unix: bool) -> int:
    text = query.get("db", "" if is_unix else path) or "0"
    if not (text.isascii() and text.isdecimal()):
        raise _wrong("the number of its database is no number, as in valkey://localhost/1", source)
    return int(text)


def _wrong(what: str, source: str) -> SettingsError:
    expected = (
        "must be the URL of a server, as in valkey://:password@localhost:6379/0?prefix=shop, with "
        f"what is special in a password percent-encoded; of this one {what}"
    )
    return SettingsError("broker", None, expected, source=source, shows_value=False)
