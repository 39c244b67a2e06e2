"""Rooms: the table of who is where, and Room, what an application holds in its hand.

What must not live here: delivery. The registry keeps one `RoomTable`; a `Membership` exists from the
first join to the last leave. A `Room` is a name and the hub, and is valid forever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import SettingsError
from ..model import EVERYBODY, USER_PREFIX, Receipt
from ..room_rules import SLOW_POLICIES, SlowPolicy, check_pattern
from .client import Client, session_of
from .patches import Patches
from .stream import Stream

if TYPE_CHECKING:
    from .core import Core
    from .positions import Progress
    from .rules import Rules
    from .session import ClientSession
    from .variant import Variant


class Membership:
    """Who is in one room now. `pending` counts what was published to it in this turn.

    `variant` is the form in which all members get their bytes, while there is one; `parts` are the
    members by their forms as soon as there are two (None: there is one).
    """

    __slots__ = (
        "has_presence",
        "is_stream",
        "name",
        "parts",
        "patches",
        "pending",
        "policy",
        "progress",
        "remembers",
        "room",
        "sessions",
        "variant",
    )
    variant: Variant

    def __init__(
        self,
        name: str,
        policy: SlowPolicy,
        *,
        remembers: bool = False,
        has_presence: bool = False,
        is_stream: bool = False,
    ) -> None:
        self.name: str = name
        self.policy = policy
        self.remembers: bool = remembers
        """Whether the room keeps what was published; see `rules`."""
        self.has_presence: bool = has_presence
        """Whether it is known who is in the room; see `presence`."""
        self.is_stream: bool = is_stream
        """Whether what is published are pieces of a text; see `wire.piece`."""
        self.progress: Progress | None = None
        """How far the room has come here, if it remembers; see `recovery`."""
        self.patches: Patches | None = None
        """Those of the members that take patches (None: nobody does)."""
        self.sessions: dict[ClientSession, None] = {}
        self.parts: dict[Variant, dict[ClientSession, None]] | None = None
        self.pending: int = 0
        self.room: Room | None = None
        """What an application was given for this name last; its name need not be checked again."""

    def add(self, session: ClientSession, patched: Variant | None = None) -> None:
        """Take in a member; twice is no error. It is put to those of its variant, once and for all.

        `patched` is its variant if it takes patches.
        """
        variant, parts = patched or session.variant, self.parts
        if patched is not None:
            if self.patches is None:
                self.patches = Patches()
            self.patches.add(session, patched)
        if not self.sessions:
            self.variant = variant
        elif parts is None and variant is not self.variant:
            parts = self.parts = {self.variant: dict(self.sessions)}
        self.sessions[session] = None
        if parts is not None:
            parts.setdefault(variant, {})[session] = None

    def remove(self, session: ClientSession) -> None:
        """Let a member go; one that is none is no error."""
        self.sessions.pop(session, None)
        parts, variant, patches = self.parts, session.variant, self.patches
        if patches is not None:
            variant = patches.sessions.get(session, variant)
            patches.remove(session)
            if not patches.sessions:
                self.patches = None
        if parts is not None and (part := parts.get(variant)) is not None:
            part.pop(session, None)
            if not part:
                del parts[variant]
                if len(parts) == 1:
                    (self.variant,) = parts
                    self.parts = None

    def by_variant(self) -> list[tuple[Variant, list[ClientSession]]]:
        """Return the members by the form in which they get their bytes: one part, mostly."""
        if self.parts is None:
            return [(self.variant, list(self.sessions))] if self.sessions else []
        return [(variant, list(part)) for variant, part in self.parts.items()]

    def __repr__(self) -> str:
        return f"<Membership {self.name or 'everybody'!r}: {len(self.sessions)}>"


class RoomTable:
    """The rooms that have members. An empty room has no entry.

    `policies` gives rooms a slow-consumer policy of their own, by name or by a prefix with `*` at its end; the
    longest match counts, and a rule of the room's own before that. `on_first` is called when a room gets its
    first member, `on_last` when its last has gone. Raises `SettingsError` for a policy that does not exist.
    """

    def __init__(
        self,
        default: SlowPolicy,
        policies: Mapping[str, SlowPolicy],
        on_first: Callable[[str], None] | None = None,
        on_last: Callable[[str], None] | None = None,
        *,
        rules: Rules | None = None,
    ) -> None:
        self._default = default
        self._on_first = on_first
        self._on_last = on_last
        self.policies: Mapping[str, SlowPolicy] = _checked_policies(policies)
        self._rules = rules
        self._members: dict[str, Membership] = {}
        self.get: Callable[[str], Membership | None] = self._members.get
        """Return the members of a room, None when it is empty. Every publication asks."""

    def __len__(self) -> int:
        return len(self._members)

    def add(self, session: ClientSession, room: str, patched: Variant | None = None) -> Membership:
        """Make `session` a member of `room`; see `Membership.add`."""
        members = self._members.get(room)
        if members is None:
            members = self._members[room] = self._new(room)
            if self._on_first is not None:
                self._on_first(room)
        members.add(session, patched)
        return members

    def _new(self, room: str) -> Membership:
        rules = self._rules
        rule = rules.of(room) if rules is not None and rules.has_any else None
        if rule is None:
            return Membership(room, self.policy_of(room))
        policy = rule.slow_policy or self.policy_of(room)
        if policy == "latest" and rule.needs_each_message:
            policy = "drop_oldest"  # which the client is told of
        return Membership(
            room,
            policy,
            remembers=rule.remembers,
            has_presence=rule.terms is not None,
            is_stream=rule.is_stream,
        )

    def remove(self, session: ClientSession, members: Membership) -> None:
        """Take `session` out of a room; a room ends with its last member."""
        members.remove(session)
        if not members.sessions and self._members.get(members.name) is members:
            del self._members[members.name]
            if self._on_last is not None:
                self._on_last(members.name)

    def clear(self) -> None:
        """Forget all rooms."""
        self._members.clear()

    def all(self) -> list[Membership]:
        """Return all rooms that have members."""
        return list(self._members.values())

    def sizes(self) -> dict[str, int]:
        """Return the number of members by room, without everybody's and the users' rooms.

        Any thread: a copy of a dictionary is made in one step. A list of its items is not: their
        tuples may set off the garbage collector, and that may let another thread run.
        """
        return {
            name: len(members.sessions)
            for name, members in self._members.copy().items()
            if name != EVERYBODY and not name.startswith(USER_PREFIX)
        }

    def policy_of(self, room: str) -> SlowPolicy:
        """Return the slow-consumer policy of `room`."""
        best, policy = -1, self._default
        for pattern, candidate in self.policies.items():
            prefix = pattern.removesuffix("*")
            is_match = room.startswith(prefix) if prefix != pattern else room == pattern
            # An exact name counts for more than a prefix of the same length.
            rank = 2 * len(prefix) + (prefix == pattern)
            if room != EVERYBODY and is_match and rank > best:
                best, policy = rank, candidate
        return policy


def _checked_policies(policies: Mapping[str, SlowPolicy]) -> dict[str, SlowPolicy]:
    if not isinstance(policies, Mapping):
        expected = 'must be a policy for each name, such as {"cursor:*": "latest"}'
        raise SettingsError("slow_policies", policies, expected)
    for pattern, policy in policies.items():
        if policy not in SLOW_POLICIES:
            expected = f"for {pattern!r} must be one of {', '.join(SLOW_POLICIES)}"
            raise SettingsError("slow_policies", policy, expected)
        check_pattern(pattern, "slow_policies", of_users=True)
    return dict(policies)


class Room:
    """A named set of clients. It costs nothing while it is empty.

    Clients join and leave through `Client.join` and `Client.leave`. `len(room)`, iteration and
    `client in room` speak of this process only.
    """

    __slots__ = ("_core", "_key")

    def __init__(self, core: Core, key: str) -> None:
        self._core = core
        self._key = key

    @property
    def name(self) -> str:
        """The room's name; empty for the room of everybody."""
        return self._key

    def broadcast(self, data: Any, *, exclude: Client | None = None) -> None:
        """Send `data` to every member but `exclude`. Never blocks; any thread."""
        self._core.publishing.broadcast(self._key, data, exclude)

    async def publish(
        self, data: Any, *, exclude: Client | None = None, key: str | None = None
    ) -> Receipt:
        """Send `data` to every member but `exclude`, and wait for the broker's receipt.

        `key` names the message, so that it is published once; see `Hub.publish`.
        """
        return await self._core.publishing.publish(self._key, data, exclude, key)

    def stream(self, *, unheard_s: float | None = None) -> Stream:
        """Return a stream into this room: `async with room.stream() as s: await s.append(text)`.

        The room's rule says `stream=True`. With `unheard_s`, `append` raises `StreamUnheard` when nobody has
        been a member for so many seconds, counted from the first piece that nobody was there for: of this
        process, and of the others that the broker can ask (None: never). Raises `CommandError`
        ("not_available") for a room that is no stream, `ValueError` for a time that is none.
        """
        if unheard_s is not None and not 0 <= unheard_s < 1e15:
            raise ValueError(f"unheard_s is a number of seconds or None, not {unheard_s!r}")
        self._core.rules.require_stream(self._key)
        return Stream(self._core, self._key, unheard_s)

    def __len__(self) -> int:
        return len(self._core.registry.members_of(self._key))

    def __iter__(self) -> Iterator[Client]:
        members = self._core.registry.members_of(self._key)
        return iter([session.client for session in members])

    def __contains__(self, client: object) -> bool:
        if not isinstance(client, Client):
            return False
        return session_of(client) in self._core.registry.members_of(self._key)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._key!r}>" if self._key else "<Room of everybody>"


class User(Room):
    """The clients of one user, wherever they are connected."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """The user's name."""
        return self._key[1:]

    def send(self, data: Any) -> None:
        """Send `data` to every client of the user. Never blocks; any thread."""
        self.broadcast(data)
