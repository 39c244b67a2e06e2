"""What the options of `hubbub connect` mean for the handshake: headers, the proxy, TLS.

What must not live here: the session (`connect`). An option that could only be ignored, or
that contradicts another, is an error: nothing is accepted in silence.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import math
import re
import ssl
from typing import Any, Literal
from urllib.parse import urlsplit

import click
from websockets.exceptions import InvalidProxy
from websockets.proxy import get_proxy, parse_proxy
from websockets.uri import parse_uri

from ..connection.addresses import without_secrets

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OWN_HEADERS = ("host", "connection", "upgrade")


def read_headers(
    lines: tuple[str, ...], token: str | None = None, origin: str | None = None, url: str = ""
) -> dict[str, str]:
    """Read headers as a person writes them, `Name: value`; `token` becomes Authorization.

    A name may come more than once: its values become one list, as any recipient may join them
    (RFC 9110 section 5.3), and several cookies one Cookie header (RFC 6265 section 5.4). Raises
    `BadParameter` for what no handshake can carry, and `UsageError` for what is said twice.
    """
    headers: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for line in lines:
        name, value = _read_header(line)
        name = spelled.setdefault(name.lower(), name)
        comma = "; " if name.lower() == "cookie" else ", "
        headers[name] = f"{headers[name]}{comma}{value}" if name in headers else value
    if origin is not None and "origin" in spelled:
        raise click.UsageError("--origin and --header Origin exclude one another")
    if token is not None:
        if not _is_field_value(token):
            raise click.BadParameter("has characters that no header can have", param_hint="--token")
        if "authorization" in spelled:
            raise click.UsageError("--token and --header Authorization exclude one another")
        headers["Authorization"] = f"Bearer {token}"
    if urlsplit(url).username is not None and (token is not None or "authorization" in spelled):
        raise click.UsageError("the address has a name and a password, which is Authorization too")
    return headers


def _read_header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    name, value = name.strip(), value.strip()
    if not colon or not name:
        raise _bad_header(f"{line!r} is not  Name: value")
    if not _TOKEN.fullmatch(name) or not _is_field_value(value):
        raise _bad_header(f"{line!r} has characters that no header can have")
    if name.lower() in _OWN_HEADERS or name.lower().startswith("sec-websocket-"):
        raise _bad_header(f"{name} is written by the handshake itself")
    return name, value


def _bad_header(text: str) -> click.BadParameter:
    return click.BadParameter(text, param_hint="--header")


def _is_field_value(value: str) -> bool:
    """RFC 9110 section 5.5: visible characters, spaces and tabs, in Latin-1."""
    return all(char == "\t" or " " <= char <= "~" or "\xa0" <= char <= "\xff" for char in value)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def choose_proxy(url: str, proxy: str | None, no_proxy: bool) -> str | Literal[True] | None:
    """Return what `hubbub.connect` is told: an address, True for the environment's, None for none.

    A machine's own addresses need no proxy, unless one is named. Raises `UsageError` for an
    address that is none, and `ClickException` when the environment has such a one.
    """
    if proxy is not None:
        if no_proxy:
            raise click.UsageError("--proxy and --no-proxy exclude one another")
        proxy = proxy if "://" in proxy else f"http://{proxy}"
        if why := _why_no_proxy(proxy):
            raise click.BadParameter(why, param_hint="--proxy")
        return proxy
    if no_proxy or _is_loopback(url):
        return None
    theirs = get_proxy(parse_uri(url))
    if theirs is not None and (why := _why_no_proxy(theirs)):
        raise click.ClickException(f"the proxy that the environment names: {why} (--no-proxy?)")
    return True


def _why_no_proxy(proxy: str) -> str | None:
    """Say what is wrong with the address of a proxy, without the password in it."""
    try:
        parsed = parse_proxy(proxy)
    except InvalidProxy as error:
        return f"{without_secrets(proxy)!r} cannot be one: {error.msg}"
    except ValueError as error:
        return f"{without_secrets(proxy)!r} cannot be one: {error}"
    if parsed.scheme.startswith("socks") and importlib.util.find_spec("python_socks") is None:
        return "a SOCKS proxy needs one more package: pip install python-socks"
    return None


def tls_context(url: str, insecure: bool, ca: str | None) -> ssl.SSLContext | None:
    """Return the TLS context that the options ask for; None: the usual one."""
    if not insecure and ca is None:
        return None
    if insecure and ca is not None:
        raise click.UsageError("--insecure and --ca exclude one another")
    if not url.startswith("wss:"):
        option = "--insecure" if insecure else "--ca"
        raise click.BadParameter("only wss:// has a certificate", param_hint=option)
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise click.BadParameter(
            f"{ca}: no certificates in it: {error}", param_hint="--ca"
        ) from error
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Seconds(click.FloatRange):
    """Seconds from 0; `inf` is for ever."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds
