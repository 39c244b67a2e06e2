"""What is published and has no receipt yet, over any server: it is bounded, and refused when it is late.

What must not live here: how it is sent, and what the server answers (`valkey_outgoing`, `nats_outgoing`).

A publication has its receipt when the server has taken it, and when it has come here, if it does: so a receipt says how
many clients here it was delivered to. That it comes is not waited for longer than `WAIT_S`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from asyncio import Future
from collections.abc import Callable, Collection, Iterable
from typing import Generic, TypeVar

from ..errors import BrokerError, BrokerUnavailable, CommandError
from ..model import Position, Receipt
from .broker import Node
from .envelope import packed_size, publication_of, unseal

MOST_WAITING = 10_000
"""How many publications may wait for the server; one more is refused at once."""
MOST_WAITING_BYTES = 16 * 1024**2
"""How many bytes of messages; one that is larger is never taken."""
WAIT_S = 5.0
"""How long a publication waits for its receipt, before it is refused."""
LOOK_S = 0.25
"""How often it is looked which have waited for too long."""
RUN_BYTES = 64 * 1024
"""How many bytes a run has at most, if it has more than one publication."""

MAY_BE_THERE = "it may have been published, or not"


class Waiting:
    """A publication without a receipt. `receipt` is what is known of it (None: the server has not taken it)."""

    __slots__ = ("comes_by", "future", "number", "receipt", "room", "since", "size", "unknown")

    def __init__(self, number: int, room: str, size: int) -> None:
        loop = asyncio.get_running_loop()
        self.number: int = number
        self.room: str = room
        self.size: int = size
        self.since: float = loop.time()
        self.future: Future[Receipt] = loop.create_future()
        self.receipt: Receipt | None = None
        self.comes_by: object = None
        """By which connection it comes here (None: by none)."""
        self.unknown: int = 0
        """How often it was sent without it being known what became of that."""

    @property
    def may_be_there(self) -> bool:
        """Whether the server may have taken it."""
        return self.unknown > 0


W = TypeVar("W", bound=Waiting)


class Unanswered(ABC, Generic[W]):
    """The publications that wait for their receipts, by their numbers. Event loop only."""

    def __init__(self) -> None:
        self._unanswered: dict[int, W] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.nbytes: int = 0
        """How many bytes of messages wait."""
        self.untaken: int = 0
        """How many publications the server has not taken yet."""
        self.lag_s: float | None = None
        """How long the server took for its last answer."""

    @abstractmethod
    def _why_late(self, waiting: W) -> str | None:
        """Return why one is refused that has waited for too long; None: it is on its way, and waits on."""

    def came(self, number: int, receipt: Receipt) -> None:
        """Learn that a publication of ours has come here."""
        waiting = self._unanswered.get(number)
        if waiting is not None:
            self._finish(waiting, receipt)

    def note_left(self, rooms: Collection[str] | None) -> None:
        """Learn that what is published to these rooms (None: to all) comes here no more."""
        for waiting in list(self._unanswered.values()):
            if rooms is None or waiting.room in rooms:
                waiting.comes_by = None
                if waiting.receipt is not None:
                    self._finish(waiting, waiting.receipt)

    def _note_lag(self, began: float) -> None:
        """Learn that the server has answered now what it was asked at a time of the event loop."""
        self.lag_s = asyncio.get_running_loop().time() - began

    def _check_room_for(self, size: int, takes: int | None = None, beside: int = 0) -> None:
        """Raise `BrokerUnavailable` where too many wait already, `CommandError` for what can never be published.

        `takes` is how many bytes of one message the server takes (None: that is not known), `beside` how many it has
        beside the envelope.
        """
        most = MOST_WAITING_BYTES if takes is None else min(takes, MOST_WAITING_BYTES)
        if size + beside > most:
            text = f"a message has {size + beside} bytes with what is beside it, and the broker takes {most}"
            raise CommandError("too_large", text)
        if len(self._unanswered) >= MOST_WAITING or self.nbytes + size > MOST_WAITING_BYTES:
            raise BrokerUnavailable("too many publications wait for the broker")

    def _add(self, waiting: W) -> None:
        self._unanswered[waiting.number] = waiting
        self.nbytes += waiting.size
        self.untaken += waiting.receipt is None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _end(self) -> None:
        """Refuse all who wait."""
        if self._timer is not None:
            self._timer.cancel()
        for waiting in list(self._unanswered.values()):
            if waiting.receipt is not None:
                self._finish(waiting, waiting.receipt)
            else:
                self._fail(waiting, BrokerUnavailable("the broker has stopped"))

    def _look(self) -> None:
        """Refuse what has waited for too long."""
        loop = asyncio.get_running_loop()
        late = loop.time() - WAIT_S
        for waiting in list(self._unanswered.values()):
            if waiting.since > late:
                continue  # in a cluster older ones stand behind it, which another shard has given
            if waiting.receipt is not None:
                self._finish(waiting, waiting.receipt)
            elif (why := self._why_late(waiting)) is not None:
                self._fail(waiting, BrokerUnavailable(why))
        self._timer = loop.call_later(LOOK_S, self._look) if self._unanswered else None

    def _note_way(self, waiting: W, comes_by: object) -> None:
        """Note by which connection one comes here that is about to be sent. If a try without an answer has been taken,
        it came by that of then, or is lost."""
        if not waiting.may_be_there:
            waiting.comes_by = comes_by

    def _taken(self, waiting: W, receipt: Receipt, comes_by: object) -> None:
        """Learn that the server has taken one, whose room comes here by `comes_by` now."""
        by = waiting.comes_by
        if receipt.is_repeated or by is None or by != comes_by:
            self._finish(waiting, receipt)
        elif waiting.number in self._unanswered:
            self.untaken -= waiting.receipt is None
            waiting.receipt = receipt  # and it comes

    def _finish(self, waiting: W, receipt: Receipt) -> None:
        self._forget(waiting)
        if not waiting.future.done():
            waiting.future.set_result(receipt)

    def _fail(self, waiting: W, error: BrokerError) -> None:
        """Refuse one. That it may have been published is said here, and by no `error`."""
        self._forget(waiting)
        if waiting.may_be_there:
            error = BrokerUnavailable(f"{MAY_BE_THERE}: {error}")
        if not waiting.future.done():
            waiting.future.set_exception(error)
            waiting.future.exception()

    def _forget(self, waiting: W) -> None:
        if self._unanswered.pop(waiting.number, None) is not None:
            self.nbytes -= waiting.size
            self.untaken -= waiting.receipt is None


def runs_of(
    some: Iterable[W], go_together: Callable[[W, W], bool], most_bytes: int, most: int
) -> list[list[W]]:
    """Part what leaves together into runs, each of which goes in one message; the order of a room stays.

    `most_bytes` is how long a run may be as `envelope.pack` writes it; a publication that is longer is one alone.
    """
    runs: list[list[W]] = []
    last: dict[str, tuple[list[W], int]] = {}
    for waiting in some:
        run, size = last.get(waiting.room, ([], 0))
        size += packed_size(waiting.size)
        if run and size <= most_bytes and len(run) < most and go_together(run[0], waiting):
            run.append(waiting)
        else:
            run, size = [waiting], packed_size(waiting.size)
            runs.append(run)
        last[waiting.room] = run, size
    return runs


def deliver_run(
    node: Node,
    room: str,
    run: Iterable[bytes],
    position: Position | None,
    sender: str,
    came: Callable[[int, Receipt], None],
) -> None:
    """Deliver what has come in one message. `position` is that of the first; `came` is told of those of `sender`."""
    for sealed in run:
        envelope = unseal(sealed)
        count = node.deliver(publication_of(envelope, room, position))
        if envelope.sender == sender:
            came(envelope.number, Receipt(count, position))
        if position is not None:
            position = Position(position.offset + 1, position.epoch)
