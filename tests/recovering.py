"""Clients that come back, for tests: they do what SDKs and applications do, over a connection in memory.

Each remembers its position in one room. When its connection or its subscription ends, it comes back with
that, and goes on; where it is told that something is missing it begins anew from where the room stands.
It checks what it gets against what was promised, whenever something comes.

What must not live here: what was published (a test knows), and when a client goes and comes.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import msgspec

from array_dialect import ArrayDialect, events_of
from hubbub import Client, CommandError, Hub, Position
from hubbub.hub.client import session_of
from hubbub.testing import MemoryClient, connect, settle
from hubbub.wire.publication import Subscribed

DIALECT = ArrayDialect()

GAP_OF_EVERYBODY = '{"type":"gap","room":""}'
"""What plain clients are told where something may have been lost that nobody keeps."""

Place = tuple[str, int]
"""An epoch, without the names of clients, and an offset."""


def epoch_of(epoch: str) -> str:
    """Return an epoch without the names that a client's position has behind it."""
    return epoch.split("~")[0]


class Returning(ABC):
    """One client of one room. `got` is what it got since it last began anew, each with its offset."""

    def __init__(self, room: str, *, fast: bool = True) -> None:
        self.room = room
        self.got: list[tuple[str, int]] = []
        self.offset = 0
        self.epoch = ""
        self.began_at = 0
        """After which offset it last began anew."""
        self.began_anew = 0
        """How often it was told that something is missing."""
        self.recovered = 0
        self.gaps = 0
        self.is_out = False
        """Whether it has left the room, or the server has put it out, and it has not come back."""
        self.not_for_it: set[Place] = set()
        """What it was excluded from."""
        self.is_kept: Callable[[str, Position], bool] = lambda room, since: False
        """Tells whether all that came after a position is kept, so that it has to be recovered."""
        self.was: list[tuple[Client, Hub]] = []
        """What the application knew it by, connection by connection."""
        self._name: str | None = None
        """What its connection is called, if it has a name."""
        self._names: set[str] = set()
        """What its connections were called, as far as it can know."""
        self._excluded_as: dict[str, set[Place]] = {}
        self._fast = fast
        self._hub: Hub | None = None
        self._peer: MemoryClient | None = None
        self._read = 0

    can_ask: bool = True
    """Whether it asks for its room, and is not put into it as it connects."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.room!r}, at {self.offset}>"

    @property
    def peer(self) -> MemoryClient:
        """Its connection."""
        assert self._peer is not None
        return self._peer

    @property
    def is_connected(self) -> bool:
        """Whether it has a connection."""
        return self._peer is not None and self._peer.closed is None

    @property
    @abstractmethod
    def is_at_rest(self) -> bool:
        """Whether it is in the room, as far as it knows."""

    @abstractmethod
    def come_back(self, hub: Hub) -> None:
        """Connect to a hub if it is not connected, and come into the room."""

    @abstractmethod
    def leave(self) -> None:
        """Leave the room, and stay out, until it comes back."""

    def leave_and_return(self) -> None:
        """Leave the room, and come back to it in the same moment."""
        assert self._hub is not None
        self.leave()
        self.come_back(self._hub)

    @abstractmethod
    def read(self) -> None:
        """Take what has come."""

    def be_put_out(self) -> None:
        """Have the application take it out of the room."""
        self.read()
        if self.is_connected and self._knows_client():
            self.peer.client.leave(self.room)

    def cut(self) -> None:
        """Lose the connection, and what is on its way."""
        self.read()
        self._note_client()
        if self._peer is not None:
            self._peer.transport.drop_connection()
        self._peer = None
        name, self._name = self._name, None
        if name is not None and name not in self._names_told():
            self._names.discard(name)
            self.not_for_it -= self._excluded_as.pop(name, set())

    def note_exclusion(self, name: str, place: Place) -> None:
        """Note that what is published at a place is not for who has a name, or had it.

        A name that this client was never told, as its connection was cut before that, is nobody's: it
        cannot say that it was its.
        """
        self._note_client()
        if name in self._names:
            self._excluded_as.setdefault(name, set()).add(place)
            self.not_for_it.add(place)

    def knows_its_name(self, client: Client) -> bool:
        """Tell whether a connection of its has a name, which it can say when it comes back."""
        session = session_of(client)
        return session.has_connection_id and session.connection_id in self._names

    def last_clients(self) -> list[tuple[Client, Hub]]:
        """Return what the application knows it by, and knew it by before that."""
        self._note_client()
        return self.was[-2:]

    def is_for_it(self, offset: int) -> bool:
        """Tell whether it is to get the publication at an offset of the present epoch."""
        return (epoch_of(self.epoch), offset) not in self.not_for_it

    def misses(self, until: int) -> bool:
        """Tell whether it has not got all that is for it, up to an offset."""
        return any(map(self.is_for_it, range(self.offset + 1, until + 1)))

    def _knows_client(self) -> bool:
        return self._peer is not None and hasattr(self._peer, "client")

    def _note_client(self) -> None:
        if self._knows_client() and self._hub is not None:
            client = self.peer.client
            session = session_of(client)
            if client not in [each for each, _ in self.was]:
                self.was.append((client, self._hub))
            if session.has_connection_id:
                self._name = session.connection_id
                self._names.add(self._name)

    @abstractmethod
    def _names_told(self) -> list[str]:
        """Return the names of its last connections that it was told."""

    def _begin_at(self, position: Position, since: Position | None, *, recovered: bool) -> None:
        """Be in the room: with all since a position, or from where the room stands."""
        if recovered:
            assert since is not None
            assert epoch_of(position.epoch) == epoch_of(since.epoch)
            self.recovered += 1
        else:
            if since is not None:
                assert not self.is_kept(self.room, since), f"what came after {since} is kept"
                self.began_anew += 1
            self.got, self.offset, self.began_at = [], position.offset, position.offset
        self.epoch = position.epoch


class Recovering(Returning):
    """A client of a dialect with commands. With `is_given` its room is one of its identity.

    It stands where an SDK does: at the last publication that it got, or where an answer without any says.
    """

    def __init__(self, room: str, *, fast: bool = True, is_given: bool = False) -> None:
        super().__init__(room, fast=fast)
        self.is_subscribed = False
        self.can_ask = not is_given
        self._has_left = False
        self._number = 100

    @property
    def is_at_rest(self) -> bool:
        return self.is_connected and self.is_subscribed

    def come_back(self, hub: Hub) -> None:
        self.is_out = False
        if self.is_connected and self.can_ask:
            self._subscribe()
            return
        self.cut()
        self._hub, self._read = hub, 0
        self._has_left = False
        self._peer = connect(hub, dialect=DIALECT, fast=self._fast)
        if not self.can_ask:
            position = {self.room: self._since()} if self.epoch else {}
            self._say("connect", 1, self.room, position)
        else:
            self._say("connect", 1)
            self._subscribe()

    def cut(self) -> None:
        super().cut()
        self.is_subscribed = False

    def leave(self) -> None:
        self._leave()
        self._number += 1  # what it asked for before is answered, and means nothing
        self.is_out = True

    def leave_and_return(self) -> None:
        """Leave the room, and come back to it in the same moment."""
        self._leave()
        self._subscribe()
        self.is_out = False

    def read(self) -> None:
        if self._peer is None:
            return
        events = events_of(self._peer.received)
        new, self._read = events[self._read :], len(events)
        for event in new:
            self._take(event)

    def _leave(self) -> None:
        self.is_subscribed, self._has_left = False, True
        self._say("unsubscribe", 7, self.room)

    def _say(self, *words: object) -> None:
        if self.peer.closed is None:
            self.peer.send(msgspec.json.encode(words).decode())

    def _names_told(self) -> list[str]:
        return self.epoch.split("~")[1:]

    def _since(self) -> list[object]:
        return [self.offset, self.epoch] if self.epoch else []

    def _subscribe(self) -> None:
        self._number += 1
        self._say("subscribe", self._number, self.room, *self._since())

    def _take(self, event: list[object]) -> None:
        match event:
            case ["subscribed", int() as number, self.room, place, recovered, list() as rows]:
                if number == self._number:  # else it has asked again since
                    self._begin(place, bool(recovered), rows)
            case ["connected", 1, _, [self.room, place, recovered, list() as rows]]:
                self._begin(place, bool(recovered), rows)
            case ["published", self.room, _, _] if self._has_left:
                pass  # as in an SDK: it was on its way
            case ["published", self.room, str() as text, int() as offset]:
                assert self.is_subscribed, f"{text} came before the subscription, or after its end"
                self._add(text, offset)
            case ["server_unsubscribed", self.room, *is_gap]:
                self._unsubscribed(is_gap=bool(is_gap))
            case ["error", number, code, _]:
                may_fail = {"unavailable", "left"} if self.can_ask else {"unavailable"}
                assert code in may_fail, event
                if number == self._number:
                    self._subscribe()
            case ["connected", 1, _] if self.can_ask:
                pass
            case ["ok", 7]:
                pass
            case _:
                raise AssertionError(f"{event} was not expected")

    def _unsubscribed(self, *, is_gap: bool) -> None:
        self.gaps += is_gap
        if not self.is_subscribed:  # it has left, or asked again, since
            return
        self.is_subscribed = False
        if is_gap:
            assert self.can_ask, "it cannot come back by itself"
            self._subscribe()
        else:
            self.is_out = True

    def _begin(self, place: object, recovered: bool, rows: list[tuple[str, int]]) -> None:
        match place:
            case [int() as top, str() as epoch]:
                position = Position(top, epoch)
            case _:
                raise AssertionError(f"{place} is no position")
        since = Position(self.offset, self.epoch) if self.epoch else None
        self.is_subscribed, self._has_left = True, False
        self._begin_at(position, since, recovered=recovered)
        assert recovered or not rows, "a part was given as if it were all"
        for text, offset in rows:
            self._add(text, offset)
        assert self.offset <= top
        assert not self.misses(top)
        if not rows:
            self.offset = top

    def _add(self, text: str, offset: int) -> None:
        assert self.is_for_it(offset), f"{text} at {offset} was not for it"
        is_next = offset > self.offset and not self.misses(offset - 1)
        assert is_next, f"{text} has the offset {offset} after {self.offset}"
        self.offset = offset
        self.got.append((text, offset))


class PlainRecovering(Returning):
    """A client of the plain dialect, which its application brings into the room.

    It comes back from the last answer of which it had got all; `places` says where a text was published.
    Texts come in order. Where some are missing it is told of a gap, before that or after.
    """

    def __init__(self, room: str, places: dict[str, Place], *, fast: bool = True) -> None:
        super().__init__(room, fast=fast)
        self._places = places
        self._answer: Subscribed | None = None
        self._since: Position | None = None
        self._joining: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._is_in = False
        self.is_owed_a_gap = False
        """Whether something is missing of which it was not told."""
        self.knows_until: int | None = None
        """It was told of a gap when this was the number of the newest text; None: not since it came."""

    @property
    def is_at_rest(self) -> bool:
        return self.is_connected and self._is_in

    def come_back(self, hub: Hub) -> None:
        self.is_out = False
        if self.is_connected:  # it takes what is on its way first
            self.peer.transport.unblock()
            self.read()
        if not self.is_connected:
            self.cut()
            self._hub, self._read = hub, 0
            self._peer = connect(hub, fast=self._fast)
        self._joining = asyncio.ensure_future(self._join(self.peer))
        self._joining.add_done_callback(self._note_failure)

    def _note_failure(self, joining: asyncio.Task[None]) -> None:
        if not joining.cancelled() and joining.exception() is not None:
            self._failure = joining.exception()

    def cut(self) -> None:
        super().cut()
        self._is_in, self._joining = False, None

    def leave(self) -> None:
        """Be taken out by the application: this client has no command for it."""
        self.be_put_out()

    def be_put_out(self) -> None:
        super().be_put_out()
        self._is_in, self._joining, self.is_out = False, None, True

    def read(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._peer is None:
            return
        received = self._peer.received
        new, self._read = received[self._read :], len(received)
        for message in new:
            if message == f'{{"type":"gap","room":"{self.room}"}}':
                self.gaps += 1
                self.is_owed_a_gap = False
                self.knows_until = int(next(reversed(self._places), "0"))
            elif message != GAP_OF_EVERYBODY:
                self._add(str(message))

    def lacks_unnoticed(self, epoch: str, until: int) -> bool:
        """Tell whether something is missing up to a place that the last gap cannot have meant."""
        is_same = epoch == epoch_of(self.epoch)
        after = self.offset if is_same else 0
        missing = [
            int(text)
            for text, place in self._places.items()
            if place[0] == epoch and after < place[1] <= until and place not in self.not_for_it
        ]
        if self.knows_until is None:
            return not is_same or bool(missing)
        return max(missing, default=0) > self.knows_until

    async def _join(self, peer: MemoryClient) -> None:
        if self._joining is not asyncio.current_task():
            return  # it has left before this began
        since = self._from_where()
        try:
            answer = await peer.client.subscribe(self.room, since=since)
        except CommandError as error:
            if error.code not in ("unavailable", "left"):
                raise
            if self._joining is asyncio.current_task():
                self.is_out = True
            return
        assert self._joining is asyncio.current_task(), "it had left, or was cut"
        self.read()
        position = answer.position
        assert position is not None
        assert answer.recovered or not answer.publications
        self._is_in, self._answer, self._since = True, answer, since
        self.is_owed_a_gap, self.knows_until = False, None
        self._begin_at(position, since, recovered=answer.recovered)
        if answer.recovered and since is not None:
            self.got, self.offset, self.began_at = [], since.offset, since.offset
            found = [each.position.offset for each in answer.publications if each.position]
            missed = range(since.offset + 1, position.offset + 1)
            assert found == list(filter(self.is_for_it, missed))

    def _names_told(self) -> list[str]:
        answer = self._answer
        if answer is None or answer.position is None:
            return []
        return answer.position.epoch.split("~")[1:]

    def _from_where(self) -> Position | None:
        """Return the position of the last answer, or from where that was, if it has not got all of it."""
        answer = self._answer
        if answer is None or answer.position is None:
            return None
        found = [each.position.offset for each in answer.publications if each.position]
        if self._since is None or not found or self._has_got(found[-1]):
            return answer.position
        return Position(self._since.offset, answer.position.epoch)

    def _has_got(self, offset: int) -> bool:
        answer = self._answer
        assert answer is not None
        assert answer.position is not None
        return self.offset >= offset or epoch_of(self.epoch) != epoch_of(answer.position.epoch)

    def _add(self, text: str) -> None:
        epoch, offset = self._places[text]
        assert (epoch, offset) not in self.not_for_it, f"{text} at {offset} was not for it"
        is_later = not self.got or int(text) > int(self.got[-1][0])
        is_same = epoch == epoch_of(self.epoch)
        assert is_later, f"{text} came after {self.got[-1]}"
        assert not is_same or offset > self.offset, f"{text} at {offset} came after {self.offset}"
        if self._is_in and self.lacks_unnoticed(epoch, offset - 1):
            self.is_owed_a_gap = True
        self.epoch, self.offset = epoch, offset
        self.got.append((text, offset))


async def read_all(clients: Sequence[Returning], hubs: list[Hub]) -> None:
    """Have what is on its way arrive, and take it, until nothing more comes."""
    quiet = 0
    while quiet < 10:
        before = [len(client.got) for client in clients]
        for hub in hubs:
            await settle(hub)
        await asyncio.sleep(0)
        for client in clients:
            client.read()
        quiet = quiet + 1 if before == [len(client.got) for client in clients] else 0
