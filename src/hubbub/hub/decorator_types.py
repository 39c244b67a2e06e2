"""Decorator types: what a type checker accepts as a handler of each kind.

What must not live here: anything that runs; `signature` says the same at run time, and in more
words. `hub` annotates its decorators with these.

Each decorator takes `F | Lambda` and returns `F`. `F` stands for the function itself, whose
parameters' names a caller still sees. A lambda has no types of its own: a checker finds those of its
parameters in the second part, whose result no function returns, so that nothing else ever fits it.
The default of `F` is for mypy: a function that returns Any fits both parts, and leaves `F` open.
(In a lambda for `on_connect` or `on_disconnect`, which have two forms, mypy knows no types.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..model import ClientInfo, Close, Handshake, Identity
from .client import Client

if TYPE_CHECKING:
    from typing_extensions import TypeVar
else:
    from typing import TypeVar as _TypeVar

    def TypeVar(name, *, bound, default=None):  # noqa: N802
        """Make a variable on Pythons whose variables have no default yet (before 3.13)."""
        return _TypeVar(name, bound=bound)


class NoneOrBool:
    """What nobody returns. In a checker's error read: None or a bool, or an awaitable of these."""


class IdentityOrNone:
    """What nobody returns. In a checker's error read: an Identity, a user's name or None."""


Nothing = bool | None
Done = Nothing | Awaitable[Nothing]
"""What a handler returns. A bool is what `client.send` answers, and only `validate` reads it."""
Answer = Identity | str | Literal[False] | None
"""What authentication found; None and False refuse."""

AnyFunction = Callable[..., Any]


class ClientHandler(Protocol):
    """Takes a client."""

    def __call__(self, client: Client, /) -> Done: ...


class ConnectHandler(Protocol):
    """Takes a client and the handshake that it came with."""

    def __call__(self, client: Client, handshake: Handshake, /) -> Done: ...


class DisconnectHandler(Protocol):
    """Takes a client and how its connection ended."""

    def __call__(self, client: Client, close: Close, /) -> Done: ...


class MessageHandler(Protocol):
    """Takes a client and a message of any type."""

    def __call__(self, client: Client, message: Any, /) -> Done: ...


class RpcHandler(Protocol):
    """Takes a client and what it sent along, of any type; returns what the client gets."""

    def __call__(self, client: Client, data: Any, /) -> Any: ...


class DropHandler(Protocol):
    """Takes a client and how many messages it missed."""

    def __call__(self, client: Client, count: int, /) -> Done: ...


class AuthenticateHandler(Protocol):
    """Takes a handshake."""

    def __call__(self, handshake: Handshake, /) -> Answer | Awaitable[Answer]: ...


class AuthorizeHandler(Protocol):
    """Takes a client, what it asks for, and the room."""

    def __call__(self, client: Client, action: Any, room: str, /) -> bool | Awaitable[bool]: ...


class PresenceHandler(Protocol):
    """Takes a room's name and who has joined or left it."""

    def __call__(self, room: str, info: ClientInfo, /) -> Done: ...


class InfoHandler(Protocol):
    """Takes a client and the room that it joins; returns what others see of it there."""

    def __call__(self, client: Client, room: str, /) -> Any: ...


ClientF = TypeVar("ClientF", bound=ClientHandler, default=ClientHandler)
ClientLambda = Callable[[Client], NoneOrBool]
ConnectF = TypeVar("ConnectF", bound=ConnectHandler, default=ConnectHandler)
ConnectLambda = Callable[[Client, Handshake], NoneOrBool]
DisconnectF = TypeVar("DisconnectF", bound=DisconnectHandler, default=DisconnectHandler)
DisconnectLambda = Callable[[Client, Close], NoneOrBool]
MessageF = TypeVar("MessageF", bound=MessageHandler, default=MessageHandler)
MessageLambda = Callable[[Client, str], NoneOrBool]
TypedLambda = Callable[[Client, dict[str, Any]], NoneOrBool]
ValidateLambda = Callable[[Client, Any], NoneOrBool]
RpcF = TypeVar("RpcF", bound=RpcHandler, default=RpcHandler)
DropF = TypeVar("DropF", bound=DropHandler, default=DropHandler)
DropLambda = Callable[[Client, int], NoneOrBool]
AuthenticateF = TypeVar("AuthenticateF", bound=AuthenticateHandler, default=AuthenticateHandler)
AuthenticateLambda = Callable[[Handshake], IdentityOrNone]
AuthorizeF = TypeVar("AuthorizeF", bound=AuthorizeHandler, default=AuthorizeHandler)
AuthorizeLambda = Callable[[Client, str, str], bool]
PresenceF = TypeVar("PresenceF", bound=PresenceHandler, default=PresenceHandler)
PresenceLambda = Callable[[str, ClientInfo], NoneOrBool]
InfoF = TypeVar("InfoF", bound=InfoHandler, default=InfoHandler)
InfoLambda = Callable[[Client, str], Any]
TickF = TypeVar("TickF", bound=Callable[[], Done])
