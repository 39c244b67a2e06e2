"""The turns in which handshakes begin: when thousands come in one moment, as after a cut of the network,
everything else has its turn of the event loop in between.

What must not live here: what a handshake is (`uvicorn_protocol`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakKeyDictionary

from ..turns import Turns

MOST_A_TURN = 64
"""How many handshakes begin in one turn. To read a head and start its call takes some 0.05 ms."""

_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def begin_soon(begin: Callable[[], None]) -> None:
    """Begin something in the running event loop, in the order of coming: at once if this turn has room for it,
    and else in a later one. What is raised then is for the loop's exception handler.
    """
    loop = asyncio.get_running_loop()
    turns = _of_loops.get(loop)
    if turns is None:
        turns = _of_loops[loop] = Turns(MOST_A_TURN)
    if turns.take_now():
        begin()
    else:
        turns.wait().add_done_callback(lambda _: begin())
