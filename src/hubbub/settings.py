"""Settings: every number and switch of a hub, written once.

The environment, the command line, `docs/settings.md` and `hubbub check` are generated from the
fields of this one class, and so is `settings_keywords`, what `Hub(...)` takes. What must not live here:
defaults hidden elsewhere, how a value is read, checked and shown (`settings_values`), and which
variables are ours (`settings_environment`).
"""

from __future__ import annotations

import functools
import os
import typing
from collections.abc import Iterator, Mapping
from dataclasses import InitVar, dataclass, field, fields
from typing import Any, Literal, Unpack

from .errors import SettingsError
from .origins import SAME_ORIGIN
from .room_rules import RoomRules, SlowPolicy
from .settings_environment import nearest, read_environment, unknown
from .settings_keywords import SettingsKeywords
from .settings_values import Row, checked, row_of


def _setting(
    default: Any,
    unit: str,
    doc: str,
    *,
    none: str | None = None,
    least: float | None = None,
    is_shown: bool = True,
) -> Any:
    """Declare a field: its unit, what it means, what None means, the least value allowed, and whether the
    representation of settings has it: a secret does not belong there."""
    metadata = {"unit": unit, "doc": doc, "none": none, "least": least}
    return field(default=default, metadata=metadata, repr=is_shown)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a hub is told at its start; nobody changes it afterwards.

    Precedence: keyword, then environment (`HUBBUB_` and the name in capitals), then default. A
    variable that is empty counts as not set. `Settings(...)` takes keywords only;
    `Settings.load(...)` reads the environment too. Both raise `SettingsError` for an unknown or
    impossible value.
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
    broker: str = _setting(
        "memory://",
        "URL",
        "Where publications are ordered, kept and spread: 'memory://' is this process alone; "
        "'valkey://host:6379' or 'redis://host:6379', with TLS 'valkeys://' or 'rediss://', and "
        "'unix:///run/valkey.sock', or 'nats://host:4222', with TLS 'tls://', connect all processes that name the same server; "
        "'valkey+sentinel://', 'valkey+cluster://' and several hosts in one URL stand for more than one. "
        "'?prefix=shop' keeps applications apart. A user and a password in it are shown nowhere.",
        is_shown=False,
    )
    broker_prefix: str = _setting(
        "",
        "letters",
        "What a hub adds to the prefix of the broker's URL: with 'chat' and '?prefix=shop' it is 'shop.chat'. Each of "
        "several hubs of one application needs one of its own.",
    )
    room_rules: tuple[RoomRules, ...] = _setting(
        (),
        "rules",
        "What rooms keep and promise, by their names; the first rule that fits a room counts. In the "
        'environment JSON, as in [{"pattern": "chat:*", "history": 100}].',
    )
    history_max_bytes: int = _setting(
        64 * 1024**2,
        "bytes",
        "How much the memory broker keeps of all rooms together, 200 bytes for each message and "
        "1200 for each room included; when it is more, the rooms that were silent longest lose their oldest.",
        least=1,
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
        "How many rooms one client may be in; joining more raises CommandError, and an identity with "
        "more is refused.",
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
        "on_rate_limit says. Of a dialect with commands each is counted, but for those that come with "
        "the connect command. Under the native transport pings and tiny fragments have a limit of "
        "their own, as high, but at least 10.",
        none="no limit",
        least=0.01,
    )
    on_rate_limit: Literal["close", "reply"] = _setting(
        "close",
        "action",
        "What a message over messages_per_second causes: a close (3013), or an error reply, at "
        "most one a second, while the message is dropped; a command is answered each time. A ping is dropped without a reply, a "
        "fragment closes either way.",
    )
    shutdown_timeout_s: float = _setting(
        10.0,
        "seconds",
        "How long a shutdown may take: closes with 1012 are paced over half of it at most, what is "
        "still open after four fifths is cut, and disconnect handlers have almost all of it.",
        least=0.0,
    )
    drain_s: float = _setting(
        0.0,
        "seconds",
        "Over how long a shutdown closes the clients, in waves, so that those who come back elsewhere do "
        "so a few at a time. `hubbub serve` takes requests until then, and refuses sockets with 503. At "
        "most half of shutdown_timeout_s. 0: 2 ms for each client, and no wait for others.",
        least=0.0,
    )
    come_back_s: float = _setting(
        0.0,
        "seconds",
        "How long after the drain there is a server again. Who is closed by a shutdown is told to wait so "
        "long, and for what is left of drain_s. 0: nothing is told, as where other processes take over.",
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
    api_keys_file: str | None = _setting(
        None,
        "path",
        "A file with the keys of the HTTP API, in each line a key or a JSON object with its permissions; "
        "`hub.api` reads it where it is given no keys.",
        none="no file",
    )

    workers_ok: bool | Literal["refuse"] = _setting(
        False,
        "yes, no or refuse",
        "Whether it is meant that several worker processes serve one address, each with clients and "
        "rooms of its own, where no broker connects them. If it is not, each of them warns; with 'refuse' "
        "none starts while another is there.",
    )

    _given_by: InitVar[Mapping[str, str] | None] = None
    """Where values came from, by name; None: what differs from the default is a keyword."""

    def __post_init__(self, _given_by: Mapping[str, str] | None) -> None:
        object.__setattr__(self, "_sources", _given_by)
        for name, row in _rows().items():
            object.__setattr__(self, name, checked(row, getattr(self, name), self.source(name)))
        if self.ping_interval_s >= self.pong_timeout_s:
            raise SettingsError(
                "ping_interval_s",
                self.ping_interval_s,
                f"must be smaller than pong_timeout_s, which is {self.pong_timeout_s:g} seconds",
                source=self.source("ping_interval_s"),
            )

        if self.drain_s > self.shutdown_timeout_s / 2:
            raise SettingsError(
                "drain_s",
                self.drain_s,
                "must be at most half of shutdown_timeout_s, which is "
                f"{self.shutdown_timeout_s:g} seconds",
                source=self.source("drain_s"),
            )

    @classmethod
    def load(
        cls, environ: Mapping[str, str] | None = None, **keywords: Unpack[SettingsKeywords]
    ) -> Settings:
        """Return settings from keywords, the environment (None: `os.environ`) and the defaults."""
        known = _rows()
        for name in keywords:
            if name not in known:
                raise unknown(name, "keyword", "no such setting", nearest(name, known))
        values, sources = read_environment(os.environ if environ is None else environ, known)
        sources.update(dict.fromkeys(keywords, "keyword"))
        return cls(**{**values, **keywords}, _given_by=sources)

    def source(self, name: str) -> str:
        """Say where the value of setting `name` came from: keyword, environment or default."""
        sources: Mapping[str, str] | None = vars(self)["_sources"]
        if sources is not None:
            return sources.get(name, "default")
        return "default" if getattr(self, name) == _rows()[name].default else "keyword"


def as_settings(value: object) -> Settings:
    """Return `value` if it is a `Settings`; raise `TypeError` that says what to write otherwise."""
    if isinstance(value, Settings):
        return value
    raise TypeError(
        f"a Hub takes keywords, Hub(max_clients=100), or a Settings object, not {value!r:.80}; a path "
        'is given to hub.router("/ws"), hub.routes("/ws") or hub.mount(app, "/ws")'
    )


@functools.cache
def _rows() -> dict[str, Row]:
    hints = typing.get_type_hints(Settings)
    return {spec.name: row_of(spec, hints[spec.name]) for spec in fields(Settings)}


def rows() -> Iterator[Row]:
    """Yield a row for each setting, in the order of the class."""
    yield from _rows().values()
