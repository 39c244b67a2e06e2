"""Health: whether a hub takes clients, for load balancers and supervisors.

What must not live here: what is counted (`metrics`), and what the states mean (`hub.lifecycle`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ..hub.core import Core, core_of
from ..hub.lifecycle import State
from ..transports.asgi import Receive, Scope, Send
from .responses import refuse_method, respond

if TYPE_CHECKING:
    from ..hub.hub import Hub


_STATES = ("up", "silent", "away")
"""How a broker is, the best first."""


class Health:
    """An ASGI application that says how hubs are, whatever the path is.

    200 while all of them take clients, 503 otherwise. With `live` it is 200 as long as there is an answer at
    all. With `needs_broker` a broker that is away makes it 503 too. The body says the rest, as JSON.
    """

    def __init__(self, *hubs: Hub, live: bool = False, needs_broker: bool = False) -> None:
        self._cores: list[Core] = [core_of(hub) for hub in hubs]
        self._is_live = live
        self._needs_broker = needs_broker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be an ASGI application."""
        if await refuse_method(scope, receive, send):
            return
        facts = self.facts()
        is_ready = facts["ready"] and (facts["broker_is_up"] or not self._needs_broker)
        status = 200 if is_ready or self._is_live else 503
        await respond(
            send, scope, status, msgspec.json.encode(facts), {"Cache-Control": "no-store"}
        )

    def facts(self) -> dict[str, Any]:
        """Return what is known, as JSON can carry it; of several hubs the first state that is not running."""
        states = [core.lifecycle.state for core in self._cores]
        others = [state for state in states if state is not State.RUNNING]
        conditions = [core.condition for core in self._cores]
        return {
            "ready": not others,
            "state": others[0].value if others else State.RUNNING.value,
            "broker_is_up": all(each.is_up for each in conditions),
            "broker_state": max((each.state for each in conditions), key=_STATES.index),
            "clients": sum(len(core.registry.sessions) for core in self._cores),
        }
