"""Client: what an application sees of one live connection.

What must not live here: the state of the connection (`session`), the tables (`registry`). All of it
belongs to the event loop's thread, except `send` and `close`, which may be called from any thread.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import NORMAL
from ..model import EVERYBODY, USER_PREFIX, Position, check_position
from ..wire.frame import encode
from ..wire.publication import Subscribed

if TYPE_CHECKING:
    from .core import Core
    from .session import ClientSession


class Client:
    """One live connection.

    `id` is unique in the process, `user` the name that authentication gave (None: anonymous),
    `address` the peer's (None: unknown), `connected_at` a Unix time in seconds.
    """

    __slots__ = (
        "__weakref__",
        "_core",
        "_meta",
        "_session",
        "address",
        "connected_at",
        "id",
        "user",
    )

    def __init__(
        self,
        core: Core,
        session: ClientSession,
        client_id: str,
        *,
        user: str | None = None,
        meta: Mapping[str, Any] | None = None,
        address: str | None = None,
        connected_at: float = 0.0,
    ) -> None:
        self.id: str = client_id
        self.user: str | None = user
        self.address: str | None = address
        self.connected_at: float = connected_at
        self._core = core
        self._session = session
        self._meta: dict[str, Any] | None = dict(meta) if meta else None

    def __repr__(self) -> str:
        user = "" if self.user is None else f" user={self.user!r}"
        return f"<Client {self.id}{user}>"

    @property
    def meta(self) -> dict[str, Any]:
        """A dictionary of the application's own; it lives as long as the client."""
        if self._meta is None:
            self._meta = {}
        return self._meta

    @property
    def dropped(self) -> int:
        """How many messages the client's outbox has dropped so far."""
        return self._session.dropped

    @property
    def rooms(self) -> frozenset[str]:
        """The names of the rooms that the client is in; after its end, of those it was in last."""
        return frozenset(
            name
            for name in self._session.memberships
            if name != EVERYBODY and name[0] != USER_PREFIX
        )

    @property
    def is_connected(self) -> bool:
        """Whether messages can still reach the client."""
        return self._session.close is None

    def send(self, data: Any) -> bool:
        """Send to this client alone; see `hubbub.wire.frame.encode` for what becomes of `data`.

        Takes its place in the order of what this process publishes. Returns False, and counts it
        as `sends_to_gone`, when the client is gone already. Never blocks; any thread.
        """
        return self._core.publishing.send(self._session, encode(data))

    def join(self, room: str) -> None:
        """Become a member of `room`; being one already is no error.

        Raises `CommandError` for a name that is not allowed or when the client is in
        `max_rooms_per_client` rooms already. A client that is gone joins nothing. Event loop only.
        """
        self._core.joining.join(self._session, room)

    async def subscribe(self, room: str, *, since: Position | None = None) -> Subscribed:
        """Become a member of `room` if the authorize handler allows it, and wait until that is true.

        Afterwards everything that is published to the room reaches the client, whichever process
        published it; `join` asks nobody and waits for nothing. Being a member already is no error.
        With `since`, a position that an answer, a receipt or `hub.cursor` gave, the client is first sent
        all that was published after it, if the room keeps that; the answer says whether it was all. With
        `Position(0, "")` it is sent all that is kept; the answer says whether more was published before that.
        Raises `CommandError`: "forbidden", "too_many_rooms", a name that is not allowed, or "left" when
        the client left the room, or was gone, before it was in. Event loop only.
        """
        check_position(since)
        return await self._core.joining.subscribe(self._session, room, since, by_server=True)

    def leave(self, room: str) -> None:
        """Stop being a member of `room`; not being one is no error. Event loop only."""
        self._core.joining.leave(self._session, room, by_server=True)

    def refresh(self, expires_at: float | None) -> None:
        """Let the client stay until `expires_at` (Unix time in seconds; None: for good).

        For a client that has shown a new token; see `Identity.expires_at`. A time that has passed
        closes it within a second; one to come leaves clients of SDKs 25 seconds more, to fetch another
        token. A client that is gone stays gone. Raises `ValueError` for a time
        that is none. Event loop only.
        """
        self._core.registry.refresh(self._session, expires_at)

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close the connection with `code` and `reason` (cut to 123 bytes of UTF-8).

        What was sent before is delivered first. Closing twice is no error. Raises `ValueError` for
        a code that RFC 6455 section 7.4 does not let an endpoint send. Any thread.
        """
        self._core.registry.disconnect(self._session, code, reason)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Callable[[float | None], None]:
            """Give what has a new name, with a warning, until the next minor version."""
            if name == "renew":
                text = "client.renew has a new name: write client.refresh"
                warnings.warn(text, DeprecationWarning, stacklevel=2)
                return self.refresh
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def session_of(client: Client) -> ClientSession:
    """Return the hub's side of a client's connection: for the hub's own parts, and for tests."""
    return client._session
