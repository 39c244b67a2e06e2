"""Hubbub: a real-time WebSocket hub for Python web applications.

Every name is imported when it is asked for (PEP 562): `import hubbub` loads nothing else, and
`from hubbub import Hub` loads what a hub needs, not the client program. What must not live here:
anything but the names. A name that comes or goes has three lines: in the imports for type checkers,
in `__all__` and in `_MODULES`; `tests/house/test_exports.py` proves that they agree.
"""

TYPE_CHECKING = False  # as type checkers read it; `typing` itself takes longer than all of this

if TYPE_CHECKING:
    from .asgi.api_keys import ApiKey
    from .asgi.fastapi import HubDep
    from .brokers.broker import Broker
    from .brokers.memory import MemoryBroker
    from .connection import (
        Connection,
        RoomConnection,
        RoomMessage,
        RoomPage,
        Subscription,
        connect,
    )
    from .errors import (
        BrokerError,
        BrokerUnavailable,
        CommandError,
        CommandFailed,
        Disconnected,
        HubbubError,
        HubNotRunning,
        MessagesMissed,
        MissingExtra,
        PositionLost,
        ProtocolError,
        PublishedInPart,
        Refused,
        SettingsError,
        SocketTaken,
        StreamUnheard,
        TokenError,
        TokenExpired,
        TokenInvalid,
        TokenKeysUnavailable,
        Unsubscribed,
    )
    from .hub.client import Client
    from .hub.hub import Hub
    from .hub.room import Room, User
    from .hub.stream import Stream
    from .model import ClientInfo, Close, Handshake, Identity, Position, PresenceStats, Receipt
    from .publisher import AsyncPublisher, Publisher
    from .room_rules import RoomRules
    from .settings import Settings
    from .tokens.verifier import TokenVerifier
    from .transports.uvicorn_http import UvicornHttpProtocol as HttpProtocol
    from .transports.uvicorn_protocol import UvicornWebSocketProtocol as Protocol
    from .wire.frame import Frame
    from .wire.publication import Publication

__version__ = "0.1.0"

__all__ = [
    "ApiKey",
    "AsyncPublisher",
    "Broker",
    "BrokerError",
    "BrokerUnavailable",
    "Client",
    "ClientInfo",
    "Close",
    "CommandError",
    "CommandFailed",
    "Connection",
    "Disconnected",
    "Frame",
    "Handshake",
    "HttpProtocol",
    "Hub",
    "HubDep",
    "HubNotRunning",
    "HubbubError",
    "Identity",
    "MemoryBroker",
    "MessagesMissed",
    "MissingExtra",
    "Position",
    "PositionLost",
    "PresenceStats",
    "Protocol",
    "ProtocolError",
    "Publication",
    "PublishedInPart",
    "Publisher",
    "Receipt",
    "Refused",
    "Room",
    "RoomConnection",
    "RoomMessage",
    "RoomPage",
    "RoomRules",
    "Settings",
    "SettingsError",
    "SocketTaken",
    "Stream",
    "StreamUnheard",
    "Subscription",
    "TokenError",
    "TokenExpired",
    "TokenInvalid",
    "TokenKeysUnavailable",
    "TokenVerifier",
    "Unsubscribed",
    "User",
    "connect",
]

_MODULES = {
    "ApiKey": "asgi.api_keys",
    "AsyncPublisher": "publisher",
    "Broker": "brokers.broker",
    "BrokerError": "errors",
    "BrokerUnavailable": "errors",
    "Client": "hub.client",
    "ClientInfo": "model",
    "Close": "model",
    "CommandError": "errors",
    "CommandFailed": "errors",
    "Connection": "connection",
    "Disconnected": "errors",
    "Frame": "wire.frame",
    "Handshake": "model",
    "HttpProtocol": "transports.uvicorn_http:UvicornHttpProtocol",
    "Hub": "hub.hub",
    "HubDep": "asgi.fastapi",
    "HubNotRunning": "errors",
    "HubbubError": "errors",
    "Identity": "model",
    "MemoryBroker": "brokers.memory",
    "MessagesMissed": "errors",
    "MissingExtra": "errors",
    "Position": "model",
    "PositionLost": "errors",
    "PresenceStats": "model",
    "Protocol": "transports.uvicorn_protocol:UvicornWebSocketProtocol",
    "ProtocolError": "errors",
    "Publication": "wire.publication",
    "PublishedInPart": "errors",
    "Publisher": "publisher",
    "Receipt": "model",
    "Refused": "errors",
    "Room": "hub.room",
    "RoomConnection": "connection",
    "RoomMessage": "connection",
    "RoomPage": "connection",
    "RoomRules": "room_rules",
    "Settings": "settings",
    "SettingsError": "errors",
    "SocketTaken": "errors",
    "Stream": "hub.stream",
    "StreamUnheard": "errors",
    "Subscription": "connection",
    "TokenError": "errors",
    "TokenExpired": "errors",
    "TokenInvalid": "errors",
    "TokenKeysUnavailable": "errors",
    "TokenVerifier": "tokens.verifier",
    "Unsubscribed": "errors",
    "User": "hub.room",
    "connect": "connection",
}
"""Where each name is defined: the module, without the name of this package; `module:Name` where it has
another name there."""

_SUBMODULES = ("errors", "settings")
"""Documented modules that `import hubbub` has always brought along: `hubbub.errors.CLOSE_CODES`."""

_MOVED: dict[str, str] = {}
"""Names that have left this place, each with where it is now: `"Broker": "brokers.Broker"`. They work
for one minor version, with a warning, and are not in `__all__`. A type checker knows them too if they
stand in the imports above."""


def _load(name: str) -> object:
    """Return what a name of this package stands for, and keep it unless it has moved."""
    from importlib import import_module

    if name in _MOVED:
        module, _, new_name = _MOVED[name].rpartition(".")
        _warn_of_move(name, module, new_name)
        return getattr(import_module(f"{__name__}.{module}"), new_name)
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")  # which sets the attribute
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, own_name = _MODULES[name].partition(":")
    value = getattr(import_module(f"{__name__}.{module}"), own_name or name)
    globals()[name] = value
    return value


def _warn_of_move(name: str, module: str, new_name: str) -> None:
    import warnings

    text = (
        f"{__name__}.{name} is deprecated and will be removed in the next minor version; "
        f"write: from {__name__}.{module} import {new_name}"
    )
    # Past this function and `_load`, at the line that asked.
    warnings.warn(text, DeprecationWarning, stacklevel=3)


def _names() -> list[str]:
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # a module with `__getattr__` has every name, for type checkers
    __getattr__ = _load
    __dir__ = _names
