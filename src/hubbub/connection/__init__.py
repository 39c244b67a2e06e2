"""The Python client program: `hubbub.connect(url)`, and what its parts are called.

What must not live here: anything of the server's side. This package may import the words of the
house and nothing of the hub.
"""

from __future__ import annotations

from .connection import Connection, State, connect
from .retry import Backoff

__all__ = ["Backoff", "Connection", "State", "connect"]
