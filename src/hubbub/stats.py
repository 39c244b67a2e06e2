"""Stats: plain integer counters of one process, and their snapshot.

What must not live here: gauges that others own (who is connected, which rooms there are); the
registry adds those. Written by the hub's modules on the event loop's thread only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_WORDS = 100
"""How many reasons of refusals are told apart."""
OTHER = "other"


@dataclass(slots=True)
class Stats:
    """Counters since the hub was made. All count events, except the `bytes_` ones.

    `bytes_in` counts message payloads, inflated if need be; `bytes_out` whole frames with their
    headers, as they go to the client. Each message that a client was owed is counted once: in
    `messages_out` when its transport has taken it, in `dropped` when its outbox was full, in
    `undelivered` when its connection ended before. `handlers_cancelled` counts handlers that
    were still running `handler_grace_s` after their client had gone, `unhandled` messages that came
    whole and that no handler saw, since their client had gone, `stuck_handlers` clients that were
    closed with 1013, since their inbox was full and no handler of theirs ended.
    """

    total_clients: int = 0
    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    dropped: int = 0
    undelivered: int = 0
    slow_disconnects: int = 0
    dead: int = 0
    expired: int = 0
    replaced: int = 0
    invalid: int = 0
    protocol_errors: int = 0
    rate_limited: int = 0
    handler_errors: int = 0
    handlers_cancelled: int = 0
    stuck_handlers: int = 0
    unhandled: int = 0
    loop_stalls: int = 0
    sends_to_gone: int = 0
    refused: dict[str, int] = field(default_factory=dict)

    def refuse(self, code: str) -> None:
        """Count a refused handshake under the word that says why.

        An application may make words of what clients send; from `MAX_WORDS` on, new ones count as
        `OTHER`.
        """
        if code not in self.refused and len(self.refused) >= MAX_WORDS:
            code = OTHER
        self.refused[code] = self.refused.get(code, 0) + 1

    def snapshot(self) -> dict[str, object]:
        """Return the counters as a dictionary that JSON can carry."""
        names = [name for name in self.__slots__ if name != "refused"]
        return {**{name: getattr(self, name) for name in names}, "refused": dict(self.refused)}


@dataclass(slots=True)
class ProcessStats:
    """Counters of what comes before any hub: the same in the stats of every hub of a process."""

    slow_handshakes: int = 0
    """Connections that `hubbub.HttpProtocol` cut, since they sent no whole request in time."""


process_stats: ProcessStats = ProcessStats()
