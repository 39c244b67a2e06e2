"""The contract of a broker, and of the node that it serves: what each of them owes the other.

What must not live here: an implementation; clients, sockets, fan-out. A hub is one node of a cluster
(of one, with the broker of one process). All is called on the node's event loop, and returns at once
where it is no coroutine.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NamedTuple, Protocol, cast

from ..errors import BrokerUnavailable
from ..model import ClientInfo, Position, PresenceStats, Receipt
from ..wire.publication import Publication


class Ability(Enum):
    """What a broker may have beside order and spread: each is a protocol of its own below."""

    CONTROL = "control"
    HISTORY = "history"
    PRESENCE = "presence"
    STREAMS = "streams"
    NOTES = "notes"


@dataclass(frozen=True, slots=True)
class Control:
    """A control message from one node to others; see `hub.control` for the verbs.

    `origin` is the node that sends it, `target` the one that it is for (None: all others).
    `arguments` are of types that JSON has.
    """

    verb: str
    origin: str
    arguments: Mapping[str, Any]
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Keep:
    """How a broker keeps what is published to a room: the newest `entries`, each for `ttl_s` seconds,
    and together up to `max_bytes` bytes of messages."""

    entries: int
    ttl_s: float
    max_bytes: int


KEY_TTL_S = 300.0
"""For how many seconds a broker knows a publication's key again."""

UNUSED_TTL_S = 600.0
"""How long a room that never had a publication has a position, from the last question about it on. It is looked for
members four times in this time: after the last has gone it is three quarters of it at least."""


@dataclass(frozen=True, slots=True)
class PresenceTerms:
    """How a broker keeps who is in a room: each member for `lease_s` seconds from the last time that its
    node named it, and one that has left for `grace_s` seconds more, if nobody else is there for it.

    Joins and leaves are told while there are up to `told_up_to` people in the room (0: never).
    """

    lease_s: float
    grace_s: float
    told_up_to: int


class Node(Protocol):
    """What a broker is given at start, and may call until the end of `stop`."""

    id: str
    """The node's name. No other has it, at any time."""

    history_max_bytes: int
    """How much a broker that keeps history in this process may keep of all rooms together."""

    def now(self) -> float:
        """Return the time of the node's clock in seconds, by which history in this process ages."""
        ...

    def has_members(self, room: str) -> bool:
        """Tell whether clients of this process are in a room now."""
        ...

    def deliver(self, publication: Publication) -> int:
        """Hand a publication to this process's clients; return how many there are in the room."""
        ...

    def handle_control(self, control: Control) -> None:
        """Take a control message of another node. One that is not understood is no error."""
        ...

    def note_gap(self, rooms: Sequence[str] | None) -> None:
        """Learn that publications of these rooms (None: of all) may have been lost on their way."""
        ...


class Broker(Protocol):
    """What a broker owes.

    *Order.* Publications of one room reach every node in one order. (A broker whose servers do not order
    says so: on NATS that holds for what is kept, has a key or tells of presence; else those of one node come
    in the order of its calls.) Two publications of one node reach that node's own clients in the order of the
    calls, across rooms too, where they are delivered within `publish`; else the order is each room's own.

    *Atomicity.* What a publication gets (its place in the order, its position, its entry in the
    history) it gets in one step: no node sees one without the others.

    *Keys.* A publication whose `key` the broker has seen in the same room within `KEY_TTL_S` is not
    published again: its receipt has the position of the first, and `is_repeated`.

    *Delivery.* `deliver` is called at most once for each publication and node, the publisher's own
    included, and only for rooms in which the node is interested; for those it is called for all that was
    published after the future of `subscribe` was done.

    *Receipt.* The broker has taken the publication when its receipt is there. `publish` returns a
    receipt rather than a future where it can: the broker of one process pays for no future.

    *Away.* A broker that loses its servers comes back by itself, and subscribes again to all that its
    node is interested in. Meanwhile `publish` and `subscribe` fail with `BrokerUnavailable`, at once
    or after a bounded wait; clients stay connected. When it is back it calls `note_gap` for what may
    have been lost.

    *Closing.* After `stop` returns nothing of the node is called, and no future is left undone.
    """

    abilities: frozenset[Ability]
    """What else it can do. The hub uses control where it is, and asks for nothing that is not here."""

    receives_all: bool
    """True: all publications reach this node, wanted or not, so that `subscribe` is never called."""

    async def start(self, node: Node) -> None:
        """Connect; from then on the node may be called. Raises `BrokerUnavailable`."""
        ...

    async def stop(self) -> None:
        """Disconnect. Stopping twice, or what never started, is no error."""
        ...

    def publish(self, publication: Publication) -> Receipt | Future[Receipt]:
        """Take a publication. `BrokerUnavailable` comes by raise or by future.

        Raises `CommandError` ("too_large") for one that it never takes.
        """
        ...

    def subscribe(self, rooms: Sequence[str]) -> Future[None] | None:
        """Be interested in rooms; done when all that is published from then on will come.

        The hub calls this with `MOST_ROOMS_A_CALL` rooms at most, several times in a turn of the event
        loop only if there are more, and never for a room that it is interested in already. None: done at once.
        """
        ...

    def unsubscribe(self, rooms: Sequence[str]) -> None:
        """Be interested no more, in the order of the calls: also in what `subscribe` has not answered yet.

        What is on its way may still be delivered.
        """
        ...


class RoomsRefused(BrokerUnavailable):
    """Of the rooms of a `subscribe` some cannot be had, and `why` says of each the reason. All others come."""

    def __init__(self, why: Mapping[str, BrokerUnavailable]) -> None:
        self.why: Mapping[str, BrokerUnavailable] = why
        super().__init__(str(next(iter(why.values()))))


MOST_ROOMS_A_CALL = 1000
"""How many rooms one `subscribe` or `unsubscribe` names at most."""


def apart(broker: Broker, rooms: Sequence[str]) -> Iterable[Sequence[str]]:
    """Part rooms that may fail apart from one another, each for a `subscribe` of its own.

    A broker with several servers says it by a method `apart`; for another all go together.
    """
    part: Callable[[Sequence[str]], Iterable[Sequence[str]]] | None
    part = getattr(broker, "apart", None)
    return [rooms] if part is None else part(rooms)


class ControlBroker(Broker, Protocol):
    """A broker with `Ability.CONTROL`."""

    def send_control(self, control: Control) -> Future[None] | None:
        """Say something to other nodes; never to the one that says it.

        Done when it is on its way. It may be lost, and may overtake publications. Raises `BrokerUnavailable`, at once
        or to who waits.
        """
        ...


@dataclass(frozen=True, slots=True)
class History:
    """A part of what was published to a room. `position` is where the room stands now."""

    publications: Sequence[Publication]
    position: Position


class HistoryBroker(Broker, Protocol):
    """A broker with `Ability.HISTORY`.

    A room has its position from the first question about it on, so that who asks before anything was
    published is not told later that it has missed something. What is kept is lost by age, by number and
    by bytes, the oldest first; the position stays for a day at least. That of a room that never had a
    publication stays while it has members, and for a while: in memory and at Valkey for `UNUSED_TTL_S`, so that
    names that somebody invents leave nothing that lasts; at NATS for seven days, with members or without. A room
    that is forgotten altogether begins a new epoch.
    """

    def publish_kept(self, publication: Publication, keep: Keep) -> Receipt | Future[Receipt]:
        """Take a publication as `publish` does, give it its position in the room, and keep it."""
        ...

    async def history(
        self,
        room: str,
        *,
        since: Position | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> History:
        """Return what was published after `since`, the oldest first (None: all that is kept).

        `limit` is how many publications at most (0: the position alone). With `reverse` it is the newest
        first, and those before `since`. Raises `PositionLost` for a position of another epoch, or, but
        for `reverse`, one after which something is not kept any more.
        """
        ...

    async def remove_history(self, room: str) -> None:
        """Forget a room's history; it begins a new epoch."""
        ...


class CallFailed(BrokerUnavailable):
    """A call about presence was done in part. `infos` are those who have joined, or left, by that part."""

    infos: Sequence[ClientInfo] = ()


class CallRefused(CallFailed):
    """The server is there, and does not take a call as it is: one about fewer it may take."""


MOST_MEMBERS_A_CALL = 1000
"""How many members one `enter` or `leave` names at most."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Who is in a room, on all nodes. `at` says after which change, as `Told.at` does. `is_too_long`: they are more
    than was asked for, and `infos` has nobody."""

    infos: Sequence[ClientInfo]
    at: int
    is_too_long: bool = False


class Entered(NamedTuple):
    """What `PresenceBroker.enter` has done: who has joined by it. `is_quiet`: the room was too large before it
    to tell of joins and leaves, and still is; so nothing was told by it."""

    infos: Sequence[ClientInfo]
    is_quiet: bool = False


class PresenceBroker(Broker, Protocol):
    """A broker with `Ability.PRESENCE`.

    A member is a connection, with a name that no other has. Those whose infos have the same key are one
    person, who joins with the first of them and leaves with the last. Who leaves has the time of grace to
    come back, on any node; it is listed meanwhile, unless others are there for it.

    *Atomicity.* A change, its number (`at`, which grows in a room, also over a restart of the broker) and
    the publication that tells of it are one step: what comes first to the nodes happened first. All who
    joined or left by one call are in one publication of the kind JOIN or LEAVE, with the frame that
    `wire.presence.told_frame` makes (where messages are bounded, a call about many may be several such changes,
    one after another). It has no position, and is not kept. `PresenceTerms.told_up_to` says
    when nothing is told; that, and that it is told again, is told once.

    *Time* changes nothing by itself: whose lease or grace is over is struck out by `expire`, which the
    nodes call now and then, and is told by one of them.
    """

    async def enter(
        self, room: str, members: Mapping[str, ClientInfo], terms: PresenceTerms
    ) -> Entered:
        """Write members down by their names, or renew their leases; return who has joined by that.

        Those who come into a room that was told that nothing is told any more have not heard so: the node tells
        them by `Entered.is_quiet`.
        """
        ...

    async def leave(
        self, room: str, names: Sequence[str], terms: PresenceTerms
    ) -> Sequence[ClientInfo]:
        """Strike members out, or give them their time of grace; return who has left by that.

        A name that is not there is no error.
        """
        ...

    async def expire(self, room: str, terms: PresenceTerms) -> Sequence[ClientInfo]:
        """Strike out whose lease or time of grace is over; return who has left by that."""
        ...

    async def presence(self, room: str, most: int | None = None) -> Snapshot:
        """Return who is in a room: nobody where they are more than `most` clients (None: whoever is there)."""
        ...

    async def presence_stats(self, room: str) -> PresenceStats:
        """Return how many are in a room, without listing them."""
        ...


class NoteBroker(Broker, Protocol):
    """A broker with `Ability.NOTES`: it keeps a few short texts, which all nodes can read.

    They are there when the nodes that wrote them are not, until the broker forgets everything.
    """

    async def note(self, name: str, text: bytes) -> None:
        """Write a text down by its name, in the place of the one before."""
        ...

    async def noted(self, name: str) -> bytes | None:
        """Return the text of a name; None if there is none."""
        ...


class Condition(NamedTuple):
    """How a broker is at this moment; a broker with servers says it by a property `condition`.

    `state` is "up", "silent" (its server is connected and does not answer) or "away". `waiting` is how many
    publications it has not taken yet, `waiting_bytes` their bytes, `lag_s` how long its server took for the
    last answer, in seconds. None: that is not known, or the broker has no such thing.
    """

    state: Literal["up", "silent", "away"] = "up"
    waiting: int | None = None
    waiting_bytes: int | None = None
    lag_s: float | None = None

    @property
    def is_up(self) -> bool:
        """Whether it takes publications: one whose server is silent does, for a while."""
        return self.state != "away"


def condition_of(broker: Broker) -> Condition:
    """Return how a broker is; one that does not say it is up."""
    found = getattr(broker, "condition", None)
    return found if isinstance(found, Condition) else Condition()


_VERBS = ("start", "stop", "publish", "subscribe", "unsubscribe")


def as_broker(value: object) -> Broker:
    """Return `value` if it can be a broker; raise `TypeError` otherwise."""
    if isinstance(value, type) or not callable(getattr(value, "publish", None)):
        raise TypeError(f"broker must be a Broker, such as MemoryBroker(), not {value!r:.80}")
    missing = [name for name in _VERBS if not callable(getattr(value, name, None))]
    missing += [name for name in ("abilities", "receives_all") if not hasattr(value, name)]
    if missing:
        raise TypeError(
            f"broker must be a Broker, and {type(value).__name__} has no {', '.join(missing)}: see "
            "hubbub.brokers.broker.Broker for what is owed"
        )
    broker = cast(Broker, value)
    boasts = unsupported(broker)
    if boasts:
        raise TypeError(f"{type(value).__name__} claims {', '.join(boasts)}, and has no such verb")
    return broker


def unsupported(broker: Broker) -> list[str]:
    """Return which abilities a broker claims whose verbs it has not."""
    verbs = {
        Ability.CONTROL: ("send_control",),
        Ability.HISTORY: ("publish_kept", "history", "remove_history"),
        Ability.PRESENCE: ("enter", "leave", "expire", "presence", "presence_stats"),
        Ability.NOTES: ("note", "noted"),
    }
    return [
        f"{ability.value} ({name})"
        for ability in sorted(broker.abilities, key=lambda each: each.value)
        for name in verbs.get(ability, ())
        if not callable(getattr(broker, name, None))
    ]
