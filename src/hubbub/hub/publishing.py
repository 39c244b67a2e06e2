"""Publishing: the verbs by which a message leaves for a room or for one client.

What must not live here: who is in a room (`registry`), how a message reaches its members (`fanout`).
"""

from __future__ import annotations

import asyncio
import logging
import re
from threading import get_ident as _thread_id
from typing import TYPE_CHECKING, Any, cast

from ..brokers.broker import HistoryBroker, Keep
from ..errors import BrokerError, CommandError, HubNotRunning
from ..limits import printable
from ..model import ClientInfo, Receipt
from ..wire.frame import Frame, encode
from ..wire.piece import shown
from ..wire.publication import Kind, Publication
from .client import Client, session_of
from .variant import ENCODED

if TYPE_CHECKING:
    from ..dialects.dialect import Event
    from .core import Core
    from .session import ClientSession

logger: logging.Logger = logging.getLogger("hubbub")

_MESSAGE = Kind.MESSAGE
_HALF_A_PAIR = re.compile(r"[\ud800-\udfff]")

MOST_KEY_CHARACTERS = 256
"""How long a publication's key may be."""


class Publishing:
    """Hands messages to the broker, and takes them back from it."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._broker = core.broker
        self._lifecycle = core.lifecycle
        self._registry = core.registry
        self._rules = core.rules
        self._stats = core.stats
        self.streaming: set[str] = set()
        """The rooms in which a stream of this process is open."""

    async def publish(
        self,
        room: str,
        data: Any,
        exclude: Client | None = None,
        key: str | None = None,
        *,
        is_kept: bool = True,
        publisher: ClientInfo | None = None,
    ) -> Receipt:
        """Encode and publish, and wait for the broker's receipt. Event loop only.

        `room` is a room's name, or everybody's or a user's; `key` the publisher's own name for the message.
        Without `is_kept` it is for who is there now, in a room that remembers too. `publisher` is the client whose own
        command this is, as others see it (None: it is no client's). Raises `BrokerError` when
        the broker did not take it, `HubNotRunning` where the hub does not run, `CommandError` for a room that
        takes no messages, and for a message that is larger than the broker takes.
        """
        frame = self._encoded(room, data, key)
        return await self._publish(room, frame, exclude, key, is_kept=is_kept, publisher=publisher)

    async def publish_in_turn(
        self, room: str, data: Any, key: str | None = None, *, is_kept: bool = True
    ) -> Receipt:
        """Publish as `publish` does, when the broker has room for it: for those who publish much at once."""
        frame = self._encoded(room, data, key)
        window, size = self._core.window, len(frame.payload)
        await window.enter(size)
        try:
            return await self._publish(room, frame, None, key, is_kept=is_kept)
        finally:
            window.leave(size)

    def _encoded(self, room: str, data: Any, key: str | None) -> Frame:
        """Return a message as it is sent; raise for a key that can be none, and a room that takes no messages."""
        if key is not None:
            check_key(key)
        self._rules.forbid_stream(room)
        return encode(data)

    async def publish_piece(self, room: str, frame: Frame, exclude: Client | None) -> Receipt:
        """Publish a piece of a text to a room that takes such; see `publish`."""
        return await self._publish(room, frame, exclude, None)

    async def _publish(
        self,
        room: str,
        frame: Frame,
        exclude: Client | None,
        key: str | None,
        *,
        is_kept: bool = True,
        publisher: ClientInfo | None = None,
    ) -> Receipt:
        excluded = None if exclude is None else _excluded(exclude)
        lifecycle = self._lifecycle
        if _thread_id() != lifecycle.thread_id:
            if lifecycle.loop is None:
                raise lifecycle.not_running()
            raise HubNotRunning("await publish() in the hub's own event loop; use room.broadcast()")
        name = None if excluded is None else _name_of(excluded)
        publication = Publication(room, frame, name, key=key, publisher=publisher)
        keep = self._rules.keep_of(room) if is_kept and self._rules.has_any else None
        result = (
            self._broker.publish(publication) if keep is None else self._keep(publication, keep)
        )
        return result if isinstance(result, Receipt) else await result

    def broadcast(self, room: str, data: Any, exclude: Client | None = None) -> None:
        """Encode here and now, then publish on the hub's own thread. What fails there is logged."""
        excluded = None if exclude is None else _excluded(exclude)
        frame = encode(data)
        lifecycle = self._lifecycle
        if _thread_id() != lifecycle.thread_id:
            if not lifecycle.post(self.broadcast, room, frame, exclude):
                raise lifecycle.not_running()
            return
        name = None if excluded is None else _name_of(excluded)
        rule = self._rules.of(room) if self._rules.has_any else None
        try:
            publication = Publication(room, frame, name)
            if rule is None or rule.keep is None:
                result = self._broker.publish(publication)
            else:
                if rule.is_stream:
                    self._rules.forbid_stream(room)
                result = self._keep(publication, rule.keep)
            if not isinstance(result, Receipt):
                result.add_done_callback(_log_failed_publish)
        except HubNotRunning:
            raise
        except (BrokerError, CommandError) as error:
            logger.error("a broadcast failed: %s", printable(str(error)))
        except Exception as error:  # a broker's own failure is not the publisher's
            self._core.log.log(logging.ERROR, "broker", "a broadcast failed", error=error)

    def _keep(self, publication: Publication, keep: Keep) -> Receipt | asyncio.Future[Receipt]:
        return cast(HistoryBroker, self._broker).publish_kept(publication, keep)

    def deliver(self, publication: Publication) -> int:
        """Take a publication from the broker to this process's clients; see `brokers.broker.Node`."""
        self._stats.publications += 1
        members = self._registry.room_of(publication.room)
        if publication.kind is not _MESSAGE:
            self._core.presence.note_told(publication)
        if publication.position is not None and not self._core.recovery.admit(publication, members):
            return 0
        if members is None:
            self._lifecycle.require_loop()
            return 0
        if members.is_stream:
            publication = shown(publication)
        if publication.exclude is None:
            self._core.fanout.publish(members, publication)
            return len(members.sessions)
        excluded = self._registry.sessions_named(publication.exclude)
        self._core.fanout.publish(members, publication, excluded)
        return len(members.sessions) - sum(session in members.sessions for session in excluded)

    def tell(self, session: ClientSession, event: Event) -> bool:
        """Say something of the hub's own to a client, in its dialect. Event loop only."""
        frame = session.variant.encode(event)
        return frame is not None and self.send(session, frame, is_encoded=True)

    def send(self, session: ClientSession, frame: Frame, *, is_encoded: bool = False) -> bool:
        """Send to one client; see `Client.send`."""
        core, lifecycle = self._core, self._lifecycle
        if _thread_id() != lifecycle.thread_id:
            if lifecycle.post(self.send, session, frame):
                return session.close is None
            core.stats.sends_to_gone += 1
            return False
        if session.close is not None:
            core.stats.sends_to_gone += 1
            return False
        try:
            core.fanout.send(session, frame, ENCODED if is_encoded else None)
        except HubNotRunning:  # its loop was closed without a stop of the hub
            core.stats.sends_to_gone += 1
            return False
        return True


def _excluded(exclude: object) -> ClientSession:
    if isinstance(exclude, Client):
        return session_of(exclude)
    raise TypeError(
        f"exclude must be a Client or None, not {type(exclude).__name__}; hub.client(id) finds "
        "a client by its id"
    )


def check_key(key: object) -> None:
    """Raise `TypeError` or `ValueError` for what can be no publication's key."""
    if not isinstance(key, str) or not 0 < len(key) <= MOST_KEY_CHARACTERS:
        raise TypeError(
            f"key must be a str of 1 to {MOST_KEY_CHARACTERS} characters, not {key!r:.80}"
        )
    if _HALF_A_PAIR.search(key):
        raise ValueError(
            f"key has half of a surrogate pair, which UTF-8 has no bytes for: {key!r:.80}"
        )


def _name_of(excluded: ClientSession) -> str | None:
    """Return the name of the connection that gets nothing; None for one that is gone and never had a name.

    One that is gone and had a name may be back, or come back, as another.
    """
    is_nobody = excluded.close is not None and not excluded.has_connection_id
    return None if is_nobody else excluded.connection_id


def _log_failed_publish(future: asyncio.Future[Receipt]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        level = logging.ERROR if isinstance(error, BrokerError) else logging.CRITICAL
        logger.log(level, "a broadcast failed: %s", printable(str(error)))
