"""Surveys: which rooms there are, as all nodes say.

What must not live here: who asks (whoever calls), what a node says of itself (`control`).

The verbs: `list` (name the rooms that fit a pattern) and `listed` (some of them, with the number of their
members).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..brokers.broker import Control
from ..errors import CommandError
from .control import number_of, text_of

if TYPE_CHECKING:
    from .core import Core

MOST_ROOMS = 10_000
"""How many rooms of one node an answer may name: with more the pattern has to be narrower."""
ROOMS_A_MESSAGE = 500
"""How many rooms one control message names."""
MOST_PATTERN_CHARACTERS = 256
"""How long a pattern may be, as a room's name may."""


class Surveys:
    """Asks all nodes something, and collects what they say within a time. Event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def rooms(self, pattern: str, wait_s: float) -> dict[str, int]:
        """Return the rooms that have members, by name, and how many, on all nodes that answer in time.

        In `pattern` a `*` stands for any text, `?` for one character, `[ab]` for one of several; "" for all rooms.
        Raises `CommandError` where a node has more than `MOST_ROOMS` such rooms, and for a pattern that is
        too long; and where the others cannot be asked, as `ControlPlane.say`.
        """
        if len(pattern) > MOST_PATTERN_CHARACTERS:
            text = f"a pattern has at most {MOST_PATTERN_CHARACTERS} characters"
            raise CommandError("bad_request", text)
        found = self._own(pattern)
        if found is None:
            raise _too_many()
        is_overfull = False

        def take(answer: Control) -> None:
            nonlocal is_overfull
            _add(found, answer.arguments["rooms"])
            is_overfull |= answer.arguments.get("is_overfull") is True

        ask = self._core.control.ask
        await ask("list", "listed", take, wait_s, must_ask=True, pattern=pattern)
        if is_overfull:
            raise _too_many()
        return found

    def obey(self, control: Control) -> None:
        """Answer another node, or take its answer, if the verb is of these."""
        arguments = control.arguments
        match control.verb:
            case "list":
                pattern, question = text_of(arguments, "pattern"), text_of(arguments, "question")
                self._answer(control.origin, question, pattern)
            case "listed":
                self._core.control.take_answer(control)

    def _answer(self, node: str, question: str, pattern: str) -> None:
        tell, own = self._core.control.tell, self._own(pattern[:MOST_PATTERN_CHARACTERS])
        if own is None:
            tell("listed", node, question=question, rooms={}, is_overfull=True)
            return
        for part in _parts(own):
            tell("listed", node, question=question, rooms=part)

    def _own(self, pattern: str) -> dict[str, int] | None:
        """Return the rooms of this node that fit; None if there are more than `MOST_ROOMS`."""
        sizes = self._core.registry.room_sizes()
        if pattern not in ("", "*"):
            fits = re.compile(fnmatch.translate(pattern)).match
            sizes = {name: count for name, count in sizes.items() if fits(name)}
        return sizes if len(sizes) <= MOST_ROOMS else None


def _add(found: dict[str, int], rooms: Any) -> None:
    """Add what a node names to what is known. Raises `TypeError`."""
    if not isinstance(rooms, Mapping):
        raise TypeError("rooms is no mapping")
    for name in rooms:
        found[name] = found.get(name, 0) + number_of(rooms, name)


def _too_many() -> CommandError:
    text = f"more than {MOST_ROOMS} rooms fit on one node: ask for fewer by a narrower pattern"
    return CommandError("too_many_rooms", text)


def _parts(rooms: Mapping[str, int]) -> Iterator[dict[str, int]]:
    rest = iter(rooms.items())
    while part := dict(islice(rest, ROOMS_A_MESSAGE)):
        yield part
