"""The Python client program: `hubbub.connect(url)`, a connection that comes back by itself.

It owns the client's side of a connection, and the rules of when it comes back. It must not know the
hub or anything of the server's side: its modules import the words of the house and one another.
"""

from __future__ import annotations

from .connection import Connection, RoomConnection, State, connect
from .subscription import RoomMessage, RoomPage, Subscription, SubscriptionState

__all__ = [
    "Connection",
    "RoomConnection",
    "RoomMessage",
    "RoomPage",
    "State",
    "Subscription",
    "SubscriptionState",
    "connect",
]
