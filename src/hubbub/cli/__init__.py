"""The command line: `hubbub demo`, `serve`, `connect`, `bench` and `check`.

It owns the commands, their options and what they print. It must not know transports or dialects:
it starts servers and uses hubs as any program does. What must not live here: code. `main` is what
the script `hubbub` calls; each command has a module of its own.
"""

from .main import main

__all__ = ["main"]
