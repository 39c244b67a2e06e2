"""Admission: the handshakes in progress, the places and ids they hold, and when there is no more room.

What must not live here: HTTP, authentication (`hub` asks for both). One per registry.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from .addresses import Addresses, address_key
from .auth import wished_id
from .client import Client
from .errors import Refused
from .model import Handshake, Identity
from .settings import Settings

RETRY_AFTER_S = 5
"""What a 503 tells a client to wait, in seconds."""


class Admission:
    """Decides who may become a client, as far as numbers and ids go. Event loop only.

    `clients` is the registry's book of clients by id; it is read here and never written.
    """

    def __init__(self, settings: Settings, clients: Mapping[str, Client]) -> None:
        self._settings = settings
        self._clients = clients
        self._held: set[str] = set()
        self._addresses = Addresses()
        self._address_of: dict[Client, str] = {}
        self.in_progress: int = 0
        """How many handshakes are in progress; the hub's stats show it as `register`."""
        self.is_closed: bool = False
        """Whether the hub shuts down, and takes nobody any more."""

    def check_visitor(self, address: str | None, lag_s: float) -> None:
        """Raise `Refused(503)` when nobody can be served now, or nobody more from `address`.

        `lag_s` is how late the event loop was lately, in seconds.
        """
        self.check_capacity()
        limit_s = self._settings.max_loop_lag_s
        if limit_s is not None and lag_s > limit_s:
            raise _unavailable("overloaded", "The server has too much to do")
        self.check_address(address)

    def check_capacity(self) -> None:
        """Raise `Refused(503)` when no further client can be served now."""
        if self.is_closed:
            raise _unavailable("shutting_down", "The server is shutting down")
        limit = self._settings.max_clients
        if limit is not None and len(self._clients) + len(self._held) >= limit:
            raise _unavailable("too_many_clients", f"All {limit} places are taken")

    def check_address(self, address: str | None) -> None:
        """Raise `Refused(503)` when `address` has all the clients that one may have."""
        limit = self._settings.max_clients_per_address
        key = self._counted_key(address)
        if limit is not None and key is not None and self._addresses.count(key) >= limit:
            raise _unavailable(
                "too_many_from_address", f"{limit} clients have come from this address already"
            )

    @contextmanager
    def handshake(self, address: str | None) -> Iterator[None]:
        """Count a handshake as in progress while it is, also for its address.

        It becomes a client within, so that its place is taken at every moment.
        """
        key = self._counted_key(address)
        addresses = self._addresses
        if key is not None:
            addresses.add(key)
        self.in_progress += 1
        try:
            yield
        finally:
            self.in_progress -= 1
            if key is not None:
                addresses.remove(key)

    def came(self, client: Client) -> None:
        """Count a client for its address."""
        key = self._counted_key(client.address)
        if key is not None:
            # Kept, since an application may write another address into its client.
            self._address_of[client] = key
            self._addresses.add(key)

    def left(self, client: Client) -> None:
        """Count a client no longer."""
        key = self._address_of.pop(client, None)
        if key is not None:
            self._addresses.remove(key)

    def forget(self) -> None:
        """Forget who was counted in an event loop that is gone."""
        self.is_closed = False
        # Not emptied: handshakes of the old loop still give back what they took.
        self._addresses = Addresses()
        self._address_of.clear()

    def _counted_key(self, address: str | None) -> str | None:
        limit = self._settings.max_clients_per_address
        return None if limit is None else address_key(address)

    def choose_id(self, handshake: Handshake, identity: Identity) -> str:
        """Return the id for a client to be. Raises `Refused(400)` or `Refused(409)`."""
        wish = wished_id(handshake, identity, self._settings.client_id_from_query)
        if wish is None:
            return secrets.token_hex(8)
        holder = self._clients.get(wish)
        is_foreign = holder is not None and (holder.user is None or holder.user != identity.user)
        if wish in self._held or is_foreign:
            raise Refused(409, "id_in_use", "Another client has this id")
        return wish

    def hold(self, client_id: str) -> None:
        """Hold the id and one of `max_clients` places while the handshake is being accepted."""
        self.check_capacity()
        self._held.add(client_id)

    def release(self, client_id: str) -> None:
        """Give the held id and place back."""
        self._held.discard(client_id)


def _unavailable(code: str, message: str) -> Refused:
    return Refused(503, code, message, headers={"Retry-After": str(RETRY_AFTER_S)})
