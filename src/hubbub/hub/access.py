"""Access: who a client is, and what it may do: the application is asked.

What must not live here: HTTP (the endpoint), commands (`commands`), origins and ids (`auth`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..errors import (
    INVALID_TOKEN,
    BrokerError,
    CommandError,
    Disconnected,
    Refused,
    TokenExpired,
    TokenInvalid,
    TokenKeysUnavailable,
)
from ..limits import check_room_name, printable
from ..model import Handshake, Identity
from ..raised import refusal_of
from .auth import check_expiry, to_identity
from .client import session_of
from .tasks import is_being_cancelled

if TYPE_CHECKING:
    from .client import Client
    from .core import Core

Action = Literal["join", "publish", "history", "presence"]
"""What a client may ask for that concerns a room."""

ALLOWED_BY_DEFAULT: frozenset[Action] = frozenset({"join", "history", "presence"})
"""What a client may do where no authorize handler says otherwise. Publishing goes through the
application's own handlers then."""


class Grant(Protocol):
    """What a subscription token says."""

    @property
    def expires_at(self) -> float | None:
        """When it ends, as a Unix time in seconds; None: never."""
        ...

    @property
    def info(self) -> Any:
        """What others in the room are shown of the client (None: nothing)."""
        ...

    @property
    def data(self) -> Any:
        """What the client is told of the room (None: nothing)."""
        ...


class SubscriptionVerifier(Protocol):
    """What checks tokens of subscriptions; `hubbub.TokenVerifier` is one."""

    async def subscription(
        self, token: str, *, user: str | None, room: str, client_id: str | None = None
    ) -> Grant:
        """Return what a token says. Raises `TokenError`."""
        ...


class Access:
    """Asks the handlers `authenticate` and `authorize` of one hub. Event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.verifier: SubscriptionVerifier | None = None
        """What checks tokens of subscriptions (None: there are none)."""

    async def identify(self, handshake: Handshake) -> Identity:
        """Return who asks for a connection.

        Raises `Refused`: whatever the handler raises has become one by then, and its failures are in
        the log.
        """
        try:
            identity = await self._authenticate(handshake)
            check_expiry(identity, time.time())
            self._check_rooms(identity)
        except Refused:
            raise
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
                raise
            # Nobody cancels this: the error is that of a future which the function has asked.
            raise self.as_refusal(error, "the authenticate handler failed") from error
        return identity

    def _check_rooms(self, identity: Identity) -> None:
        """Raise for rooms of an identity that cannot be: whoever made it is at fault.

        With too many of them it is refused for good: it would not do better the next time.
        """
        if not identity.rooms:
            return
        for room in identity.rooms:
            check_room_name(room)
        most = self._core.settings.max_rooms_per_client
        if most is not None and len(set(identity.rooms)) > most:
            why = f"The identity names more than {most} rooms (max_rooms_per_client)"
            raise Refused(403, "too_many_rooms", why)

    async def _authenticate(self, handshake: Handshake) -> Identity:
        core = self._core
        function = core.handlers.authenticate
        if function is None:
            return Identity()
        answer = function(handshake)
        if hasattr(answer, "__await__"):
            timeout_s = core.settings.handshake_timeout_s
            timeout = asyncio.timeout(timeout_s)
            try:
                async with timeout:
                    answer = await answer
                if timeout.expired():  # it swallowed its cancellation
                    raise TimeoutError
            except TimeoutError:
                if not timeout.expired():  # it is the application's own
                    raise
                message = f"Authentication took longer than {timeout_s:g} seconds"
                raise Refused(503, "handshake_timeout", message) from None
        if answer is None or answer is False:
            raise Refused(401)
        return to_identity(answer)

    def as_refusal(self, error: BaseException, text: str) -> Refused:
        """Return the refusal that an error asks for; 500, and `text` in the log, if for none.

        That the broker has refused something gets a line without a traceback: the handler is right.
        """
        if isinstance(error, BrokerError):
            why = printable(str(error) or type(error).__name__)
            self._core.log.log(logging.WARNING, "asked", "%s: %s; answered with 503", text, why)
        refusal = refusal_of(error)
        if refusal is None:
            self._core.log.log(logging.ERROR, "authenticate", text, error=error)
            return Refused(500)
        return refusal

    async def check_join(self, client: Client, room: str, token: str | None) -> Grant | None:
        """Raise where the client may not join a room; return what the token says that it shows for it.

        A good token lets it in without the authorize handler; None, and no token: it needs none.
        """
        if token is None:
            await self.check(client, "join", room)
            return None
        return await self.check_token(client, room, token)

    async def check_token(self, client: Client, room: str, token: str) -> Grant:
        """Return what a token for a room says; raise for one that is not good."""
        verifier = self.verifier
        if verifier is None:
            raise CommandError("forbidden", "tokens of subscriptions are not taken here")
        try:
            return await verifier.subscription(
                token, user=client.user, room=room, client_id=client.id
            )
        except TokenExpired as error:
            raise CommandError("token_expired", "token expired") from error
        except TokenKeysUnavailable as error:
            raise CommandError("unavailable", "try again later", temporary=True) from error
        except TokenInvalid as error:
            shown = session_of(client).label, printable(room, 50), printable(str(error))
            if error.is_foreign:
                text = "client %s has shown a token for %s that is another's: %s; closed"
                self._core.log.log(logging.INFO, "token", text, *shown)
                raise Disconnected(INVALID_TOKEN, "invalid token") from error
            text = "the token of client %s for %s is not valid: %s"
            self._core.log.log(logging.INFO, "token", text, *shown)
            raise CommandError("forbidden", "the token is not valid") from error

    async def check(self, client: Client, action: Action, room: str) -> None:
        """Raise `CommandError` where the client may not do this. What the handler raises comes through."""
        by_rule = self._by_rule(client, room) if action == "publish" else None
        function = self._core.handlers.authorize
        if by_rule is False:
            is_allowed = False
        elif function is None:
            is_allowed = by_rule is True or action in ALLOWED_BY_DEFAULT
        else:
            is_allowed = function(client, action, room)
            if hasattr(is_allowed, "__await__"):
                is_allowed = await is_allowed
        if by_rule and not self._by_rule(client, room):
            is_allowed = False  # it has left while the handler was asked
        has_gone = action == "publish" and not client.is_connected
        if is_allowed is not True or has_gone:
            why = f"{action} is not allowed in this room"
            if by_rule is False and self._core.rules.takes_of_members(room):
                why = "only members may publish in this room: subscribe first"
            raise CommandError("forbidden", why)

    def _by_rule(self, client: Client, room: str) -> bool | None:
        """Return whether the room's rule lets this client publish; None where it says nothing of that."""
        rule = self._core.rules.of(room)
        publish = None if rule is None else rule.rules.publish
        if publish is None:
            return None
        return publish == "members" and room in session_of(client).memberships
