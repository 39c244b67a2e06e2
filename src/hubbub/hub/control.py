"""Control: what the nodes of a cluster ask of one another.

What must not live here: how it travels (a broker), messages of applications.

The verbs: `disconnect` (all clients of a user), `kick` (a client by its id), `count` (say how many
clients and rooms there are) and `counted` (the answer), `seek` (say if a room has members) and `sought`; those of
`user_actions`, and those of `surveys`. A node that does not know a verb, or is told
something that makes no sense, goes on: nodes of two versions may be one cluster for a while. So a verb never gets a new
argument that narrows it: a node that passes over that would do too much.
"""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import Future
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ..brokers.broker import Ability, Control, ControlBroker
from ..errors import BrokerUnavailable, check_close
from ..limits import printable
from ..model import USER_PREFIX

if TYPE_CHECKING:
    from .core import Core


class NodeInfo(NamedTuple):
    """What a node says of itself: its `id`, and how many `clients` and `rooms` it has.

    `users` are the people behind the clients, each anonymous one a person of its own; `subscriptions` counts the
    members of all its rooms; `uptime_s` is since its hub's start.
    """

    id: str
    clients: int
    rooms: int
    users: int = 0
    subscriptions: int = 0
    uptime_s: int = 0


class ControlPlane:
    """Speaks to the other nodes through the broker, if that can. Event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._asked: dict[tuple[str, str], Callable[[Control], None]] = {}
        """What takes the answers to a question, by their verb and its number."""
        self._last_question = 0

    @property
    def has_others(self) -> bool:
        """Whether there may be other nodes that can be spoken to."""
        return Ability.CONTROL in self._core.broker.abilities

    def disconnect_user(self, user: str, code: int, reason: str) -> int:
        """Close the clients of a user on all nodes; return how many there were here."""
        self.tell("disconnect", user=user, code=code, reason=reason)
        return self._disconnect_here(user, code, reason)

    def kick(self, client_id: str, code: int, reason: str) -> bool:
        """Close a client by its id, on whatever node it is; return whether it was here."""
        session = self._core.registry.sessions.get(client_id)
        if session is None:
            self.tell("kick", client=client_id, code=code, reason=reason)
            return False
        self._core.registry.disconnect(session, code, reason)
        return True

    async def nodes(self, wait_s: float, *, must_ask: bool) -> list[NodeInfo]:
        """Return what all nodes say of themselves that answer within `wait_s` seconds, this one first.

        With `must_ask` it raises where the others cannot be asked, as what `say` returns does.
        """
        found = [self._own_info()]

        def take(answer: Control) -> None:
            found.append(_read_info(answer.origin, answer.arguments))

        await self.ask("count", "counted", take, wait_s, must_ask=must_ask)
        return found

    async def has_members(self, room: str, wait_s: float) -> bool:
        """Tell whether another node says within `wait_s` seconds that a room has members there.

        True where other nodes cannot be asked now, and where they never can and what is published here reaches them.
        """
        if not self.has_others:
            return not self._core.broker.receives_all
        is_there = asyncio.Event()
        was_asked = await self.ask(
            "seek", "sought", lambda _: is_there.set(), wait_s, is_there, room=room
        )
        return is_there.is_set() or not was_asked

    async def ask(
        self,
        verb: str,
        answer: str,
        take: Callable[[Control], None],
        wait_s: float,
        over: asyncio.Event | None = None,
        *,
        must_ask: bool = False,
        **arguments: Any,
    ) -> bool:
        """Ask the other nodes, if there are any, and `take` what they answer by the verb `answer`.

        It lasts `wait_s` seconds, or until it is `over`: that is set where the question cannot be sent, and by `take`
        when it has enough. Returns whether they could be told the question; with `must_ask` it raises where they
        could not, as what `say` returns does.
        """
        if not self.has_others:
            return True
        self._last_question += 1
        question = str(self._last_question)
        over = over or asyncio.Event()
        self._asked[answer, question] = take
        try:
            if must_ask:
                said = self.say(verb, question=question, **arguments)
                await said
            else:
                said = self.tell(verb, question=question, **arguments)
                said.add_done_callback(lambda done: over.set() if done.exception() else None)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await over.wait()
        finally:
            del self._asked[answer, question]
        return said.done() and said.exception() is None

    def take_answer(self, control: Control) -> None:
        """Give an answer to who has asked, if it does not come too late."""
        take = self._asked.get((control.verb, text_of(control.arguments, "question")))
        if take is not None:
            take(control)

    def handle_control(self, control: Control) -> None:
        """Do what another node asks for; see `brokers.broker.Node`."""
        own = self._core.node_id
        if control.origin == own or control.target not in (None, own):
            return
        try:
            self._obey(control)
        except Exception as error:
            text = "node %s sent a control message %r that makes no sense: %s"
            sender, verb = printable(str(control.origin), 50), printable(str(control.verb), 50)
            why = printable(f"{type(error).__name__} {error}")
            self._core.log.log(logging.WARNING, "control", text, sender, verb, why)

    def _obey(self, control: Control) -> None:
        arguments = control.arguments
        match control.verb:
            case "disconnect":
                user = text_of(arguments, "user")
                self._disconnect_here(user, *close_of(arguments))
            case "kick":
                session = self._core.registry.sessions.get(text_of(arguments, "client"))
                code, reason = close_of(arguments)
                if session is not None:
                    self._core.registry.disconnect(session, code, reason)
            case "count" if not self._core.serves_clients:
                pass
            case "count":
                question = text_of(arguments, "question")
                facts = self._own_info()._asdict()
                del facts["id"]
                self.tell("counted", control.origin, question=question, **facts)
            case "seek":
                if self._core.registry.members_of(text_of(arguments, "room")):
                    question = text_of(arguments, "question")
                    self.tell("sought", control.origin, question=question)
            case "counted" | "sought":
                self.take_answer(control)
            case _:
                self._core.user_actions.obey(control)
                self._core.surveys.obey(control)

    def _own_info(self) -> NodeInfo:
        core = self._core
        clients, rooms = len(core.registry.sessions), core.registry.room_sizes()
        return NodeInfo(
            core.node_id,
            clients,
            len(rooms),
            clients - core.registry.surplus_of_users(),
            sum(rooms.values()),
            int(time.monotonic() - core.lifecycle.started_at),
        )

    def _disconnect_here(self, user: str, code: int, reason: str) -> int:
        registry = self._core.registry
        sessions = list(registry.members_of(USER_PREFIX + user))
        for session in sessions:
            registry.disconnect(session, code, reason)
        return len(sessions)

    def tell(self, verb: str, target: str | None = None, **arguments: Any) -> Future[None]:
        """Send a word as `say` does, for who does not wait: that it cannot be sent is logged."""
        said = self.say(verb, target, **arguments)
        if said.done():
            self._log_failure(verb, said)
        else:
            said.add_done_callback(lambda done: self._log_failure(verb, done))
        return said

    def _log_failure(self, verb: str, said: Future[None]) -> None:
        if not said.cancelled() and (error := said.exception()) is not None:
            text, why = (
                "the other nodes could not be told %r: %s",
                str(error) or type(error).__name__,
            )
            self._core.log.log(logging.ERROR, "control", text, verb, printable(why))

    def say(self, verb: str, target: str | None = None, **arguments: Any) -> Future[None]:
        """Send a word to other nodes; return what is done when it is on its way, or there are none.

        That it cannot be sent is raised to whoever waits for that: `BrokerUnavailable`, or what else the broker has
        raised.
        """
        core, said = self._core, asyncio.get_running_loop().create_future()
        if not self.has_others:
            said.set_result(None)
            return said
        broker = cast(ControlBroker, core.broker)
        try:
            sent = broker.send_control(Control(verb, core.node_id, arguments, target))
        except Exception as error:  # what a broker raises keeps nobody here from being told
            _not_sent(said, error)
            return said
        if sent is None:
            said.set_result(None)
        else:
            sent.add_done_callback(lambda done: _sent(said, done))
        return said


def _sent(said: Future[None], sent: Future[None]) -> None:
    if sent.cancelled():
        _not_sent(said, BrokerUnavailable("the broker has stopped"))
    elif (error := sent.exception()) is not None:
        _not_sent(said, error)
    elif not said.done():
        said.set_result(None)


def _not_sent(said: Future[None], error: BaseException) -> None:
    if not said.done():
        said.set_exception(error)
        said.exception()  # nobody has to wait for it


def _read_info(node: str, arguments: Mapping[str, Any]) -> NodeInfo:
    """Return what a node says of itself; one of an older version says less."""
    clients, rooms = number_of(arguments, "clients"), number_of(arguments, "rooms")
    later = [
        number_of(arguments, name) if name in arguments else 0
        for name in ("users", "subscriptions", "uptime_s")
    ]
    return NodeInfo(node, clients, rooms, *later)


def text_of(arguments: Mapping[str, Any], name: str) -> str:
    """Return an argument that is a text. Raises `KeyError` or `TypeError`."""
    value = arguments[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def number_of(arguments: Mapping[str, Any], name: str) -> int:
    """Return an argument that is a whole number. Raises `KeyError` or `TypeError`."""
    value = arguments[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is no whole number")
    return value


def close_of(arguments: Mapping[str, Any]) -> tuple[int, str]:
    """Return the code and the reason of a close. Raises `KeyError`, `TypeError` or `ValueError`."""
    code, reason = number_of(arguments, "code"), text_of(arguments, "reason")
    check_close(code, reason)
    return code, reason
