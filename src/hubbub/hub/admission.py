"""Admission: who may come in, as far as numbers and ids go; and what each handshake holds.

What must not live here: HTTP, authentication (the endpoint asks for both). One per hub.
"""

from __future__ import annotations

import ipaddress
import math
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType

from ..errors import Refused
from ..model import Handshake, Identity
from ..settings import Settings
from .auth import requested_client_id
from .session import ClientSession

RETRY_AFTER_S = 5
"""What a 503 tells a client to wait, in seconds."""

_HOST_BITS = 64
"""An IPv6 customer has a /64 at least, and so 2**64 addresses to come from."""


class Admission:
    """Decides who may become a client, by numbers and ids. Event loop only.

    `sessions` is the registry's table of clients by id; it is read here and never written.
    `is_draining` tells whether the hub shuts down, `come_back_in_s` after how many seconds it is worth
    coming back then (0: that is not known).
    """

    def __init__(
        self,
        settings: Settings,
        sessions: Mapping[str, ClientSession],
        is_draining: Callable[[], bool],
        come_back_in_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._settings = settings
        self._sessions = sessions
        self._is_draining = is_draining
        self._come_back_in_s = come_back_in_s
        self._held: set[str] = set()
        self._networks: Counter[str] = Counter()
        self.in_progress: int = 0
        """How many handshakes are in progress; the hub's stats show it as `register`."""

    def reserve(self, address: str | None, lag_s: float) -> Place:
        """Return what a handshake from `address` holds while it goes on; to be used with `with`.

        Raises `Refused(503)` when nobody can be served now, or nobody more from there. `lag_s` is how
        late the event loop was lately, in seconds.
        """
        self.check_capacity()
        limit_s = self._settings.max_loop_lag_s
        if limit_s is not None and lag_s > limit_s:
            raise _unavailable("overloaded", "The server has too much to do")
        limit = self._settings.max_clients_per_address
        network = None if limit is None else network_of(address)
        if limit is not None and network is not None and self._networks[network] >= limit:
            raise _unavailable(
                "too_many_from_address", f"{limit} clients have come from this address already"
            )
        return Place(self, self._networks, network)

    def check_capacity(self) -> None:
        """Raise `Refused(503)` when no further client can be served now."""
        if self._is_draining():
            wait_s = math.ceil(self._come_back_in_s()) or RETRY_AFTER_S
            raise _unavailable("shutting_down", "The server is shutting down", wait_s)
        limit = self._settings.max_clients
        if limit is not None and len(self._sessions) + len(self._held) >= limit:
            raise _unavailable("too_many_clients", f"All {limit} places are taken")

    def counted_networks(self) -> int:
        """Return how many networks have clients or handshakes, as far as they are counted."""
        return len(self._networks)

    def reset(self) -> None:
        """Forget who was counted in an event loop that is gone."""
        # Not emptied: handshakes of the old loop still give back what they took.
        self._networks = Counter()
        self._held = set()

    def hold_id(self, handshake: Handshake, identity: Identity) -> str:
        """Choose the id for a client to be, and hold it with one of `max_clients` places.

        Raises `Refused`: 400 and 409 for an id that cannot be, 503 when all places are taken.
        """
        wish = requested_client_id(handshake, identity, self._settings.client_id_from_query)
        if wish is None:
            return self.hold_any()
        holder = self._sessions.get(wish)
        user = None if holder is None else holder.client.user
        is_foreign = holder is not None and (user is None or user != identity.user)
        if wish in self._held or is_foreign:
            raise Refused(409, "id_in_use", "Another client has this id")
        self.check_capacity()
        self._held.add(wish)
        return wish

    def hold_any(self) -> str:
        """Hold an id that nobody has asked for, and one of `max_clients` places."""
        self.check_capacity()
        client_id = secrets.token_hex(8)
        self._held.add(client_id)
        return client_id

    def release_id(self, client_id: str) -> None:
        """Give the held id and its place back."""
        self._held.discard(client_id)


class Place:
    """What one handshake holds: a count for its network, then an id and one of `max_clients` places.

    Within `with` it counts as in progress. What is not a client's at the end is given back.
    """

    __slots__ = ("_admission", "_client_id", "_network", "_networks")

    def __init__(self, admission: Admission, networks: Counter[str], network: str | None) -> None:
        self._admission = admission
        self._client_id: str | None = None
        self._network = network
        self._networks = networks

    def __enter__(self) -> Place:
        self._admission.in_progress += 1
        if self._network is not None:
            self._networks[self._network] += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.give_back()

    def give_back(self) -> None:
        """End what is in progress, and give back what no client has."""
        self._admission.in_progress -= 1
        self._release_id()
        self.release()

    def keep(self) -> Place:
        """Hand all over to a place that outlives `with`, and holds one of `max_clients` places.

        It is in progress until its `give_back`. Raises `Refused(503)` when all places are taken.
        """
        self.hold_any()
        kept = Place(self._admission, self._networks, self._network)
        kept._client_id = self._client_id
        self._client_id = self._network = None
        self._admission.in_progress += 1
        return kept

    def hold_any(self) -> None:
        """Hold one of `max_clients` places for whoever it will be. Raises `Refused(503)`."""
        if self._client_id is None:
            self._client_id = self._admission.hold_any()

    def hold_id(self, handshake: Handshake, identity: Identity) -> str:
        """Choose the id of the client to be, and hold it; see `Admission.hold_id`."""
        self._release_id()
        self._client_id = self._admission.hold_id(handshake, identity)
        return self._client_id

    def seat(self, session: ClientSession) -> None:
        """Give all to a client that is in the registry's tables: it holds its place by being there.

        Its network is counted until the session calls `release` on the place that it keeps.
        """
        self._release_id()
        if self._network is not None:
            kept = Place(self._admission, self._networks, self._network)
            self._network = None
            session.place = kept

    def release(self) -> None:
        """Count the network no longer. Twice is no error."""
        network, self._network = self._network, None
        if network is not None:
            self._networks[network] -= 1
            if not self._networks[network]:
                del self._networks[network]

    def _release_id(self) -> None:
        if self._client_id is not None:
            self._admission.release_id(self._client_id)
            self._client_id = None


def network_of(address: str | None) -> str | None:
    """Return what an address counts as; None for one that is unknown or no IP address.

    An IPv4 address counts as itself, also when it is written as IPv6 (`::ffff:192.0.2.1`), any
    other IPv6 address as its /64 network.
    """
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            network = int(parsed) >> _HOST_BITS << _HOST_BITS
            return f"{ipaddress.IPv6Address(network)}/{_HOST_BITS}"
        parsed = parsed.ipv4_mapped
    return str(parsed)


def _unavailable(code: str, message: str, retry_after_s: int = RETRY_AFTER_S) -> Refused:
    return Refused(503, code, message, headers={"Retry-After": str(retry_after_s)})
