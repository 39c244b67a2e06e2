"""The Python client program: `hubbub.connect(url)`, a connection that comes back by itself.

What must not live here: anything of the server's side. The modules of this folder import the words
of the house and one another, and nothing of the hub.
"""

from __future__ import annotations

from .connection import Connection, State, connect

__all__ = ["Connection", "State", "connect"]
