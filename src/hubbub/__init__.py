"""Hubbub: a real-time WebSocket hub for Python web applications."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .broker import Broker, MemoryBroker
from .client import Client
from .connection import Connection, connect
from .errors import (
    BrokerError,
    BrokerUnavailable,
    CommandError,
    Disconnected,
    HubbubError,
    HubNotRunning,
    MissingExtra,
    ProtocolError,
    Refused,
    SettingsError,
    SocketTaken,
)
from .frame import Frame
from .hub import Hub
from .model import Close, Handshake, Identity, Position, Publication, Receipt
from .room import Room, User
from .settings import Settings

if TYPE_CHECKING:
    from .http_uvicorn import HttpProtocol
    from .protocol_uvicorn import Protocol
    from .route_fastapi import HubDep

__version__ = "0.1.0"

__all__ = [
    "Broker",
    "BrokerError",
    "BrokerUnavailable",
    "Client",
    "Close",
    "CommandError",
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
    "MissingExtra",
    "Position",
    "Protocol",
    "ProtocolError",
    "Publication",
    "Receipt",
    "Refused",
    "Room",
    "Settings",
    "SettingsError",
    "SocketTaken",
    "User",
    "connect",
]

_LAZY = {
    "HttpProtocol": "http_uvicorn",
    "HubDep": "route_fastapi",
    "Protocol": "protocol_uvicorn",
}


def __getattr__(name: str) -> Any:
    """Import what needs a server or a framework only when it is asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
