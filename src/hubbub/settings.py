"""Settings: every number and switch of a hub, written once.

The environment, the command line, `docs/settings.md` and `hubbub check` are generated from the
fields of this one class, and so is `settings_keywords`, what `Hub(...)` takes. What must not live here:
defaults hidden elsewhere, the grammar of origins (`origins`).
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal, NamedTuple, Unpack, get_args, get_origin

from .errors import SettingsError
from .origins import SAME_ORIGIN, read_pattern
from .settings_keywords import SettingsKeywords

ENV_PREFIX = "HUBBUB_"
SlowPolicy = Literal["disconnect", "drop_oldest", "drop_newest", "latest"]
SLOW_POLICIES: tuple[SlowPolicy, ...] = get_args(SlowPolicy)

_PLACED_BY_OTHERS = re.compile(
    r"HUBBUB_(?:[A-Z0-9_]+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?"
    r"|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?|ENV_.+)=.*"
    r"|HUBBUB_(?:[A-Z0-9_]+_)?PORT=(?:tcp|udp|sctp)://.*"
    r"|HUBBUB_(?:[A-Z0-9_]+_)?NAME=/.*",
    re.DOTALL,
)
"""What Kubernetes puts into every container for a service whose name begins with "hubbub", and what
links between Docker containers do: `HUBBUB_SERVICE_HOST`, `HUBBUB_PORT=tcp://10.0.0.1:80`."""

_SIZE_SUFFIXES = {"kib": 1024, "mib": 1024**2, "gib": 1024**3, "kb": 1000, "mb": 1000**2}
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def _setting(
    default: Any, unit: str, doc: str, *, none: str | None = None, least: float | None = None
) -> Any:
    """Declare a field: its unit, what it means, what None means, the least value allowed."""
    metadata = {"unit": unit, "doc": doc, "none": none, "least": least}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a hub is told at its start; nobody changes it afterwards.

    Precedence: keyword, then environment (`HUBBUB_` and the name in capitals), then default. A
    variable that is empty counts as not set. `Settings(...)` takes keywords only; `Settings.load(...)` reads the environment too. Both raise
    `SettingsError` for an unknown or impossible value.
    """

    write_timeout_s: float | None = _setting(
        10.0,
        "seconds",
        "A socket that takes not one byte for this long, while bytes wait for it, is closed (3008).",
        none="never",
        least=0.01,
    )
    pong_timeout_s: float = _setting(
        60.0,
        "seconds",
        "A client that shows no sign of life for this long is closed (3012). Any frame counts.",
        least=0.05,
    )
    ping_interval_s: float = _setting(
        54.0,
        "seconds",
        "A client that was silent for this long gets a ping. Must be smaller than pong_timeout_s.",
        least=0.01,
    )
    max_message_bytes: int | None = _setting(
        512,
        "bytes",
        "The largest message a client may send; a larger one closes its connection (1009).",
        none="no limit",
        least=1,
    )
    outbox_max_entries: int = _setting(
        256,
        "entries",
        "How many entries may wait for a client whose socket is not writable. One entry is all "
        "that one turn of the event loop had for that client.",
        least=1,
    )
    outbox_max_bytes: int = _setting(
        1024**2,
        "bytes",
        "How many bytes may wait for a client whose socket is not writable.",
        least=1,
    )
    inbox_max_messages: int = _setting(
        256,
        "messages",
        "How many messages of one client may wait while its handler runs. From there on its socket "
        "is not read, pings and close frames included, until half of them are handled.",
        least=1,
    )
    inbox_max_bytes: int = _setting(
        64 * 1024,
        "bytes",
        "How many bytes of messages of one client may wait while its handler runs.",
        least=1,
    )
    slow_policy: SlowPolicy = _setting(
        "disconnect",
        "policy",
        "What a full outbox does: close the client (3008), drop the oldest entry, drop the newest, "
        "or keep only the latest message of each room.",
    )
    origins: tuple[str, ...] = _setting(
        (SAME_ORIGIN,),
        "origins",
        "Origins whose pages may connect: 'same-origin', 'https://example.com', "
        "'https://*.example.com' (all subdomains), 'http://localhost:*' (any port), 'null' (pages "
        "without an origin: local files, and sandboxed frames of any page), or '*' for any. "
        "Requests without an Origin header are no browsers and pass.",
    )
    max_clients: int | None = _setting(
        None,
        "clients",
        "How many clients one process serves; more are refused with 503.",
        none="no limit",
        least=1,
    )
    max_clients_per_address: int | None = _setting(
        None,
        "clients",
        "How many clients one network address may have, handshakes in progress included; more are "
        "refused with 503. An IPv6 address counts by its /64. Behind a proxy the address is right "
        "only if the server trusts the proxy.",
        none="no limit",
        least=1,
    )
    max_rooms_per_client: int | None = _setting(
        128,
        "rooms",
        "How many rooms one client may be in; joining more raises CommandError.",
        none="no limit",
        least=0,
    )
    max_loop_lag_s: float | None = _setting(
        None,
        "seconds",
        "While the event loop was later than this at one of its last three looks (one a second), "
        "handshakes are refused with 503, so that newcomers do not make it later still for those "
        "who are connected. Off by default: an application that computes for a while now and then "
        "is late and not overloaded.",
        none="off",
        least=0.01,
    )
    handshake_timeout_s: float = _setting(
        10.0,
        "seconds",
        "How long an authenticate handler may take before the handshake is refused with 503; how "
        "long, under the native transport, any handshake may stay unanswered; and how long, under "
        "`hubbub serve`, the head of a request may take to arrive before its connection is closed.",
        least=0.01,
    )
    messages_per_second: float | None = _setting(
        None,
        "messages per second",
        "How fast one client may send, with a burst of two seconds' worth. What becomes of more, "
        "on_rate_limit says. Under the native transport pings and tiny fragments have a limit of "
        "their own, as high, but at least 10.",
        none="no limit",
        least=0.01,
    )
    on_rate_limit: Literal["close", "reply"] = _setting(
        "close",
        "action",
        "What a message over messages_per_second causes: a close (3013), or an error reply, at "
        "most one a second, while the message is dropped. A ping is dropped without a reply, a "
        "fragment closes either way.",
    )
    shutdown_timeout_s: float = _setting(
        10.0,
        "seconds",
        "How long a shutdown may take: closes with 1012 are paced over half of it, what is still "
        "open after four fifths is cut, and disconnect handlers have almost all of it.",
        least=0.0,
    )
    compression: Literal["off", "shared"] = _setting(
        "off",
        "switch",
        "Whether the native transport takes up permessage-deflate, without context takeover: a "
        "message is deflated once, and all clients that negotiated it share the bytes.",
    )
    compression_min_bytes: int = _setting(
        256,
        "bytes",
        "With compression, messages smaller than this go out as they are; 0 deflates all.",
        least=0,
    )
    client_id_from_query: bool = _setting(
        False,
        "yes or no",
        "Whether ?id=… may choose client.id. A client that asks for an id in use replaces its "
        "holder if both are the same user, and is refused with 409 otherwise.",
    )
    on_invalid: Literal["reply", "ignore", "close"] = _setting(
        "reply",
        "action",
        "What an invalid message causes: an error reply, nothing but a count, or a close (1008).",
    )
    on_expiry: Literal["close", "ask"] = _setting(
        "close",
        "action",
        "What happens to a client whose Identity has expires_at: a close (3005) at that time, or "
        "first, up to 30 seconds before it, a message that asks the client for a new token.",
    )
    on_handler_error: Literal["close", "stay"] = _setting(
        "close",
        "action",
        "What an exception in a handler causes for its client: a close (1011), or nothing.",
    )
    handler_grace_s: float | None = _setting(
        1.0,
        "seconds",
        "How long a handler may still run when its client has gone; then it is cancelled, once. "
        "What the client had sent before it left is handled too, unless a handler had to be "
        "cancelled or the server closed the connection.",
        none="until it ends by itself, or the hub does",
        least=0.0,
    )

    workers_ok: bool = _setting(
        False,
        "yes or no",
        "Whether it is meant that several worker processes serve one address, each with clients and "
        "rooms of its own. If it is not, each of them warns.",
    )

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = _checked(spec, getattr(self, spec.name), _source_of(self, spec.name))
            object.__setattr__(self, spec.name, value)
        if self.ping_interval_s >= self.pong_timeout_s:
            raise SettingsError(
                "ping_interval_s",
                self.ping_interval_s,
                f"must be smaller than pong_timeout_s, which is {self.pong_timeout_s:g} seconds",
                source=_source_of(self, "ping_interval_s"),
            )

    @classmethod
    def load(
        cls, environ: Mapping[str, str] | None = None, **keywords: Unpack[SettingsKeywords]
    ) -> Settings:
        """Return settings from keywords, the environment (None: `os.environ`) and the defaults."""
        known = {spec.name: spec for spec in fields(cls)}
        for name in keywords:
            if name not in known:
                raise _unknown(name, "keyword", "no such setting", _near(name, known))
        values, sources = _from_environment(os.environ if environ is None else environ, known)
        values.update(keywords)
        sources.update(dict.fromkeys(keywords, "keyword"))
        settings = cls.__new__(cls)
        object.__setattr__(settings, "_sources", sources)
        settings.__init__(**values)  # type: ignore[misc]
        return settings

    def source(self, name: str) -> str:
        """Say where the value of setting `name` came from: keyword, environment or default."""
        return _source_of(self, name)


class Row(NamedTuple):
    """What the documentation, the command line and `hubbub check` show of one setting."""

    name: str
    default: Any
    unit: str
    doc: str
    none: str | None
    kind: Any
    """The type annotation, without None."""
    choices: tuple[str, ...]
    env: str
    flag: str


def as_settings(value: object) -> Settings:
    """Return `value` if it is a `Settings`; raise `TypeError` that says what to write otherwise."""
    if isinstance(value, Settings):
        return value
    raise TypeError(
        f"a Hub takes keywords, Hub(max_clients=100), or a Settings object, not {value!r:.80}; a path "
        'is given to hub.router("/ws"), hub.routes("/ws") or hub.mount(app, "/ws")'
    )


def rows() -> Iterator[Row]:
    """Yield a row for each setting, in the order of the class."""
    hints = typing.get_type_hints(Settings)
    for spec in fields(Settings):
        kind, optional = _split_optional(hints[spec.name])
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        yield Row(
            spec.name,
            spec.default,
            spec.metadata["unit"],
            spec.metadata["doc"],
            spec.metadata["none"] if optional else None,
            kind,
            choices,
            ENV_PREFIX + spec.name.upper(),
            "--" + spec.name.replace("_", "-"),
        )


@functools.cache
def _row(name: str) -> Row:
    return next(row for row in rows() if row.name == name)


def shown(value: Any) -> str:
    """Write a value as a person would type it into the environment or on the command line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value)


def parse(name: str, text: str, *, source: str) -> Any:
    """Read a setting from text, as the environment and the command line give it."""
    row = _row(name)
    text = text.strip()
    if row.none is not None and text.lower() in ("none", "null"):
        return None
    if row.choices:
        return text
    try:
        return _PARSERS[row.kind](text)
    except (ValueError, OverflowError):
        sizes = ", such as 4096 or 4KiB" if row.unit == "bytes" else ""
        raise SettingsError(name, text, _expected(row) + sizes, source=source) from None


def _parse_bool(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(text)


def _parse_size(text: str) -> int:
    lowered = text.lower().replace("_", "")
    for suffix, factor in _SIZE_SUFFIXES.items():
        if lowered.endswith(suffix):
            return round(float(lowered[: -len(suffix)]) * factor)
    return int(lowered)


def _parse_list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_PARSERS: dict[Any, Callable[[str], Any]] = {
    bool: _parse_bool,
    int: _parse_size,
    float: float,
    tuple[str, ...]: _parse_list,
}


def _source_of(settings: Settings, name: str) -> str:
    sources: Mapping[str, str] | None = getattr(settings, "_sources", None)
    if sources is None:
        row_default = next(spec.default for spec in fields(settings) if spec.name == name)
        return "default" if getattr(settings, name) == row_default else "keyword"
    return sources.get(name, "default")


def _from_environment(
    environ: Mapping[str, str], known: Mapping[str, Field[Any]]
) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for variable in sorted(environ):
        if not _is_ours(variable, environ[variable]):
            continue
        name = variable.removeprefix(ENV_PREFIX).lower()
        if name not in known:
            raise _unknown_variable(variable, _near(name, known))
        source = f"environment, {variable}"
        values[name] = parse(name, environ[variable], source=source)
        sources[name] = source
    return values, sources


def _is_ours(variable: str, text: str) -> bool:
    """Tell whether a variable says something about a setting. An empty one is as good as none."""
    if not variable.startswith(ENV_PREFIX):
        return False
    if not isinstance(text, str):
        raise SettingsError(variable, text, "must be text, as in an environment")
    if not text.strip():
        return False
    return not _PLACED_BY_OTHERS.fullmatch(f"{variable}={text}")


def _unknown(name: str, source: str, expected: str, nearest: str | None) -> SettingsError:
    """Return the error for a name that is no setting, without its value, which may be a secret."""
    return SettingsError(name, None, expected, source=source, nearest=nearest, shows_value=False)


def _unknown_variable(variable: str, near: str | None) -> SettingsError:
    expected = "no such setting"
    if near is None:
        expected += f"; a variable of your own must not begin with {ENV_PREFIX}"
    nearest = None if near is None else ENV_PREFIX + near.upper()
    return _unknown(variable, "environment", expected, nearest)


def _near(name: str, known: Mapping[str, object]) -> str | None:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return close[0] if close else None


def _split_optional(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) in (types.UnionType, typing.Union):
        parts = [part for part in get_args(hint) if part is not type(None)]
        return parts[0], len(parts) < len(get_args(hint))
    return hint, False


def _expected(row: Row) -> str:
    if row.choices:
        return "must be one of " + ", ".join(row.choices)
    what = {bool: "yes or no", int: "a whole number of", float: "a number of"}.get(row.kind)
    text = (
        f"must be {what} {row.unit}" if row.kind in (int, float) else f"must be {what or row.unit}"
    )
    return text if row.none is None else f"{text}, or none ({row.none})"


def _checked(spec: Field[Any], value: Any, source: str) -> Any:
    """Return `value` in the field's own type, or raise."""
    row = _row(spec.name)
    if value is None and row.none is not None:
        return None
    if row.kind == tuple[str, ...]:
        return _checked_strings(row, value, source)
    right = {bool: bool, int: int, float: (int, float)}.get(row.kind, str)
    is_right = isinstance(value, right) and (row.kind is bool or not isinstance(value, bool))  # type: ignore[arg-type]
    if not is_right or (row.choices and value not in row.choices):
        raise SettingsError(spec.name, value, _expected(row), source=source)
    if row.kind not in (int, float):
        return value
    least: float | None = spec.metadata["least"]
    if not abs(value) <= sys.maxsize or (least is not None and value < least):  # NaN fails too
        expected = f"{_expected(row)}, at least {least:g}"
        raise SettingsError(spec.name, value, expected, source=source)
    return row.kind(value)


def _checked_strings(row: Row, value: Any, source: str) -> tuple[str, ...]:
    items = (value,) if isinstance(value, str) else value
    try:
        strings = tuple(items)
    except TypeError:
        raise SettingsError(row.name, value, "must be a list of origins", source=source) from None
    return tuple(_checked_origin(row, item, source) for item in strings)


def _checked_origin(row: Row, item: Any, source: str) -> str:
    try:
        if not isinstance(item, str):
            raise ValueError(f"is no str but {type(item).__name__}")
        return str(read_pattern(item))
    except ValueError as error:
        expected = (
            "must be origins such as https://example.com or https://*.example.com, "
            f"'{SAME_ORIGIN}', 'null' or '*'; this one {error}"
        )
        raise SettingsError(row.name, item, expected, source=source) from None


assert all(spec.default is not MISSING for spec in fields(Settings))
