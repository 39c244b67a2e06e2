"""The command line: `hubbub demo`, `serve`, `connect`, `bench` and `check`.

What must not live here: code. `main` is what the script `hubbub` calls; each command has a module
of its own.
"""

from .main import main

__all__ = ["main"]
