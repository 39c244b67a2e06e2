"""Settings' keywords: what `Hub(...)` and `Settings.load(...)` take, for type checkers and editors.

Written by tools/gen_docs.py (`make docs`) from the class `Settings`. Do not edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

from .room_rules import RoomRules


class HubKeywords(TypedDict, total=False):
    """A keyword for each setting but `broker`, which a hub takes as an object too. One that is left out has
    its value from the environment."""

    write_timeout_s: float | None
    """In seconds. A socket that takes not one byte for this long, while bytes wait for it, is
    closed (3008). None: never. Default: 10."""

    pong_timeout_s: float
    """In seconds. A client that shows no sign of life for this long is closed (3012). Any frame
    counts. Default: 60."""

    ping_interval_s: float
    """In seconds. A client that was silent for this long gets a ping. Must be smaller than
    pong_timeout_s. Default: 54."""

    max_message_bytes: int | None
    """In bytes. The largest message a client may send; a larger one closes its connection (1009).
    None: no limit. Default: 512."""

    outbox_max_entries: int
    """In entries. How many entries may wait for a client whose socket is not writable. One entry
    is all that one turn of the event loop had for that client. Default: 256."""

    outbox_max_bytes: int
    """In bytes. How many bytes may wait for a client whose socket is not writable. Default:
    1048576."""

    inbox_max_messages: int
    """In messages. How many messages of one client may wait while its handler runs. From there on
    its socket is not read, pings and close frames included, until half of them are handled.
    Default: 256."""

    inbox_max_bytes: int
    """In bytes. How many bytes of messages of one client may wait while its handler runs.
    Default: 65536."""

    slow_policy: Literal["disconnect", "drop_oldest", "drop_newest", "latest"]
    """What a full outbox does: close the client (3008), drop the oldest entry, drop the newest,
    or keep only the latest message of each room. Default: disconnect."""

    broker_prefix: str
    """What a hub adds to the prefix of the broker's URL: with 'chat' and '?prefix=shop' it is
    'shop.chat'. Each of several hubs of one application needs one of its own. Default: ."""

    room_rules: Sequence[RoomRules]
    """What rooms keep and promise, by their names; the first rule that fits a room counts. In the
    environment JSON, as in [{"pattern": "chat:*", "history": 100}]. Default: ."""

    history_max_bytes: int
    """In bytes. How much the memory broker keeps of all rooms together, 200 bytes for each
    message and 1200 for each room included; when it is more, the rooms that were silent longest
    lose their oldest. Default: 67108864."""

    origins: Sequence[str]
    """Origins whose pages may connect: 'same-origin', 'https://example.com',
    'https://*.example.com' (all subdomains), 'http://localhost:*' (any port), 'null' (pages
    without an origin: local files, and sandboxed frames of any page), or '*' for any. Requests
    without an Origin header are no browsers and pass. Default: same-origin."""

    max_clients: int | None
    """In clients. How many clients one process serves; more are refused with 503. None: no limit.
    Default: none."""

    max_clients_per_address: int | None
    """In clients. How many clients one network address may have, handshakes in progress included;
    more are refused with 503. An IPv6 address counts by its /64. Behind a proxy the address is
    right only if the server trusts the proxy. None: no limit. Default: none."""

    max_rooms_per_client: int | None
    """In rooms. How many rooms one client may be in; joining more raises CommandError, and an
    identity with more is refused. None: no limit. Default: 128."""

    max_loop_lag_s: float | None
    """In seconds. While the event loop was later than this at one of its last three looks (one a
    second), handshakes are refused with 503, so that newcomers do not make it later still for
    those who are connected. Off by default: an application that computes for a while now and then
    is late and not overloaded. None: off. Default: none."""

    handshake_timeout_s: float
    """In seconds. How long an authenticate handler may take before the handshake is refused with
    503; how long, under the native transport, any handshake may stay unanswered; and how long,
    under `hubbub serve`, the head of a request may take to arrive before its connection is
    closed. Default: 10."""

    messages_per_second: float | None
    """In messages per second. How fast one client may send, with a burst of two seconds' worth.
    What becomes of more, on_rate_limit says. Of a dialect with commands each is counted, but for
    those that come with the connect command. Under the native transport pings and tiny fragments
    have a limit of their own, as high, but at least 10. None: no limit. Default: none."""

    on_rate_limit: Literal["close", "reply"]
    """What a message over messages_per_second causes: a close (3013), or an error reply, at most
    one a second, while the message is dropped; a command is answered each time. A ping is dropped
    without a reply, a fragment closes either way. Default: close."""

    shutdown_timeout_s: float
    """In seconds. How long a shutdown may take: closes with 1012 are paced over half of it at
    most, what is still open after four fifths is cut, and disconnect handlers have almost all of
    it. Default: 10."""

    drain_s: float
    """In seconds. Over how long a shutdown closes the clients, in waves, so that those who come
    back elsewhere do so a few at a time. `hubbub serve` takes requests until then, and refuses
    sockets with 503. At most half of shutdown_timeout_s. 0: 2 ms for each client, and no wait for
    others. Default: 0."""

    come_back_s: float
    """In seconds. How long after the drain there is a server again. Who is closed by a shutdown
    is told to wait so long, and for what is left of drain_s. 0: nothing is told, as where other
    processes take over. Default: 0."""

    compression: Literal["off", "shared"]
    """Whether the native transport takes up permessage-deflate, without context takeover: a
    message is deflated once, and all clients that negotiated it share the bytes. Default: off."""

    compression_min_bytes: int
    """In bytes. With compression, messages smaller than this go out as they are; 0 deflates all.
    Default: 256."""

    client_id_from_query: bool
    """Whether ?id=… may choose client.id. A client that asks for an id in use replaces its holder
    if both are the same user, and is refused with 409 otherwise. Default: no."""

    on_invalid: Literal["reply", "ignore", "close"]
    """What an invalid message causes: an error reply, nothing but a count, or a close (1008).
    Default: reply."""

    on_expiry: Literal["close", "ask"]
    """What happens to a client whose Identity has expires_at: a close (3005) at that time, or
    first, up to 30 seconds before it, a message that asks the client for a new token. Default:
    close."""

    on_handler_error: Literal["close", "stay"]
    """What an exception in a handler causes for its client: a close (1011), or nothing. Default:
    close."""

    handler_grace_s: float | None
    """In seconds. How long a handler may still run when its client has gone; then it is
    cancelled, once. What the client had sent before it left is handled too, unless a handler had
    to be cancelled or the server closed the connection. None: until it ends by itself, or the hub
    does. Default: 1."""

    api_keys_file: str | None
    """A file with the keys of the HTTP API, in each line a key or a JSON object with its
    permissions; `hub.api` reads it where it is given no keys. None: no file. Default: none."""

    workers_ok: bool | Literal["refuse"]
    """Whether it is meant that several worker processes serve one address, each with clients and
    rooms of its own, where no broker connects them. If it is not, each of them warns; with
    'refuse' none starts while another is there. Default: no."""


class SettingsKeywords(HubKeywords, total=False):
    """A keyword for each setting."""

    broker: str
    """Where publications are ordered, kept and spread: 'memory://' is this process alone;
    'valkey://host:6379' or 'redis://host:6379', with TLS 'valkeys://' or 'rediss://', and
    'unix:///run/valkey.sock', or 'nats://host:4222', with TLS 'tls://', connect all processes
    that name the same server; 'valkey+sentinel://', 'valkey+cluster://' and several hosts in one
    URL stand for more than one. '?prefix=shop' keeps applications apart. A user and a password in
    it are shown nowhere. Default: memory://."""
